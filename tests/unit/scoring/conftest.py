"""Fixture: the zero-shot benchmark, whose requests have the lengths of the seven tasks."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def benchmark() -> ModuleType:
    """Import `benchmarks/zeroshot.py`."""
    path = Path(__file__).parents[3] / "benchmarks/zeroshot.py"
    spec = importlib.util.spec_from_file_location("zeroshot_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

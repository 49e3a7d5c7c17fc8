"""`tests/gpu` on a pretended GPU: no operation mixes devices, and results are those of the CPU."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# The tests that take seconds, in one of their architectures.
CHOSEN = "(llama or half_precision or two_devices) and not lm_eval"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Copy the library and `tests/gpu`, with the name of the pretended GPU instead of `cuda`."""
    shutil.copytree(REPOSITORY / "src/espalier", tmp_path / "espalier")
    shutil.copytree(REPOSITORY / "tests/gpu", tmp_path / "tests/gpu")
    for file in (REPOSITORY / "tests").glob("*.py"):
        shutil.copy(file, tmp_path / "tests")
    for path in (*(tmp_path / "espalier").rglob("*.py"), *(tmp_path / "tests/gpu").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        for old, new in ((r"\btorch\.cuda\b", "torch.pretended"), (r"\bis_cuda\b", "is_pretended")):
            text = re.sub(old, new, text)
        path.write_text(text.replace('"cuda"', '"pretended"'), encoding="utf-8")
    return tmp_path


def run(folder: Path, chosen: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.pretended_gpu", "tests/gpu", "-k", chosen]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.long
def test_nothing_mixes_devices(copied: Path) -> None:
    found = run(copied, CHOSEN)
    assert re.search(r"^11 passed, \d+ deselected", found, flags=re.MULTILINE), found[-3000:]


@pytest.mark.long
def test_a_tensor_on_the_wrong_device_is_found(copied: Path) -> None:
    engine = copied / "espalier/scoring/engine.py"
    text = engine.read_text(encoding="utf-8")
    assert text.count(".to(device, non_blocking=True)") == 1
    engine.write_text(text.replace(".to(device, non_blocking=True)", ""), encoding="utf-8")
    assert "Expected all tensors to be on the same device" in run(copied, "scores_are_those and llama")

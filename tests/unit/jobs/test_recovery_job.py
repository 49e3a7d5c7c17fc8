"""The recovery job measures its memory in bytes."""

import resource

import pytest
import torch

from espalier.jobs.recovery import peak_memory


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int) -> None:
    """Linux reports the peak in KiB, macOS in bytes."""
    usage = resource.struct_rusage((0.0, 0.0, 5000, *[0] * 13))
    monkeypatch.setattr("resource.getrusage", lambda _: usage)
    monkeypatch.setattr("sys.platform", platform)
    assert peak_memory(torch.device("cpu")) == 5000 * unit

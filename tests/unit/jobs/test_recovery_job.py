"""The recovery job: its memory in bytes, and the settings of its text."""

import resource

import pytest
import torch

from espalier.jobs.recovery import RecoveryJob, peak_memory
from espalier.jobs.resources import JobResources
from espalier.recovery.training_sequences import TrainingTextSettings


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int) -> None:
    """Linux reports the peak in KiB, macOS in bytes."""
    usage = resource.struct_rusage((0.0, 0.0, 5000, *[0] * 13))
    monkeypatch.setattr("resource.getrusage", lambda _: usage)
    monkeypatch.setattr("sys.platform", platform)
    assert peak_memory(torch.device("cpu")) == 5000 * unit


@pytest.mark.parametrize("bos", [{}, {"add_bos": False}, {"add_bos": True}])
def test_training_text_has_the_configured_bos(bos: dict[str, bool]) -> None:
    """The recipe of the adapter names `add_bos`, so the sequences must be made with it."""
    text = {"text_field": "text", "seed": 1, "calibration_seeds": [0], "seq_len": 8, "n_sequences": 2}
    job = RecoveryJob("manifest", "plan", "text", {**text, "rank": 8, **bos}, JobResources("cpu", 0, 64), threads=1)
    assert job.text_settings == TrainingTextSettings(**text, add_bos=bos.get("add_bos"))

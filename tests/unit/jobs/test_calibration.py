"""Jobs on calibration text: records of their settings, and the check of the text."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from espalier.calibration.sample_counts import SampleCounts
from espalier.calibration.sequences import SequenceSettings
from espalier.calibration.text_files import read_texts
from espalier.evaluation.tokenised_requests import TokenisedRequests
from espalier.files import write_parquet
from espalier.jobs.calibration import CalibrationJob, check_sequences
from espalier.jobs.resources import JobResources
from espalier.models.manifest import make_manifest

RESOURCES = {"device": "cpu", "gpu": 1, "token_budget": 100, "mem_mb": 10}


@pytest.mark.parametrize(
    ("counts", "resources", "expected_counts", "expected_resources"),
    [
        (
            {"largest": 6, "extra": [3]}, {"layers_per_pass": 2, "checkpointing": 1},
            SampleCounts(6, [3]), JobResources("cpu", 1, 100, 2, checkpointing=True),
        ),
        (
            {"largest": 6, "extra": [], "prior_samples": 2}, {},
            SampleCounts(6, [], 2), JobResources("cpu", 1, 100),
        ),
    ],
    ids=["gradients", "priors"],
)  # fmt: skip
def test_records_are_made_from_plain_params(
    counts: dict[str, object], resources: dict[str, int], expected_counts: SampleCounts,
    expected_resources: JobResources,
) -> None:  # fmt: skip
    sequences = {"text_field": "text", "seed": 1, "seq_len": 16, "add_bos": False}
    job = CalibrationJob.from_snakemake(
        SimpleNamespace(
            input=SimpleNamespace(manifest="a.json", text="t.parquet"),
            params=SimpleNamespace(sequences=sequences, counts=counts, dtype="auto"),
            resources=RESOURCES | resources,
            threads=1,
        )
    )
    assert job.sequences == SequenceSettings("text", seed=1, seq_len=16, n_samples=6, add_bos=False)
    assert (job.counts, job.resources) == (expected_counts, expected_resources)


@pytest.mark.parametrize("architecture", ["llama"], indirect=True)
def test_the_text_is_read_once_for_all_settings(
    tmp_path: Path, model_folder: Path, pages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest("A", str(model_folder), trust_remote_code=False, commit=None)
    text = tmp_path / "text.parquet"
    write_parquet(text, pa.table({"text": pages}))
    read: list[str] = []

    def recorded(path: str, text_field: str) -> list[str]:
        read.append(path)
        return read_texts(path, text_field)

    monkeypatch.setattr("espalier.jobs.calibration.read_texts", recorded)
    settings = [SequenceSettings("text", seed=0, seq_len=length, n_samples=4) for length in (8, 16)]
    compared = check_sequences(manifest, TokenisedRequests({}, {}, {}), str(text), settings)
    assert [one.documents for one in compared[::2]] == [
        "documents of 4 sequences of 8 tokens", "documents of 4 sequences of 16 tokens",
    ]  # fmt: skip
    assert read == [str(text)]

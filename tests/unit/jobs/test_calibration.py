"""Calibration text in jobs, and the resources of jobs."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from espalier.calibration.sequences import SequenceSettings
from espalier.evaluation.tokenised_requests import TokenisedRequests
from espalier.files import write_parquet
from espalier.jobs.calibration import check_sequences
from espalier.jobs.resources import JobResources
from espalier.models.manifest import make_manifest
from espalier.text_files import read_texts


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (
            {"token_budget": 100, "prior_token_budget": 200, "layers_per_pass": 2, "checkpointing": 1, "mem_mb": 10},
            JobResources("cpu", 2, 100, 200, 2, checkpointing=True),
        ),
        ({"token_budget": 0}, JobResources("cpu", 2)),
        ({"model_gpus": 4}, JobResources("cpu", 4)),  # a job that only hands over requests none
    ],
)
def test_resources_are_made_from_plain_values(resources: dict[str, int], expected: JobResources) -> None:
    snakemake = SimpleNamespace(resources={"device": "cpu", "gpu": 2, **resources})
    assert JobResources.from_snakemake(snakemake) == expected


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

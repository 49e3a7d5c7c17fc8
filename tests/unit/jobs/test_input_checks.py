"""Inputs of a job that are not as another job wrote them are refused, one line each, whatever they hold."""

import os
import shutil
from pathlib import Path

import pytest

from espalier.errors import UserError
from espalier.jobs.input_checks import check_inputs
from espalier.results.verify import record_outputs

RULES = {
    "models/A.json": ("check_model", ("A",)),
    "importance/A/taylor/c4-s0/seq16.parquet": ("collect_gradients", ("A", "c4-s0", "16")),
    "importance/A/taylor/c4-s0/seq24.parquet": ("collect_gradients", ("A", "c4-s0", "24")),
    "importance/A/wanda/c4-s0/seq16.parquet": ("measure_importance", ("A", "wanda", "c4-s0", "16")),
    "experiments/A/x-p20/samples.parquet": ("evaluate", ("A", "x-p20")),
    "recovered/A/x-p20/adapter/adapter_model.safetensors": ("recover", ("A", "x-p20")),
    "consolidated/experiments.parquet": ("consolidate_study", ()),
    "checkpoints/A/best": ("export_checkpoint", ("A", "best")),
    "checkpoints/A/best.F16.gguf": ("export_gguf", ("A", "best", "F16")),
}
"""Outputs, and rules and wildcards of the jobs that wrote them."""


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    results = Path("results/s")
    for output, (rule, wildcards) in RULES.items():
        path = results / output
        file = path / "model.safetensors" if output == "checkpoints/A/best" else path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(output)
        record_outputs(results, rule, wildcards, [path])
    return results


def inputs(results: Path) -> list[str]:
    return [str(results / output) for output in RULES]


def test_sound_inputs_and_those_without_a_record_pass(results: Path) -> None:
    (results / "legacy/A").mkdir(parents=True)
    (results / "legacy/A/old.parquet").touch()
    (results / "no").touch()
    check_inputs(results, [*inputs(results), results / "legacy/A/old.parquet", results / "no", "elsewhere", "/a/b"])
    shutil.rmtree(results / "checksums")  # results of an earlier version
    os.truncate(results / "models/A.json", 0)
    check_inputs(results, inputs(results))


@pytest.mark.parametrize("output", RULES)
def test_a_damaged_input_is_refused_with_its_remedy(results: Path, output: str) -> None:
    path = results / output
    file = path / "model.safetensors" if path.is_dir() else path
    file.write_text("other")
    with pytest.raises(UserError) as refused:
        check_inputs(results, inputs(results))
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{file}: has 5 bytes and checksum ")
    assert line.endswith(f"; restore it, or delete {path} and run again")


def test_exchanged_inputs_are_all_named(results: Path) -> None:
    """Both are sound tables of one shape, so that no reader would notice."""
    one, other = (results / f"importance/A/taylor/c4-s0/seq{length}.parquet" for length in (16, 24))
    one.write_text(other.read_text())
    other.write_text("importance/A/taylor/c4-s0/seq16.parquet")
    with pytest.raises(UserError) as refused:
        check_inputs(results, inputs(results))
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == [str(one), str(other)]


def test_a_damaged_record_tells_nothing(results: Path) -> None:
    for record in (results / "checksums").rglob("*.json"):
        os.truncate(record, 10)
    check_inputs(results, inputs(results))

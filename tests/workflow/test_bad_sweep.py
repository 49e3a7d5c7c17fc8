"""A sweep over a tiny local model: what cannot be done is one line, and what others finished stays."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from espalier.criteria import CRITERIA
from espalier.files import read_json
from tests.conftest import Run


def run(snakemake: Run, tmp_path: Path, study: dict[str, Any], *targets: str) -> tuple[int, list[str]]:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    done = snakemake(*targets, "--configfile", "study.yaml", directory=tmp_path)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()


def test_a_ratio_that_no_plan_can_reach(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    """It is said before anything runs: the sizes of the model stand in its files."""
    study["grid"]["pruning_ratio"] = [0.2, 0.97]
    status, lines = run(snakemake, tmp_path, study, "evaluations")
    assert status != 0
    assert any(line.startswith("  model 'A': pruning_ratio 0.97 means removing") for line in lines), lines
    assert not (tmp_path / "results").exists()


@pytest.mark.long
def test_every_criterion_makes_plans(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    """One pass for each criterion that reads text, one look at the weights; a wider grid on the ladder adds no pass."""
    study["methods"] = [{"name": name, "criterion": name} for name in CRITERIA]
    study["methods"].append({"name": "magnitude-layer", "criterion": "magnitude", "scope": "layer"})
    study["grid"]["methods"] = [method["name"] for method in study["methods"]]
    assert run(snakemake, tmp_path, study, "plans", "gradients")[0] == 0
    folder = tmp_path / "results/tiny"
    made = sorted(str(path.relative_to(folder)) for path in (folder / "importance").rglob("*.parquet"))
    assert made == [
        "importance/A/magnitude.parquet",
        *(f"importance/A/{name}/calibration-s0/seq16.parquet" for name in ("taylor", "taylor2", "wanda")),
    ]
    plans = [read_json(path) for path in folder.glob("experiments/A/*/plan.json")]
    assert len(plans) == 6
    assert all(0.19 < plan["removed_param_fraction"] <= 0.2 for plan in plans)
    tables = [pd.read_parquet(folder / path) for path in made]
    assert len({table.importance.sum() for table in tables}) == 4  # no criterion stands in for another
    study["grid"]["taylor_num_samples"] = [2, 3]
    status, lines = run(snakemake, tmp_path, study, "plans")
    assert status == 0
    assert {line.split()[1] for line in lines if line.startswith("[") and "removes" in line} == {"A"}
    assert not any("[gradients" in line or "[taylor2" in line for line in lines)


def test_a_calibration_text_that_is_too_short(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    study["grid"]["taylor_num_samples"] = [3, 500]
    status, lines = run(snakemake, tmp_path, study, "gradients")
    assert status != 0
    assert (
        "[gradients A seq16] error: calibration: 500 sequences of 16 tokens asked for, but only 40 of 40 documents "
        "have 16 tokens; use fewer or shorter samples, or a longer calibration text"
    ) in lines


@pytest.mark.long
def test_calibration_text_that_is_also_evaluated(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    """Under another file name, so that only its tokens tell."""
    text = (tmp_path / "calibration.parquet").read_bytes()
    (tmp_path / "perplexity.parquet").write_bytes(text)
    study["grid"]["taylor_seq_len"] = [64]
    status, lines = run(snakemake, tmp_path, study, "consolidated")
    assert status != 0
    expected = (
        "calibration: sequence 0 shares 50 consecutive tokens with a perplexity text; calibrate on text that is not"
    )
    assert any(expected in line for line in lines)
    assert not (tmp_path / "results/tiny/consolidated").exists()


@pytest.mark.long
def test_a_truncated_table_is_named_and_stops_no_other_experiment(
    snakemake: Run, tmp_path: Path, study: dict[str, Any]
) -> None:
    assert run(snakemake, tmp_path, study, "gradients")[0] == 0
    path = tmp_path / "results/tiny/importance/A/taylor/calibration-s0/seq16.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    status, lines = run(snakemake, tmp_path, study, "evaluations")
    assert status != 0
    assert any("seq16.parquet: is not a complete Parquet file" in line and "delete it" in line for line in lines)
    folder = tmp_path / "results/tiny/experiments/A"
    assert [found.parent.name for found in folder.glob("*/metrics.json")] == ["random-p20"]

    status, lines = run(snakemake, tmp_path, study, "partial_reports")
    assert status == 0, lines[-20:]
    analysis = read_json(tmp_path / "results/tiny/reports/A/analysis.json")
    assert analysis["experiments"] | {"reasons": {"failed": 1}} == analysis["experiments"]
    (note,) = analysis["notes"]
    assert "is not a complete Parquet file" in note["note"]
    page = (tmp_path / "results/tiny/reports/A/report.html").read_text(encoding="utf-8")
    assert "is not a complete Parquet file" in page

    path.unlink()
    status, lines = run(snakemake, tmp_path, study, "evaluations")
    assert status == 0
    assert not any("[evaluate A random-p20]" in line for line in lines)
    finished = sorted(found.parent.name for found in folder.glob("*/metrics.json"))
    assert finished == ["blockwise-seq16-n3-p20", "random-p20"]

    assert run(snakemake, tmp_path, study, "reports")[0] == 0
    analysis = read_json(tmp_path / "results/tiny/reports/A/analysis.json")
    assert analysis["experiments"]["reasons"] == {}
    assert analysis["experiments"]["valid"] == 2
    assert not list((tmp_path / "results/tiny/failures").rglob("*.json"))

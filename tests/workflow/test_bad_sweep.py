"""A sweep over a tiny local model: what cannot be done is one line, and what others finished stays."""

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest
import yaml

from espalier.files import read_json
from espalier.planning.criteria import CRITERIA
from tests.conftest import Run, job_counts


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


def test_every_criterion_makes_plans(snakemake: Run, tmp_path: Path, planned_study: dict[str, Any]) -> None:
    """One pass for each criterion that reads text, one look at the weights; a wider grid on the ladder adds no pass."""
    study = planned_study
    # `constant` gives all groups one importance, and needs a prior to decide. `reap` needs experts.
    study["methods"] = [{"name": name, "criterion": name} for name in CRITERIA if name not in {"constant", "reap"}]
    study["methods"].append({"name": "magnitude-layer", "criterion": "magnitude", "scope": "layer"})
    study["grid"]["methods"] = [method["name"] for method in study["methods"]]
    folder = tmp_path / "results/tiny"
    shutil.rmtree(folder / "experiments")
    assert run(snakemake, tmp_path, study, "plans", "gradients")[0] == 0
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
    passes = ("[gradients", "[collect_gradients", "[taylor2", "[measure_importance")
    assert not any(line.startswith(passes) for line in lines)


def test_a_calibration_text_that_is_too_short(snakemake: Run, tmp_path: Path, planned_study: dict[str, Any]) -> None:
    study = planned_study
    study["grid"]["taylor_num_samples"] = [3, 500]
    status, lines = run(snakemake, tmp_path, study, "gradients")
    assert status != 0
    assert (
        "[gradients A seq16] error: calibration: 500 sequences of 16 tokens asked for, but only 40 of 40 documents "
        "have 16 tokens; use fewer or shorter samples, or a longer calibration text"
    ) in lines


def test_calibration_text_that_is_also_evaluated(snakemake: Run, tmp_path: Path, planned_study: dict[str, Any]) -> None:
    """The file has another name, so only its tokens show the overlap. Sequences use only a part of each document."""
    study = planned_study
    text = (tmp_path / "calibration.parquet").read_bytes()
    (tmp_path / "perplexity.parquet").write_bytes(text)
    check = "results/tiny/calibration/A/calibration-s0.json"
    status, lines = run(snakemake, tmp_path, study, check)
    assert status != 0
    expected = (
        r"calibration: document \d+ \(the first is 0\) shares 50 consecutive tokens with one of the perplexity texts; "
        "calibrate on text that is not evaluated on"
    )
    assert any(re.search(expected, line) for line in lines)
    assert not (tmp_path / check).exists()
    asked = snakemake("-n", "consolidated", "--configfile", "study.yaml", directory=tmp_path)
    assert job_counts(asked.stdout + asked.stderr)["check_calibration"] == 1  # without it there are no tables


@pytest.mark.long
def test_partial_reports_wait_for_a_stale_check_once(
    snakemake: Run, tmp_path: Path, planned_study: dict[str, Any]
) -> None:
    """The check of the old text exists, so the reports wait until it is made again, which fails."""
    text = (tmp_path / "calibration.parquet").read_bytes()
    (tmp_path / "perplexity.parquet").write_bytes(text)
    assert (tmp_path / "results/tiny/calibration/A/calibration-s0.json").exists()
    status, lines = run(snakemake, tmp_path, planned_study, "partial_reports")
    assert status != 0
    assert any(line.startswith("Run partial_reports again: it leaves out these results now") for line in lines)
    status, lines = run(snakemake, tmp_path, planned_study, "partial_reports")
    assert status == 0, lines[-20:]
    (failed,) = read_json(tmp_path / "results/tiny/reports/cross_model/analysis_summary.json")["failed_jobs"]
    assert failed["job"] == "check_calibration A calibration-s0"


@pytest.mark.long
def test_a_truncated_table_is_named_and_stops_no_other_experiment(
    snakemake: Run, tmp_path: Path, planned_study: dict[str, Any]
) -> None:
    study = planned_study
    path = tmp_path / "results/tiny/importance/A/taylor/calibration-s0/seq16.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    status, lines = run(snakemake, tmp_path, study, "evaluations")
    assert status != 0
    assert any(
        "seq16.parquet: has" in line and "as when it was written; restore it, or delete" in line for line in lines
    )
    folder = tmp_path / "results/tiny/experiments/A"
    assert [found.parent.name for found in folder.glob("*/metrics.json")] == ["random-p20"]

    status, lines = run(snakemake, tmp_path, study, "partial_reports")
    assert status == 0, lines[-20:]
    analysis = read_json(tmp_path / "results/tiny/reports/A/analysis.json")
    assert analysis["experiments"] | {"reasons": {"failed": 1}} == analysis["experiments"]
    (note,) = analysis["notes"]
    assert "as when it was written" in note["note"]
    page = (tmp_path / "results/tiny/reports/A/report.html").read_text(encoding="utf-8")
    assert "as when it was written" in page

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


@pytest.mark.long
def test_experiments_behind_a_failed_pass_read_failed_with_its_reason(
    snakemake: Run, tmp_path: Path, planned_study: dict[str, Any]
) -> None:
    """One pass serves both sample counts; nothing of the model is lost that does not need it."""
    study = planned_study
    shutil.rmtree(tmp_path / "results/tiny/calibration")
    study["grid"]["taylor_num_samples"] = [3, 500]
    assert run(snakemake, tmp_path, study, "evaluations")[0] != 0
    status, lines = run(snakemake, tmp_path, study, "partial_reports")
    assert status == 0, lines[-20:]
    results = tmp_path / "results/tiny"
    table = pd.read_parquet(results / "consolidated/experiments.parquet").set_index("experiment")
    too_few = "calibration: 500 sequences of 16 tokens asked for, but only 40 of 40 documents"
    assert table["status"].to_dict() == {
        "baseline": "ok", "blockwise-seq16-n3-p20": "failed", "blockwise-seq16-n500-p20": "failed", "random-p20": "ok",
    }  # fmt: skip
    assert all(note.startswith(f"gradients: {too_few}") for note in table.loc[table.status == "failed", "note"])
    summary = read_json(results / "reports/cross_model/analysis_summary.json")
    failed = {one["job"]: one["reason"] for one in summary["failed_jobs"]}
    assert failed.keys() == {"collect_gradients A calibration-s0 16", "measure_priors A calibration-s0 16"}
    assert failed["collect_gradients A calibration-s0 16"].startswith(too_few)
    assert any(line.startswith("[analyse study] collect_gradients A calibration-s0 16 failed: ") for line in lines)
    linked = {
        (page.parent / unquote(address)).resolve()
        for page in (results / "reports").rglob("*.html")
        for address in re.findall(r'href="([^"#:]+)["#]', page.read_text(encoding="utf-8"))
    }
    assert results / "reports/A/structures/random-p20.html" in linked
    assert [path for path in linked if not path.exists()] == []

    # The table is made again when the reason changes, though as many experiments are missing as before.
    path = results / "failures/collect_gradients/A/calibration-s0/16.json"
    path.write_text(path.read_text(encoding="utf-8").replace("500 sequences", "another reason"), encoding="utf-8")
    assert run(snakemake, tmp_path, study, "partial_reports")[0] == 0
    page = (results / "reports/A/report.html").read_text(encoding="utf-8")
    assert "gradients: calibration: another reason of 16 tokens asked for" in page


@pytest.mark.long
def test_the_reason_of_a_failed_evaluation_outlives_its_plan(
    snakemake: Run, tmp_path: Path, planned_study: dict[str, Any]
) -> None:
    study = planned_study
    weights = tmp_path / "model/model.safetensors"
    content = weights.read_bytes()
    failures = tmp_path / "results/tiny/failures"
    weights.write_bytes(content + b"x")
    assert run(snakemake, tmp_path, study, "evaluations")[0] != 0
    assert run(snakemake, tmp_path, study, "plans", "--forcerun", "plan")[0] == 0
    reasons = {path.stem: read_json(path)["reason"] for path in (failures / "evaluate/A").glob("*.json")}
    assert sorted(reasons) == ["blockwise-seq16-n3-p20", "random-p20"]
    assert all("model.safetensors" in reason for reason in reasons.values())
    status, lines = run(snakemake, tmp_path, study, "partial_reports")
    assert status == 0, lines[-20:]
    notes = read_json(tmp_path / "results/tiny/reports/A/analysis.json")["notes"]
    assert {note["experiment"]: note["note"] for note in notes} == reasons

    weights.write_bytes(content)
    assert run(snakemake, tmp_path, study, "evaluations")[0] == 0
    assert not list(failures.rglob("*.json"))


def test_only_experiments_of_the_study_are_evaluated(
    snakemake: Run, tmp_path: Path, planned_study: dict[str, Any]
) -> None:
    """Plans of an earlier grid stay in the folder, as do those of settings that have changed since."""
    study = planned_study
    study["evaluation"]["experiments_per_job"] = 8
    study["grid"]["pruning_ratio"] = [0.1, 0.2, 0.3]
    assert run(snakemake, tmp_path, study, "plans")[0] == 0
    study["grid"]["pruning_ratio"] = [0.2, 0.3]
    study["methods"][1]["allocation"] = "uniform"  # plans of `random` are made again, one by one
    status, lines = run(snakemake, tmp_path, study, "results/tiny/experiments/A/blockwise-seq16-n3-p20/metrics.json")
    assert status == 0, lines[-20:]
    folder = tmp_path / "results/tiny/experiments/A"
    assert len(list(folder.glob("*/plan.json"))) == 6
    means = [line for line in lines if "] acc_mean" in line]
    assert all(line.endswith(" (acc_norm_else_acc)") for line in means)  # another rule may be that of the reports
    evaluated = sorted(line.split("]")[0].split()[-1] for line in means)
    assert evaluated == ["blockwise-seq16-n3-p20", "blockwise-seq16-n3-p30"]
    assert len(list((folder / ".store").glob("*/metrics.json"))) == 2


@pytest.mark.long
@pytest.mark.long
def test_names_with_dots_signs_and_words_of_the_workflow(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    """From the first job to GGUF files."""
    model, method = "A.1+x-vllm", "v1.5-p50.best"
    study["models"][0]["name"] = model
    study["methods"] = [{"name": method, "scope": "block"}, {"name": "best-recovered", "criterion": "random"}]
    study["grid"]["methods"] = [method, "best-recovered"]
    name = f"{method}-seq16-n3-p20"
    study["export"] = {"experiments": [name], "formats": ["gguf"], "gguf_type": "F32"}
    status, lines = run(snakemake, tmp_path, study, "structures", "export")
    assert status == 0, lines[-20:]
    results = tmp_path / "results/tiny"
    made = sorted(path.name for path in (results / "checkpoints" / model).glob("[!.]*"))
    files = [f"{one}{end}" for one in ("best", name) for end in ("", ".F32.gguf", ".F32.gguf.json")]
    assert made == sorted(files)
    structures = sorted(path.name for path in (results / f"reports/{model}/structures").glob("[!.]*"))
    assert structures == [f"{one}.{end}" for one in ("best-recovered-p20", name) for end in ("html", "json", "txt")]
    table = pd.read_parquet(results / "consolidated/experiments.parquet")
    assert table["status"].tolist() == ["ok"] * 3
    assert not list(results.rglob("failures/**/*.json"))

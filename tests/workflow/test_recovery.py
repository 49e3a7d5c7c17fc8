"""Recovery from end to end on a tiny model: what runs, what it leaves behind, and what reruns."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from espalier.files import read_json, read_parquet, write_parquet
from espalier.tables import RecoveredExperiments
from tests.conftest import REPOSITORY, Run, job_counts
from tests.parquet import without_description

RECOVERY = {"seq_len": 32, "n_sequences": 16, "batch_size": 8, "epochs": 4, "learning_rate": 0.01}


@pytest.fixture
def recovering(tmp_path: Path, planned_study: dict[str, Any]) -> dict[str, Any]:
    """The tiny study with one candidate, which is the best, and the control."""
    study = planned_study
    study["methods"] = [{"name": "taylor"}, {"name": "random", "criterion": "random"}]
    study["grid"]["methods"] = ["taylor", "random"]
    study["recovery"] = RECOVERY
    write(tmp_path, study)
    return study


def write(tmp_path: Path, study: dict[str, Any]) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")


def run(snakemake: Run, tmp_path: Path, *arguments: str) -> str:
    profile = REPOSITORY / "profiles/default"
    done = snakemake(
        *arguments, "--configfile", "study.yaml", "--workflow-profile", str(profile), "--cores", "2", directory=tmp_path
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def expensive(printed: str) -> dict[str, int]:
    cheap = ("consolidate", "analyse", "draw", "report", "compare", "choose", "all", "total", "check", "recovered")
    return {rule: n for rule, n in job_counts(printed).items() if not rule.startswith(cheap)}


@pytest.mark.long
def test_the_best_is_recovered_and_reported(snakemake: Run, tmp_path: Path, recovering: dict[str, Any]) -> None:
    run(snakemake, tmp_path, "reports")
    results = tmp_path / "results/tiny"
    (name,) = (path.name for path in (results / "recovered/A").iterdir() if path.is_dir() and path.name[0] != ".")
    assert name == "taylor-seq16-n3-p20" == read_json(results / "recovered/A/chosen.json")["best"]

    table = RecoveredExperiments.validate(pd.read_parquet(results / "consolidated/recovery.parquet"))
    (row,) = table.to_dict("records")
    before, after = (read_json(results / kind / "A" / name / "metrics.json") for kind in ("experiments", "recovered"))
    assert row["ppl_before_plain"] == before["perplexity"]["plain"]["value"]
    assert row["ppl_after_plain"] == after["perplexity"]["plain"]["value"] < row["ppl_before_plain"]
    assert row["n_tokens"] == 16 * 32 * 4
    assert without_description(results) == []
    assert after["n_params"] == before["n_params"]  # merged: not a parameter more
    assert after["protocol"] == before["protocol"]
    training = read_json(results / "recovered/A" / name / "training.json")
    assert len(training["losses"]) == 4 * 2
    assert training["losses"][-1] < training["losses"][0]
    for report in ("report.txt", "report.html"):
        assert "After fine-tuning (recovery)" in (results / "reports/A" / report).read_text(encoding="utf-8")

    # Exported with its adapter merged, which is compared with what was evaluated.
    run(snakemake, tmp_path, f"results/tiny/checkpoints/A/{name}-recovered")
    exported = results / f"checkpoints/A/{name}-recovered"
    assert read_json(exported / "parity.json")["passed"]
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "Fine-tuned with LoRA after pruning" in card
    assert f"{after['acc_mean']['value']:.4f}" in card

    printed = run(snakemake, tmp_path, "-n", "reports")
    assert "Nothing to be done" in printed
    edits = {
        # How, not what.
        "recovery={token_budget: 64, checkpointing: false}": {},
        "recovery={rank: 4}": {"recover": 1, "evaluate_recovered": 1},
        # Another experiment leaves the adapter of this one alone, whatever becomes the best.
        "grid={taylor_num_samples: [2, 3]}": {"plan": 1, "evaluate": 1},
        "recovery={experiments: [random-p20, best]}": {"recover": 1, "evaluate_recovered": 1},
    }
    for value, expected in edits.items():
        printed = run(snakemake, tmp_path, "-n", "reports", "--config", value)
        found = {} if "Nothing to be done" in printed else expensive(printed)
        assert found == expected, value
    # If tables and reports are made again, the best experiment is chosen again, but nothing is fine-tuned.
    assert expensive(run(snakemake, tmp_path, "-n", "reports", "--forcerun", "consolidate_study")) == {}


@pytest.mark.long
def test_all_weights_are_recovered_by_distillation_and_exported(
    snakemake: Run, tmp_path: Path, recovering: dict[str, Any]
) -> None:
    """Nothing of an adapter is written, and an export has the weights that were evaluated."""
    name = "random-p20"
    recovering["recovery"] = RECOVERY | {
        "experiments": [name], "method": "full", "learning_rate": 0.003, "distillation": {"weight": 0.5},
    }  # fmt: skip
    write(tmp_path, recovering)
    exported = f"results/tiny/checkpoints/A/{name}-recovered"
    run(snakemake, tmp_path, "recovered", exported)
    results = tmp_path / "results/tiny"
    assert not (results / f"recovered/A/{name}/adapter").exists()
    training = read_json(results / f"recovered/A/{name}/trained/training.json")
    assert training["losses"][-1] < training["losses"][0]
    after = read_json(results / f"recovered/A/{name}/metrics.json")
    assert after["recipe"]["settings"]["trained_weights"] == training["trained_weights"]
    assert training["n_trainable"] == after["n_params"]
    row = pd.read_parquet(results / "consolidated/recovery.parquet").iloc[0]
    assert (row["trained"], bool(row["distilled"])) == ("full", True)
    assert row["ppl_after_plain"] < row["ppl_before_plain"]
    assert read_json(tmp_path / exported / "parity.json")["passed"]
    assert "All weights were fine-tuned after pruning" in (tmp_path / exported / "README.md").read_text("utf-8")
    printed = run(snakemake, tmp_path, "-n", "recovered", "--config", "recovery={distillation: {temperature: 2.0}}")
    assert expensive(printed) == {"recover_full": 1, "evaluate_recovered": 1}


def test_no_section_no_jobs(snakemake: Run, tmp_path: Path, recovering: dict[str, Any]) -> None:
    del recovering["recovery"]
    write(tmp_path, recovering)
    rules = job_counts(run(snakemake, tmp_path, "-n", "all"))
    assert not [rule for rule in rules if "recover" in rule]
    printed = run(snakemake, tmp_path, "-n", "recovered")
    assert job_counts(printed) == {"recovered": 1, "total": 1}
    assert "warning: recovery: the config has no such section, so nothing is recovered; give `recovery: {}`" in printed


def test_unknown_names_are_refused_before_anything_runs(
    snakemake: Run, tmp_path: Path, recovering: dict[str, Any]
) -> None:
    recovering["recovery"] = RECOVERY | {"experiments": ["best", "tailor-p20"]}
    write(tmp_path, recovering)
    done = snakemake("-n", "recovered", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode != 0
    assert (
        "  recovery.experiments: got 'tailor-p20'; allowed: best, all, taylor-seq16-n3-p20, random-p20" in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_text_that_is_also_evaluated_is_refused(snakemake: Run, tmp_path: Path, recovering: dict[str, Any]) -> None:
    """Under another file name and as one document, so that only its tokens tell."""
    lines = read_parquet(tmp_path / "perplexity.parquet")["text"].to_pylist()
    write_parquet(tmp_path / "own.parquet", pa.table({"text": ["\n\n".join(lines)]}))
    recovering["recovery"] = RECOVERY | {"text": {"dataset": "own.parquet"}, "seq_len": 64, "n_sequences": 4}
    write(tmp_path, recovering)
    done = snakemake("results/tiny/recovered/A/checked.json", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode != 0
    assert (
        "recovery: document 0 (the first is 0) shares 50 consecutive tokens with one of the perplexity texts; fine-tune"
        in (done.stderr)
    )

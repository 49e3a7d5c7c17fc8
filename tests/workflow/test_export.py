"""Target `export`: checkpoints of a tiny study, what makes them anew, and what is refused."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from espalier.files import read_json, write_json
from tests.conftest import Run, job_counts

Done = subprocess.CompletedProcess[str]


def run(snakemake: Run, folder: Path, study: dict[str, Any], *targets: str) -> Done:
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    done = snakemake(*targets, "--configfile", "study.yaml", directory=folder)
    assert "Traceback" not in done.stderr
    return done


def counts(done: Done) -> dict[str, int]:
    assert done.returncode == 0, done.stderr[-3000:]
    return job_counts(done.stdout) if "Job stats:" in done.stdout else {}


def exports_in(folder: Path) -> dict[str, bool]:
    """Names of checkpoints, and whether they passed."""
    return {path.name: read_json(path / "parity.json")["passed"] for path in folder.glob("checkpoints/A/[!.]*")}


@pytest.mark.long
def test_export_and_what_reruns(snakemake: Run, tmp_path: Path, planned_study: dict[str, Any]) -> None:
    study, results = planned_study, tmp_path / "results/tiny"
    study["export"] = {"formats": ["transformers", "vllm"]}
    done = run(snakemake, tmp_path, study, "export")
    assert done.returncode == 0, done.stderr[-3000:]
    assert exports_in(results) == {"best": True, "best-vllm": True}

    best = read_json(results / "consolidated/A/global_best_config.json")["best"]["experiment"]
    plan = read_json(results / "checkpoints/A/best/plan.json")
    assert plan["experiment"] == best
    assert plan["layers"] == read_json(results / f"experiments/A/{best}/plan.json")["layers"]
    card = (results / "checkpoints/A/best/README.md").read_text(encoding="utf-8")
    for kind, metrics in (("pruned", f"experiments/A/{best}"), ("baseline", "baseline/A")):
        values = read_json(results / metrics / "metrics.json")
        assert f"{values['acc_mean']['value']:.4f}" in card, kind
        assert f"{values['perplexity']['plain']['value']:.3f}" in card, kind
    assert "vLLM itself was not run" not in card
    assert "vLLM itself was not run" in (results / "checkpoints/A/best-vllm/README.md").read_text(encoding="utf-8")

    assert counts(run(snakemake, tmp_path, study, "export", "-n")) == {}
    study["export"]["experiments"] = ["random-p20"]
    planned = counts(run(snakemake, tmp_path, study, "export", "-n"))
    assert planned == {"describe_export": 1, "export_checkpoint": 2, "export": 1, "total": 4}
    study["report"] = {"language": "zh"}
    study["export"]["formats"] = ["transformers"]
    assert run(snakemake, tmp_path, study, "export").returncode == 0
    assert exports_in(results) == {"best": True, "best-vllm": True, "random-p20": True}

    # Evaluated again with equal results: only the small file is made anew, and what follows stays. (Without their
    # records, files that this test writes are not taken for damaged ones.)
    shutil.rmtree(results / "checksums/evaluate")
    for metrics in results.glob("experiments/A/*/metrics.json"):
        write_json(metrics, read_json(metrics) | {"timing_s": {"load": 1.5}})
    small = ["results/tiny/exports/A/best.json", "results/tiny/exports/A/random-p20.json"]
    assert run(snakemake, tmp_path, study, *small).returncode == 0
    assert "export_checkpoint" not in counts(run(snakemake, tmp_path, study, "export", "-n"))

    # Other numbers on the card: made anew.
    metrics = results / "experiments/A/random-p20/metrics.json"
    write_json(metrics, read_json(metrics) | {"n_params": 1})
    assert run(snakemake, tmp_path, study, small[1]).returncode == 0
    failed = run(snakemake, tmp_path, study, "results/tiny/checkpoints/A/random-p20")
    assert failed.returncode != 0
    assert "[export A random-p20] error: export: the plan keeps" in failed.stderr
    assert "random-p20" not in exports_in(results)
    assert not list((results / "checkpoints/A").glob(".*.part"))

    # Weights that are gone.
    (tmp_path / "model/model.safetensors").unlink()
    failed = run(snakemake, tmp_path, study, "results/tiny/checkpoints/A/blockwise-seq16-n3-p20-vllm")
    assert failed.returncode != 0
    assert any("error: model/model.safetensors: is missing; it" in line for line in failed.stderr.splitlines())
    assert sorted(exports_in(results)) == ["best", "best-vllm"]


def test_an_unknown_experiment_is_refused_before_anything_runs(
    snakemake: Run, tmp_path: Path, study: dict[str, Any]
) -> None:
    study["export"] = {"experiments": ["random-p20", "random-p30"]}
    done = run(snakemake, tmp_path, study, "export", "-n")
    assert done.returncode != 0
    expected = "  export.experiments[1]: got 'random-p30'; allowed: blockwise-seq16-n3-p20, random-p20"
    assert expected in done.stderr.splitlines()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["random-p30", "blockwise-p20", "best-onnx"])
def test_a_path_that_no_checkpoint_has(snakemake: Run, tmp_path: Path, study: dict[str, Any], name: str) -> None:
    done = run(snakemake, tmp_path, study, f"results/tiny/checkpoints/A/{name}", "-n")
    assert done.returncode != 0

"""A published study, imported: reports from folders of JSON alone, and only changed folders are read again."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.conftest import REPOSITORY, Run, job_counts
from tests.parquet import without_description
from tests.published import METHODS, edit, experiment_folder, search_name, write_model

EVALUATION = "evaluation/evaluation_results.json"
CHANGED = "runs/search_Qwen_layerwise_30/" + experiment_folder(7, 64, 128)


@dataclass(frozen=True)
class Published:
    """A folder with a published study and its config."""

    directory: Path
    config: Path

    @property
    def results(self) -> Path:
        """Folder of its results."""
        return self.directory / "results/published"


def entry(name: str, kind: str) -> dict[str, Any]:
    folders = [f"runs/{search_name(name, method, '30')}" for method in METHODS]
    return {"name": name, "family": "Qwen", "kind": kind, "legacy": folders}


def write_study(directory: Path) -> Published:
    """Write two models of 45 experiments; the second has faults."""
    write_model(directory / "runs", "Qwen")
    taylor = write_model(directory / "runs", "Qwen-Instruct")[0]
    (taylor / experiment_folder(1, 16, 128) / EVALUATION).unlink()
    (taylor / experiment_folder(99, 16, 256)).mkdir()
    (taylor / "exp_5").mkdir()
    for folder in taylor.glob("exp_*/analysis/gradient_diagnosis.json"):
        edit(folder, gradient_statistics__norm_ratio=float("nan"), gradient_statistics__norm_range="nan ~ nan")
    config = directory / "published.yaml"
    models = [entry("Qwen", "base"), entry("Qwen-Instruct", "instruct")]
    config.write_text(yaml.safe_dump({"study": "published", "models": models}), encoding="utf-8")
    return Published(directory, config)


def run(snakemake: Run, study: Published, *targets: str) -> str:
    done = snakemake(*targets, "--configfile", str(study.config), directory=study.directory)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, snakemake: Run) -> Published:
    """The tables and structures of the study, made once."""
    study = write_study(tmp_path_factory.mktemp("published"))
    output = run(snakemake, study, "consolidated", "structures", "--cores", "2")
    assert "Qwen-Instruct_30: 3 of 17 experiments are listed, not used" in output
    assert "exp_5: unknown: its name is not of the form exp_" in output
    return study


@pytest.fixture(scope="module")
def reports(published: Published, snakemake: Run) -> Published:
    """Its reports, by the command of the issue."""
    run(snakemake, published, "reports", "cross_model", "--cores", "2")
    return published


def test_tables(published: Published) -> None:
    assert without_description(published.results) == []
    table = pd.read_parquet(published.results / "consolidated/experiments.parquet")
    assert table.groupby("model").status.value_counts().to_dict() == {
        ("Qwen", "ok"): 45,
        # Without evaluation 1; 2 claim 16 x 256; 1 unreadable.
        ("Qwen-Instruct", "ok"): 43,
        ("Qwen-Instruct", "contradictory"): 2,
        ("Qwen-Instruct", "failed"): 1,
        ("Qwen-Instruct", "unknown"): 1,
    }
    assert table.source.str.startswith("runs/search_Qwen").all()
    listing = json.loads((published.results / "legacy/Qwen-Instruct/search_Qwen-Instruct_30.json").read_text())
    assert set(listing["not_used"]) == {
        "exp_5", experiment_folder(1, 16, 128), experiment_folder(2, 16, 256), experiment_folder(99, 16, 256),
    }  # fmt: skip


def test_structures(published: Published) -> None:
    folder = published.results / "reports/Qwen/structures"
    assert len(list(folder.glob("*.txt"))) == len(list(folder.glob("*.json"))) == 45
    content = json.loads((folder / "taylor-seq16-n128-p30.json").read_text(encoding="utf-8"))
    assert content["totals"]["model"]["before"] == 54880
    assert content["totals"]["model"]["removed"] == 16300
    # Failed without evaluation, but what was removed is known; two rivals and an empty folder are not compared.
    assert len(list((published.results / "reports/Qwen-Instruct/structures").glob("*.txt"))) == 44


def test_reports(reports: Published) -> None:
    """The numbers of `tests/published.py`: 0.400 + 0.050 m + 0.010 s + 0.001 c."""
    for page in ("Qwen/report.html", "Qwen-Instruct/report.txt", "cross_model/report.html", "cross_model/report.txt"):
        assert (reports.results / "reports" / page).stat().st_size > 1000
    analysis = json.loads((reports.results / "reports/Qwen/analysis.json").read_text(encoding="utf-8"))
    # s runs over 0..4 and c over 0..2: variance 100 x 2 + 2/3 thousandths squared
    for m, method in enumerate(METHODS):
        found = analysis["methods"][method]
        assert found["mean"] == pytest.approx(0.421 + 0.05 * m)
        assert found["std"] == pytest.approx((200 + 2 / 3) ** 0.5 / 1000)
        assert (found["min"], found["max"], found["n"]) == (
            pytest.approx(0.400 + 0.05 * m),
            pytest.approx(0.442 + 0.05 * m),
            15,
        )
    assert analysis["taylor_seq_len"]["64"]["mean"] == pytest.approx(0.471)
    assert analysis["taylor_num_samples"]["512"]["mean"] == pytest.approx(0.472)
    best = analysis["best"]
    assert (best["experiment"], best["acc_mean"], best["ppl"]) == (
        "blockwise-seq256-n512-p30",
        pytest.approx(0.542),
        16,
    )
    assert analysis["pruning_ratio"] == 0.3
    counts = analysis["experiments"]
    assert (counts["total"], counts["valid"], counts["reasons"]) == (45, 45, {})
    other = json.loads((reports.results / "reports/Qwen-Instruct/analysis.json").read_text(encoding="utf-8"))
    counts = other["experiments"]
    assert (counts["total"], counts["valid"], counts["invalid"]) == (47, 43, 4)
    assert sum(counts["reasons"].values()) == 4
    assert other["gradient_correlations"]["grad_norm_ratio"]["n"] == 30


def test_cross_model(reports: Published) -> None:
    summary = json.loads((reports.results / "reports/cross_model/analysis_summary.json").read_text(encoding="utf-8"))
    assert [row["experiment"] for row in summary["best_configs"]] == ["blockwise-seq256-n512-p30"] * 2
    assert summary["method_distribution"]["overall"]["blockwise"]["count"] == 2


def dry_run(snakemake: Run, study: Published, *targets: str) -> dict[str, int]:
    printed = run(snakemake, study, *(targets or ("consolidated", "structures")), "-n")
    return {} if "Nothing to be done" in printed else job_counts(printed)


def test_only_a_changed_folder_is_read_anew(published: Published, snakemake: Run, tmp_path: Path) -> None:
    copy = Published(tmp_path, tmp_path / "published.yaml")
    shutil.copytree(published.directory, tmp_path, dirs_exist_ok=True)
    for path in (copy.directory / "runs").rglob("*.json"):
        os.utime(path)
    # The folder is another one, so the workflow's own sources are named by another path: tables are made again, once.
    run(snakemake, copy, "consolidated", "structures", "--cores", "2")
    for path in (copy.directory / "runs").rglob("*.json"):
        os.utime(path)
    assert dry_run(snakemake, copy) == {}
    edit(copy.directory / CHANGED / EVALUATION, metrics__avg_zeroshot_acc=0.4)
    counts = dry_run(snakemake, copy, "legacy")
    assert counts == {"import_legacy": 1, "legacy": 1, "total": 2}
    counts = dry_run(snakemake, copy)
    assert (counts["import_legacy"], counts["consolidate_study"]) == (1, 1)
    assert not {"evaluate", "plan", "collect_gradients", "check_model"} & set(counts)
    one = "results/published/legacy/Qwen/search_Qwen_layerwise_30.parquet"
    assert "avg_zeroshot_acc is 0.4, the mean of its tasks is 0.47; the latter is used" in run(
        snakemake, copy, one, "--cores", "1"
    )
    assert dry_run(snakemake, copy, "legacy") == {}
    shutil.rmtree(copy.directory / CHANGED)
    assert dry_run(snakemake, copy, "legacy")["import_legacy"] == 1


def test_one_folder_by_its_path(snakemake: Run, tmp_path: Path) -> None:
    study = write_study(tmp_path)
    target = "results/published/legacy/Qwen/search_Qwen_blockwise_30.parquet"
    run(snakemake, study, target, "--cores", "1")
    assert [path.name for path in study.results.rglob("*.parquet")] == ["search_Qwen_blockwise_30.parquet"]
    assert len(pd.read_parquet(tmp_path / target).folder.unique()) == 15


def test_an_imported_model_beside_computed_ones(snakemake: Run, tmp_path: Path) -> None:
    """Jobs are asked for as the files allow: none to compute for the imported model, whose structures are unknown."""
    study = write_study(tmp_path)
    for path in (tmp_path / "runs").rglob("model_comparison.json"):
        path.unlink()
    content = yaml.safe_load((REPOSITORY / "config/quick.yaml").read_text(encoding="utf-8"))
    alone = tmp_path / "alone.yaml"
    alone.write_text(yaml.safe_dump(content), encoding="utf-8")
    content["models"].append(entry("Qwen", "base") | {"name": "Published"})
    study.config.write_text(yaml.safe_dump(content), encoding="utf-8")
    before, after = (dry_run(snakemake, Published(tmp_path, one), "all") for one in (alone, study.config))
    differences = {name: n - before.get(name, 0) for name, n in after.items() if n != before.get(name, 0)}
    assert differences == {
        "import_legacy": 3,
        "consolidate": 1,
        "analyse": 1,
        "draw_model": 1,
        "report_model": 1,
        "total": 7,
    }


def test_nothing_is_computed_for_an_imported_model(published: Published, snakemake: Run) -> None:
    target = "results/published/baseline/Qwen/metrics.json"
    done = snakemake("-n", target, "--configfile", str(published.config), directory=published.directory)
    assert done.returncode != 0
    assert "results/published/models/Qwen.json" in done.stdout + done.stderr


def test_a_missing_folder_is_one_clear_line(snakemake: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    models = [entry("Qwen", "base")]
    config.write_text(yaml.safe_dump({"study": "published", "models": models}), encoding="utf-8")
    done = snakemake("-n", "legacy", "--configfile", str(config), directory=tmp_path)
    assert done.returncode != 0
    assert "models[0].legacy[0]: 'runs/search_Qwen_30' is not a folder; give the path" in done.stdout + done.stderr

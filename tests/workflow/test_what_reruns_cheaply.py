"""Edits that cost seconds: exactly the jobs that each may cause, by dry run, and really where they are few.

The finished default study and the workflow are copied, so that sources can be edited and weights deleted; in the copy
the sources have the same path relative to the results.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HANG_S, REPOSITORY, job_counts
from tests.workflow.conftest import DEFAULT_CONFIG, DefaultRun

pytestmark = pytest.mark.run

REPORTS = {"report_model": 6, "report_cross_model": 1, "report_index": 1}
FIGURES = {"draw_model": 6, "draw_study": 1}
ANALYSES = {"analyse": 6, "analyse_study": 1}
TABLES = {"consolidate": 6}
STRUCTURES = {"compare_structures": 6}

CONFIG_EDITS = {
    "language": ("report={language: zh}", REPORTS | STRUCTURES),
    "headline ratio": ("report={ratio: 0.35}", REPORTS | FIGURES | ANALYSES | TABLES),
    "accuracy rule": (
        "report={acc_mean_rule: acc}",
        REPORTS | FIGURES | ANALYSES | TABLES | STRUCTURES | {"consolidate_study": 1},
    ),
    "token budget": ("evaluation={token_budget: 8192}", {}),
}  # fmt: skip
CODE_EDITS = {
    "figure": ("reports/figures/model.py", REPORTS | FIGURES),
    "page": ("reports/html.py", REPORTS),
    "template of the pages": ("reports/templates/report.html", REPORTS | STRUCTURES),
    "statistics": ("statistics/bootstrap.py", REPORTS | FIGURES | ANALYSES | TABLES),
    "mean accuracy": (
        "evaluation/protocol.py",
        REPORTS | FIGURES | ANALYSES | TABLES | STRUCTURES | {"consolidate_study": 1},
    ),
    "table schema": ("tables.py", REPORTS | FIGURES | ANALYSES | TABLES | STRUCTURES | {"consolidate_study": 1}),
    "structure report": ("reports/structure.py", REPORTS | STRUCTURES),
    "gradient pass": ("calibration/gradients.py", {}),
    "evaluation": ("scoring/engine.py", {}),
}


class Copy:
    """A copy of the workflow with the results of the default study."""

    def __init__(self, root: Path, run: DefaultRun) -> None:
        self.root = root
        self.directory = root / run.directory.relative_to(REPOSITORY)
        for name in ("rules", "workflow", "src", "envs", "profiles"):
            shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / "Snakefile", root / "Snakefile")
        (root / "config").mkdir()
        shutil.copy(REPOSITORY / "config/literature.yaml", root / "config")
        shutil.copytree(run.results, self.results, copy_function=shutil.copy2)
        shutil.copytree(run.directory / ".snakemake/metadata", self.directory / ".snakemake/metadata")

    @property
    def results(self) -> Path:
        return self.directory / "results/sandbox"

    def snakemake(self, *arguments: str, modules: Path | None = None) -> str:
        """Run snakemake with the copied workflow; return what it printed."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(self.root / "Snakefile")]
        environment = os.environ | ({"PYTHONPATH": str(modules)} if modules else {})
        done = subprocess.run(
            [*command, "--configfile", DEFAULT_CONFIG, *arguments],
            cwd=self.directory, env=environment, capture_output=True, text=True, check=False, timeout=HANG_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    def jobs(self, *arguments: str) -> dict[str, int]:
        """Count the jobs that would run."""
        printed = self.snakemake("-n", *arguments)
        if "Nothing to be done" in printed:
            return {}
        return {rule: n for rule, n in job_counts(printed).items() if rule not in {"all", "total"}}


@pytest.fixture(scope="module")
def copy(default_run: DefaultRun, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"), default_run)


def test_nothing_runs_where_results_were_copied_to(copy: Copy) -> None:
    assert copy.jobs() == {}


@pytest.mark.parametrize("edit", list(CONFIG_EDITS))
def test_an_option(edit: str, copy: Copy) -> None:
    value, expected = CONFIG_EDITS[edit]
    assert copy.jobs("--config", value) == expected


@pytest.mark.parametrize("edit", list(CODE_EDITS))
def test_an_edit_of_the_library(edit: str, copy: Copy) -> None:
    name, expected = CODE_EDITS[edit]
    path = copy.root / "src/espalier" / name
    before = path.read_bytes()
    try:
        path.write_bytes(before + b"\n")
        assert copy.jobs() == expected
    finally:
        path.write_bytes(before)


def test_a_fresh_checkout_runs_nothing(copy: Copy) -> None:
    for folder in ("src", "workflow", "rules"):
        for path in (copy.root / folder).rglob("*"):
            os.utime(path)
    assert copy.jobs() == {}


def test_reports_need_neither_weights_nor_torch(copy: Copy, tmp_path: Path) -> None:
    """The last test of the copy: the weights are deleted, torch cannot be imported, and a report option changes."""
    for folder in (copy.results / "sandbox/models").iterdir():
        shutil.rmtree(folder)
    assert copy.jobs() == {}
    for name in ("torch", "transformers", "lm_eval"):
        text = f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    results = [*copy.results.rglob("metrics.json"), *copy.results.glob("consolidated/**/*.parquet")]
    before = {path: path.stat().st_mtime_ns for path in results}
    copy.snakemake("--config", "report={language: zh}", modules=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in results} == before
    assert 'lang="zh-Hans"' in (copy.results / "reports/Llama/report.html").read_text(encoding="utf-8")
    assert copy.jobs("--config", "report={language: zh}") == {}

"""Paths that a job cannot write. What root may write does not depend on permission bits, so access is simulated."""

import os
from pathlib import Path

import pytest
from snakemake.jobs import Job

from espalier.study.read_only import read_only_problem, refuse_read_only


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with an output file, an output folder, a log and a file of times; its bits bind root, too."""
    for name in ("plan.json", "figures/light/a.svg", "logs/plan.log", "times/plan.tsv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    monkeypatch.setattr(os, "access", lambda path, _: bool(Path(path).stat().st_mode & 0o200))
    return tmp_path


def problem(job: Path) -> str | None:
    written = [job / "plan.json", job / "figures", job / "times/plan.tsv", job / "new/one.json"]
    return read_only_problem("plan", map(str, written), [str(job / "logs/plan.log"), str(job / "records/plan.json")])


@pytest.mark.parametrize(
    ("read_only", "what"),
    [
        ("plan.json", "it"), ("figures", "it"), ("figures/light", "figures"), ("logs", "logs/plan.log"),
        ("times", "times/plan.tsv"), ("times/plan.tsv", "it"), (".", "plan.json"),
    ],
)  # fmt: skip
def test_a_path_that_cannot_be_written_is_named_with_the_remedy(job: Path, read_only: str, what: str) -> None:
    assert problem(job) is None
    path = job / read_only
    path.chmod(path.stat().st_mode & ~0o222)
    expected = what if what == "it" else job / what
    assert problem(job) == (
        f"{path}: is read-only, but rule plan has to write {expected}; make it writable (`chmod u+w`) and run again"
    )
    path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.parametrize("replaced", ["logs/plan.log", "figures/light/a.svg"])
def test_a_file_that_is_deleted_may_be_read_only(job: Path, replaced: str) -> None:
    """Deleting a file needs a writable folder only."""
    (job / replaced).chmod(0o444)
    assert problem(job) is None


def test_snakemake_asks_before_it_runs_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The method that the driver extends exists, and Snakemake still calls it for each job that will run."""
    monkeypatch.chdir(tmp_path)
    own = Job.check_protected_output
    monkeypatch.setattr(Job, "check_protected_output", own)  # restored after the test
    refuse_read_only("results/s")
    assert Job.check_protected_output is not own


@pytest.mark.parametrize("read_only", [".", ".snakemake", ".snakemake/locks"])
def test_the_folder_of_snakemake_is_checked_before_snakemake_writes_there(
    job: Path, monkeypatch: pytest.MonkeyPatch, read_only: str
) -> None:
    monkeypatch.chdir(job)
    monkeypatch.setattr(Job, "check_protected_output", Job.check_protected_output)  # restored after the test
    path = job / read_only
    path.mkdir(parents=True, exist_ok=True)
    refuse_read_only("results/s")
    path.chmod(0o555)
    with pytest.raises(SystemExit) as refused:
        refuse_read_only("results/s")
    path.chmod(0o755)
    remedy = "make it writable (`chmod u+w`) and run again"
    assert str(refused.value) == f"{path}: is read-only, but Snakemake has to write in .snakemake; {remedy}"

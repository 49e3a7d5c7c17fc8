"""Refuse a run whose jobs would have to write read-only files or folders, with one line that names the path.

Snakemake deletes the old outputs and the log of a job before the job starts. In a folder that cannot be written, it
ends with a traceback. Of a read-only output it says that it is "write-protected", but not what to do. So the driver
checks the paths of all jobs that will run before the first of them starts. It also checks the folder `.snakemake`, in
which every command of Snakemake writes, even a dry run.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from espalier.results.verify import record_file

_RECORDS = Path(".snakemake")
_RECORDS_OF_JOBS = ("incomplete", "metadata", "scripts")
"""Folders in which Snakemake writes for each job."""
_REMEDY = "make it writable (`chmod u+w`) and run again"


def refuse_read_only(results: str) -> None:
    """Check `.snakemake` now, and the paths of jobs when Snakemake has chosen which will run.

    Call this while the Snakefile is read. If a job cannot write a path, Snakemake later ends with `SystemExit` and one
    line. If other jobs run already, because the job follows a checkpoint, it ends with `WorkflowError`, after these
    jobs.

    Args:
        results: `results/{study}`.

    Raises:
        SystemExit: If Snakemake cannot write in `.snakemake`.
    """
    for one in (_existing_folder(_RECORDS), _RECORDS / "locks"):
        if one.is_dir() and not os.access(one, os.W_OK):
            raise SystemExit(f"{one.absolute()}: is read-only, but Snakemake has to write in {_RECORDS}; {_REMEDY}")
    try:
        job_class = importlib.import_module("snakemake.jobs").Job
        workflow_error = importlib.import_module("snakemake.exceptions").WorkflowError
        own = job_class.check_protected_output
    except (ImportError, AttributeError):  # another version of Snakemake: it reports such paths in its own way
        return

    async def check_protected_output(self: Any) -> None:
        if self.rule.script:
            # `rule.name` has a prefix if the workflow is imported as a module; the script of a rule has its plain name.
            rule = PurePath(str(self.rule.script)).stem
            written = [*self.output, *([self.benchmark] if self.benchmark else [])]
            record = record_file(results, rule, tuple(map(str, self.wildcards)))
            replaced = [*self.log, record, *(_RECORDS / name / "*" for name in _RECORDS_OF_JOBS)]
            if problem := read_only_problem(rule, map(str, written), map(str, replaced)):
                raise (SystemExit if self.dag.workflow.scheduler is None else workflow_error)(problem)
        await own(self)

    job_class.check_protected_output = check_protected_output


def read_only_problem(rule: str, written: Iterable[str], replaced: Iterable[str]) -> str | None:
    """Return one line if a job cannot write one of its paths, else None.

    Args:
        rule: Name of the rule.
        written: Files and folders that must be writable if they exist. Snakemake refuses to replace a read-only output.
        replaced: Files that are deleted and written again, for which their folder must be writable.
    """
    needed = [(path, one) for path in map(Path, written) for one in (*_existing(path), _existing_folder(path.parent))]
    for path, one in needed + [(path, _existing_folder(path.parent)) for path in map(Path, replaced)]:
        if not os.access(one, os.W_OK):
            what = "it" if path == one else str(path)
            return f"{one}: is read-only, but rule {rule} has to write {what}; {_REMEDY}"
    return None


def _existing(path: Path) -> list[Path]:
    """Return a file, or a folder with all folders in it, if it exists."""
    return [Path(folder) for folder, _, _ in os.walk(path)] if path.is_dir() else [path] if path.is_file() else []


def _existing_folder(path: Path) -> Path:
    """Return a folder if it exists, else the nearest one above it that does."""
    return next((folder for folder in (path, *path.parents) if folder.is_dir()), Path())

"""Refuse a run whose jobs would have to write read-only files or folders, with one line that names the path.

Snakemake deletes the old outputs and the log of a job before the job starts. In a folder that cannot be written, it
ends with a traceback. Of a read-only output it says that it is "write-protected", but not what to do. So the driver
checks the paths of all jobs that will run before the first of them starts.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from espalier.results.verify import record_file


def refuse_read_only(results: str) -> None:
    """Check the paths of jobs when Snakemake has chosen which will run. Call this while the Snakefile is read.

    Snakemake then ends with `SystemExit` and one line. If other jobs run already, because the job follows a checkpoint,
    it ends with `WorkflowError`, after these jobs.

    Args:
        results: `results/{study}`.
    """
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
            replaced = [*self.log, record_file(results, rule, tuple(map(str, self.wildcards)))]
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
    needed = [(path, one) for path in map(Path, written) for one in (*_existing(path), _folder(path))]
    for path, one in needed + [(path, _folder(path)) for path in map(Path, replaced)]:
        if not os.access(one, os.W_OK):
            what = "it" if path == one else str(path)
            remedy = "make it writable (`chmod u+w`) and run again"
            return f"{one}: is read-only, but rule {rule} has to write {what}; {remedy}"
    return None


def _existing(path: Path) -> list[Path]:
    """Return a file, or a folder with all folders in it, if it exists."""
    return [Path(folder) for folder, _, _ in os.walk(path)] if path.is_dir() else [path] if path.is_file() else []


def _folder(path: Path) -> Path:
    """Return the nearest folder above a path that exists."""
    return next((folder for folder in path.parents if folder.is_dir()), Path())

"""Last lines of a run on the terminal: where the reports are, or which jobs failed and why."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

from espalier.study.failure_records import read_failure
from espalier.study.paths import CACHE

MOST = 20
"""Most failed jobs that are listed."""
SUMMARY_FOLLOWS = "ESPALIER_SUMMARY_FOLLOWS"
"""Environment variable that `make run` sets, because it prints a summary at the end, which names the reports."""
_OF_REPORTS = ("analyse", "compare_structures", "consolidate", "draw", "report")
"""How the names of the rules begin that make tables and reports of results."""
_TARGETS_WITH_INDEX = frozenset({"all", "partial_reports"})


def show_reports(results: str, requested: Iterable[str]) -> None:
    """Print the path of the index of all reports, if the user requested it and `SUMMARY_FOLLOWS` is not set.

    Args:
        results: `results/{study}`.
        requested: Targets on the command line; none means the default target.
    """
    if os.environ.get(SUMMARY_FOLLOWS):
        return
    index = Path(results, "reports/index.html")
    if index.is_file() and (not (targets := set(requested)) or targets & _TARGETS_WITH_INDEX):
        logging.getLogger("snakemake.logging").info(f"Reports: {index}")  # noqa: G004 (its handler ignores arguments)


def show_failures(results: str, requested: Iterable[str] = ()) -> None:
    """Print one line for each job that failed in this run. Snakemake only says to look above.

    `partial_reports` makes existing results again if they are stale, and waits for them. If this fails, the results are
    missing, and the next run of the target leaves them out. Another line then says so.

    Args:
        results: `results/{study}`.
        requested: Targets on the command line.
    """
    lines = failed_since(results, psutil.Process().create_time())
    if lines:
        more = [f"  and {len(lines) - MOST} more"] if len(lines) > MOST else []
        is_partial = any(target.endswith("partial_reports") for target in requested)  # a module may have a prefix
        of_results = not any(line.lstrip().startswith(_OF_REPORTS) for line in lines)
        again = ["Run partial_reports again: it leaves out these results now, with the reasons."]
        text = "\n".join(["Failed jobs:", *lines[:MOST], *more, *(again if is_partial and of_results else [])])
        logging.getLogger("snakemake.logging").error(text)


def failed_since(results: str, start: float) -> list[str]:
    """Return one line for each record of a failure that was written since a time.

    Args:
        results: `results/{study}`.
        start: Seconds since the epoch.
    """
    folders = [Path(folder, "failures") for folder in (CACHE, results)]
    files = [(folder, path) for folder in folders for path in sorted(folder.rglob("*.json"))]
    recent = [(folder, path) for folder, path in files if path.stat().st_mtime >= start]
    found = [(path.relative_to(folder).with_suffix(""), read_failure(path)) for folder, path in recent]
    # Below `failures/`, the path of a record is the rule and the wildcards of its job.
    return [f"  {' '.join(job.parts)}: {failure['reason']}" for job, failure in found if failure]

"""Report jobs that were killed, such as by the kernel when memory is exhausted. A killed job cannot say why it failed.

Snakemake prints the signal that ended a script. A job that a signal ended, and that left no new failure record, gets a
record here. This needs a file system that the driver and its jobs see alike at once, so it is for local jobs only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from espalier.study.failure_records import failure_file
from espalier.study.paths import CACHE
from espalier.study.stopping import is_stopping

STAGING = frozenset({"stage_model", "stage_dataset", "stage_text", "lock_cache"})
"""Rules whose failure records are in `cache/`."""
KILLED = (
    "was killed, most likely for want of memory: give it more (ulimit, cgroup or "
    "container), close other programs or run fewer jobs at a time (`--cores`), and run again"
)


_SIGNALLED = re.compile(r"\.(\w+)\.py' (?:died with <Signals|returned non-zero exit status 1[345]\d)")
"""What Snakemake prints if a signal ended a script, or the shell that ran it (status 128 and the number)."""


class KilledJobsHandler(logging.Handler):
    """Follows Snakemake's events, and reports and records each job that failed without a reason.

    Args:
        results: `results/{study}`.
        scripts: Name of a rule's script without its suffix, by the name of the rule. It is the name of the rule without
            the prefix of a module import.
        show: Prints a line.
        is_local: Returns whether jobs run on this machine.
    """

    def __init__(
        self, results: str, scripts: Mapping[str, str], show: Callable[[str], None], is_local: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._results, self._scripts, self._show, self._is_local = results, scripts, show, is_local
        self._signalled: Counter[str] = Counter()
        self._running: dict[int, tuple[str, tuple[str, ...], Path, int | None]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Follow an event. Unknown events and those of another version of Snakemake are ignored."""
        event = getattr(getattr(record, "event", None), "name", None)
        with contextlib.suppress(AttributeError):
            if event == "JOB_INFO":
                self._begin(record)
            elif event == "JOB_ERROR":
                self._end(record)
            elif event == "ERROR":
                self._signalled.update(_SIGNALLED.findall(str(record.msg)))

    def _begin(self, record: Any) -> None:
        rule = self._scripts.get(record.rule_name)
        if rule is not None:
            wildcards = tuple(map(str, record.wildcards.values()))
            file = failure_file(CACHE if rule in STAGING else self._results, rule, wildcards)
            self._running[record.jobid] = (rule, wildcards, file, _version(file))

    def _end(self, record: Any) -> None:
        rule, wildcards, file, before = self._running.pop(record.jobid, (None, (), Path(), None))
        if rule is None or not self._signalled[rule]:
            return
        self._signalled[rule] -= 1
        if not self._is_local() or is_stopping() or _version(file) != before:
            return
        self._show(f"[{' '.join((rule, *wildcards))}] error: {KILLED}")
        log = next(iter(record.log or ()), "")
        content = {"rule": rule, "wildcards": list(wildcards), "reason": KILLED, "log": str(log)}
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content), encoding="utf-8")


def report_killed_jobs(results: str, rules: Iterable[Any], is_local: Callable[[], bool]) -> None:
    """Report jobs that are killed. Call this while the Snakefile is read.

    Args:
        results: `results/{study}`.
        rules: All rules of the workflow.
        is_local: Returns whether jobs run on this machine.
    """
    logger = logging.getLogger("snakemake.logging")
    scripts = {rule.name: PurePath(str(rule.script)).stem for rule in rules if rule.script}
    logger.addHandler(KilledJobsHandler(results, scripts, logger.error, is_local))


def _version(file: Path) -> int | None:
    """Return when a file was written (ns); None if it does not exist."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None

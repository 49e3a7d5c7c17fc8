"""Run a workflow script with its log file, its messages on the terminal, and its exit status."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.errors import UserError
from espalier.files import write_json
from espalier.jobs.interrupts import INTERRUPTED
from espalier.study.failure_records import failure_file, older_file, read_failure
from espalier.study.paths import results_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FailureRecord:
    """Where a job records why it failed.

    Attributes:
        folder: `results/{study}`, or `cache` for a rule that stages.
        rule: Name of the rule, without the prefix of a module import.
        wildcards: Values of its wildcards, in the order of its output path.
        log: Its log file.
    """

    folder: str
    rule: str
    wildcards: tuple[str, ...]
    log: str

    @property
    def path(self) -> Path:
        """File of the record."""
        return failure_file(self.folder, self.rule, self.wildcards)

    def write(self, reason: str) -> None:
        """Record why the job failed. A full disk, or a reason that is no text, must not hide the original error."""
        text = " ".join(reason.split()).encode(errors="backslashreplace").decode()
        content = {"rule": self.rule, "wildcards": list(self.wildcards), "reason": text, "log": self.log}
        with contextlib.suppress(OSError):
            write_json(self.path, content)

    def remove(self) -> None:
        """Remove what an earlier attempt of this job recorded; records of other jobs stay. It never fails."""
        older = older_file(self.folder, self.rule, self.wildcards)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            if older and (read_failure(older) or {}).get("log") == self.log:  # plan and evaluation shared one file
                older.unlink(missing_ok=True)


@contextlib.contextmanager
def workflow_job(snakemake: Any, rule: str, name: str, *, folder: str | None = None) -> Iterator[None]:
    """Run the block as a job of the workflow: with its log, and with a record of why it failed.

    Nothing is removed when a job begins: if it is killed before it can record a reason (SIGKILL, out of memory), the
    reason of the attempt before it is all there is.

    Args:
        snakemake: The object that Snakemake gives to a script.
        rule: Name of the rule; `snakemake.rule` has a prefix where the workflow is imported as a module.
        name: Put before each line on the terminal, so that parallel jobs can be told apart.
        folder: Where failures are recorded; None is the study's results.

    Raises:
        SystemExit: As `job_log`.
    """
    folder = folder or results_folder(snakemake.config["study"])
    record = FailureRecord(folder, rule, tuple(map(str, snakemake.wildcards)), str(snakemake.log[0]))
    with job_log(snakemake.log[0], name, record=record):
        yield


@contextlib.contextmanager
def job_log(path: str | Path, name: str, *, record: FailureRecord | None = None) -> Iterator[None]:
    """Log to a file and to the terminal; on failure keep the traceback in the file and one line on the terminal.

    Args:
        path: The log file, overwritten.
        name: Put before each line on the terminal, so that parallel jobs can be told apart.
        record: Where to record why the job failed; removed when it succeeds.

    Raises:
        SystemExit: With status 1 after any exception in the block, 130 after Ctrl-C.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(path, mode="w", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter(f"[{name}] %(message)s"))
    to_terminal.addFilter(_OursOrWarning())
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk must not hide behind the traceback of a log line
    logging.basicConfig(level=logging.INFO, handlers=[to_file, to_terminal], force=True)
    try:
        yield
        if record:
            record.remove()
    except UserError as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [_described(error)]
        for line in lines:
            logger.error("error: %s", line)
        if record:
            record.write(lines[0])
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        logger.error("interrupted")
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if record:
            record.write(_described(error))
        logger.error("failed: %s (traceback in %s)", _described(error), path)
        to_terminal.setLevel(logging.CRITICAL + 1)
        logger.exception("traceback")
        raise SystemExit(1) from None
    finally:
        logging.shutdown()


def _described(error: Exception) -> str:
    """Return the class of an exception with its message, if it has one, in one line."""
    return ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))


class _OursOrWarning(logging.Filter):
    """Let our own messages through, and those of other libraries only when they are errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.startswith("espalier") or record.levelno >= logging.ERROR

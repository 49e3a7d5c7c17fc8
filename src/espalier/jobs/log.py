"""Log file, terminal messages, failure record, output checksums and exit status of a workflow script."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.errors import UserError, memory_line, no_permission, out_of_memory
from espalier.files import write_json
from espalier.jobs.input_checks import check_inputs
from espalier.jobs.interrupts import INTERRUPTED
from espalier.results.verify import record_outputs
from espalier.study.failure_records import failure_file, older_file, read_failure
from espalier.study.paths import results_folder

logger = logging.getLogger(__name__)
only_in_file = logging.getLogger("job")  # no message of this logger is shown on the terminal (`_OursOrError`)


@dataclass(frozen=True)
class FailureRecord:
    """The file in which a job records why it failed.

    Attributes:
        folder: `results/{study}`, or `cache` for a rule that stages models or data.
        rule: Name of the rule, without the prefix that a module import adds.
        wildcards: Values of the rule's wildcards, in the order of its output path.
        log: Log file of the job.
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
        """Record why the job failed. A full disk or invalid Unicode in `reason` must not hide the original error."""
        text = " ".join(reason.split()).encode(errors="backslashreplace").decode()
        content = {"rule": self.rule, "wildcards": list(self.wildcards), "reason": text, "log": self.log}
        with contextlib.suppress(OSError):
            write_json(self.path, content)

    def remove(self) -> None:
        """Remove the record of an earlier attempt of this job. Records of other jobs stay. File errors are ignored."""
        older = older_file(self.folder, self.rule, self.wildcards)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            # In version 0.1.0, two rules shared this file, so check that this job wrote it.
            if older and (read_failure(older) or {}).get("log") == self.log:
                older.unlink(missing_ok=True)


@contextlib.contextmanager
def workflow_job(snakemake: Any, rule: str, name: str, *, folder: str | None = None) -> Iterator[None]:
    """Run the block as a job of the workflow, with a log file and, if it fails, a failure record.

    First, its inputs are compared with the checksums that other jobs recorded (`espalier.jobs.input_checks`). If it
    succeeds, the checksums of its output files are recorded (`espalier.results.verify`).

    An existing failure record stays until the job succeeds or fails again. If the job is killed before it can record a
    reason (SIGKILL, out of memory), the record of the attempt before remains.

    Args:
        snakemake: The `snakemake` object of the script.
        rule: Name of the rule. `snakemake.rule` has a prefix if the workflow is imported as a module.
        name: Prefix of each line on the terminal, to distinguish parallel jobs.
        folder: Folder of the failure records. None uses the results folder of the study.

    Raises:
        SystemExit: As `job_log`.
    """
    results = results_folder(snakemake.config["study"])
    record = FailureRecord(folder or results, rule, tuple(map(str, snakemake.wildcards)), str(snakemake.log[0]))
    with job_log(snakemake.log[0], name, record=record):
        if folder is None:
            check_inputs(results, snakemake.input)
        yield
        if folder is None:  # the lock file of the cache has the checksums of staged files
            record_outputs(results, rule, record.wildcards, snakemake.output)


@contextlib.contextmanager
def job_log(path: str | Path, name: str, *, record: FailureRecord | None = None) -> Iterator[None]:
    """Log to a file and to the terminal during the block.

    If the block fails with a `UserError`, each line of its message is logged. If it runs out of host memory, one line
    says so. For any other exception, the terminal shows one line and the log file also gets the traceback.

    Args:
        path: Log file. It is overwritten.
        name: Prefix of each line on the terminal, to distinguish parallel jobs.
        record: Failure record to write if the block fails, and to remove if it succeeds.

    Raises:
        SystemExit: With status 1 after an exception in the block, 130 after Ctrl-C.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    to_file = _LogFile(path)
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(_terminal_format(name))
    to_terminal.addFilter(_OursOrError())
    start = time.monotonic()
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # on a full disk, tracebacks of failed log lines would hide the real error
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    others, root.handlers = root.handlers, [to_file, to_terminal]
    try:
        yield
        if record:
            record.remove()
        only_in_file.info("finished in %.1f s", time.monotonic() - start)
    except KeyboardInterrupt:
        logger.error("interrupted")
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if lines := _lines_for_user(error, record.rule if record else None):
            for line in lines:
                logger.error("error: %s", line)
            if record:
                record.write(lines[0])
            raise SystemExit(1) from None
        if record:
            record.write(_one_line(error))
        logger.error("failed: %s (traceback in %s)", _one_line(error), path)
        to_terminal.setLevel(logging.CRITICAL + 1)
        logger.exception("traceback")
        raise SystemExit(1) from None
    finally:
        # Not `logging.shutdown`: it closes handlers of libraries too, and that of absl then closes its stream.
        root.handlers = others
        for handler in (to_file, to_terminal):
            with contextlib.suppress(OSError):  # on a full disk, the rest of the log is lost
                handler.close()


@contextlib.contextmanager
def piece_log(path: Path, name: str, *, beside: bool) -> Iterator[None]:
    """Log the messages of the block to a file that is stored with its results.

    A job may do work of other jobs (`espalier.jobs.pieces`). Their own jobs copy this file into their logs later.

    Args:
        path: Log file of the work. It is overwritten.
        name: Prefix of each line on the terminal.
        beside: Whether the work is another job's. If so, the log file of the running job gets none of its messages.
    """
    root = logging.getLogger()
    own = [handler for handler in root.handlers if isinstance(handler, _LogFile)] if beside else []
    terminals = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]
    formats = [handler.formatter for handler in terminals]
    to_file = _LogFile(path)
    root.addHandler(to_file)
    for file in own:
        root.removeHandler(file)
    for terminal in terminals:
        terminal.setFormatter(_terminal_format(name))
    try:
        yield
    finally:
        for terminal, format_ in zip(terminals, formats, strict=True):
            terminal.setFormatter(format_)
        for file in own:
            root.addHandler(file)
        root.removeHandler(to_file)
        with contextlib.suppress(OSError):
            to_file.close()


def copy_to_log(path: Path) -> None:
    """Copy a file that `piece_log` wrote into the log file of the running job. A missing file is ignored."""
    with contextlib.suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        for handler in logging.getLogger().handlers:
            if isinstance(handler, _LogFile):
                handler.copy(text)


class _LogFile(logging.FileHandler):
    """Handler of a job's log file, or of the log of a piece of work."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, mode="w", encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def copy(self, text: str) -> None:
        """Add text as it is."""
        if self.stream:  # None after the job has ended
            self.stream.write(text)
            self.flush()


def _lines_for_user(error: Exception, rule: str | None) -> list[str]:
    """Return the lines of an error that the user can fix; none for other errors."""
    # An error about a file or a setting may have been raised only because a library had too little memory.
    if (detail := out_of_memory(error)) and not _names_memory(error):
        return [memory_line(detail, rule)]
    if isinstance(error, UserError):
        return [line for line in str(error).splitlines() if line.strip()] or [_one_line(error)]
    return [detail] if (detail := no_permission(error)) else []


def _names_memory(error: Exception) -> bool:
    """Return whether the message for the user is about memory; one that only quotes the error of a library is not."""
    said = str(error).replace("MemoryError", "").replace("allocate memory", "")
    return isinstance(error, UserError) and "memory" in said


def _terminal_format(name: str) -> logging.Formatter:
    return logging.Formatter(f"[{name}] %(message)s")


def _one_line(error: Exception) -> str:
    """Return the class name and the message of an exception in one line."""
    return ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))


class _OursOrError(logging.Filter):
    """Passes all messages of this project, and only errors of other libraries."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.startswith("espalier") or record.levelno >= logging.ERROR

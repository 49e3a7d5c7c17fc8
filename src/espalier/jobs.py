"""How a workflow script runs: its log, its messages on the terminal, its exit status."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from espalier.errors import UserError
from espalier.files import write_json

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def job_log(path: str | Path, name: str, *, failure: Path | None = None) -> Iterator[None]:
    """Log to a file and to the terminal; on failure keep the traceback in the file and one line on the terminal.

    Args:
        path: The log file, written anew.
        name: Put before each line on the terminal, so that parallel jobs can be told apart.
        failure: Where to say why the job failed (`failure_file`); removed when it succeeds.

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
        if failure:
            failure.unlink(missing_ok=True)
    except UserError as error:
        for line in str(error).splitlines():
            logger.error("error: %s", line)
        _record(failure, path, str(error).splitlines()[0])
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        logger.error("interrupted")
        raise SystemExit(130) from None
    except Exception as error:
        _record(failure, path, f"{type(error).__name__}: {error}")
        logger.error("failed: %s: %s (traceback in %s)", type(error).__name__, error, path)
        to_terminal.setLevel(logging.CRITICAL + 1)
        logger.exception("traceback")
        raise SystemExit(1) from None
    finally:
        logging.shutdown()


def failure_file(log: str | Path) -> Path:
    """Name the file that says why an experiment failed, from the log of its job.

    `{results}/logs/{rule}/{model}/{experiment}.log` has `{results}/failures/{model}/{experiment}.json`.
    """
    log = Path(log)
    return log.parents[3] / "failures" / log.parent.name / f"{log.stem}.json"


def _record(failure: Path | None, log: str | Path, reason: str) -> None:
    """Say why a job failed, if the disk lets it: that it failed is more than that it could not say so."""
    if failure:
        with contextlib.suppress(OSError):
            write_json(failure, {"reason": " ".join(reason.split()), "log": str(log)})


class _OursOrWarning(logging.Filter):
    """Let our own messages through, and those of other libraries only when they are errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.startswith("espalier") or record.levelno >= logging.ERROR

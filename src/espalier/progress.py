"""Report the progress of long work (rate and time left) in the job's log and on the terminal."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from tqdm import tqdm

logger = logging.getLogger(__name__)


class _LogStream:
    """A text stream that writes each line to the log; tqdm only writes to streams."""

    def write(self, text: str) -> int:
        line = text.strip()
        if line:
            logger.info("%s", line)
        return len(text)

    def flush(self) -> None:
        """Do nothing, because lines are not buffered."""


class Progress:
    """A tqdm bar that writes a line to the log every `interval_s` seconds.

    Lines go through logging. Parallel jobs therefore do not overwrite each other's lines, and log files stay readable.
    """

    def __init__(self, what: str, *, total: int, unit: str, interval_s: float = 10.0) -> None:
        self._bar = tqdm(
            desc=what,
            total=total,
            unit=" " + unit,
            unit_scale=True,
            file=_LogStream(),
            mininterval=interval_s,
            maxinterval=interval_s,
            bar_format="{desc}: {percentage:3.0f}% of {total_fmt}{unit}, {rate_fmt}, {remaining} left{postfix}",
            delay=interval_s,  # short work logs nothing
            leave=False,
            disable=False,  # jobs set TQDM_DISABLE to hide the progress bars of libraries only
        )

    def advance(self, amount: int, **figures: float) -> None:
        """Count `amount` units as done and show `figures` at the end of the line."""
        if figures:
            self._bar.set_postfix({key: f"{value:.3f}" for key, value in figures.items()}, refresh=False)
        self._bar.update(amount)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

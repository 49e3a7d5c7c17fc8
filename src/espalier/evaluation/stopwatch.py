"""Time that an evaluation spends in each of its parts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PARTS = ("load", "requests", "forward", "metrics")


class Stopwatch:
    """Measures the seconds spent in each part of an evaluation. Only one part is active at a time.

    Attributes:
        seconds: Seconds of each part. `load`: weights and pruning. `requests`: tokenizer, tasks, requests and prompts.
            `forward`: packing and the model, for tasks and perplexity. `metrics`: lm-eval's metrics.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._part: str | None = None
        self._since = time.perf_counter()

    def switch(self, part: str | None) -> None:
        """Make `part` the active part. With None, time is not counted."""
        now = time.perf_counter()
        if self._part is not None:
            self.seconds[self._part] += now - self._since
        self._part, self._since = part, now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Make a part active during the block, then return to the part that was active before."""
        before = self._part
        self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

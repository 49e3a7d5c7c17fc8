"""Where the time of an evaluation goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PARTS = ("load", "requests", "forward", "metrics")


class Stopwatch:
    """Seconds spent in the parts of a job; each moment counts for one part only.

    Attributes:
        seconds: Time of each part: load (weights, surgery), requests (tokenizer, tasks, requests, prompts), forward
            (packing and the model, for tasks and perplexity), metrics (all else).
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._part: str | None = None
        self._since = time.perf_counter()

    def switch(self, part: str | None) -> None:
        """Let time count for another part from now on; None counts for nothing."""
        now = time.perf_counter()
        if self._part is not None:
            self.seconds[self._part] += now - self._since
        self._part, self._since = part, now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block for a part, then go on with the part before it."""
        before = self._part
        self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

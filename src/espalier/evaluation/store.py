"""The store of finished evaluations: a killed job repeats nothing, and equal plans are evaluated once.

An evaluation is named by the hash of all that decides its numbers (weights, plan, protocol, version, libraries). Its
folder holds `metrics.json` (without the name of the experiment) and `samples.parquet`; it appears whole or not at all.
Experiments get hard links. A claim is a lock that ends with its process, so that two jobs do not evaluate the same.
What takes their place where the file system has neither: `espalier.filesystem`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espalier.files import read_json, sha256_of_json, whole_file, whole_folder, write_json
from espalier.filesystem import link_or_copy, locked

METRICS, SAMPLES = "metrics.json", "samples.parquet"


class Store:
    """Finished evaluations of one model, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def key(recipe: dict[str, Any]) -> str:
        """Name an evaluation by its recipe."""
        return sha256_of_json(recipe)[:32]

    def has(self, key: str) -> bool:
        """Whether an evaluation is finished."""
        return (self.folder / key / METRICS).is_file()

    @contextmanager
    def adding(self, key: str) -> Iterator[Path]:
        """Yield a folder to write both files into; it becomes the evaluation when the block succeeds."""
        with whole_folder(self.folder / key) as folder:
            yield folder

    def hand_over(self, key: str, header: dict[str, Any], *, metrics: Path, samples: Path) -> None:
        """Give an experiment its files: the samples as a hard link or a copy, the metrics with its name put first.

        Args:
            key: Which evaluation.
            header: Names of model and experiment, and the facts of its plan.
            metrics: Where `metrics.json` goes.
            samples: Where `samples.parquet` goes.
        """
        with whole_file(samples) as temporary:
            link_or_copy(self.folder / key / SAMPLES, temporary)
        write_json(metrics, {**header, **read_json(self.folder / key / METRICS)})

    @contextmanager
    def claim(self, key: str, *, wait: bool) -> Iterator[bool]:
        """Try to be the only process that works on an evaluation.

        Args:
            key: Which evaluation.
            wait: Whether to wait for whoever has it.

        Yields:
            Whether the claim was got (always, when waiting).
        """
        with locked(self.folder / f"{key}.lock", wait=wait) as held:
            yield held

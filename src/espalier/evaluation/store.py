"""The store of finished evaluations: a killed job repeats nothing, and equal plans are evaluated once.

An evaluation is named by the hash of all that decides its numbers (weights, plan, protocol, version, libraries). Its
folder holds `metrics.json` (without the name of the experiment), `samples.parquet`, and `checksums.json` with size and
SHA-256 of both; it appears whole or not at all. An entry that is damaged, or that was not made by its recipe, is
dropped and made again. Entries of version 0.1.0 have no checksums: they are read through instead.
Experiments get hard links. A claim is a lock that ends with its process, so that two jobs do not evaluate the same.
What takes their place where the file system has neither: `espalier.files`.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espalier.errors import UserError
from espalier.files import (
    link_or_copy,
    locked,
    read_json,
    read_table,
    sha256_of,
    sha256_of_json,
    whole_file,
    whole_folder,
    write_json,
    write_result,
)
from espalier.recipe import SAMPLES_SHA256

METRICS, SAMPLES, CHECKSUMS = "metrics.json", "samples.parquet", "checksums.json"
logger = logging.getLogger(__name__)


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
        """Whether an evaluation is finished and whole; one that is damaged is dropped, and the log says why."""
        entry = self.folder / key
        if not entry.is_dir():
            return False
        problem = self._problem(entry)
        if problem is None:
            return True
        logger.warning("%s: %s; it is dropped and evaluated again", entry, problem)
        shutil.rmtree(entry, ignore_errors=True)
        return False

    @contextmanager
    def adding(self, key: str) -> Iterator[Path]:
        """Yield a folder to write both files into; it becomes the evaluation when the block succeeds."""
        with whole_folder(self.folder / key) as folder:
            yield folder
            write_json(folder / CHECKSUMS, {name: _checksum(folder / name) for name in (METRICS, SAMPLES)})

    def _problem(self, entry: Path) -> str | None:
        """Say what is wrong with an entry, or None."""
        try:
            expected = read_json(entry / CHECKSUMS) if (entry / CHECKSUMS).is_file() else {}
            for name, checksum in expected.items():
                if (found := _checksum(entry / name)) != checksum:
                    return (
                        f"{name} has {found['bytes']} bytes and checksum {found['sha256'][:12]}, not as it was written"
                    )
            recipe = read_json(entry / METRICS)["recipe"]
            if not expected:
                logger.info("%s: has no checksums (version 0.1.0); its files were read through", entry)
                read_table(entry / SAMPLES)
        except (UserError, OSError, KeyError, TypeError) as error:
            return str(error) or type(error).__name__
        return None if self.key(recipe) == entry.name else "its recipe is not the one that it is named by"

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
        content = {**header, **read_json(self.folder / key / METRICS), SAMPLES_SHA256: sha256_of(samples)}
        write_result(metrics, content)

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


def _checksum(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}

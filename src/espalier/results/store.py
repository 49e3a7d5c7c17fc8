"""Store of finished evaluations. Evaluations survive a killed job, and equal plans are evaluated once.

An entry of the store is a folder. Its name is a hash of everything that determines the results: weights, plan,
protocol, version and libraries. It holds `metrics.json` (without the name of the experiment), `samples.parquet`, and
`checksums.json` with the size and SHA-256 of both. It appears only when it is complete. An entry is deleted and
evaluated again if it is damaged or if its name does not match its recipe. Entries of version 0.1.0 have no checksums,
so their files are read to check them.

The samples of an experiment are a hard link to the entry. A claim is a lock, so that two jobs do not run the same
evaluation. The lock ends with its process. `espalier.files` has fallbacks for file systems without links or locks.
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
    atomic_file,
    atomic_folder,
    link_or_copy,
    locked,
    read_json,
    read_table,
    sha256_of,
    sha256_of_json,
    write_json,
    write_result,
)
from espalier.recipe import SAMPLES_SHA256

METRICS, SAMPLES, CHECKSUMS = "metrics.json", "samples.parquet", "checksums.json"
logger = logging.getLogger(__name__)


class Store:
    """Store of the finished evaluations of one model, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def key(recipe: dict[str, Any]) -> str:
        """Return the key of an evaluation: a hash of its recipe."""
        return sha256_of_json(recipe)[:32]

    def has(self, key: str) -> bool:
        """Whether an evaluation is complete. A damaged evaluation is deleted, and the reason is logged.

        Raises:
            OSError: If the entry cannot be read now, for example because a network file system fails. It is not
                deleted.
        """
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
    def new_entry(self, key: str) -> Iterator[Path]:
        """Yield a folder for `metrics.json` and `samples.parquet`. It becomes the entry when the block succeeds."""
        with atomic_folder(self.folder / key) as folder:
            yield folder
            write_json(folder / CHECKSUMS, {name: _checksum(folder / name) for name in (METRICS, SAMPLES)})

    def _problem(self, entry: Path) -> str | None:
        """Return the damage of an entry, or None: a missing or unreadable file, a wrong checksum or a wrong recipe."""
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
                sha256_of(entry / SAMPLES)  # raises an error of the file system, which `read_table` would call damage
                read_table(entry / SAMPLES)
        except (UserError, FileNotFoundError, KeyError, TypeError) as error:
            return str(error) or type(error).__name__
        return None if self.key(recipe) == entry.name else "its recipe is not the one that it is named by"

    def deliver(self, key: str, header: dict[str, Any], *, metrics: Path, samples: Path) -> None:
        """Write the files of an experiment from its evaluation in the store.

        The samples become a hard link or a copy. The metrics get `header` as their first fields.

        Args:
            key: Key of the evaluation.
            header: Fields of the experiment's plan for `metrics.json`, such as the names of model and experiment.
            metrics: File `metrics.json` to write.
            samples: File `samples.parquet` to write.
        """
        with atomic_file(samples) as temporary:
            link_or_copy(self.folder / key / SAMPLES, temporary)
        content = {**header, **read_json(self.folder / key / METRICS), SAMPLES_SHA256: sha256_of(samples)}
        write_result(metrics, content)

    @contextmanager
    def claim(self, key: str, *, wait: bool) -> Iterator[bool]:
        """Lock an evaluation during the block, so that no other process runs it.

        Args:
            key: Key of the evaluation.
            wait: Whether to wait if another process has the lock.

        Yields:
            Whether this process has the lock. Always true with `wait`.
        """
        with locked(self.folder / f"{key}.lock", wait=wait) as held:
            yield held


def _checksum(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}

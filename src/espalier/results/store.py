"""Store of finished pieces of work on a model: passes, priors and evaluations. Each is done once and survives its job.

An entry of the store is a folder. Its name is a hash of everything that determines the results: weights, settings,
texts or requests, plan, version and libraries. It holds the result files, and `checksums.json` with the size and
SHA-256 of each. The recipe that the name was computed from is in `metrics.json`, or for tables in `recipe.json`. An
entry appears only when it is complete. It is deleted and made again if it is damaged or if its name does not match its
recipe. Entries of version 0.1.0 have no checksums, so their files are read to check them.

The files of a result are hard links to the entry. A claim is a lock, so that two jobs do not do the same work. The lock
ends with its process. `espalier.files` has fallbacks for file systems without links or locks.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
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
    size_and_sha256,
    write_json,
    write_result,
)
from espalier.recipe import SAMPLES_SHA256

METRICS, SAMPLES, GENERATIONS = "metrics.json", "samples.parquet", "generations.parquet"
"""Files of an evaluation. Only evaluations of generative tasks have the last one."""
RECIPE, CHECKSUMS, TIMING = "recipe.json", "checksums.json", "timing.json"
LOG = "job.log"
"""Messages of the work. It has no checksum: a damaged log does not make results wrong."""
logger = logging.getLogger(__name__)


def store_key(recipe: Mapping[str, Any]) -> str:
    """Return the name of the entry with a recipe: a hash."""
    return sha256_of_json(recipe)[:32]


class Store:
    """Store of the finished work on one model, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, key: str) -> bool:
        """Return whether an entry is complete. A damaged entry is deleted, and the reason is logged.

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
        logger.warning("%s: %s; it is dropped and made again", entry, problem)
        shutil.rmtree(entry, ignore_errors=True)
        return False

    @contextmanager
    def new_entry(self, key: str) -> Iterator[Path]:
        """Yield a folder for the result files. It becomes the entry when the block succeeds."""
        with atomic_folder(self.folder / key) as folder:
            yield folder
            files = [path for path in sorted(folder.iterdir()) if path.name != LOG]
            write_json(folder / CHECKSUMS, {path.name: size_and_sha256(path) for path in files})

    def _problem(self, entry: Path) -> str | None:
        """Return the damage of an entry, or None: a missing or unreadable file, a wrong checksum or a wrong recipe."""
        try:
            expected = read_json(entry / CHECKSUMS) if (entry / CHECKSUMS).is_file() else {}
            for name, checksum in expected.items():
                if (found := size_and_sha256(entry / name)) != checksum:
                    return (
                        f"{name} has {found['bytes']} bytes and checksum {found['sha256'][:12]}, not as it was written"
                    )
            recipe = read_json(entry / RECIPE) if RECIPE in expected else read_json(entry / METRICS)["recipe"]
            if not expected:
                logger.info("%s: has no checksums (version 0.1.0); its files were read through", entry)
                sha256_of(entry / SAMPLES)  # raises an error of the file system, which `read_table` would call damage
                read_table(entry / SAMPLES)
        except (UserError, FileNotFoundError, KeyError, TypeError) as error:
            return str(error) or type(error).__name__
        return None if store_key(recipe) == entry.name else "its recipe is not the one that it is named by"

    def link(self, key: str, files: Mapping[str, Path]) -> None:
        """Make files of an entry available under other paths, as hard links or copies.

        Args:
            key: Key of the entry.
            files: Target path of each file, by its name in the entry.
        """
        for name, target in files.items():
            with atomic_file(target) as temporary:
                link_or_copy(self.folder / key / name, temporary)

    def deliver_evaluation(self, key: str, header: dict[str, Any], *, metrics: Path, samples: Path) -> None:
        """Write the files of an experiment from its evaluation in the store.

        The samples become a hard link or a copy, and so do the answers to generative tasks, which are written beside
        the metrics if there are any. The metrics get `header` as their first fields.

        Args:
            key: Key of the evaluation.
            header: Fields of the experiment's plan for `metrics.json`, such as the names of model and experiment.
            metrics: File `metrics.json` to write.
            samples: File `samples.parquet` to write.
        """
        self.link(key, {SAMPLES: samples})
        answers = metrics.with_name(GENERATIONS)
        if (self.folder / key / GENERATIONS).is_file():
            self.link(key, {GENERATIONS: answers})
        else:
            answers.unlink(missing_ok=True)  # of an older config
        content = {**header, **read_json(self.folder / key / METRICS), SAMPLES_SHA256: sha256_of(samples)}
        write_result(metrics, content)

    @contextmanager
    def claim(self, key: str, *, wait: bool) -> Iterator[bool]:
        """Lock a piece of work during the block, so that no other process does it.

        Args:
            key: Key of its entry.
            wait: Whether to wait if another process has the lock.

        Yields:
            Whether this process has the lock. Always true with `wait`.
        """
        with locked(self.folder / f"{key}.lock", wait=wait) as held:
            yield held

"""Flip single bits in all result files of a finished study, and count what readers and the records find."""

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd
from benchmarks.bit_flips import content
from benchmarks.bit_flips import files_of as read_files

from espalier.errors import UserError
from espalier.evaluation.tokenised_requests import read_requests
from espalier.files import sha256_of_json
from espalier.results.store import CHECKSUMS, LOG, Store
from espalier.results.verify import RECORDS, verify

NOT_RESULTS = {"logs", "benchmarks"}
UNREAD, STORED, RECORD = "files that no job reads", "entries of stores", "records of checksums"
SHARED = "shared requests"
COLUMNS = ["flips", "refused by readers", "harmless", "silent without verify", "silent"]


def flip_all(finished: Path, n: int, seed: int, folder: Path) -> pd.DataFrame:
    """Flip one bit at a time, in a copy, and count what happens by the kind of the file.

    Args:
        finished: Results of a finished study.
        n: Number of flips.
        seed: Seed of the files and bits. Files are drawn with equal probability.
        folder: Folder for the copy.

    Returns:
        A row for each kind, and columns `flips`, `refused by readers` (or, of a store, dropped), `harmless` (its reader
        gets the same content), `silent without verify` and `silent` (not found by `espalier.results.verify` either).
    """
    results = folder / "flipped"
    shutil.copytree(finished, results)
    drawn, counts = random.Random(seed), dict[str, Counter[str]]()
    schemas: dict[Path, tuple[str, type | None]] = {path: (kind, schema) for kind, path, schema in read_files(results)}
    schemas |= dict.fromkeys(results.glob("requests/.shared/*.parquet"), (SHARED, None))
    for path in drawn.choices(result_files(results), k=n):
        data = path.read_bytes()
        before = None if path not in schemas else content(path, schemas[path][1])
        flipped = bytearray(data)
        bit = drawn.randrange(8 * len(data))
        flipped[bit // 8] ^= 1 << (bit % 8)
        _replace(path, bytes(flipped))
        kind, found = _read(path, schemas, before)
        counts.setdefault(kind, Counter())["flips"] += 1
        counts[kind][found] += 1
        counts[kind]["silent"] += found == "silent without verify" and not verify(results).problems
        _replace(path, data)
    table = pd.DataFrame(counts).T.reindex(columns=COLUMNS).fillna(0).astype(int)
    table.loc["all"] = table.sum()
    return table


def result_files(results: Path) -> list[Path]:
    """Return all files of a study but logs, measured times and empty files."""
    return [
        path
        for path in sorted(results.rglob("*"))
        if path.is_file() and path.stat().st_size and path.relative_to(results).parts[0] not in NOT_RESULTS
        and path.name not in {LOG, ".snakemake_timestamp"} and path.suffix != ".lock"
    ]  # fmt: skip


def _read(path: Path, schemas: dict[Path, tuple[str, type | None]], before: str | None) -> tuple[str, str]:
    """Read a flipped file as jobs do; return its kind and what happened."""
    if (path.parent / CHECKSUMS).is_file():
        with tempfile.TemporaryDirectory() as folder:  # the store deletes a damaged entry
            shutil.copytree(path.parent, Path(folder) / path.parent.name)
            sound = Store(Path(folder)).has(path.parent.name)
        return STORED, "silent without verify" if sound else "refused by readers"
    if RECORDS in path.parts:
        return RECORD, "silent without verify"
    if path not in schemas:
        return UNREAD, "silent without verify"
    kind, schema = schemas[path]
    try:
        if kind == SHARED and sha256_of_json(read_requests(path).recipe) != path.stem:
            return kind, "refused by readers"
        return kind, "harmless" if content(path, schema) == before else "silent without verify"
    except UserError:
        return kind, "refused by readers"


def _replace(path: Path, data: bytes) -> None:
    path.unlink()  # a hard link to the store keeps its content
    path.write_bytes(data)

"""Read and write whole files: an output is there completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from espalier.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; when the block succeeds, it takes the place of `path`.

    A folder that is there already is renamed, not deleted, until the new one is in its place. A kill between the two
    renames leaves it as `.{name}.*.old`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _beside(path, "part"), _beside(path, "old")
    try:
        temporary.mkdir()
        yield temporary
        _put_in_place(temporary, path, old)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, suffix: str) -> Path:
    """Name something temporary; the number of a process is not enough where several hosts share a folder."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.{suffix}")


def _put_in_place(new: Path, path: Path, old: Path) -> None:
    """Rename a folder to `path`; what is there goes to `old`, and comes back if the new one cannot take its place."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            path.rename(old)
        try:
            new.rename(path)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:  # another process put its own there just now
                shutil.rmtree(old, ignore_errors=True)
                continue
            if old.exists():
                old.rename(path)
            raise
        return


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON.

    Raises:
        ValueError: If a number is not finite (JSON has no NaN; store null and a reason).
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        UserError: If the file is not complete JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not complete JSON ({error}); delete it and run again") from None


def write_parquet(path: str | Path, table: pa.Table) -> None:
    """Write a Parquet file; equal tables give equal files."""
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_table(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a validated table as Parquet."""
    write_parquet(path, pa.Table.from_pandas(frame, preserve_index=False))


def read_parquet(path: str | Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some of its columns.

    Raises:
        UserError: If the file is corrupt or cut short.
    """
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: is not a complete Parquet file ({reason}); delete it and run again") from None


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(content: Any) -> str:
    """Return the SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

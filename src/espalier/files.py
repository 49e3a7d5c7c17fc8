"""Read and write whole files: an output is there completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from espalier.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

CHECKSUM = "content_sha256"
"""Key under which a result carries the SHA-256 of the rest of its content."""


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


def write_result(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a result as JSON with a checksum of its content, which `read_json` verifies and takes away.

    Not for files that an expensive rule reads (manifests, plans, the best experiment, descriptions of exports): made
    again after an upgrade, they would have other bytes than before and make all that follows stale.

    Raises:
        ValueError: As `write_json`.
    """
    as_read = json.loads(json.dumps(content, allow_nan=False))  # keys that are numbers become texts
    write_json(path, {**content, CHECKSUM: sha256_of_json(as_read)})


def read_json(path: str | Path) -> Any:
    """Read JSON, and verify its checksum if it has one (results of version 0.1.0 have none).

    Raises:
        UserError: If the file is not complete JSON, holds NaN or Infinity, or does not have its checksum.
    """

    def refuse(constant: str) -> None:
        raise UserError(f"{path}: holds {constant}, which is no number of JSON; delete it and run again")

    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not complete JSON ({error}); delete it and run again") from None
    expected = content.pop(CHECKSUM, None) if isinstance(content, dict) else None
    if expected is not None and (found := sha256_of_json(content)) != expected:
        raise UserError(
            f"{path}: its content has checksum {found[:12]}, not {expected[:12]} as when it was written; it was "
            "changed or damaged. Restore it, or delete it and run again"
        )
    return content


def write_parquet(path: str | Path, table: pa.Table) -> None:
    """Write a Parquet file with a checksum of each page; equal tables give equal files."""
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def write_table(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a validated table as Parquet."""
    write_parquet(path, pa.Table.from_pandas(frame, preserve_index=False))


def read_parquet(path: str | Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some of its columns; checksums of pages are verified where there are any.

    Raises:
        UserError: If the file is corrupt or cut short.
    """
    with _damage_named(path):
        return pq.read_table(path, columns=columns, page_checksum_verification=True)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote.

    Raises:
        UserError: As `read_parquet`.
    """
    with _damage_named(path):
        frame: pd.DataFrame = pq.read_table(path, page_checksum_verification=True).to_pandas()
        return frame


@contextlib.contextmanager
def _damage_named(path: str | Path) -> Iterator[None]:
    """Turn what libraries raise at a damaged file into one line; a footer without checksum may fail anywhere."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: is not a complete Parquet file ({reason}); delete it and run again") from None


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(content: Any) -> str:
    """Return the SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

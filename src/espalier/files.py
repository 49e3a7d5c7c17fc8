"""Files: written whole or not at all, read with their checksums, linked and locked on shared file systems.

Names of data formats are here, too. Every job imports this module, so pyarrow is imported only where a table is read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from espalier.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

logger = logging.getLogger(__name__)

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
    import pyarrow.parquet as pq

    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def write_table(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a validated table as Parquet."""
    import pyarrow as pa

    write_parquet(path, pa.Table.from_pandas(frame, preserve_index=False))


def read_parquet(path: str | Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some of its columns; checksums of pages are verified where there are any.

    Raises:
        UserError: If the file is corrupt or cut short.
    """
    import pyarrow.parquet as pq

    with _damage_named(path):
        return pq.read_table(path, columns=columns, page_checksum_verification=True)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote.

    Raises:
        UserError: As `read_parquet`.
    """
    import pyarrow.parquet as pq

    with _damage_named(path):
        frame: pd.DataFrame = pq.read_table(path, page_checksum_verification=True).to_pandas()
        return frame


@contextlib.contextmanager
def _damage_named(path: str | Path) -> Iterator[None]:
    """Turn what libraries raise at a damaged file into one line; a footer without checksum may fail anywhere."""
    import pyarrow as pa

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


# What shared file systems may lack: hard links and locks. Each has a substitute, which the log names once.
#
# Some mounts have no hard links (FUSE, object stores). Files are copied there.
#
# Some have no `flock` (Lustre without the mount option `flock`, NFS without a lock daemon). A lease takes the place of
# a lock there: a file that its holder touches every 40 seconds. It does not end with its process, so whoever wants it
# removes it after two minutes without a touch, timed on its own clock. In rare races two processes then hold one lease.
# What is locked here allows that: it costs double work and changes no result, since files are written whole. (The lock
# file of the cache may lose entries of what another study staged in that moment; its next `lock_cache` adds them.)

LEASE_S = 120.0
POLL_S = 0.5
_NO_LINKS = {
    errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EINVAL,
}  # fmt: skip
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_said: set[str] = set()
_touched: dict[Path, tuple[int, float]] = {}  # when a lease was touched last, and when this process first saw that


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` by a hard link, or copy it where the file system has no links.

    Raises:
        OSError: If the source is missing, the target exists, or it can be neither linked nor copied.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _say_once("links", f"{target.parent}: no hard links here ({error.strerror}); files are copied")
        shutil.copyfile(source, target)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock during the block.

    Args:
        path: The lock file; it stays behind.
        wait: Whether to wait for whoever has it.

    Yields:
        Whether the lock is held (always, when waiting).
    """
    lock = try_lock(path)
    while lock is None and wait:
        time.sleep(POLL_S)
        lock = try_lock(path)
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def try_lock(path: Path) -> BaseFileLock | None:
    """Take a lock without waiting; None if another process has it. It ends with `release`, or with this process."""
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        _say_once("locks", f"{path.parent}: no file locks here ({error}); leases of {LEASE_S:.0f} s take their place")
        return _try_lease(path.with_name(f"{path.name}.lease"))
    return lock


def _try_lease(path: Path) -> BaseFileLock | None:
    lease = SoftFileLease(path, lease_duration=LEASE_S)
    try:
        lease.acquire(timeout=0)
    except Timeout:
        if not _is_abandoned(path):
            return None
        lease.force_break()  # the library itself takes it over only where two files can be exchanged in one step
        try:
            lease.acquire(timeout=0)
        except Timeout:
            return None
    _touched.pop(path, None)
    return lease


def _is_abandoned(path: Path) -> bool:
    """Tell whether this process has waited for a touch of a lease as long as a lease lasts."""
    try:
        touched = path.stat().st_mtime_ns
    except FileNotFoundError:
        return False
    now = time.monotonic()
    seen = _touched.get(path)
    if seen is None or seen[0] != touched:
        _touched[path] = (touched, now)
        return False
    return now - seen[1] >= LEASE_S


def _say_once(what: str, message: str) -> None:
    if what not in _said:
        _said.add(what)
        logger.warning("%s", message)


COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".lz4")
TEXT_SUFFIXES = (
    ".parquet", *(plain + packed for plain in (".json", ".jsonl", ".txt") for packed in ("", *COMPRESSIONS)),
)  # fmt: skip
"""Of a text for calibration, perplexity or recovery."""

# `datasets`, which lm-eval reads documents with, unpacks the other compressions only with packages that are not here.
DOCUMENT_SUFFIXES = {
    ".parquet": "parquet",
    **{plain + packed: "json" for plain in (".jsonl", ".json") for packed in ("", ".gz", ".bz2", ".xz")},
}
"""Of the documents of a task, each with its builder of `datasets`."""

TEXT_FORMS = f".parquet, .json, .jsonl, .txt, the last three also compressed: {', '.join(COMPRESSIONS)}"
DOCUMENT_FORMS = ".parquet, .json or .jsonl (or .json.gz and the like: .gz, .bz2, .xz)"

# Files that are no text that is read here, and no repository either: data/c4.csv looks like owner/name.
OTHER_FILES = (*COMPRESSIONS, ".csv", ".tsv", ".ndjson", ".arrow", ".zip", ".tar", ".tgz")


def document_suffix(name: str) -> str | None:
    """Return the suffix of a file of documents, `.jsonl.gz` of `test.jsonl.gz`; None of another file."""
    return next((suffix for suffix in DOCUMENT_SUFFIXES if name.endswith(suffix) and name != suffix), None)


def split_name(path: Path) -> str:
    """Return the split that a file of documents holds: `test` for `test.jsonl.gz`."""
    return path.name.removesuffix(document_suffix(path.name) or "")


def document_files(paths: Iterable[Path]) -> list[str]:
    """Choose the files that tasks are read from, as inputs of a rule.

    What was an input before compressed files were read is one still, and a compressed copy beside such a file is none:
    another list of inputs would rerun finished studies.
    """
    found = list(paths)
    plain = {path for path in found if path.suffix in {".parquet", ".json", ".jsonl", ".txt"}}
    known = {(path.parent, path.stem) for path in plain}
    packed = {path for path in found if document_suffix(path.name) and (path.parent, split_name(path)) not in known}
    return sorted(map(str, plain | packed))

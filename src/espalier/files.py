"""Read and write files: atomic writes, checksums, hard links and locks on shared file systems.

Every job imports this module, so only the functions that read or write tables import pyarrow.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from espalier.errors import UserError, out_of_memory

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

logger = logging.getLogger(__name__)

CHECKSUM = "content_sha256"
"""Key of a result file that holds the SHA-256 of the rest of its content."""


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, and delete it otherwise.

    The file is on the disk before it gets its name, so a power failure leaves it whole or absent.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(path, "part")
    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)
        _flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` if the block succeeds, and delete it otherwise.

    An existing folder is first renamed to `.{name}.*.old`. It is deleted only after `path` exists again. If the process
    is killed between the two renames, the existing folder remains under that name. The content is on the disk before
    the folder gets its name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(path, "part")
    try:
        temporary.mkdir()
        yield temporary
        for inner in temporary.rglob("*"):
            _flush_to_disk(inner)
        _flush_to_disk(temporary)
        _replace_folder(path, temporary)
        _flush_to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush_to_disk(path: Path) -> None:
    """Write a file or the entries of a folder from memory to the disk, where the file system can (`fsync`)."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _temporary_path(path: Path, suffix: str) -> Path:
    """Return a temporary path beside `path`; hosts that share a folder may have equal process ids."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.{suffix}")


def _replace_folder(path: Path, new: Path) -> None:
    """Rename `new` to `path`; first move an existing folder aside, and move it back if that fails."""
    old = _temporary_path(path, "old")
    try:
        while True:
            with contextlib.suppress(FileNotFoundError):
                path.rename(old)
            try:
                new.rename(path)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                shutil.rmtree(old, ignore_errors=True)  # another process created `path` in the meantime
            else:
                break
    except BaseException:
        try:
            old.rename(path)
        except OSError:  # the error that is being raised says more
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)  # `path` may be missing now, while another process replaces it


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file, with the same line endings on every system."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file.

    Raises:
        ValueError: If a number is not finite. JSON has no NaN: store null and a reason instead.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_result(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a result as JSON with a checksum of its content, which `read_json` verifies and removes.

    Do not use this function for files that a cheap rule writes and an expensive rule reads (the best experiment,
    descriptions of exports). Older versions wrote those files without a checksum, and cheap rules run again after an
    upgrade. The checksum would change the bytes of these files, and everything that is computed from them would become
    stale.

    Raises:
        ValueError: If a number is not finite.
    """
    as_read = json.loads(json.dumps(content, allow_nan=False))  # JSON turns number keys into strings
    write_json(path, {**content, CHECKSUM: sha256_of_json(as_read)})


def read_json(path: str | Path) -> Any:
    """Read a JSON file, and verify its checksum if it has one.

    Results of early versions have no checksum.

    Raises:
        UserError: If the file is not complete JSON, contains NaN or Infinity, or does not match its checksum.
        FileNotFoundError: If the file does not exist.
    """
    try:
        content = strict_json(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not complete JSON ({error}); delete it and run again") from None
    if isinstance(content, dict) and any(_is_damaged_checksum_key(key) for key in content):
        raise UserError(f"{path}: the name of its checksum is damaged. Restore the file, or delete it and run again")
    expected = content.pop(CHECKSUM, None) if isinstance(content, dict) else None
    if expected is not None and (found := sha256_of_json(content)) != expected:
        raise UserError(
            f"{path}: its content has checksum {found[:12]}, not {expected[:12]} as when it was written; it was "
            "changed or damaged. Restore it, or delete it and run again"
        )
    return content


def strict_json(text: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: If it is not complete JSON, or holds NaN, Infinity or a number that is too large, such as `1e999`.
        RecursionError: If it is nested too deeply.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"holds {constant}, which is no number of JSON")

    def parse(number: str) -> float:
        value = float(number)
        if math.isinf(value):
            raise ValueError(f"holds {number[:20]}, which is too large a number")
        return value

    return json.loads(text, parse_constant=refuse, parse_float=parse)


def _is_damaged_checksum_key(key: str) -> bool:
    """Return whether a key differs from `CHECKSUM` in one character, so that the checksum would not be found."""
    return len(key) == len(CHECKSUM) and sum(a != b for a, b in zip(key, CHECKSUM, strict=True)) == 1


def write_parquet(path: str | Path, table: pa.Table, *, is_large: bool = False) -> None:
    """Write a Parquet file with a checksum for each page; equal tables give identical files.

    Args:
        path: Path of the file.
        table: The table.
        is_large: Whether to use the encodings that make numbers smallest: differences for whole numbers, bytes of equal
            significance side by side for others. Readers of Parquet from before 2020 do not know the second one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    encodings: dict[str, Any] = {}
    if is_large:
        whole = [field.name for field in table.schema if pa.types.is_integer(field.type)]
        others = [field.name for field in table.schema if pa.types.is_floating(field.type)]
        encodings = {
            "column_encoding": dict.fromkeys(whole, "DELTA_BINARY_PACKED") | dict.fromkeys(others, "BYTE_STREAM_SPLIT"),
            "use_dictionary": [name for name in table.column_names if name not in {*whole, *others}],
        }
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True, **encodings)


def write_table(
    path: str | Path,
    frame: pd.DataFrame,
    metadata: Mapping[str, Mapping[str, str]] | None = None,
    *,
    is_large: bool = False,
) -> None:
    """Write a validated table as Parquet.

    Args:
        path: Path of the file.
        frame: The table.
        metadata: Metadata of each column's field in the schema, such as its description and unit.
        is_large: As for `write_parquet`.
    """
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    if metadata is not None:
        fields = [field.with_metadata(dict(metadata.get(field.name, {}))) for field in table.schema]
        table = table.cast(pa.schema(fields, metadata=table.schema.metadata))
    write_parquet(path, table, is_large=is_large)


DELETE = "delete it and run again"
"""Remedy for a damaged file that a rule makes."""


def read_parquet(path: str | Path, *, columns: Sequence[str] | None = None, remedy: str = DELETE) -> pa.Table:
    """Read a Parquet file or some of its columns, and verify its page checksums if it has any.

    Args:
        path: The file.
        columns: Columns to read; None reads all.
        remedy: What the error tells to do.

    Raises:
        UserError: If the file is corrupt or truncated.
        FileNotFoundError: If the file does not exist.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Not `pq.read_table`: where memory is limited, it may wait forever for a thread that cannot be started. A buffer
    # needs no thread.
    with _parquet_errors(path, remedy):
        file = pq.ParquetFile(pa.py_buffer(Path(path).read_bytes()), page_checksum_verification=True)
        return file.read(columns=columns, use_threads=False)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote.

    Raises:
        UserError: If the file is corrupt or truncated.
        FileNotFoundError: If the file does not exist.
    """
    table = read_parquet(path)
    with _parquet_errors(path):
        frame: pd.DataFrame = table.to_pandas()
        return frame


@contextlib.contextmanager
def _parquet_errors(path: str | Path, remedy: str = DELETE) -> Iterator[None]:
    """Convert the errors that a damaged Parquet file causes into a `UserError` of one line.

    The footer of a Parquet file has no checksum, so a damaged footer can cause errors of many types.
    """
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if out_of_memory(error):  # the file may be intact
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: is not a complete Parquet file ({reason}); {remedy}") from None


def why_no_file(path: Path) -> str | None:
    """Return why an entry of a folder is no file that can be read, or None if it is one."""
    if path.is_file():
        return None
    if path.is_dir():
        return "is a folder, not a file"
    return "is a link to a file that does not exist" if path.is_symlink() else "is no regular file"


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def size_and_sha256(path: str | Path) -> dict[str, Any]:
    """Return the size of a file in bytes and its SHA-256 as JSON values, `bytes` and `sha256`."""
    return {"bytes": Path(path).stat().st_size, "sha256": sha256_of(path)}


def sha256_of_unchanged(path: str | Path) -> str:
    """Return the SHA-256 of a file as `sha256_of`, but read it only once in this process while it does not change."""
    stat = Path(path).stat()
    return _sha256_of_version(str(path), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _sha256_of_version(path: str, _mtime_ns: int, _size: int) -> str:
    return sha256_of(path)


def sha256_of_json(content: Any) -> str:
    """Return the SHA-256 of a JSON value in hexadecimal; the order of its keys does not matter."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# Shared file systems may have no hard links or no locks. Both have a fallback, which is logged once per process.
#
# Hard links: some mounts do not support them (FUSE, object stores). Files are copied there.
#
# Locks: some mounts do not support `flock` (Lustre without the mount option `flock`, NFS without a lock daemon). A
# lease is used there: a file that its holder touches every 40 seconds. A killed process leaves its lease behind.
# Another process therefore breaks a lease after two minutes without a touch, measured with its own clock. In rare races
# two processes hold the same lease. They then do the same work twice, but no result changes, because files are written
# atomically. (`cache/lock.yaml` may lose entries that another study staged at that moment. The next run of the rule
# `lock_cache` adds them again.)

LEASE_S = 120.0
LOCK_POLL_S = 0.5
_NO_LINKS = {
    errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EINVAL,
}  # fmt: skip
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_logged: set[str] = set()
_lease_mtimes: dict[Path, tuple[int, float]] = {}  # lease -> its mtime (ns), and when this process first saw that mtime


def link_or_copy(source: Path, target: Path) -> None:
    """Create `target` as a hard link to `source`, or as a copy if the file system has no hard links.

    Raises:
        OSError: If the source is missing or can be neither linked nor copied, or if a link would replace a file.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _warn_once("links", f"{target.parent}: no hard links here ({error.strerror}); files are copied")
        with atomic_file(target) as temporary:
            shutil.copyfile(source, temporary)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock during the block.

    Args:
        path: The lock file. It is not deleted afterwards.
        wait: Whether to wait while another process holds the lock.

    Yields:
        Whether this process holds the lock (always true with `wait`).
    """
    lock = try_lock(path)
    while lock is None and wait:
        time.sleep(LOCK_POLL_S)
        lock = try_lock(path)
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def try_lock(path: Path) -> BaseFileLock | None:
    """Acquire a lock without waiting, or return None if another process holds it.

    The lock is held until `release` is called or this process ends. Where a lease replaces the lock, other processes
    wait up to `LEASE_S` seconds longer if this process is killed.

    Raises:
        OSError: If the lock file cannot be opened.
    """
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        _warn_once("locks", f"{path.parent}: no file locks here ({error}); leases of {LEASE_S:.0f} s take their place")
        return _try_lease(path.with_name(f"{path.name}.lease"))
    return lock


def _try_lease(path: Path) -> BaseFileLock | None:
    lease = SoftFileLease(path, lease_duration=LEASE_S)
    try:
        lease.acquire(timeout=0)
    except Timeout:
        if not _is_stale(path):
            return None
        lease.force_break()  # filelock breaks a stale lease only on file systems that can swap two files atomically
        try:
            lease.acquire(timeout=0)
        except Timeout:
            return None
    _lease_mtimes.pop(path, None)
    return lease


def _is_stale(path: Path) -> bool:
    """Return whether this process has seen no touch of a lease for `LEASE_S` seconds."""
    try:
        mtime = path.stat().st_mtime_ns
    except FileNotFoundError:
        return False
    now = time.monotonic()
    seen = _lease_mtimes.get(path)
    if seen is None or seen[0] != mtime:
        _lease_mtimes[path] = (mtime, now)
        return False
    return now - seen[1] >= LEASE_S


def _warn_once(topic: str, message: str) -> None:
    if topic not in _logged:
        _logged.add(topic)
        logger.warning("%s", message)

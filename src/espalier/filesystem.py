"""What shared file systems may lack: hard links and locks. Each has a substitute, which the log names once.

Some mounts have no hard links (FUSE, object stores). Files are copied there.

Some have no `flock` (Lustre without the mount option `flock`, NFS without a lock daemon). A lease takes the place of a
lock there: a file that its holder touches every 40 seconds. It does not end with its process, so whoever wants it
removes it after two minutes without a touch, timed on its own clock. In rare races two processes then hold one lease.
What is locked here allows that: it costs double work and changes no result, since files are written whole. (The lock
file of the cache may lose entries of what another study staged in that moment; its next `lock_cache` adds them.)
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

LEASE_S = 120.0
POLL_S = 0.5
_NO_LINKS = {
    errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EINVAL,
}  # fmt: skip
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
logger = logging.getLogger(__name__)
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


@contextmanager
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

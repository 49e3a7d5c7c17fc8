"""One job, one GPU: local jobs that run side by side each take devices of their own.

A slot is a lock file for each device in a folder of this user on this machine; the lock ends with its process (or two
minutes later, where the file system has no locks).
CUDA_VISIBLE_DEVICES, if the user or a scheduler set it, says which devices there are. Where a scheduler gave a job just
what it asks for, nothing is taken; in a larger allocation, local jobs share its devices out among themselves. (Devices
may be numbered anew in each allocation, so slots of different allocations are kept apart.)
"""

from __future__ import annotations

import atexit
import getpass
import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import BaseFileLock

from espalier.errors import UserError
from espalier.files import try_lock

VISIBLE = "CUDA_VISIBLE_DEVICES"
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
POLL_S = 1.0
logger = logging.getLogger(__name__)
_held: list[BaseFileLock] = []  # until the process ends


def take_gpus(count: int, *, n_present: int, folder: Path | None = None) -> list[str]:
    """Take devices for the rest of this process and make only them visible; waits until enough are free.

    Call it before CUDA is first used.

    Args:
        count: Devices that this job asks for; 0 takes none.
        n_present: Devices of this machine (`n_present()`), counted where CUDA_VISIBLE_DEVICES does not list them.
        folder: Where the locks lie; by default one for this user in the folder of temporary files.

    Returns:
        Names of the devices, as in CUDA_VISIBLE_DEVICES; empty when nothing was taken, or devices are held already.

    Raises:
        UserError: If there are fewer devices than asked for.
    """
    devices = visible_devices(os.environ, n_present)
    allocation = next((os.environ[name] for name in SCHEDULERS if name in os.environ), None)
    if _held or count == 0 or not devices or (allocation is not None and len(devices) <= count):
        return []
    if count > len(devices):
        raise UserError(
            f"this job asks for {count} GPUs, but only {len(devices)} are visible ({', '.join(devices)}); lower "
            f"models[].gpus or widen {VISIBLE}"
        )
    if folder is None:
        parts = ("espalier-gpus", getpass.getuser(), *([allocation] if allocation else []))
        folder = Path(tempfile.gettempdir()) / "-".join(parts)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    taken = _wait_for(count, devices, folder)
    atexit.register(release_gpus)  # a lock would end by itself; what takes its place does not
    os.environ[VISIBLE] = ",".join(taken)
    logger.info("GPU %s", os.environ[VISIBLE])
    return taken


def n_present() -> int:
    """Count the NVIDIA devices of this machine without asking CUDA, which would fix what is visible."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def visible_devices(environment: Mapping[str, str], n_present: int) -> list[str]:
    """List the devices that this process may use."""
    if VISIBLE in environment:
        return [name.strip() for name in environment[VISIBLE].split(",") if name.strip() not in {"", "-1"}]
    return [str(number) for number in range(n_present)]


def release_gpus() -> None:
    """Give devices back before the process ends."""
    while _held:
        _held.pop().release()


def _wait_for(count: int, devices: Sequence[str], folder: Path) -> list[str]:
    """Take all or none, so that two jobs never wait for each other's."""
    waited = False
    while True:
        taken = _try_to_take(count, devices, folder)
        if taken:
            return taken
        if not waited:
            logger.info("waiting for %d of %d GPUs", count, len(devices))
            waited = True
        time.sleep(POLL_S)


def _try_to_take(count: int, devices: Sequence[str], folder: Path) -> list[str]:
    locks: dict[str, BaseFileLock] = {}
    for device in devices:
        lock = try_lock(folder / f"{device.replace('/', '-')}.lock")
        if lock is None:
            continue
        locks[device] = lock
        if len(locks) == count:
            _held.extend(locks.values())
            return list(locks)
    for lock in locks.values():
        lock.release()
    return []

"""Assign GPUs to jobs, so that local jobs that run in parallel use different devices.

Each device has a lock file in a folder of this user on this machine. A lock ends with its process, or two minutes later
where the file system has no locks. If the user or a scheduler set CUDA_VISIBLE_DEVICES, only the devices listed there
are used.

If the allocation of a scheduler has no more devices than the job asks for, nothing is locked. In a larger allocation,
local jobs divide the devices among themselves. Each allocation has its own lock files, because the same number may mean
different devices in different allocations.
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import logging
import os
import platform
import stat
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import BaseFileLock

from espalier.errors import UserError
from espalier.files import try_lock

VISIBLE_DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
GPU_POLL_S = 1.0
logger = logging.getLogger(__name__)
_held: list[BaseFileLock] = []  # locks that this process holds


def lock_gpus(count: int, *, n_present: int, folder: Path | None = None) -> list[str]:
    """Lock devices for the rest of this process and make only them visible; wait until enough devices are free.

    Call it before CUDA is first used.

    Args:
        count: Number of devices that this job asks for; 0 locks none.
        n_present: Number of devices of this machine (`count_gpus()`), used if CUDA_VISIBLE_DEVICES is not set.
        folder: Folder of the lock files; by default a folder of this user in the directory for temporary files.

    Returns:
        Names of the devices, as in CUDA_VISIBLE_DEVICES. Empty if this call locked nothing: the machine has no device,
        the process holds devices already, or the allocation of a scheduler has at most `count` devices.

    Raises:
        UserError: If some devices are visible, but fewer than `count`, and there is no scheduler.
    """
    devices = visible_devices(os.environ, n_present)
    allocation = next((os.environ[name] for name in SCHEDULERS if name in os.environ), None)
    if _held or count == 0 or not devices or (allocation is not None and len(devices) <= count):
        return []
    if count > len(devices):
        raise UserError(
            f"this job asks for {count} GPUs, but only {len(devices)} are visible ({', '.join(devices)}); lower "
            f"models[].gpus or widen {VISIBLE_DEVICES_VARIABLE}"
        )
    if folder is None:
        parts = ("espalier-gpus", getpass.getuser(), *([allocation] if allocation else []))
        folder = Path(tempfile.gettempdir()) / "-".join(parts)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_is_private(folder)
    taken = _wait_for(count, devices, folder)
    atexit.register(release_gpus)  # a lock ends with its process, but the lease that replaces it does not
    os.environ[VISIBLE_DEVICES_VARIABLE] = ",".join(taken)
    logger.info("GPU %s", os.environ[VISIBLE_DEVICES_VARIABLE])
    return taken


def _check_is_private(folder: Path) -> None:
    """Check that a folder in the shared temporary folder was made by this user and that only this user can write it.

    Raises:
        UserError: If it was not. Another user could otherwise hold the locks, or point them at files of this user.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise UserError(
            f"{folder}: is no folder of this user alone, so GPUs cannot be locked in it; delete it, or set TMPDIR to a "
            "folder of your own"
        )


def count_gpus() -> int:
    """Count the NVIDIA devices of this machine without CUDA, which would fix the list of visible devices."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def hardware_name(device: str) -> str:
    """Return the name of the GPU, or of the processor if there is no GPU or none is used. Imports torch.

    Args:
        device: `auto`, `cpu` or `cuda`.
    """
    import torch

    if device != "cpu" and torch.cuda.is_available():
        name: str = torch.cuda.get_device_name()
        return name
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def visible_devices(environment: Mapping[str, str], n_present: int) -> list[str]:
    """Return the names of the devices that this process may use."""
    if VISIBLE_DEVICES_VARIABLE in environment:
        return [
            name.strip() for name in environment[VISIBLE_DEVICES_VARIABLE].split(",") if name.strip() not in {"", "-1"}
        ]
    return [str(number) for number in range(n_present)]


def release_gpus() -> None:
    """Release all devices that this process holds."""
    while _held:
        _held.pop().release()


def _wait_for(count: int, devices: Sequence[str], folder: Path) -> list[str]:
    """Lock all devices at once or none, so that two jobs never wait for each other."""
    waited = False
    while True:
        taken = _try_to_lock(count, devices, folder)
        if taken:
            return taken
        if not waited:
            logger.info("waiting for %d of %d GPUs", count, len(devices))
            waited = True
        time.sleep(GPU_POLL_S)


def _try_to_lock(count: int, devices: Sequence[str], folder: Path) -> list[str]:
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

"""Lock of a study's results: only one run at a time may write them.

Snakemake locks its working directory. Two checkouts can share a results folder through a link or a network file system,
and would then wait for each other's files.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from espalier.errors import no_permission
from espalier.files import read_json

LOCK = ".run-lock.json"


def lock_results(results: str | Path) -> None:
    """Create the lock file in the results folder. It is deleted when this process exits.

    A lock that a process of this host left behind is replaced.

    Args:
        results: Folder of the study, `results/{study}`.

    Raises:
        SystemExit: If another run has the lock, with one line that names its host, process and start; or if the lock
            cannot be written.
    """
    path = Path(results) / LOCK
    own = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    content = {**own, "process_start": psutil.Process().create_time()}
    holder: dict[str, Any] = {}
    try:
        for _ in range(3):
            if _create(path, content):
                atexit.register(_unlock, path, content)
                return
            holder = _read(path)
            if not _is_stale(holder):
                break
            path.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError):
            found = next((one for one in path.parents if os.path.lexists(one) and not one.is_dir()), path.parent)
            raise SystemExit(f"{found}: is not a folder; move it away and run again") from None
        said = no_permission(error)
        raise SystemExit(
            said or f"{path}: the lock of this run cannot be written ({error.strerror}); make room and run again"
        ) from None
    raise SystemExit(
        f"{Path(results)}: another run writes these results (host {holder.get('host')}, process {holder.get('pid')}, "
        f"since {holder.get('since')}); wait for it, or delete {path} if that run is dead"
    )


def _create(path: Path, content: dict[str, Any]) -> bool:
    """Create the lock file, whole or not at all; return False if it exists.

    Raises:
        FileExistsError: If its folder is something else.
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(json.dumps(content))
    except OSError:  # a lock without content would keep all later runs out
        path.unlink(missing_ok=True)
        raise
    return True


def _read(path: Path) -> dict[str, Any]:
    """Read the lock file. Return an empty mapping if it is damaged or being written."""
    try:
        content = read_json(path)
    except Exception:  # noqa: BLE001 (whatever the file holds)
        return {}
    return content if isinstance(content, dict) else {}


def _is_stale(holder: dict[str, Any]) -> bool:
    """Return whether the process that wrote the lock ran on this host and has ended. Its number may be in use again."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        start: float = psutil.Process(int(holder["pid"])).create_time()
        return abs(start - float(holder["process_start"])) > 1
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
        return True


def _unlock(path: Path, content: dict[str, Any]) -> None:
    if os.getpid() == content["pid"] and _read(path) == content:
        with contextlib.suppress(OSError):  # the next run finds that the lock is stale
            path.unlink(missing_ok=True)

"""Lock of a study's results: only one run at a time may write them.

Snakemake locks its working directory. Two checkouts can share a results folder through a link or a network file system,
and would then wait for each other's files.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil

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
    for _ in range(3):
        try:
            _create(path, content)
        except FileExistsError:
            holder = _read(path)
            if not _is_stale(holder):
                break
            path.unlink(missing_ok=True)
        except OSError as error:
            raise SystemExit(
                f"{path}: the lock of this run cannot be written ({error.strerror}); make room or make the folder "
                "writable, and run again"
            ) from None
        else:
            atexit.register(_unlock, path, content)
            return
    raise SystemExit(
        f"{Path(results)}: another run writes these results (host {holder.get('host')}, process {holder.get('pid')}, "
        f"since {holder.get('since')}); wait for it, or delete {path} if that run is dead"
    )


def _create(path: Path, content: dict[str, Any]) -> None:
    """Create the lock file, whole or not at all.

    Raises:
        FileExistsError: If it exists.
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        try:
            file.write(json.dumps(content))
            file.flush()
        except OSError:  # a lock without content would keep all later runs out
            path.unlink(missing_ok=True)
            raise


def _read(path: Path) -> dict[str, Any]:
    """Read the lock file. Return an empty mapping if it is damaged or being written."""
    try:
        content = read_json(path)
    except Exception:  # noqa: BLE001 (whatever the file holds)
        return {}
    return content if isinstance(content, dict) else {}


def _is_stale(holder: dict[str, Any]) -> bool:
    """Whether the process that wrote the lock ran on this host and has ended. Its number may be in use again."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        start: float = psutil.Process(int(holder["pid"])).create_time()
        return abs(start - float(holder["process_start"])) > 1
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
        return True


def _unlock(path: Path, content: dict[str, Any]) -> None:
    if os.getpid() == content["pid"] and _read(path) == content:
        path.unlink(missing_ok=True)

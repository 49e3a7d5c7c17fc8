"""Run a study where the disk fills up, where the clock jumps, and where there are no hard links and no locks."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from benchmarks.torture.kills import count_losses, entries
from benchmarks.torture.studies import (
    RECOVERED,
    RESULTS,
    TABLES,
    copy_planned,
    copy_study,
    patched_python,
    run,
    run_to_end,
    table_hashes,
)

N_STAGES = 10
LARGE = "500m"
WITHOUT_LINKS_AND_LOCKS = '''
"""Python imports this module at its start. In results/, hard links and locks then fail as where there are none."""
import errno, fcntl, os

link, flock = os.link, fcntl.flock
results = os.path.abspath("results") + os.sep

def is_there(path):
    return os.path.abspath(path).startswith(results)

def fail():
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

def patched_link(source, target, **rest):
    return fail() if is_there(target) else link(source, target, **rest)

def patched_flock(handle, operation):
    number = handle if isinstance(handle, int) else handle.fileno()
    return fail() if is_there(os.readlink(f"/proc/self/fd/{number}")) else flock(handle, operation)

os.link, fcntl.flock = patched_link, patched_flock
'''


def fill_the_disk(finished: Path, folder: Path) -> pd.DataFrame:
    """Run a study on a small disk until it is full, make the disk a little larger, and go on, ten times.

    The disk is a tmpfs, which needs root. A first run measures how much the whole study needs.

    Args:
        finished: The same study, finished without disturbance.
        folder: Folder of the study.

    Returns:
        One row: `stages` (runs that failed), `named` (runs that failed with a line on the full disk), `tracebacks`,
        `lost`, `redone` and `other tables`.
    """
    copy_study(finished, folder)
    with _disk(folder):
        run_to_end(folder, TABLES)
        needed = shutil.disk_usage(folder / "results").used // 1024
    row = {"stages": 0, "named": 0, "tracebacks": 0, "lost": 0, "redone": 0}
    known: dict[Path, int] = {}
    with _disk(folder):
        for stage in range(N_STAGES):
            _resize(folder, f"{8 + needed * stage // N_STAGES}k")
            status, printed = run(folder, TABLES)
            (folder / f"stage-{stage}.txt").write_text(printed, encoding="utf-8")
            row["stages"] += status != 0
            row["named"] += status != 0 and "No space left on device" in printed
            row["tracebacks"] += "Traceback" in printed
            known = count_losses(folder, known, row)
        _resize(folder, LARGE)
        run_to_end(folder, TABLES)
        count_losses(folder, known, row)
        row["other tables"] = _n_other_tables(finished, folder)
    return pd.DataFrame({"full disk": row}).T


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Give a study an empty results folder on a disk of its own."""
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    shutil.rmtree(folder / ".snakemake", ignore_errors=True)
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "tmpfs", results], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", results], check=True)


def _resize(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", folder / "results"], check=True)


def set_the_clock_back(finished: Path, folder: Path) -> pd.DataFrame:
    """Move all times of a finished study an hour into the future, as if the clock was set back since; run again.

    Returns:
        One row: `jobs of a finished study` (of a run that should have nothing to do), then `redone` and `other tables`
        after one experiment was deleted and the study run again.
    """
    copy_study(finished, folder)
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            at = path.stat().st_mtime_ns + 3600 * 10**9
            os.utime(path, ns=(at, at))
    _, printed = run(folder, TABLES)
    known = entries(folder)
    row = {"jobs of a finished study": 0 if "Nothing to be done" in printed else printed.count("rule ") or 1}
    shutil.rmtree(min(folder.glob(f"{RESULTS}/experiments/*/random-*")))
    run_to_end(folder, TABLES)
    found = entries(folder)
    row["redone"] = sum(found.get(piece) != at for piece, at in known.items())
    row["other tables"] = _n_other_tables(finished, folder)
    return pd.DataFrame({"clock set back by an hour": row}).T


def without_links_and_locks(finished: Path, folder: Path) -> pd.DataFrame:
    """Evaluate a study whose plans are made, where hard links and locks fail.

    Returns:
        One row: `exit status`, `said` (warnings that name the fallbacks) and `other tables`.
    """
    copy_planned(finished, folder)
    status, printed = run(folder, TABLES, environment=patched_python(folder, WITHOUT_LINKS_AND_LOCKS))
    row = {"exit status": status, "said": sum(text in printed for text in ("no hard links here", "no file locks here"))}
    row["other tables"] = _n_other_tables(finished, folder)
    return pd.DataFrame({"no hard links and no locks": row}).T


def _n_other_tables(finished: Path, folder: Path) -> int:
    """Count the tables that differ, of those that the target makes."""
    found, expected = table_hashes(folder), table_hashes(finished)
    return sum(found.get(name) != expected[name] for name in expected if name != RECOVERED)

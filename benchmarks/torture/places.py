"""Run a study where the disk fills up, where the clock jumps, and where there are no hard links and no locks."""

import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
from benchmarks.torture.kills import entries
from benchmarks.torture.studies import (
    RECOVERED,
    RESULTS,
    TABLES,
    copy_planned,
    copy_study,
    run,
    run_to_end,
    table_hashes,
)

N_STAGES = 10
WITHOUT_LINKS_AND_LOCKS = '''
"""Python imports this module at its start: hard links and locks then fail as on file systems without them."""
import errno, fcntl, os

def fail(*_, **__):
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

os.link = fcntl.flock = fail
'''


def fill_the_disk(finished: Path, folder: Path) -> pd.DataFrame:
    """Run a study on a small disk until it is full, make the disk a little larger, and go on, ten times.

    The disk is a tmpfs, which needs root.

    Args:
        finished: The same study, finished without disturbance.
        folder: Folder of the study.

    Returns:
        One row: `stages`, `named` (runs that failed with a line on the full disk), `tracebacks`, `lost`, `redone` and
        `other tables`.
    """
    copy_study(finished, folder)
    shutil.rmtree(folder / "results")
    shutil.rmtree(folder / ".snakemake")
    results = folder / "results"
    results.mkdir()
    total = sum(-(-path.stat().st_blocks // 8) * 4 for path in (finished / "results").rglob("*"))  # KiB, whole pages
    row = {"stages": 0, "named": 0, "tracebacks": 0, "lost": 0, "redone": 0}
    known: dict[Path, int] = {}
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", results], check=True)
    try:
        for stage in range(N_STAGES):
            size = max(8, total * stage // (N_STAGES + 1))
            subprocess.run(["mount", "-o", f"remount,size={size}k", results], check=True)
            status, printed = run(folder, TABLES)
            row["stages"] += status != 0
            row["named"] += status != 0 and "No space left on device" in printed
            row["tracebacks"] += "Traceback" in printed
            found = entries(folder)
            row["lost"] += sum(piece not in found for piece in known)
            row["redone"] += sum(found.get(piece, at) != at for piece, at in known.items())
            known = found
            (folder / f"stage-{stage}.txt").write_text(printed, encoding="utf-8")
        subprocess.run(["mount", "-o", "remount,size=200m", results], check=True)
        run_to_end(folder, TABLES)
        found = entries(folder)
        row["redone"] += sum(found.get(piece, at) != at for piece, at in known.items())
        row["other tables"] = _n_other_tables(finished, folder)
    finally:
        subprocess.run(["umount", results], check=True)
    return pd.DataFrame({"full disk": row}).T


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
    patch = folder / "patch"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(WITHOUT_LINKS_AND_LOCKS, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(patch), os.environ.get("PYTHONPATH", "")]))
    status, printed = run(folder, TABLES, environment={"PYTHONPATH": path})
    row = {"exit status": status, "said": sum(text in printed for text in ("no hard links here", "no file locks here"))}
    row["other tables"] = _n_other_tables(finished, folder)
    return pd.DataFrame({"no hard links and no locks": row}).T


def _n_other_tables(finished: Path, folder: Path) -> int:
    """Count the tables that differ, of those that the target makes."""
    found, expected = table_hashes(folder), table_hashes(finished)
    return sum(found.get(name) != expected[name] for name in expected if name != RECOVERED)

"""Kill whole runs with SIGKILL, and compare what they leave with an undisturbed run."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from benchmarks.torture.studies import (
    RESULTS,
    TABLES,
    copy_planned,
    run_to_end,
    start,
    table_hashes,
    unlock,
    write_study,
)

RATIOS = (0.1, 0.15, 0.2, 0.25, 0.3)
SAMPLES = (2, 3)


def entries(folder: Path) -> dict[Path, int]:
    """Return every finished piece of work of a study, with the time at which it was written (ns)."""
    found = (folder / RESULTS).rglob("*/.store/*/checksums.json")
    return {path.parent: path.stat().st_mtime_ns for path in found if not path.parent.name.startswith(".")}


def count_losses(folder: Path, known: Mapping[Path, int], row: dict[str, int]) -> dict[Path, int]:
    """Count the known pieces of work that are missing (`lost`) or were written again (`redone`).

    Args:
        folder: Folder of the study.
        known: Pieces that were finished before, as `entries` returned them.
        row: The counts, which are increased in place.

    Returns:
        All pieces that are there now.
    """
    found = entries(folder)
    row["lost"] += sum(piece not in found for piece in known)
    row["redone"] += sum(found.get(piece, at) != at for piece, at in known.items())
    return found


def wait_at_random(folder: Path, process: subprocess.Popen[str], drawn: random.Random) -> None:  # noqa: ARG001
    """Wait 2 to 16 seconds, or until the run ends."""
    until = time.monotonic() + drawn.uniform(2, 16)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)


def wait_for_evaluation(folder: Path, process: subprocess.Popen[str], drawn: random.Random) -> None:
    """Wait until an evaluation writes its first file, then 1 ms to 2 s, in which it is stored and handed over.

    What earlier kills left is not waited for. The second wait is drawn by its logarithm: processors differ in speed.
    """
    stores = folder / RESULTS / "experiments"
    left = set(stores.glob(UNFINISHED))
    while process.poll() is None:
        if set(stores.glob(UNFINISHED)) - left:
            time.sleep(10 ** drawn.uniform(-3, 0.3))
            return
        time.sleep(0.001)


UNFINISHED = "*/.store/.*.part/*.parquet"
AT_RANDOM, AT_EVALUATION = "at a random moment", "while an evaluation is finished"
WAITS: dict[str, Callable[[Path, subprocess.Popen[str], random.Random], None]] = {
    AT_RANDOM: wait_at_random, AT_EVALUATION: wait_for_evaluation,
}  # fmt: skip


def kill_runs(n_kills: dict[str, int], folder: Path, seed: int = 0) -> pd.DataFrame:
    """Kill runs of a tiny study again and again, then finish it.

    If a study is finished before all kills are done, the next one begins: from nothing, or from the plans if the kills
    are at evaluations.

    Args:
        n_kills: Number of kills by moment (the keys of `WAITS`).
        folder: Folder for the studies. If it has a finished study `undisturbed`, that one is used.
        seed: Seed of the moments.

    Returns:
        A row for each moment, and columns `kills`, `finished pieces` (known at the kills, summed over them), `lost` and
        `redone` (pieces that were finished before a kill, and later are missing or were written again), and `other
        tables` (tables that differ in any byte from those of an undisturbed run).
    """
    undisturbed = folder / "undisturbed"
    if not undisturbed.is_dir():
        write_study(undisturbed, RATIOS, SAMPLES)
    run_to_end(undisturbed, TABLES)
    killed = _KilledStudies(folder, undisturbed, random.Random(seed))
    for moment, count in n_kills.items():
        for _ in range(count):
            killed.kill(moment)
    killed.finish()
    return pd.DataFrame(killed.rows).T


class _KilledStudies:
    """Studies whose runs are killed, one after the other, and what was counted."""

    def __init__(self, folder: Path, undisturbed: Path, drawn: random.Random) -> None:
        self.folder, self.undisturbed, self.drawn = folder, undisturbed, drawn
        self.rows: dict[str, dict[str, int]] = {}
        self.study: Path | None = None
        self.known: dict[Path, int] = {}
        self.n_studies = 0

    def kill(self, moment: str) -> None:
        """Kill one run at a moment; begin the next study if a run ends before."""
        columns = ("kills", "finished pieces", "lost", "redone", "other tables")
        self.row = self.rows.setdefault(moment, dict.fromkeys(columns, 0))
        while True:
            study = self.study or self._new_study(moment)
            unlock(study)
            process = start(study, TABLES)
            WAITS[moment](study, process, self.drawn)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                self.row["kills"] += 1
                self.known = count_losses(study, self.known, self.row)
                self.row["finished pieces"] += len(self.known)
                return
            process.communicate()
            self.finish()

    def finish(self) -> None:
        """Run the study to its end, and compare its tables."""
        if self.study:
            run_to_end(self.study, TABLES)
            self.known = count_losses(self.study, self.known, self.row)
            found, expected = table_hashes(self.study), table_hashes(self.undisturbed)
            self.row["other tables"] += sum(found.get(name) != expected[name] for name in expected)
            self.study = None

    def _new_study(self, moment: str) -> Path:
        self.n_studies += 1
        self.study, self.known = self.folder / f"killed-{self.n_studies}", {}
        if moment == AT_RANDOM:
            write_study(self.study, RATIOS, SAMPLES)
        else:
            copy_planned(self.undisturbed, self.study)
        return self.study

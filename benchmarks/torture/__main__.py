"""Try faults on a tiny study, and print what happens as tables: `make torture`.

    PYTHONPATH=src:. python -m benchmarks.torture                # everything: an hour of processor time
    PYTHONPATH=src:. python -m benchmarks.torture hostile --short

The exit status is 1 if anything was lost, redone, silently wrong or badly received (`docs/reliability.md`).
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from benchmarks.torture.damage import RIGHT, SECTIONS, TARGETS, damage_everything, damage_one_by_one
from benchmarks.torture.flips import flip_all
from benchmarks.torture.hostile import give_hostile_input
from benchmarks.torture.kills import AT_EVALUATION, AT_RANDOM, RATIOS, kill_runs
from benchmarks.torture.memory import limit_memory
from benchmarks.torture.places import fill_the_disk, set_the_clock_back, without_links_and_locks
from benchmarks.torture.read_only import make_read_only
from benchmarks.torture.stored import damage_stored, finish_race
from benchmarks.torture.studies import RESULTS, TABLES, add_neighbours, run_to_end, write_study

Found = tuple[pd.DataFrame, list[str]]
BAD_COLUMNS = ("lost", "redone", "other tables", "problems after", "silent", "tracebacks", "exit status")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="parts to run (all)")
    parser.add_argument("--short", action="store_true", help="fewer kills, flips and inputs")
    parser.add_argument("--folder", type=Path, default=Path("build/torture"), help="folder for the studies")
    options = parser.parse_args()
    faults = []
    for name in options.parts or PARTS:
        folder = (options.folder / name).resolve()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        table, lines = PARTS[name](folder, options.short)
        print(f"{name}\n\n{table.to_markdown()}\n", flush=True)
        faults += lines
    print(*faults, sep="\n")
    return bool(faults)


def _kills(folder: Path, short: bool) -> Found:
    n = 2 if short else 25
    return _checked(kill_runs({AT_RANDOM: n, AT_EVALUATION: n}, folder))


def _flips(folder: Path, short: bool) -> Found:
    return _checked(flip_all(_finished(folder) / RESULTS, 100 if short else 1000, seed=0, folder=folder))


def _damage(folder: Path, short: bool) -> Found:
    table, faults = _checked(damage_everything(_finished(folder), folder))
    if short:
        return table, faults
    race = folder / "race"
    finish_race(race)
    for found in (
        damage_one_by_one(folder / "finished", folder).rename(columns={"rule": "kind", "output": "path"}),
        damage_stored(folder / "finished", folder),
        damage_stored(race, folder, with_records=False),
    ):
        print(found.to_markdown(index=False), flush=True)
        wrong = found[~found.outcome.isin(RIGHT)]
        faults += [f"{row.path} {row.damage}: {row.outcome}" for row in wrong.itertuples()]
    return table, faults


def _read_only(folder: Path, short: bool) -> Found:  # noqa: ARG001
    table, faults = _checked(make_read_only(_finished(folder), folder))
    return table, faults + [f"{name}: unclear" for name in table.index[table.outcome == "unclear"]]


def _hostile(folder: Path, short: bool) -> Found:
    return give_hostile_input(folder, 8 if short else 1)


def _places(folder: Path, short: bool) -> Found:  # noqa: ARG001
    finished = folder / "finished"
    write_study(finished, RATIOS)
    run_to_end(finished, TABLES)
    trials = {"disk": fill_the_disk, "clock": set_the_clock_back, "links": without_links_and_locks}
    return _checked(pd.concat([trial(finished, folder / name) for name, trial in trials.items()]))


def _memory(folder: Path, short: bool) -> Found:  # noqa: ARG001
    return _checked(limit_memory(folder))


PARTS: dict[str, Callable[[Path, bool], Found]] = {
    "hostile": _hostile, "kills": _kills, "flips": _flips, "damage": _damage, "places": _places,
    "memory": _memory, "read_only": _read_only,
}  # fmt: skip


def _finished(folder: Path) -> Path:
    """Run a tiny study of two models to its end, with recovery, exports and GGUF files."""
    study = folder / "finished"
    write_study(study, sections=SECTIONS)
    add_neighbours(study)
    run_to_end(study, *TARGETS)
    return study


def _checked(table: pd.DataFrame) -> Found:
    """Return a table with a line for each cell that should be zero and is not."""
    cells = [(row, column) for row in table.index for column in BAD_COLUMNS if column in table]
    return table, [
        f"{row}: {column} {value:.0f}"
        for row, column in cells
        if pd.notna(value := table.loc[row, column]) and value != 0
    ]


if __name__ == "__main__":
    sys.exit(main())

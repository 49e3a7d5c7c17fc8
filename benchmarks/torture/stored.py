"""Damage files that no job declares as its outputs: those of stores and races, and the records of checksums."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import yaml
from benchmarks.torture.damage import DAMAGES, TARGETS, files_of, outcome_of, swap_outputs
from benchmarks.torture.studies import (
    RESULTS,
    add_neighbours,
    copy_study,
    fast_runs,
    run_to_end,
    table_hashes,
    write_study,
)

from espalier.files import read_json, write_parquet
from espalier.results.verify import RECORDS
from espalier.sandbox.corpora import make_task_documents
from espalier.sandbox.splits import splits
from espalier.sandbox.world import make_world

RACING: dict[str, Any] = {"confidence": 0.05, "rungs": [0.6, 1.0]}
"""With so little confidence, an experiment is stopped as soon as it is behind."""
N_DOCUMENTS = 60
FROM_STORES = ("collect_gradients", "evaluate", "evaluate_baseline", "evaluate_recovered", "measure_priors")
"""Rules whose jobs hand over files from a store."""
_NOT_RESULTS = {"job.log", "timing.json"}
_ENTRY = "[0-9a-f]" * 32


class Victim(NamedTuple):
    """A file or folder to damage, with its kind.

    Attributes:
        kind: What it is.
        path: Its path under the results.
        neighbour: A file or folder of its kind that it is exchanged with, if there is one.
        unneeded: Patterns of files and folders that are deleted, so that it is read again.
    """

    kind: str
    path: str
    neighbour: str | None
    unneeded: tuple[str, ...] = ()


def finish_race(study: Path) -> None:
    """Run a tiny study of two models with a race to its end."""
    write_study(study, samples=(2, 3))
    world = make_world(0)
    for split in splits("piqa"):
        documents = pa.Table.from_pylist(make_task_documents(world, "piqa", split, N_DOCUMENTS, 0))
        write_parquet(study / f"tasks/piqa/{split}.parquet", documents)
    add_neighbours(study)
    config = yaml.safe_load((study / "study.yaml").read_text(encoding="utf-8"))
    config["evaluation"]["racing"] = RACING
    (study / "study.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    run_to_end(study)


def damage_stored(finished: Path, folder: Path, *, with_records: bool = True) -> pd.DataFrame:
    """Damage one file of each kind at a time in a finished study, delete what was made from it, and run.

    Args:
        finished: A finished study with neighbours; it is not changed.
        folder: Folder for damaged copies.
        with_records: Whether records of checksums are damaged, too.

    Returns:
        A row for each trial, and columns `kind`, `path`, `damage`, `outcome` and `runs`, as for
        `benchmarks.torture.damage.damage_one_by_one`.
    """
    rows, expected = [], table_hashes(finished)
    victims = [*_stored(finished / RESULTS), *(_records(finished / RESULTS) if with_records else ())]
    targets = TARGETS if "recovery" in (finished / "study.yaml").read_text(encoding="utf-8") else ("all",)
    with fast_runs() as run:
        for victim in victims:
            for damage, change in DAMAGES.items():
                is_folder = (finished / RESULTS / victim.path).is_dir()
                if victim.neighbour is None if damage == "swapped" else is_folder:
                    continue
                study = folder / "damaged"
                copy_study(finished, study)
                path = study / RESULTS / victim.path
                if damage == "swapped":
                    swap_outputs(path, study / RESULTS / str(victim.neighbour))
                else:
                    change([path])
                _delete_what_was_made(study / RESULTS, victim.unneeded)
                outcome, n_runs = outcome_of(run, study, path, expected, targets)
                rows.append({
                    "kind": victim.kind, "path": victim.path, "damage": damage, "outcome": outcome, "runs": n_runs,
                })  # fmt: skip
                shutil.rmtree(study)
                pd.DataFrame(rows).to_csv(folder / "outcomes.csv", index=False)
    return pd.DataFrame(rows)


def _stored(results: Path) -> Iterator[Victim]:
    """Yield a file of each kind in the stores of a model, and folders of answers."""
    for store in sorted(results.glob("*/A/.store")):
        what = store.relative_to(results).parts[0]
        for name in sorted({path.name for path in store.glob(f"{_ENTRY}/*")} - _NOT_RESULTS):
            yield _first(f"{what}: {name}", results, sorted(store.glob(f"{_ENTRY}/{name}")))
        made_from_answers = tuple(f"{store.relative_to(results)}/{name}" for name in (_ENTRY, "race-*"))
        for kind, pattern, unneeded in (
            ("answers", f"*.answers/{_ENTRY}/*", made_from_answers), ("facts", f"facts/{_ENTRY}/*", made_from_answers),
            ("race", "race-*/rung-*.json", ()),
        ):  # fmt: skip
            for name in sorted({path.name for path in store.glob(pattern)} - _NOT_RESULTS):
                same = sorted(store.glob(pattern.rpartition("/")[0] + f"/{name}"))
                others = sorted(results.glob(f"*/B/.store/{pattern.rpartition('/')[0]}/{name}"))
                yield _first(f"{what}, {kind}: {name}", results, same if len(same) > 1 else same + others, unneeded)
        if folders := sorted(store.glob("*.answers")):
            yield _first(f"{what}, all answers", results, folders, made_from_answers)


def _records(results: Path) -> Iterator[Victim]:
    """Yield a record of each rule."""
    root = results / RECORDS
    rules = sorted(path for path in root.iterdir() if path.is_dir() or path.suffix == ".json")
    single = [path for path in rules if path.suffix == ".json"]
    for rule in rules:
        found = sorted(rule.rglob("[!.]*.json")) if rule.is_dir() else [rule, *(one for one in single if one != rule)]
        yield _first(f"record of {rule.stem}", results, found, ("consolidated", "reports"))


def _first(kind: str, results: Path, found: list[Path], unneeded: tuple[str, ...] = ()) -> Victim:
    names = [path.relative_to(results).as_posix() for path in found[:2]]
    return Victim(kind, names[0], names[1] if len(names) > 1 else None, unneeded)


def _delete_what_was_made(results: Path, unneeded: tuple[str, ...]) -> None:
    """Delete the tables, what jobs took from stores, and whatever matches a pattern."""
    records = [path for rule in FROM_STORES for path in (results / RECORDS / rule).rglob("[!.]*.json")]
    handed_over = [] if "consolidated" in unneeded else [
        results / name for path in records for name in _outputs(path)
    ]  # fmt: skip
    tables = [path for path in files_of(results / "consolidated") if path.name != "global_best_config.json"]
    for path in (*handed_over, *tables, *(path for pattern in unneeded for path in results.glob(pattern))):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _outputs(record: Path) -> list[str]:
    return list(read_json(record)["outputs"])

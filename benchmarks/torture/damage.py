"""Damage the result files of a finished study, then do what the messages say, and compare the results."""

import os
import re
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pandas as pd
from benchmarks.torture.studies import RESULTS, Run, copy_study, fast_runs, table_hashes

from espalier.files import read_json
from espalier.results.verify import RECORDS, verify

TARGETS = ("all", "export", "recovered")
SECTIONS = {
    "recovery": {"seq_len": 32, "n_sequences": 4, "batch_size": 2, "epochs": 1},
    "export": {"formats": ["transformers", "gguf"]},
}
"""Sections of the config of a study whose results include recovery, exports and GGUF files."""
MOST_RUNS = 8
_ERROR = re.compile(r"^\[[^]]*\] error: (.*)$", re.MULTILINE)
_NAMED = re.compile(r"\b[Dd]elete (\S*results/\S+?)(?:;|,| and run again| if that)")
_BOTH = re.compile(r"(results/\S+?): .* but (\S+) .*[Dd]elete both and run again")
_RECORD = re.compile(r"^(\S*results/\S+?): this record .*delete it$")
_IT = re.compile(r"(results/\S+?): .*[Dd]elete it and run again")


def outputs_of(study: Path) -> list[Path]:
    """Return the outputs of all jobs, files and folders, in the order of their paths."""
    records = (study / RESULTS / RECORDS).rglob("[!.]*.json")
    return sorted(study / RESULTS / name for record in records for name in read_json(record)["outputs"])


def files_of(output: Path) -> list[Path]:
    """Return the files of an output."""
    return sorted(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else [output]


def truncate(files: list[Path]) -> None:
    """Cut each file in half."""
    for path in files:
        os.truncate(path, path.stat().st_size // 2)


def empty(files: list[Path]) -> None:
    """Empty each file."""
    for path in files:
        os.truncate(path, 0)


def swap(files: list[Path]) -> None:
    """Give each file the content of the next one; the last gets that of the first."""
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, [*contents[1:], *contents[:1]], strict=True):
        path.unlink()  # a hard link to the store keeps its content
        path.write_bytes(content)


DAMAGES: dict[str, Callable[[list[Path]], None]] = {"truncated": truncate, "emptied": empty, "swapped": swap}


def damage_everything(finished: Path, folder: Path) -> pd.DataFrame:
    """Damage all files of a finished study at once, delete what `espalier.results.verify` says, and run again.

    Args:
        finished: A finished study; it is not changed.
        folder: Folder for damaged copies.

    Returns:
        A row for each damage, and columns `files`, `outputs`, `found` (outputs that the check names), `runs` (until the
        study was finished, after whatever the messages say was deleted), `exit status` (of the last run), `problems
        after` (of another check after the runs) and `other tables`.
    """
    rows, expected = {}, table_hashes(finished)
    with fast_runs() as run:
        for name, change in DAMAGES.items():
            study = folder / name
            copy_study(finished, study)
            outputs = [path for path in outputs_of(study) if path.exists()]
            files = [path for output in outputs for path in files_of(output) if path.stat().st_size > 1]
            change(files)
            lines = verify(study / RESULTS).problems
            named = [path for line in lines for path in told_by(line)]
            delete(named)
            healed = heal(run, study)
            rows[name] = {
                "files": len(files), "outputs": len(outputs), "found": len(set(named) & set(outputs)),
                "runs": healed.n_runs, "exit status": healed.status,
                "problems after": len(verify(study / RESULTS).problems),
                "other tables": sum(table_hashes(study).get(key) != value for key, value in expected.items()),
            }  # fmt: skip
            (folder / f"{name}.txt").write_text(healed.printed, encoding="utf-8")
    return pd.DataFrame(rows).T


def damage_one_by_one(
    finished: Path, folder: Path, damages: tuple[str, ...] = tuple(DAMAGES), rules: Collection[str] = ()
) -> pd.DataFrame:
    """Damage one output of each kind at a time and run, without the check: what do the jobs that read the file say?

    Args:
        finished: A finished study with neighbours (`espalier.results.verify` finds no problem in it).
        folder: Folder for damaged copies.
        damages: Keys of `DAMAGES`.
        rules: Only outputs of these rules are damaged; empty for all rules.

    Returns:
        A row for each damage and each output of each rule, and columns `outcome` and `runs`. The outcome is

        - `named`: a message named the file, and the study was right after what the message said;
        - `remade`: the file was made again without a message;
        - `found by verify`: no job read it, the check names it, and the study was right after what the check said;
        - else a fault.
    """
    rows: list[dict[str, object]] = []
    expected = table_hashes(finished)
    with fast_runs() as run:
        for rule, output, neighbour in kinds_of_outputs(finished):
            for damage in damages:
                if (rules and rule not in rules) or (damage == "swapped" and neighbour is None):
                    continue
                study = folder / "damaged"
                copy_study(finished, study)
                path = study / RESULTS / output
                if damage == "swapped" and neighbour is not None:
                    swap_outputs(path, study / RESULTS / neighbour)
                else:
                    DAMAGES[damage](files_of(path))
                outcome, n_runs = outcome_of(run, study, path, expected)
                rows.append({"rule": rule, "output": output, "damage": damage, "outcome": outcome, "runs": n_runs})
                shutil.rmtree(study)
                pd.DataFrame(rows).to_csv(folder / "outcomes.csv", index=False)
    return pd.DataFrame(rows)


RIGHT = ("named", "remade", "found by verify")


def kinds_of_outputs(finished: Path) -> list[tuple[str, str, str | None]]:
    """Return for each rule each of its outputs of one job, and the same output of another job if there is one."""
    records: dict[str, list[list[str]]] = {}
    root = finished / RESULTS / RECORDS
    for record in sorted(root.rglob("[!.]*.json")):
        rule = record.relative_to(root).parts[0].removesuffix(".json")
        records.setdefault(rule, []).append(list(read_json(record)["outputs"]))
    return [
        (rule, output, jobs[1][number] if len(jobs) > 1 else None)
        for rule, jobs in records.items()
        for number, output in enumerate(jobs[0])
    ]


def swap_outputs(one: Path, other: Path) -> None:
    """Exchange two outputs, files or folders."""
    aside = one.with_name(f"{one.name}.aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    for path in (*files_of(one), *files_of(other)):
        os.utime(path)  # Snakemake then compares the content


class Healed:
    """What happened until a study was finished.

    Attributes:
        told: Files that messages named for deletion.
        n_runs: Number of runs.
        status: Exit status of the last run.
        printed: What the runs printed.
    """

    def __init__(self) -> None:
        self.told: set[Path] = set()
        self.n_runs, self.status, self.printed = 0, 0, ""


def heal(run: Run, study: Path, targets: Sequence[str] = TARGETS) -> Healed:
    """Run a damaged study until it succeeds, and delete after each run exactly what its messages say.

    It ends before if a run fails and names nothing new.
    """
    healed = Healed()
    while healed.n_runs < MOST_RUNS:
        healed.n_runs += 1
        healed.status, printed = run(study, *targets)
        healed.printed += printed
        if healed.status == 0:
            break
        new = {study / path for line in _ERROR.findall(printed) for path in told_by(line)}
        delete(new)
        healed.told |= new
        if not new:
            break
    return healed


def told_by(line: str) -> list[Path]:
    """Return the files and folders that a line tells to delete."""
    if found := _BOTH.search(line):
        return [Path(found.group(1)), Path(found.group(2))]
    found = _RECORD.search(line) or _NAMED.search(line) or _IT.search(line)
    return [Path(found.group(1))] if found else []


def delete(paths: set[Path] | list[Path]) -> None:
    """Delete files and folders."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def outcome_of(
    run: Run, study: Path, path: Path, expected: dict[str, str], targets: Sequence[str] = TARGETS
) -> tuple[str, int]:
    """Heal a study in which one file or folder was damaged; return the outcome and the number of runs."""
    healed = heal(run, study, targets)
    if healed.status:
        return f"stuck: {[line[:300] for line in _ERROR.findall(healed.printed)[-2:]]}", healed.n_runs
    outcome = "named" if path in healed.told else "remade"
    if problems := verify(study / RESULTS).problems:
        outcome = "found by verify"
        delete([told for line in problems for told in told_by(line)])
        again = heal(run, study, targets)
        healed.n_runs += again.n_runs
        if again.status or (left := verify(study / RESULTS).problems):
            return f"not healed: {(left or problems)[:2]}", healed.n_runs
    found = table_hashes(study)
    if any(found.get(key) != value for key, value in expected.items()):
        return f"wrong tables after: {outcome}", healed.n_runs
    return outcome, healed.n_runs

"""Damage the result files of a finished study, then do what the messages say, and compare the results."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from benchmarks.torture.studies import RESULTS, copy_study, run, table_hashes

from espalier.files import read_json
from espalier.results.verify import RECORDS, verify

TARGETS = ("all", "export", "recovered")
SECTIONS = {
    "recovery": {"seq_len": 32, "n_sequences": 4, "batch_size": 2, "epochs": 1},
    "export": {"formats": ["transformers", "gguf"]},
}
"""Sections of the config of a study whose results include recovery, exports and GGUF files."""
MOST_RUNS = 8


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
        A row for each damage, and columns `files`, `found` (files of outputs that the check names; it names one file of
        each output), `outputs deleted as told`, `problems after` (of another check after the run) and `other tables`.
    """
    rows, expected = {}, table_hashes(finished)
    for name, change in DAMAGES.items():
        study = folder / name
        copy_study(finished, study)
        outputs = [path for path in outputs_of(study) if path.exists()]
        files = [path for output in outputs for path in files_of(output) if path.stat().st_size > 1]
        change(files)
        lines = verify(study / RESULTS).problems
        told = delete_as_told(lines)
        named = [path for output in told for path in files if path.is_relative_to(output)]
        status, printed = run(study, *TARGETS)
        row = {"files": len(files), "found": len(named), "outputs deleted as told": len(told)}
        row["exit status"] = status
        row["problems after"] = len(verify(study / RESULTS).problems)
        row["other tables"] = sum(table_hashes(study).get(key) != value for key, value in expected.items())
        if status:
            (folder / f"{name}.txt").write_text(printed, encoding="utf-8")
        rows[name] = row
    return pd.DataFrame(rows).T


def damage_one_by_one(finished: Path, folder: Path, damages: tuple[str, ...] = tuple(DAMAGES)) -> pd.DataFrame:
    """Damage one file of each kind at a time and run, without the check: what do the jobs that read the file say?

    Returns:
        A row for each damage and each rule, and columns `output`, `outcome` and `runs`. The outcome is `named` if a
        message named the file and the study was right after what the message said, `remade` if the file was made again
        without a message, `left` if nothing read it and the check finds it, and `wrong` if tables differ.
    """
    rows, expected = [], table_hashes(finished)
    for record in sorted((finished / RESULTS / RECORDS).rglob("[!.]*.json")):
        rule = record.relative_to(finished / RESULTS / RECORDS).parts[0]
        if any(row["rule"] == rule for row in rows):
            continue
        for output in read_json(record)["outputs"]:
            for damage in damages:
                study = folder / f"{len(rows)}"
                copy_study(finished, study)
                path = study / RESULTS / output
                DAMAGES[damage](files_of(path) if damage != "swapped" else _with_neighbour(path))
                outcome, n_runs = _run_as_told(study, output, expected)
                rows.append({"rule": rule, "output": output, "damage": damage, "outcome": outcome, "runs": n_runs})
                shutil.rmtree(study)
    return pd.DataFrame(rows)


def _with_neighbour(path: Path) -> list[Path]:
    others = [one for one in sorted(path.parent.parent.rglob(f"*{path.suffix}")) if one.is_file() and one != path]
    return [*files_of(path), *others[:1]]


def _run_as_told(study: Path, output: str, expected: dict[str, str]) -> tuple[str, int]:
    """Run a damaged study until it succeeds, and delete what its messages say; return the outcome and the runs."""
    told: set[Path] = set()
    for n_runs in range(1, MOST_RUNS + 1):
        status, printed = run(study, *TARGETS)
        if status == 0:
            break
        new = {study / path for path in re.findall(r"(results/\S+?): .*delete it and run again", printed)}
        for path in new:
            path.unlink(missing_ok=True)
        if not new:
            return f"stuck: {printed[-300:]}", n_runs
        told |= new
    found = table_hashes(study)
    if any(found.get(key) != value for key, value in expected.items()):
        return "wrong", n_runs
    if verify(study / RESULTS).problems:
        return "left", n_runs
    return ("named" if study / RESULTS / output in told else "remade"), n_runs


def delete_as_told(lines: list[str]) -> list[Path]:
    """Delete the outputs that lines of the check name; return them."""
    told = [Path(found.group(1)) for line in lines if (found := re.search(r"or delete (\S+) and run again", line))]
    for path in told:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return told

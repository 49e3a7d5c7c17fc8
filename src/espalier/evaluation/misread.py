"""Values of documents that the library `datasets` reads as something else than the file says.

Its reader of JSON takes a text such as `2024-01-01` for a time if all values of the field look so, and writes it as
`2024-01-01 00:00:00`. If two splits have different types of a field, the values of one of them are converted.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from espalier.evaluation.task_rules import RULE_ERRORS, Rules
from espalier.evaluation.tasks import task_files
from espalier.text_files import listed, read_given_parquet, read_json_rows

MOST_ROWS = 5
"""Rows with the same changed fields whose written forms are compared."""


def misread_row(rules: Rules, folder: Path) -> str | None:
    """Return an error line for the first row of a split that is scored or shown as another text than the file's.

    Fields that the task does not use may be read as anything.

    Args:
        rules: Rules of the task for the documents of the split.
        folder: Folder with the files of the task.
    """
    path, dataset = task_files(str(rules.task.config.task), folder).get(rules.split), rules.task.dataset
    loaded = dataset.get(rules.split) if isinstance(dataset, dict) else None
    if path is None or loaded is None:
        return None
    tried, rows = Counter[tuple[str, ...]](), list(rows_of(path))
    if len(rows) != len(loaded):
        return f"{path}: has {len(rows)} rows, but the library `datasets` reads {len(loaded)}; write the file again"
    for number, ((place, row), read) in enumerate(zip(rows, loaded, strict=True)):
        changed = tuple(field for field, value in row.items() if not is_same(value, read.get(field)))
        tried[changed] += 1
        if changed and tried[changed] <= MOST_ROWS and _is_written_otherwise(rules, row, loaded.select([number])):
            field = changed[0]
            return (
                f"{path}: {place}: {listed([field])} is {reprlib.repr(row[field])}, but the library `datasets` reads "
                f"{reprlib.repr(read.get(field))}; give all splits as Parquet, with {listed([field])} as a text"
            )
    return None


def rows_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the place and the fields of each row of a file."""
    if path.suffix == ".parquet":
        return ((f"row {number}", row) for number, row in enumerate(read_given_parquet(path).to_pylist()))
    return read_json_rows(path)


def is_same(given: Any, read: Any) -> bool:
    """Return whether a value was read as it is in the file. `1`, `"1"`, 1.0 and True count as the same."""
    if isinstance(given, dict) and isinstance(read, dict):
        return all(is_same(value, read.get(key)) for key, value in given.items())
    if isinstance(given, list | tuple) and isinstance(read, list | tuple):
        return len(given) == len(read) and all(map(is_same, given, read))
    if isinstance(given, bytes):
        return bool(given == read or given.decode(errors="replace") == read)
    return bool(given == read) or str(given) == str(read)


def _is_written_otherwise(rules: Rules, row: dict[str, Any], loaded: datasets.Dataset) -> bool:
    """Return whether the question, choices or answer of a row differ from those of its values in the file."""
    try:
        forms = [_written(rules, one) for one in (datasets.Dataset.from_list([row]), loaded)]
    except (*RULE_ERRORS, OSError, datasets.exceptions.DatasetsError):  # what cannot be written is refused anyway
        return False
    return not is_same(*forms)


def _written(rules: Rules, rows: datasets.Dataset) -> list[tuple[Any, ...]]:
    task = rules.task
    process = task.fewshot_cfg.process_docs if rules.solved else task.config.process_docs
    return [tuple(rules.write(document)) for document in (process(rows) if process else rows)]

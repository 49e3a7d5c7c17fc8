"""Build the table of one search folder (`espalier.tables.ImportedValues`) and the listing of its problems.

The table has one row per value, so that any number of tasks, texts and layers fits one strict schema. The column `part`
gives the meaning of a row. Every experiment has one row with part `status`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from espalier.results.legacy.read import OK, Reading

TEXTS = ("method", "criterion", "item", "name", "text")
WHOLE = ("taylor_seq_len", "taylor_num_samples", "layer", "n_samples")
NUMBERS = ("pruning_ratio", "value", "stderr")
VALUE_COLUMNS = ("part", "item", "name", "layer", "value", "stderr", "n_samples", "text")
FACT_COLUMNS = (
    "model", "search_folder", "folder", "source", "experiment", "method", "criterion", "taylor_seq_len",
    "taylor_num_samples", "pruning_ratio", "status",
)  # fmt: skip
STATUS, NOTE, PARAMS, TASK, PERPLEXITY, GRADIENT, LAYER = (
    "status", "note", "params", "task", "perplexity", "gradient", "layer",
)  # fmt: skip


def import_table(search: Mapping[str, Any], readings: Iterable[tuple[Mapping[str, Any], Reading]]) -> pd.DataFrame:
    """Return the table of one search folder.

    Args:
        search: `model`, `search_folder`, `method`, `criterion` and `pruning_ratio` of the search folder.
        readings: For each experiment, `FoundExperiment.to_dict()` and the content of its files.
    """
    rows = []
    for found, reading in readings:
        facts = {
            **search,
            "folder": found["folder"],
            "source": found["source"],
            "experiment": found["name"],
            "taylor_seq_len": found["seq_len"],
            "taylor_num_samples": found["n_samples"],
            "status": reading.status,
        }
        rows += [facts | value for value in _values(reading)]
    frame = pd.DataFrame(rows, columns=[*FACT_COLUMNS, *VALUE_COLUMNS])
    types = dict.fromkeys(TEXTS, "str") | dict.fromkeys(WHOLE, "Int64") | dict.fromkeys(NUMBERS, "float64")
    others = {column: "str" for column in frame.columns if column not in types}
    return frame.astype(others | types)


def listing(search: Mapping[str, Any], table: pd.DataFrame, not_read: Sequence[str]) -> dict[str, Any]:
    """Summarise an import as JSON values.

    Args:
        search: `model`, `search_folder`, `method`, `criterion` and `pruning_ratio` of the search folder.
        table: Table of the search folder.
        not_read: Names of folders that are not experiments.

    Returns:
        The values of `search`; `experiments`: their number in total and by status; `not_used`: status and reasons of
        each experiment that is not `ok`; `notes`: notes of each experiment that is `ok`; `not_read`.
    """
    folders = table.drop_duplicates("folder")
    notes = table[table["part"] == NOTE].groupby("folder", sort=False)["text"].agg(list).to_dict()
    status = folders.set_index("folder")["status"].to_dict()
    return {
        **search,
        "experiments": {"total": len(folders), **dict(sorted(Counter(folders["status"]).items()))},
        "not_used": {
            folder: {"status": value, "reasons": notes.get(folder, [])}
            for folder, value in status.items()
            if value != OK
        },
        "notes": {folder: found for folder, found in notes.items() if status[folder] == OK},
        "not_read": list(not_read),
    }


def listing_lines(listed: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a listing for the log. Experiments with the same note share a line."""
    for folder, content in listed["not_used"].items():
        yield f"{folder}: {content['status']}: {content['reasons'][0] if content['reasons'] else 'no reason known'}"
    folders: dict[str, list[str]] = {}
    for folder, notes in listed["notes"].items():
        for note in notes:
            folders.setdefault(note, []).append(folder)
    for note, found in folders.items():
        yield f"{note}: {found[0] if len(found) == 1 else f'{len(found)} experiments, {found[0]} to {found[-1]}'}"
    if listed["not_read"]:
        yield f"folders that are no experiments, not read: {', '.join(listed['not_read'])}"


def _values(reading: Reading) -> Iterator[dict[str, Any]]:
    yield {"part": STATUS, "text": reading.status}
    for number, note in enumerate(reading.notes):
        yield {"part": NOTE, "name": str(number), "text": note}
    params = {
        "n_params": reading.evaluated.n_params or reading.compared.params_after,
        "params_before": reading.compared.params_before,
        "params_after": reading.compared.params_after,
        "removed_param_fraction": reading.removed_param_fraction,
        "extreme_pruning_layers": reading.extreme_pruning_layers,
    }
    yield from ({"part": PARAMS, "name": name, "value": value} for name, value in params.items())
    for task, content in reading.evaluated.tasks.items():
        for metric, value in content["metrics"].items():
            yield {"part": TASK, "item": task, "name": metric, "n_samples": content["n_samples"], **value}
    for text, value in reading.evaluated.perplexity.items():
        yield {"part": PERPLEXITY, "item": text, "value": value}
    yield from ({"part": GRADIENT, "name": name, "value": value} for name, value in reading.diagnosed.metrics.items())
    for layer in reading.compared.layers:
        for name, value in layer.items():
            if name != "layer":
                yield {"part": LAYER, "name": name, "layer": layer["layer"], "value": value}

"""Build the table of one search folder (`espalier.tables.ImportedValues`) and the summary of its problems.

The table has one row per value, so that any number of tasks, texts and layers fits one strict schema. The column `part`
gives the meaning of a row. Every experiment has one row with part `status`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from espalier.results.legacy.read import OK, LegacyExperiment
from espalier.results.legacy.scan import FoundExperiment, SearchFacts

TEXT_COLUMNS = ("method", "criterion", "item", "name", "text")
INTEGER_COLUMNS = ("taylor_seq_len", "taylor_num_samples", "layer", "n_samples")
FLOAT_COLUMNS = ("pruning_ratio", "value", "stderr")
VALUE_COLUMNS = ("part", "item", "name", "layer", "value", "stderr", "n_samples", "text")
FACT_COLUMNS = (
    "model", "search_folder", "folder", "source", "experiment", "method", "criterion", "taylor_seq_len",
    "taylor_num_samples", "pruning_ratio", "status",
)  # fmt: skip
STATUS, NOTE, PARAMS, TASK, PERPLEXITY, GRADIENT, LAYER = (
    "status", "note", "params", "task", "perplexity", "gradient", "layer",
)  # fmt: skip


def import_table(search: SearchFacts, experiments: Iterable[tuple[FoundExperiment, LegacyExperiment]]) -> pd.DataFrame:
    """Return the table of one search folder.

    Args:
        search: The search folder.
        experiments: Each experiment in it, and the content of its files.
    """
    rows = []
    for found, content in experiments:
        facts = {
            **asdict(search),
            "folder": found.folder,
            "source": found.source,
            "experiment": found.name,
            "taylor_seq_len": found.seq_len,
            "taylor_num_samples": found.n_samples,
            "status": content.status,
        }
        rows += [facts | value for value in _value_rows(content)]
    frame = pd.DataFrame(rows, columns=[*FACT_COLUMNS, *VALUE_COLUMNS])
    types = (
        dict.fromkeys(TEXT_COLUMNS, "str")
        | dict.fromkeys(INTEGER_COLUMNS, "Int64")
        | dict.fromkeys(FLOAT_COLUMNS, "float64")
    )
    others = {column: "str" for column in frame.columns if column not in types}
    return frame.astype(others | types)


def import_summary(search: SearchFacts, table: pd.DataFrame, not_read: Sequence[str]) -> dict[str, Any]:
    """Summarise an import as JSON values.

    Args:
        search: The search folder.
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
        **asdict(search),
        "experiments": {"total": len(folders), **dict(sorted(Counter(folders["status"]).items()))},
        "not_used": {
            folder: {"status": value, "reasons": notes.get(folder, [])}
            for folder, value in status.items()
            if value != OK
        },
        "notes": {folder: texts for folder, texts in notes.items() if status[folder] == OK},
        "not_read": list(not_read),
    }


def summary_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a summary for the log. Experiments with the same note share a line."""
    for folder, content in summary["not_used"].items():
        yield f"{folder}: {content['status']}: {content['reasons'][0] if content['reasons'] else 'no reason known'}"
    folders: dict[str, list[str]] = {}
    for folder, notes in summary["notes"].items():
        for note in notes:
            folders.setdefault(note, []).append(folder)
    for note, names in folders.items():
        yield f"{note}: {names[0] if len(names) == 1 else f'{len(names)} experiments, {names[0]} to {names[-1]}'}"
    if summary["not_read"]:
        yield f"folders that are no experiments, not read: {', '.join(summary['not_read'])}"


def _value_rows(experiment: LegacyExperiment) -> Iterator[dict[str, Any]]:
    yield {"part": STATUS, "text": experiment.status}
    for index, note in enumerate(experiment.notes):
        yield {"part": NOTE, "name": str(index), "text": note}
    params = {
        "n_params": experiment.evaluation.n_params or experiment.comparison.params_after,
        "params_before": experiment.comparison.params_before,
        "params_after": experiment.comparison.params_after,
        "removed_param_fraction": experiment.removed_param_fraction,
        "extreme_pruning_layers": experiment.extreme_pruning_layers,
    }
    yield from ({"part": PARAMS, "name": name, "value": value} for name, value in params.items())
    for task, result in experiment.evaluation.tasks.items():
        for name, metric in result.metrics.items():
            yield {"part": TASK, "item": task, "name": name, "n_samples": result.n_samples, **asdict(metric)}
    for text, value in experiment.evaluation.perplexity.items():
        yield {"part": PERPLEXITY, "item": text, "value": value}
    yield from (
        {"part": GRADIENT, "name": name, "value": value} for name, value in experiment.diagnosis.metrics.items()
    )
    for layer in experiment.comparison.layers:
        for name, value in asdict(layer).items():
            if name != "layer":
                yield {"part": LAYER, "name": name, "layer": layer.layer, "value": value}

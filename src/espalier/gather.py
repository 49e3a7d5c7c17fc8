"""Read the results of computed experiments from their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from espalier.consolidate import Finished, check_recipe, layer_rows
from espalier.files import read_json, read_parquet
from espalier.planning.structure import ModelStructure

Entry = Mapping[str, Any]


def gather(
    entries: Sequence[Entry], *, protocol: Mapping[str, Any], version: int, missing: Iterable[str]
) -> tuple[list[Finished], list[dict[str, Any]]]:
    """Read every experiment of a study, and the rows of the layers table.

    Args:
        entries: As `Sweep.entries`: what the config says of an experiment, and where its results lie.
        protocol: Configured evaluation protocol.
        version: Current version of the evaluation.
        missing: Files of metrics that may be missing.

    Raises:
        UserError: If a result was made by other settings than those configured.
    """
    paths = {entry["gradients"] for entry in entries if entry["gradients"] and Path(entry["gradients"]).exists()}
    gradients = {path: read_parquet(path).to_pandas() for path in sorted(paths)}
    absent = set(missing)
    finished, layers = [], []
    for entry in entries:
        one = _read(entry, gradients.get(entry["gradients"]), is_missing=entry["metrics"] in absent)
        check_recipe(one, protocol=protocol, version=version, settings=entry["settings"])
        finished.append(one)
        if one.plan:
            structure = ModelStructure.from_dict(read_json(entry["manifest"])["structure"])
            layers += layer_rows(dict(one.plan), structure)
    return finished, layers


def _read(entry: Entry, statistics: pd.DataFrame | None, *, is_missing: bool) -> Finished:
    if statistics is not None:
        statistics = statistics[statistics.n_samples == entry["facts"]["taylor_num_samples"]]
    has_plan = entry["plan"] and not (is_missing and not Path(entry["plan"]).exists())
    plan = read_json(entry["plan"]) if has_plan else None
    if not is_missing:
        return Finished(entry["facts"], read_json(entry["metrics"]), plan, statistics)
    failure = Path(entry["failure"])
    reason = read_json(failure)["reason"] if failure.exists() else None
    return Finished(entry["facts"], None, plan, statistics, reason)

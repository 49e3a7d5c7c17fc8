"""Read the results of computed experiments from their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier.consolidate import Finished, check_recipe, gradient_metrics, layer_rows
from espalier.errors import UserError
from espalier.files import read_json, read_table
from espalier.planning.structure import ModelStructure

Entry = Mapping[str, Any]
Summaries = dict[str, dict[int, dict[str, float | None]]]
"""What summarises the gradients of each table, by sample count."""


def gather(
    entries: Sequence[Entry], *, protocol: Mapping[str, Any], version: int, missing: Mapping[str, str | None]
) -> tuple[list[Finished], list[dict[str, Any]]]:
    """Read every experiment of a study, and the rows of the layers table.

    Args:
        entries: As `Sweep.entries`: what the config says of an experiment, and where its results lie.
        protocol: Configured evaluation protocol.
        version: Current version of the evaluation.
        missing: Files of metrics that may be missing, each with why its experiment failed, if it did.

    Raises:
        UserError: If a result was made by other settings than those configured.
    """
    summaries: Summaries = {}
    structures: dict[str, ModelStructure] = {}
    finished, layers = [], []
    for entry in entries:
        is_missing = entry["metrics"] in missing
        plan = _plan(entry, is_missing=is_missing)
        one = _read(entry, plan, _summary(entry, summaries), missing)
        check_recipe(one, protocol=protocol, version=version, settings=entry["settings"])
        finished.append(one)
        path = entry["manifest"]
        if plan and Path(path).exists():  # missing where results may be, if the model is refused by now
            if path not in structures:
                structures[path] = ModelStructure.from_dict(read_json(path)["structure"])
            layers += layer_rows(plan, structures[path])
    return finished, layers


def _plan(entry: Entry, *, is_missing: bool) -> dict[str, Any] | None:
    """Read the plan of an experiment, if it has one."""
    if not entry["plan"] or (is_missing and not Path(entry["plan"]).exists()):
        return None
    plan: dict[str, Any] = read_json(entry["plan"])
    return plan


def _summary(entry: Entry, summaries: Summaries) -> Mapping[str, float | None] | None:
    """Summarise the gradient of an experiment; experiments of one setting share it."""
    path = entry["gradients"]
    if not path or not Path(path).exists():
        return None
    if path not in summaries:
        table: Any = read_table(path)
        summaries[path] = {int(n): gradient_metrics(rows) for n, rows in table.groupby("n_samples")}
    n_samples = entry["facts"]["taylor_num_samples"]
    if n_samples not in summaries[path]:
        raise UserError(f"{path}: has no statistics of {n_samples} samples; run `snakemake gradients` first")
    return summaries[path][n_samples]


def _read(
    entry: Entry,
    plan: Mapping[str, Any] | None,
    gradients: Mapping[str, float | None] | None,
    missing: Mapping[str, str | None],
) -> Finished:
    # Without its layers: ten thousand plans of a large model are a gigabyte.
    facts = plan and {key: value for key, value in plan.items() if key != "layers"}
    if entry["metrics"] in missing:
        return Finished(entry["facts"], None, facts, gradients, missing[entry["metrics"]])
    return Finished(entry["facts"], read_json(entry["metrics"]), facts, gradients)

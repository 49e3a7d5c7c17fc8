"""The experiments table with the uncertainty and costs of each experiment: `reports/experiments.parquet`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from espalier.naming import BASELINE, ratio_key
from espalier.tables import AnalysedExperiments

_FLOATS = ("acc_mean_low", "acc_mean_high", "acc_kept", "acc_kept_low", "acc_kept_high")
_BOOLEANS = ("in_set", "in_simultaneous_set")
_WHOLE = ("kv_cache_bytes_per_token", "flops_per_token")


def analysed_experiments(experiments: pd.DataFrame, analyses: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Add intervals, sets, accuracy kept and costs to the experiments table.

    Args:
        experiments: The experiments table.
        analyses: Result of `analyse_model` for each model.
    """
    rows = [_more(row, analyses.get(str(row["model"]))) for row in experiments.to_dict("records")]
    more = pd.DataFrame(rows, columns=[*_FLOATS, *_BOOLEANS, *_WHOLE], index=experiments.index)
    types = dict.fromkeys(_FLOATS, "float64") | dict.fromkeys(_BOOLEANS, "boolean") | dict.fromkeys(_WHOLE, "Int64")
    analysed: pd.DataFrame = AnalysedExperiments.validate(pd.concat([experiments, more.astype(types)], axis=1))
    return analysed


def _more(row: Mapping[Any, Any], analysis: Mapping[str, Any] | None) -> dict[str, Any]:
    if analysis is None:
        return {}
    name, baseline = str(row["experiment"]), analysis["baseline"]
    costs = analysis["costs"] or {"baseline": None, "experiments": {}}
    if name == BASELINE:
        own = analysis["uncertainty"]["baseline"]
        kept = 1.0 if baseline is not None and baseline["acc_mean"] else None
        return _ends("acc_mean", own["interval"]) | {"acc_kept": kept} | _costs(costs["baseline"])
    content = analysis["by_ratio"][ratio_key(row["pruning_ratio"])]
    own = content["uncertainty"]["experiments"].get(name)
    if own is None:
        return _costs(costs["experiments"].get(name))
    comparable = baseline is not None and baseline["acc_mean"] and None not in baseline["tasks"].values()
    return {
        **_ends("acc_mean", own["interval"]),
        "acc_kept": float(row["acc_mean"]) / baseline["acc_mean"] if comparable else None,
        **_ends("acc_kept", own["acc_kept_interval"]),
        "in_set": own["in_set"],
        "in_simultaneous_set": own["in_simultaneous_set"],
        **_costs(costs["experiments"].get(name)),
    }


def _ends(name: str, interval: list[float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _costs(found: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if found is None else {key: found[key] for key in _WHOLE}

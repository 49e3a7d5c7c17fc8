"""Perplexity ratio of each experiment to the unpruned model on each text, with an interval paired over windows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from espalier.analysis.message_json import reason_fields
from espalier.files import read_json
from espalier.naming import BASELINE
from espalier.statistics.bootstrap import LEVEL
from espalier.statistics.perplexities import NO_WINDOWS, paired_ratio

Texts = Mapping[str, Mapping[str, Any]]
"""Perplexity of each text as in `metrics.json`: `value` and, except in old results, losses and tokens of windows."""


def read_perplexities(samples: Mapping[str, str | Path]) -> dict[str, Texts]:
    """Read the perplexities of experiments from the `metrics.json` next to each samples table.

    Args:
        samples: Path of the `samples.parquet` of each experiment.

    Returns:
        Perplexities by experiment and text. An experiment without `metrics.json` is left out.
    """
    files = {name: Path(path).with_name("metrics.json") for name, path in samples.items()}
    return {name: read_json(file)["perplexity"] for name, file in files.items() if file.is_file()}


def ratios_to_unpruned(perplexities: Mapping[str, Texts], experiment: str) -> dict[str, dict[str, Any]]:
    """Compare the perplexities of an experiment with those of the unpruned model.

    Args:
        perplexities: Perplexities of each experiment and of the unpruned model, by text.
        experiment: Name of the experiment.

    Returns:
        For each text that both have: `ratio`, `interval` (lower and upper end, or null), `level`, `n_windows`,
        `n_blocks`, `reason` (why `interval` is null) and `why` (the reason as a message).

    Raises:
        UserError: If the numbers of windows differ, or the loss of a window is not finite.
    """
    ours, unpruned = perplexities.get(experiment, {}), perplexities.get(BASELINE, {})
    return {text: _compare(ours[text], unpruned[text]) for text in ours if text in unpruned}


def _compare(ours: Mapping[str, Any], unpruned: Mapping[str, Any]) -> dict[str, Any]:
    if "window_losses" not in ours or "window_losses" not in unpruned:
        nothing = {"interval": None, "level": LEVEL, "n_windows": None, "n_blocks": None}
        return {"ratio": ours["value"] / unpruned["value"], **nothing, **reason_fields(NO_WINDOWS)}
    found = paired_ratio(
        np.array(ours["window_losses"]), np.array(unpruned["window_losses"]), np.array(ours["window_tokens"])
    )
    return {
        "ratio": found.ratio,
        "interval": None if found.interval is None else list(found.interval),
        "level": LEVEL,
        "n_windows": found.n_windows,
        "n_blocks": found.n_blocks,
        **reason_fields(found.reason),
    }

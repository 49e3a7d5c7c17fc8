"""Perplexity ratio of each experiment to the unpruned model on each text, as JSON.

`espalier.statistics.perplexities` computes the interval, which is paired over windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from espalier.analysis.message_json import reason_fields
from espalier.files import read_json
from espalier.naming import BASELINE
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL
from espalier.statistics.perplexities import NO_WINDOWS, WindowLosses, paired_ratio

TextPerplexities = Mapping[str, Mapping[str, Any]]
"""Perplexity of each text as in `metrics.json`: `value` and, except in old results, losses and tokens of windows."""


def read_perplexities(samples: Mapping[str, str | Path]) -> dict[str, TextPerplexities]:
    """Read the perplexities of experiments from the `metrics.json` next to each samples table.

    Args:
        samples: Path of the `samples.parquet` of each experiment.

    Returns:
        Perplexities by experiment and text. An experiment without `metrics.json` is left out.
    """
    files = {name: Path(path).with_name("metrics.json") for name, path in samples.items()}
    return {name: read_json(file)["perplexity"] for name, file in files.items() if file.is_file()}


def ratios_to_unpruned(perplexities: Mapping[str, TextPerplexities], experiment: str) -> dict[str, dict[str, Any]]:
    """Compare the perplexities of an experiment with those of the unpruned model.

    Args:
        perplexities: Perplexities of each experiment and of the unpruned model, by text.
        experiment: Name of the experiment.

    Returns:
        For each text that both have: `ratio`, `interval` (lower and upper end, or null), `level`, `n_windows`,
        `n_blocks`, `reason` (why `interval` is null) and `why` (the reason as a message).

    Raises:
        UserError: If the windows of the two models differ, or the loss of a window is not finite.
    """
    pruned, unpruned = perplexities.get(experiment, {}), perplexities.get(BASELINE, {})
    return {text: _ratio_json(pruned[text], unpruned[text]) for text in pruned if text in unpruned}


def _ratio_json(pruned: Mapping[str, Any], unpruned: Mapping[str, Any]) -> dict[str, Any]:
    if "window_losses" not in pruned or "window_losses" not in unpruned:
        missing = {"interval": None, "level": CONFIDENCE_LEVEL, "n_windows": None, "n_blocks": None}
        return {"ratio": pruned["value"] / unpruned["value"], **missing, **reason_fields(NO_WINDOWS)}
    paired = paired_ratio(_window_losses(pruned), _window_losses(unpruned))
    return {
        "ratio": paired.ratio,
        "interval": None if paired.interval is None else list(paired.interval),
        "level": CONFIDENCE_LEVEL,
        "n_windows": paired.n_windows,
        "n_blocks": paired.n_blocks,
        **reason_fields(paired.reason),
    }


def _window_losses(text: Mapping[str, Any]) -> WindowLosses:
    return WindowLosses(np.array(text["window_losses"]), np.array(text["window_tokens"]))

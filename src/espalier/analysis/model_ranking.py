"""Models ordered by what they keep: `comparisons.ranking` in `analysis_summary.json`.

The value of a model is its mean over the settings that all models have, so no model gains by the selection of its best
experiment or by an easier grid. The differences between models belong to the family of all differences over models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from espalier.analysis.common_settings import experiments_of_common_settings
from espalier.analysis.contrasts import Values
from espalier.analysis.message_json import reason_fields, to_plain_json
from espalier.analysis.selection import ModelRows, valid_rows
from espalier.messages.catalogue import Message, Value
from espalier.statistics.bootstrap import percentile_interval
from espalier.statistics.contrasts import SimultaneousContrasts
from espalier.statistics.validation import FloatArray

LISTED_PAIRS = 6
"""A sentence with more pairs has only their number."""


@dataclass(frozen=True)
class ModelRanking:
    """The values of the models at one pruning ratio.

    Attributes:
        models: Names of the models, highest value first.
        n_settings: Number of settings that all of them have.
        means: Value of each model, its mean over these settings.
        draws: The same in each draw, (n_draws,).
        reason: Why there is no ranking; None if there is one.
    """

    models: tuple[str, ...]
    n_settings: int
    means: Mapping[str, float]
    draws: Mapping[str, FloatArray]
    reason: Message | None = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every two models, the higher one first."""
        return list(combinations(self.models, 2))

    def difference(self, pair: tuple[str, str]) -> tuple[float, FloatArray]:
        """Return the difference of two models, and its value in each draw, (n_draws,)."""
        first, second = pair
        return self.means[first] - self.means[second], self.draws[first] - self.draws[second]


def rank_models(models: Sequence[ModelRows], ratio: float, values: Mapping[str, Values]) -> ModelRanking:
    """Order models by their mean value over the settings that all of them have.

    Models without a valid experiment at the ratio are left out.

    Args:
        models: Rows of the models.
        ratio: Pruning ratio.
        values: Values of the experiments of each model, of one measure.
    """
    present = [model for model in models if len(valid_rows(model.at(ratio)))]
    if len(present) < 2:
        return ModelRanking((), 0, {}, {}, Message("few_models_at_ratio"))
    experiments = experiments_of_common_settings(present, ratio)
    if not experiments[0]:
        return ModelRanking((), 0, {}, {}, Message("no_setting_of_all"))
    means, draws = {}, {}
    for model, names in zip(present, experiments, strict=True):
        chosen = values[model.model].draws.select(names)
        means[model.model], draws[model.model] = float(chosen.accuracy.mean()), chosen.draws.mean(axis=1)
    order = sorted(means, key=lambda name: (-means[name], name))
    return ModelRanking(tuple(order), len(experiments[0]), means, draws)


def no_ranking(reason: Message) -> dict[str, Any]:
    """Return the content of a ratio at which models are not ordered."""
    return {"n_settings": 0, "models": [], "differences": [], **reason_fields(reason)}


def ranking_json(ranking: ModelRanking, found: SimultaneousContrasts, first: int) -> dict[str, Any]:
    """Return a ranking as JSON content: the mean of each model with its 95% interval, and all differences.

    Args:
        ranking: The ranking.
        found: Simultaneous intervals of the family.
        first: Index of the first pair of the ranking in the family; the others follow.
    """
    differences = [
        {
            "first": one,
            "second": other,
            "difference": float(found.estimate[index]),
            "interval": to_plain_json(found.intervals[index]),
            "differs": bool(found.differs[index]),
        }
        for index, (one, other) in enumerate(ranking.pairs, start=first)
    ]
    return {
        "n_settings": ranking.n_settings,
        "models": [
            {
                "model": name,
                "mean": ranking.means[name],
                "interval": to_plain_json(percentile_interval(ranking.draws[name])),
            }
            for name in ranking.models
        ],
        "differences": differences,
        **reason_fields(ranking.reason),
    }


def model_messages(ranking: Mapping[str, Any], measure: str) -> list[Message]:
    """State which models keep more than which others, one sentence for each model, and which are not told apart.

    Args:
        ranking: A ranking as JSON content.
        measure: `kept` or `accuracy`.
    """
    n, rows = ranking["n_settings"], ranking["differences"]
    settings = Message("one_setting" if n == 1 else "several_settings", {"n": n})
    messages = []
    for one in ranking["models"]:
        lower = [
            Message(
                "model_lower",
                {
                    "model": row["second"], "points": 100 * row["difference"],
                    "low": 100 * row["interval"][0], "high": 100 * row["interval"][1],
                },
            )
            for row in rows
            if row["differs"] and row["first"] == one["model"]
        ]  # fmt: skip
        if lower:
            messages.append(
                Message(f"model_better.{measure}", {"model": one["model"], "lower": lower, "settings": settings})
            )
    pairs = [Message("pair", {"first": row["first"], "second": row["second"]}) for row in rows if not row["differs"]]
    if pairs:
        code = (
            "models_all_open" if not messages else "models_open" if len(pairs) <= LISTED_PAIRS else "models_open_many"
        )
        values: dict[str, Value] = {"pairs": pairs, "settings": settings, "n": len(pairs), "total": len(rows)}
        messages.append(Message(f"{code}.{measure}", values))
    return messages

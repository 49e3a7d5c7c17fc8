"""Messages as JSON: code and values, which can be rendered in any language, and the English text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from espalier.analysis.serving_messages import SERVING_ENGLISH
from espalier.statistics.messages import STATISTICS_ENGLISH, Message, render_message

_IMPORTED_CATALOGUES = STATISTICS_ENGLISH | SERVING_ENGLISH
# The messages of the statistics, of the verdicts on serving, and of the analysis itself (below).
CATALOGUE = _IMPORTED_CATALOGUES | {
    "no_valid_experiment": "there is no valid experiment",
    "no_counts": "neither results of single documents nor their numbers are known",
    "no_draws": "{error}",
    "no_perplexity": "no perplexity was measured",
    "no_structure": "the sizes of the unpruned model are not known",
    "no_layers": "no plan is in the layers table",
    "no_cache_dtype": "the size of the KV cache is not known, as the model's config has no known dtype ({dtype})",
    "unknown_protocol": "the evaluation protocol of a model is not known",
    "other_protocols": "the models were evaluated by different protocols",
    "other_tasks": "the models were evaluated on different tasks or their means follow different rules",
    "setting_twice": "a setting is there twice",
    "tokens_told": (
        "At {tokens:,} tokens, {longest}-token sequences differ from {shortest}-token ones by {difference:+.4f}"
        " ({lower:+.4f} to {upper:+.4f})."
    ),
    "tokens_not_told": (
        "At {tokens:,} tokens, {longest}-token sequences cannot be told from {shortest}-token ones: {difference:+.4f}"
        " ({lower:+.4f} to {upper:+.4f})."
    ),
    # Recovery: the order of the experiments and the best experiment, before and after.
    "no_documents": "there are no results of single documents",
    "ranking_none": (
        "Recovered experiments that count: {n}. A ranking needs several: name more in recovery.experiments."
    ),
    "ranking_undefined": "The orders before and after recovery cannot be compared: {reason}.",
    "ranking_kept": (
        "The order after recovery follows the order before: Kendall's tau {tau:.2f} over {n} experiments (p {p:.2g})."
    ),
    "ranking_reversed": "Recovery reverses the order: Kendall's tau {tau:.2f} over {n} experiments (p {p:.2g}).",
    "ranking_open": (
        "The order after recovery is not shown to follow the order before: Kendall's tau {tau:.2f} over {n} experiments"
        " (p {p:.2g})."
    ),
    "ranking_interval": (
        "With other documents tau lies between {lower:.2f} and {upper:.2f} ({level:.0%}); what another seed or text of"
        " the recovery would change is not in that."
    ),
    "ranking_few": "{n} experiments are too few to show it: even two equal orders have p {p:.2g}.",
    "ranking_part": "Recovered were {n} of {total} experiments; the places of the others after recovery are unknown.",
    "best_stays": "The best before recovery stays the best of the {n} recovered: {before}.",
    "best_stays_alone": "After recovery all others can be told from it at {level:.0%}.",
    "best_stays_among": "After recovery {members} of {n} cannot be told from the best at {level:.0%}.",
    "best_changes": "The best before recovery is {before}, after it {after} ({difference:+.4f}).",
    "best_changes_told": (
        "The best changes: before recovery {before}, after it {after}, from which {before} can now be told"
        " ({difference:+.4f}; {lower:+.4f} to {upper:+.4f})."
    ),
    "best_changes_open": (
        "The best before recovery is {before}, after it {after}, but {before} cannot be told from that"
        " ({difference:+.4f}; {lower:+.4f} to {upper:+.4f})."
    ),
}


def english(message: Message) -> str:
    """Render a message in English."""
    return render_message(message, CATALOGUE)


def to_json(message: Message) -> dict[str, Any]:
    """Convert a message to `code`, `values` (with messages converted likewise) and `text` (English)."""
    return {
        "code": message.code,
        "values": {
            key: to_json(one) if isinstance(one, Message) else to_plain_json(one) for key, one in message.values.items()
        },
        "text": english(message),
    }


def to_json_list(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Convert several messages with `to_json`."""
    return [to_json(message) for message in messages]


def reason_fields(reason: Message | None) -> dict[str, Any]:
    """Return `reason` (English text) and `why` (message as JSON) of a missing value; both are None without a reason."""
    return {"reason": None, "why": None} if reason is None else {"reason": english(reason), "why": to_json(reason)}


def from_json(content: Mapping[str, Any]) -> Message:
    """Convert the result of `to_json` back to a message."""
    values = {key: from_json(one) if isinstance(one, Mapping) else one for key, one in content["values"].items()}
    return Message(content["code"], values)


def to_plain_json(value: Any) -> Any:
    """Convert numpy values to Python values, and numbers that JSON does not have (NaN, infinity) to None."""
    if isinstance(value, np.ndarray):
        return [to_plain_json(one) for one in value.tolist()]
    if isinstance(value, list | tuple):
        return [to_plain_json(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

"""Messages of the statistics as JSON: code and values for any language, and the English text beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from espalier.deployment.messages import ENGLISH as DEPLOYMENT
from espalier.statistics.messages import ENGLISH, Message, render

_OF_OTHERS = ENGLISH | DEPLOYMENT
# What only the analysis says, beside the messages of the statistics and of the verdicts on targets.
CATALOGUE = _OF_OTHERS | {
    "no_valid_experiment": "there is no valid experiment",
    "no_counts": "neither results of single documents nor their numbers are known",
    "no_draws": "{error}",
    "no_perplexity": "no perplexity was measured",
    "no_structure": "the sizes of the unpruned model are not known",
    "no_layers": "no plan is in the layers table",
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
}


def english(message: Message) -> str:
    """Put a message into English."""
    return render(message, CATALOGUE)


def said(message: Message) -> dict[str, Any]:
    """Write a message as `code`, `values` (messages among them likewise) and `text` (English)."""
    return {
        "code": message.code,
        "values": {key: said(one) if isinstance(one, Message) else plain(one) for key, one in message.values.items()},
        "text": english(message),
    }


def all_said(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Write several messages."""
    return [said(message) for message in messages]


def because(reason: Message | None) -> dict[str, Any]:
    """Write why something is null: `reason` in English and `why` as a message; both null where nothing is."""
    return {"reason": None, "why": None} if reason is None else {"reason": english(reason), "why": said(reason)}


def unsaid(content: Mapping[str, Any]) -> Message:
    """Read a message that `said` wrote."""
    values = {key: unsaid(one) if isinstance(one, Mapping) else one for key, one in content["values"].items()}
    return Message(content["code"], values)


def plain(value: Any) -> Any:
    """Turn numpy values into plain ones, and numbers that JSON does not have into None."""
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value.tolist()]
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

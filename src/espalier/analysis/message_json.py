"""Messages as JSON: code and values, which can be rendered in any language, and the English text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from espalier.messages.catalogue import Message, catalogue, render_message


def english(message: Message) -> str:
    """Render a message in English."""
    return render_message(message, catalogue("en"))


def to_json(message: Message) -> dict[str, Any]:
    """Convert a message to `code`, `values` (with messages converted likewise) and `text` (English)."""
    return {
        "code": message.code,
        "values": {key: _value_json(one) for key, one in message.values.items()},
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
    return Message(content["code"], {key: _value_from_json(one) for key, one in content["values"].items()})


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


def _value_json(value: Any) -> Any:
    if isinstance(value, Message):
        return to_json(value)
    if isinstance(value, list | tuple):
        return [_value_json(one) for one in value]
    return to_plain_json(value)


def _value_from_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return from_json(value)
    return [_value_from_json(one) for one in value] if isinstance(value, list) else value

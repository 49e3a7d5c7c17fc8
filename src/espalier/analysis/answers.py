"""Sentences on methods and settings, from differences with simultaneous intervals.

A difference whose interval excludes 0 makes a sentence of its own; all others of its kind share one. docs/statistics.md
has the rule of each sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espalier.analysis.contrasts import LENGTH, SAMPLES
from espalier.messages.catalogue import Message

Difference = Mapping[str, Any]
"""A difference as JSON content (`espalier.analysis.contrasts.contrast_json`)."""

_CODES = {"method": "method", LENGTH: "length", SAMPLES: "samples", "tokens": "tokens"}
_TURNING = {"method": "order_turns", LENGTH: "length_turns", SAMPLES: "samples_turn"}
"""Codes of the sentences on orders that change with the pruning ratio, by axis."""


def control_messages(differences: Sequence[Difference], measure: str) -> list[Message]:
    """State which methods are better than each control, which are worse, and which are not shown to be better."""
    of_controls = [one for one in differences if one["control"]]
    messages = []
    for control in dict.fromkeys(one["second"] for one in of_controls):
        rows = [one for one in of_controls if one["second"] == control]
        messages += [_told(one, measure, "control_better") for one in rows if _is_worse(one)]
        messages += [_open(one, measure, "control_open") for one in rows if not one["differs"]]
        better = [_of_models(one, str(one["first"])) for one in rows if one["differs"] and not _is_worse(one)]
        if better:
            values = {"methods": better, "control": control, "runs": _runs(rows[0])}
            messages.append(Message("better_than_control", values))
    return messages


def method_messages(differences: Sequence[Difference], measure: str) -> list[Message]:
    """State which of two methods is better, one sentence each, and which are not told apart."""
    return _messages([one for one in differences if one["axis"] == "method" and not one["control"]], measure)


def setting_messages(differences: Sequence[Difference], measure: str) -> list[Message]:
    """State which sequence lengths and numbers of samples are better, and which are not told apart."""
    return [
        message
        for axis in (LENGTH, SAMPLES)
        for message in _messages([one for one in differences if one["axis"] == axis], measure)
    ]


def token_messages(differences: Sequence[Difference], measure: str) -> list[Message]:
    """State whether long or short sequences are better at equally many tokens."""
    rows = [one for one in differences if one["axis"] == "tokens"]
    return [
        _told(one, measure, "tokens_better", tokens=one["tokens"])
        if one["differs"]
        else _open(one, measure, "tokens_open", tokens=one["tokens"])
        for one in rows
    ]


def turning_messages(by_ratio: Sequence[tuple[float, Sequence[Difference]]]) -> list[Message]:
    """State which two methods, sequence lengths or numbers of samples change their order with the pruning ratio.

    Over models, only differences over the same models are compared: another order may come from other models.

    Args:
        by_ratio: Pruning ratio and differences, from the largest ratio to the smallest.
    """
    order: dict[tuple[str, str, str, tuple[str, ...]], dict[bool, float]] = {}
    for ratio, differences in by_ratio:
        for one in differences:
            if one["axis"] in _TURNING and not one["control"] and one["differs"]:
                what = one["axis"], str(one["first"]), str(one["second"]), tuple(one.get("models", ()))
                order.setdefault(what, {}).setdefault(one["difference"] > 0, ratio)
    return [
        Message(
            _TURNING[axis],
            {"first": first, "second": second, "first_ratio": 100 * at[True], "second_ratio": 100 * at[False]},
        )
        for axis in _TURNING
        for (own, first, second, _), at in order.items()
        if own == axis and len(at) == 2
    ]


def _messages(rows: Sequence[Difference], measure: str) -> list[Message]:
    if not rows:
        return []
    code = _CODES[rows[0]["axis"]]
    told = sorted((one for one in rows if one["differs"]), key=lambda one: -abs(one["difference"]))
    messages = [_told(one, measure, f"{code}_better") for one in told]
    pairs = [
        _of_models(one, Message("pair", {"first": str(one["first"]), "second": str(one["second"])}))
        for one in rows
        if not one["differs"]
    ]
    return [*messages, *([Message(f"{code}_open", {"pairs": pairs})] if pairs else [])]


def _is_worse(one: Difference) -> bool:
    return bool(one["differs"] and one["difference"] < 0)


def _told(one: Difference, measure: str, code: str, **more: int) -> Message:
    """Return the sentence of a difference whose interval excludes 0, with the better side first."""
    swap = one["difference"] < 0
    first, second = (one["second"], one["first"]) if swap else (one["first"], one["second"])
    ends = [-end for end in reversed(one["interval"])] if swap else one["interval"]
    values = {"first": str(first), "second": str(second), "points": 100 * abs(one["difference"]), **more}
    # The sentence on a control names the method first, which is the first side.
    return Message(f"{code}.{measure}", values | _interval_values(ends, one, swap=swap and not one["control"]))


def _open(one: Difference, measure: str, code: str, **more: int) -> Message:
    values = {"first": str(one["first"]), "second": str(one["second"]), "points": 100 * one["difference"], **more}
    return Message(f"{code}.{measure}", values | _interval_values(one["interval"], one))


def _interval_values(ends: Sequence[float], one: Difference, *, swap: bool = False) -> dict[str, Any]:
    n, sides = one["n_settings"], one["n_of_sides"]
    settings = Message("one_setting" if n == 1 else "several_settings", {"n": n})
    if sides is not None:
        first, second = reversed(sides) if swap else sides
        settings = Message("experiments_of_sides", {"first": first, "second": second})
    return {"low": 100 * ends[0], "high": 100 * ends[1], "settings": _of_models(one, settings)}


def _of_models(one: Difference, what: str | Message) -> str | Message:
    """Name the models of a difference over models after `what`, if other models of the group lack one of its sides."""
    only = one.get("only")
    return what if only is None else Message("of_models", {"what": what, "models": [str(name) for name in only]})


def _runs(one: Difference) -> Message:
    """Return the number of runs of a control, of one model or of each of several."""
    n = one["n_settings"] if one["n_of_sides"] is None else one["n_of_sides"][1]
    if "models" in one:
        return Message("one_run_of_each" if n == 1 else "several_runs_of_each", {"n": n})
    return Message("one_run" if n == 1 else "several_runs", {"n": n})

"""Formats of numbers and names in reports. Missing values become a dash."""

from __future__ import annotations

from collections.abc import Sequence

from espalier.reports.messages import Texts

MISSING = "\N{EN DASH}"


def format_fixed(value: float | None, digits: int = 4) -> str:
    """Format a number with a fixed number of decimals; None becomes a dash."""
    return MISSING if value is None else f"{value:z,.{digits}f}"


def format_percent(value: float | None, *, sign: bool = False, digits: int = 1) -> str:
    """Format a fraction as a percentage; None becomes a dash."""
    return MISSING if value is None else f"{100 * value:{'+' if sign else ''}z.{digits}f}%"


def format_value(value: object) -> str:
    """Format a name or a whole number, with thousands separators from 10,000 on; None becomes a dash."""
    return MISSING if value is None else f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


def format_interval(texts: Texts, ends: Sequence[float] | None, digits: int = 4) -> str:
    """Format an interval; None becomes a dash."""
    return (
        MISSING
        if ends is None
        else texts("interval", low=format_fixed(ends[0], digits), high=format_fixed(ends[1], digits))
    )


def format_yes_no(texts: Texts, value: object) -> str:
    """Format a truth value; None becomes a dash."""
    return MISSING if value is None else texts("yes" if value else "no")


def format_cost(value: object, relative: float | None) -> str:
    """Format a cost, followed by its percentage of the unpruned model's cost if that is known."""
    return (
        format_value(value)
        if value is None or relative is None
        else f"{format_value(value)} ({format_percent(relative)})"
    )

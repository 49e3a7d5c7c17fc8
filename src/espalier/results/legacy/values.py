"""Read single values of imported JSON: a number is taken only where it is one, and what is left out is noted."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_SEPARATOR = re.compile("\\s*[~\uff5e]\\s*")  # the second is the full-width one


class Notes(list[str]):
    """What was odd in one file.

    Args:
        file: The file, put before each note.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self._file = file

    def add(self, text: str) -> None:
        """Note something of the file."""
        self.append(f"{self._file}: {text}")


def section(content: Mapping[str, Any], key: str, notes: Notes) -> Mapping[str, Any]:
    """Return a mapping inside another; an empty one, noted, where there is something else."""
    value = content.get(key)
    if isinstance(value, Mapping):
        return value
    if value is not None:
        notes.add(f"{key} is not a mapping, not read")
    return {}


def number(
    value: Any, name: str, notes: Notes, *, low: float = 0.0, high: float = math.inf, open_low: bool = False
) -> float | None:
    """Return a finite number within bounds; None, noted, for anything else. Null is None without a note.

    Args:
        value: What the file holds; texts such as `nan` and `1e-3` are read as numbers.
        name: What it is, for the note.
        notes: Where to note it.
        low: Smallest value that is allowed.
        high: Largest value that is allowed.
        open_low: Whether `low` itself is excluded.
    """
    if value is None:
        return None
    read = _as_float(value)
    if read is None:
        notes.add(f"{name} is not a number")
    elif not math.isfinite(read):
        notes.add(f"{name} is not finite")
    elif not low <= read <= high or (open_low and read == low):
        notes.add(f"{name} is {read:g}; allowed: {'above' if open_low else 'from'} {low:g} to {high:g}")
    else:
        return read
    return None


def count(value: Any, name: str, notes: Notes, *, low: int = 0) -> int | None:
    """Return a whole number of at least `low`; None, noted, for anything else."""
    read = number(value, name, notes, low=low, high=2**53)
    if read is None:
        return None
    if read != int(read):
        notes.add(f"{name} is {read:g}; allowed: whole numbers")
        return None
    return int(read)


def span(value: Any, name: str, notes: Notes) -> float | None:
    """Return largest - smallest of a range, written as a list of two or as text `a ~ b`."""
    if value is None:
        return None
    ends = _SEPARATOR.split(value.strip()) if isinstance(value, str) else value
    if not isinstance(ends, list) or len(ends) != 2:
        notes.add(f"{name} is neither a list of two numbers nor text 'a ~ b'")
        return None
    low, high = (_as_float(end) for end in ends)
    if low is None or high is None:
        notes.add(f"{name} is not made of numbers")
    elif not (math.isfinite(low) and math.isfinite(high)):
        notes.add(f"{name} is not finite")
    elif high < low:
        notes.add(f"{name} goes from {low:g} down to {high:g}")
    else:
        return high - low
    return None


def _as_float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None

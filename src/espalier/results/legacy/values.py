"""Read single values of imported JSON. Each function adds a note when it skips an invalid value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_SEPARATOR = re.compile("\\s*[~\uff5e]\\s*")  # ASCII tilde or full-width tilde


class Notes(list[str]):
    """Notes on skipped or inconsistent values of one file.

    Args:
        file: Name of the file. Each note begins with it.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self._file = file

    def add(self, text: str) -> None:
        """Add a note about the file."""
        self.append(f"{self._file}: {text}")


def read_mapping(content: Mapping[str, Any], key: str, notes: Notes) -> Mapping[str, Any]:
    """Return the mapping under a key; an empty mapping if it is null (no note) or another type (with a note)."""
    value = content.get(key)
    if isinstance(value, Mapping):
        return value
    if value is not None:
        notes.add(f"{key} is not a mapping, not read")
    return {}


def read_number(
    value: Any, name: str, notes: Notes, *, low: float = 0.0, high: float = math.inf, open_low: bool = False
) -> float | None:
    """Return a finite number within bounds, or None.

    Args:
        value: Value in the file. Strings such as `1e-3` are converted to numbers.
        name: Name of the value, for the note.
        notes: Notes of the file.
        low: Smallest allowed value.
        high: Largest allowed value.
        open_low: Whether `low` itself is excluded.

    Returns:
        The number; None if the value is null (no note) or invalid (with a note).
    """
    if value is None:
        return None
    result = _as_float(value)
    if result is None:
        notes.add(f"{name} is not a number")
    elif not math.isfinite(result):
        notes.add(f"{name} is not finite")
    elif not low <= result <= high or (open_low and result == low):
        notes.add(f"{name} is {result:g}; allowed: {'above' if open_low else 'from'} {low:g} to {high:g}")
    else:
        return result
    return None


def read_count(value: Any, name: str, notes: Notes, *, low: int = 0) -> int | None:
    """Return a whole number of at least `low`; None if the value is null (no note) or invalid (with a note)."""
    result = read_number(value, name, notes, low=low, high=2**53)
    if result is None:
        return None
    if result != int(result):
        notes.add(f"{name} is {result:g}; allowed: whole numbers")
        return None
    return int(result)


def read_range(value: Any, name: str, notes: Notes) -> float | None:
    """Return largest - smallest of a range; None if the value is null (no note) or invalid (with a note).

    The file gives the range as a list of two numbers or as text `a ~ b`.
    """
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

"""Values that do not belong where they are put, and places for them in a config or another JSON document."""

import copy
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None, [], {}, "", " ", "many", "x" * 5000, "../x", "a/b", "ä ö", "{model}", "a\nb", "\x00", "<b>", -1, 0, 3, 1e-7,
    1e30, 2**70, float("nan"), True, [1], [None], {"a": 1},
)  # fmt: skip


def value_paths(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document, the whole document included."""
    yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, inner in items:
        yield from value_paths(inner, (*path, key))


def with_value(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a document with another value at a path."""
    if not path:
        return value
    changed = copy.deepcopy(content)
    holder = changed
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    return changed

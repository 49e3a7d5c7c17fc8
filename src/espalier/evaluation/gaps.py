"""Find fields of a document that are null or empty although its task writes them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from espalier.evaluation.rules import FAILURES, Document, Rules

# A prompt without one of these has no question. Other fields may be empty: SciQ has questions without `support`.
NEVER_EMPTY = {
    "context", "goal", "hypothesis", "paragraph", "passage", "premise", "query", "question", "question_stem",
    "sentence",
}  # fmt: skip
# lm-eval joins HellaSwag's context before it is seen here; the second part, `ctx_b`, is empty in half of the documents.
_NEVER_EMPTY_IN = {"hellaswag": ("ctx_a",)}

# In no document. Rules may cut a text at both ends, so it is found by its middle.
_MARK, _MIDDLE = "qzjxvkqzjxvk", "jxvkqzjx"


def gap_problems(rules: Rules, document: Document, written: tuple[Any, Any, Any]) -> Iterator[str]:
    """Find fields that are null or empty and that the task writes all the same.

    Whether it does is seen by putting a mark there: a rule may well ask whether a field is null.
    """
    for name in _NEVER_EMPTY_IN.get(rules.task.config.task, ()):
        if not str(document.get(name) or "").strip():
            yield f"{name} is {'null' if document.get(name) is None else 'empty'}"
    for path in _gaps(document):
        name, value = _display(path), _at(document, path)
        marked = copy.deepcopy(dict(document))
        _at(marked, path[:-1])[path[-1]] = _MARK
        try:
            rewritten = rules.text(marked), rules.choices(marked), rules.target(marked)
        except FAILURES:
            continue
        if value is None:
            before, after = _texts(written), _texts(rewritten)
            if any(_MARK in new and new.replace(_MARK, "None") in before for new in after):
                yield f"{name} is null"
            continue
        field = next(str(part) for part in reversed(path) if isinstance(part, str))
        asks = _MIDDLE in str(rewritten[0]) and (field.lower() in NEVER_EMPTY or _asks_nothing(rules, document))
        holding = [_MIDDLE in str(choice) for choice in rewritten[1]] if isinstance(rewritten[1], list) else []
        if asks or (any(holding) and not all(holding)):
            yield f"{name} is empty"


def _gaps(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield where a document is null or an empty text."""
    if value is None or (isinstance(value, str) and not value.strip()):
        yield path
    elif isinstance(value, Mapping | list):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _gaps(inner, (*path, key))


def _asks_nothing(rules: Rules, document: Document) -> bool:
    """Whether the question is what it would be of a document without any text."""
    try:
        return bool(rules.text(_emptied(document)) == rules.text(document))
    except FAILURES:
        return False


def _emptied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _emptied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_emptied(inner) for inner in value]
    return "" if isinstance(value, str) else value


def _at(document: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def _display(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _texts(written: tuple[Any, Any, Any]) -> list[str]:
    """Return everything written as texts: a null element of a list reads `None` as well."""
    text, choices, target = written
    return [str(part) for part in (text, *(choices if isinstance(choices, list) else [choices]), target)]

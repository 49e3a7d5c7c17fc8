"""Fields of a document that are null, empty or no text although its task writes them into the prompt."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from espalier.evaluation.task_rules import RULE_ERRORS, Rules, TaskDocument, WrittenDocument

# A prompt needs these fields if its task uses them. Other fields may be empty: SciQ has questions without `support`.
NEVER_EMPTY = {
    "context", "goal", "hypothesis", "paragraph", "passage", "premise", "query", "question", "question_stem",
    "sentence",
}  # fmt: skip
# lm-eval joins the two parts of HellaSwag's context before this check. The second part, `ctx_b`, is empty in half of
# the documents, so only the first part must not be empty.
_NEVER_EMPTY_IN = {"hellaswag": ("ctx_a",)}

# Python would write `b'text'` or `datetime.date(2024, 1, 1)` into the prompt.
_NO_TEXT = (bytes, dt.date, dt.time, dt.timedelta)

# A text that occurs in no document. A rule may cut off its ends, so only its middle is searched for.
_MARK, _MIDDLE = "qzjxvkqzjxvk", "jxvkqzjx"


def gap_problems(rules: Rules, document: TaskDocument, written: WrittenDocument) -> Iterator[str]:
    """Yield error texts for fields that are null, empty or no text although the task writes them.

    To find out whether the task writes a field, put a mark into the field and search for the mark in the written
    document. A rule may handle a null field itself, so looking at the rule is not enough.

    Args:
        rules: Rules of the task.
        document: TaskDocument to check.
        written: The document as the rules write it.
    """
    for name in _NEVER_EMPTY_IN.get(rules.task.config.task, ()):
        if not str(document.get(name) or "").strip():
            yield f"{name} is {'null' if document.get(name) is None else 'empty'}"
    for path in _gaps(document):
        name, value = _display(path), _value_at(document, path)
        marked = copy.deepcopy(dict(document))
        _value_at(marked, path[:-1])[path[-1]] = _MARK
        try:
            rewritten = rules.write(marked)
        except RULE_ERRORS:
            continue
        if not isinstance(value, str):
            before, after = _as_texts(written), _as_texts(rewritten)
            if any(_MARK in new and new.replace(_MARK, str(value)) in before for new in after):
                yield f"{name} is null" if value is None else f"{name} is no text, but {type(value).__name__}"
            continue
        field = next(str(part) for part in reversed(path) if isinstance(part, str))
        missed = _MIDDLE in str(rewritten.question) and (
            field.lower() in NEVER_EMPTY or _question_is_constant(rules, document)
        )
        choices = rewritten.choices if isinstance(rewritten.choices, list) else []
        in_choices = [_MIDDLE in str(choice) for choice in choices]
        if missed or (any(in_choices) and not all(in_choices)):
            yield f"{name} is empty"


def _gaps(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each value of a document that is null, an empty text, or no text although it may have to be."""
    is_empty = value is None or (isinstance(value, str) and not value.strip())
    is_needed = len(path) == 1 and str(path[0]).lower() in NEVER_EMPTY
    if is_empty or isinstance(value, _NO_TEXT) or (is_needed and isinstance(value, Mapping | list)):
        yield path
    if isinstance(value, Mapping | list):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _gaps(inner, (*path, key))


def _question_is_constant(rules: Rules, document: TaskDocument) -> bool:
    """Return whether the question stays the same if all texts of the document are removed."""
    try:
        return bool(rules.question(_emptied(document)) == rules.question(document))
    except RULE_ERRORS:
        return False


def _emptied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _emptied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_emptied(inner) for inner in value]
    return "" if isinstance(value, str) else value


def _value_at(document: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def _display(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _as_texts(written: WrittenDocument) -> list[str]:
    """Return question, choices and answer as texts. A null element of a list becomes `None`, as in lm-eval's prompt."""
    question, choices, answer = written
    return [str(part) for part in (question, *(choices if isinstance(choices, list) else [choices]), answer)]

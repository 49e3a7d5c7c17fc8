"""Statements of analyses and reports as data: a code with values, and one catalogue of texts per language.

A catalogue is a file of this package, `{language}.yaml`. It gives each code a template in the syntax of `str.format`. A
template may use only the values that its message carries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Union

import yaml

LANGUAGES = ("en", "zh")

Value = Union[str, int, float, "Message", Sequence[Union[str, "Message"]]]
"""A value of a message. A list becomes an enumeration."""


@dataclass(frozen=True)
class Message:
    """A statement about a result.

    Attributes:
        code: Key of the statement in the catalogues.
        values: Names and numbers of the statement, at full precision. A value may be a message, such as a reason.
    """

    code: str
    values: Mapping[str, Value] = field(default_factory=dict)


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return the template of each code in one of `LANGUAGES`."""
    text = files("espalier.messages").joinpath(f"{language}.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the parser in C is ten times faster
    templates: dict[str, str] = yaml.load(text, Loader=loader)  # noqa: S506 (a safe loader)
    return templates


def render_message(message: Message, templates: Mapping[str, str]) -> str:
    """Render a message, and the messages among its values, with a catalogue."""

    def render(value: Value) -> Value:
        if isinstance(value, Message):
            return render_message(value, templates)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return templates["list.separator"].join(str(render(one)) for one in value)
        return value

    values = {name: render(value) for name, value in message.values.items()}
    return templates[message.code].format(**values)

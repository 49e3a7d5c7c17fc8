"""The catalogues: every code that is used has a text in each language, and every text is used."""

import ast
import re
import string
from pathlib import Path

import pytest

import espalier
from espalier.messages.catalogue import LANGUAGES, Message, catalogue, render_message

LIBRARY = Path(espalier.__path__[0])
# Templates that the pages of the library use (`texts("code")`).
TEMPLATES = LIBRARY / "reports/templates"


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def literals() -> set[str]:
    """Return all strings of the library, and with `*` in place of values those that are built at run time."""
    found: set[str] = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.add("".join(str(one.value) if isinstance(one, ast.Constant) else "*" for one in node.values))
    for path in TEMPLATES.iterdir():
        found |= set(re.findall(r"texts\([\"']([\w.]+)[\"']", path.read_text(encoding="utf-8")))
    return found


def message_codes() -> set[str]:
    """Return the codes of all messages whose code is a literal."""
    found = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"Message", "texts"} and node.args:
                first = node.args[0]
                found |= {str(first.value)} if isinstance(first, ast.Constant) else set()
    return found


def test_both_catalogues_have_the_same_codes_in_the_same_order() -> None:
    assert list(catalogue("en")) == list(catalogue("zh"))


@pytest.mark.parametrize("code", sorted(catalogue("en")))
def test_a_template_uses_only_values_that_its_code_is_given(code: str) -> None:
    given = fields(catalogue("en")[code]) | {"model_upper", "short"}
    for language in LANGUAGES:
        assert all(name.isidentifier() for name in fields(catalogue(language)[code]))
        assert fields(catalogue(language)[code]) <= given


def test_every_used_code_has_a_text() -> None:
    assert message_codes() - set(catalogue("en")) == set()


def test_every_text_is_used() -> None:
    found = literals()
    built = [
        re.compile(re.escape(text).replace(r"\*", ".+")) for text in found if "*" in text and re.search("[a-z]", text)
    ]
    unused = {
        code
        for code in set(catalogue("en")) - found
        if (name := re.sub(r"\.(kept|accuracy)$", "", code)) not in found  # the measure is added at run time
        and not any(one.fullmatch(text) for one in built for text in (code, name))
    }
    assert unused == set()


def test_messages_among_the_values_are_rendered_too() -> None:
    message = Message("outer", {"reason": Message("inner", {"n": 2})})
    assert render_message(message, {"outer": "außen: {reason}", "inner": "{n} innen"}) == "außen: 2 innen"

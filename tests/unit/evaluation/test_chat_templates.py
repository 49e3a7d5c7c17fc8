"""Chat templates: system messages, errors, and templates that never end."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.evaluation import chat_templates
from espalier.evaluation.chat_templates import write_prompt

MESSAGES = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
LOOPS = (
    "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}"
)


def tokenizer(template: str) -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({"a": 0}))
    return PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template, name_or_path="FOLDER")


def test_system_messages_are_dropped_if_the_template_refuses_them() -> None:
    assert write_prompt(tokenizer("{{ messages[0].content }}"), MESSAGES, add_generation_prompt=True) == "S"
    assert write_prompt(tokenizer(NO_SYSTEM), MESSAGES, add_generation_prompt=True) == "U"


def test_a_template_that_fails_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"the chat template of FOLDER fails \(never\); correct it, or set evaluation\."
    ):
        write_prompt(tokenizer("{{ raise_exception('never') }}"), MESSAGES, add_generation_prompt=True)


def test_a_template_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_templates, "SECONDS", 0.2)
    with pytest.raises(UserError, match=r"the chat template of FOLDER takes over 0\.2 s for a prompt"):
        write_prompt(tokenizer(LOOPS), MESSAGES, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{{ range(10**8) | list }}", "OverflowError"),
        ("{{ raise_exception('a\\n' * 500) }}", "a a a"),
        ("{{", "unexpected"),
        ("{{ messages + 1 }}", "TypeError"),
    ],
)
def test_whatever_a_template_does_is_one_line(template: str, reason: str) -> None:
    with pytest.raises(UserError, match=r"the chat template of FOLDER fails \(" + f".*{reason}") as error:
        write_prompt(tokenizer(template), MESSAGES, add_generation_prompt=True)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 400


def test_a_template_that_leaves_out_the_message_to_continue_is_refused() -> None:
    with pytest.raises(UserError, match=r"fails \(ValueError: "):
        write_prompt(tokenizer("nothing"), MESSAGES, add_generation_prompt=False)

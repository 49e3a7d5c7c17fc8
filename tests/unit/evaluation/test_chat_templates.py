"""Chat templates: system messages, errors, and templates that never end."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.evaluation import chat_templates
from espalier.evaluation.chat_templates import write_prompt

MESSAGES = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
BOTH = "{{ messages[0].content }}{{ messages[1].content }}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
LOOPS = (
    "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}"
)


def tokenizer(template: str) -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({"a": 0}))
    return PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template, name_or_path="FOLDER")


def test_system_messages_are_dropped_if_the_template_refuses_them() -> None:
    assert write_prompt(tokenizer(BOTH), MESSAGES, add_generation_prompt=True) == "SU"
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


PARTS = "{% for m in messages %}{{ m.role }}: {% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
"""As of models that read images: with a text as content, it writes nothing."""


@pytest.mark.parametrize(
    ("template", "role"),
    [(PARTS, "user"), ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "assistant")],
)
def test_a_template_that_leaves_out_a_text_is_refused(template: str, role: str) -> None:
    """Otherwise, choices would be scored without their question, or examples shown without their answers."""
    messages = [
        {"role": "user", "content": "Question: which?\nAnswer:"}, {"role": "assistant", "content": "blue"},
        {"role": "user", "content": "Question: where?\nAnswer:"},
    ]  # fmt: skip
    with pytest.raises(
        UserError, match=rf"the chat template of FOLDER leaves out the text of the {role}; those of mod"
    ):
        write_prompt(tokenizer(template), messages, add_generation_prompt=True)
    trims = "{% for m in messages %}{{ m.content.split('\n')[-1] | trim }} {% endfor %}"
    assert write_prompt(tokenizer(trims), messages, add_generation_prompt=True) == "Answer: blue Answer: "


CONVERSATION = [
    {"role": "user", "content": 'Who said "a < b & c"?\nAnswer: "'}, {"role": "assistant", "content": "Zoë's\t<aunt>"},
    {"role": "user", "content": "Which?\nAnswer:"}, {"role": "assistant", "content": " "},
    {"role": "user", "content": "Where?\nAnswer:"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "question"),
    [
        ("tojson", '"Who said \\"a < b & c\\"?\\nAnswer: \\""'),
        ("e", "Who said &#34;a &lt; b &amp; c&#34;?\nAnswer: &#34;"),
        ("urlencode", "Who%20said%20%22a%20%3C%20b%20%26%20c%22%3F%0AAnswer%3A%20%22"),
        ("upper", 'WHO SAID "A < B & C"?\nANSWER: "'),
        ("replace('\"', '\\\\\"')", 'Who said \\"a < b & c\\"?\nAnswer: \\"'),
    ],
)
def test_a_template_that_changes_the_characters_of_a_text_is_right(change: str, question: str) -> None:
    template = f"{{% for m in messages %}}[{{{{ m.content | {change} }}}}]{{% endfor %}}"
    prompt = write_prompt(tokenizer(template), CONVERSATION, add_generation_prompt=True)
    assert prompt.startswith(f"[{question}][")


@pytest.mark.parametrize(("condition", "role"), [("loop.index != 5", "user"), ("loop.first or loop.last", "assistant")])
def test_a_message_is_missed_although_others_have_its_words(condition: str, role: str) -> None:
    """Every question of a task may end with `Answer:`."""
    template = f"{{% for m in messages %}}{{% if {condition} %}}{{{{ m.content }}}}{{% endif %}}{{% endfor %}}"
    with pytest.raises(UserError, match=rf"leaves out the text of the {role};"):
        write_prompt(tokenizer(template), CONVERSATION, add_generation_prompt=True)


def test_a_template_that_leaves_out_the_message_to_continue_is_refused() -> None:
    with pytest.raises(UserError, match=r"fails \(ValueError: "):
        write_prompt(tokenizer("nothing"), MESSAGES, add_generation_prompt=False)

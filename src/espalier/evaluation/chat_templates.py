"""Write prompts with the chat template of a tokenizer, in bounded time.

A template is a program, and may loop for hours.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from jinja2.exceptions import TemplateError

from espalier.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST_REASON = 200
"""Most characters of an error in a template that a message quotes."""
SECONDS = 20.0
"""Longest time for one prompt. Templates take less than a millisecond."""


def write_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, add_generation_prompt: bool
) -> str:
    """Return the text of a conversation.

    If the template has no system role, system messages are dropped, as in lm-eval's `hf` backend.

    Args:
        tokenizer: Tokenizer with a chat template.
        messages: Messages with `role` and `content`.
        add_generation_prompt: Whether the text ends where the assistant begins. If not, the last message is continued.

    Raises:
        UserError: If the template fails, takes too long, or leaves out a message of the user or the assistant.
    """

    def render(history: list[dict[str, str]]) -> str:
        text: str = tokenizer.apply_chat_template(
            history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    remedy = "correct it, or set evaluation.chat_template: false"
    with _time_limit(f"the chat template of {tokenizer.name_or_path} takes over {SECONDS:g} s for a prompt; {remedy}"):
        try:
            try:
                text = render(messages)
            except TemplateError:
                text = render([message for message in messages if message["role"] != "system"])
        except (UserError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 (whatever the program in the template does)
            kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
            reason = " ".join(f"{kind}{error}".split())[:LONGEST_REASON]
            raise UserError(f"the chat template of {tokenizer.name_or_path} fails ({reason}); {remedy}") from None
    if role := _left_out(text, messages):
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} leaves out the text of the {role}; those of models that "
            f"read images may want lists of parts instead of texts; {remedy}"
        )
    return text


def _left_out(text: str, messages: list[dict[str, str]]) -> str | None:
    """Return the role of the first message of user or assistant that is not in a prompt, or None.

    Only the last line of each message is looked for: templates may change white space or leave out a chain of thought.
    """
    for message in messages:
        lines = message["content"].strip().splitlines()
        if message["role"] != "system" and lines and lines[-1].strip() not in text:
            return message["role"]
    return None


@contextmanager
def _time_limit(message: str) -> Iterator[None]:
    """Raise an error if the block takes too long. Only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> NoReturn:
        raise UserError(message)

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

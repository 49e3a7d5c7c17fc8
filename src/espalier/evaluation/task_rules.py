"""Rules of a task: how its definition turns a document into question, choices and answer, as lm-eval applies it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jinja2 import TemplateError
from lm_eval.api.task import ConfigurableTask

TaskDocument = Mapping[str, Any]

# Exceptions that rules raise for a document that they do not expect.
RULE_ERRORS = (LookupError, TypeError, ValueError, AttributeError, SyntaxError, AssertionError, TemplateError)


class WrittenDocument(NamedTuple):
    """A document as the rules of its task write it. Damaged documents may give values of any type.

    Attributes:
        question: The question. If the choices are questions (WinoGrande), the index of the right one.
        choices: The choices; none for a generative task.
        answer: The answer: an index, a text, or a list of these. If the choices are questions, the text that follows
            each of them.
    """

    question: Any
    choices: Any
    answer: Any


@dataclass(frozen=True)
class Rules:
    """Rules of a task for the documents of one split.

    Attributes:
        task: The task.
        solved: Whether the documents are shown as solved examples. Tasks may have other rules for examples.
    """

    task: ConfigurableTask
    solved: bool

    @property
    def split(self) -> str:
        """Name of the split."""
        config = self.task.config
        if self.solved:
            found = self.task.fewshot_cfg.split or config.training_split or config.validation_split
            return str(found or config.test_split)
        return str(config.test_split or config.validation_split)

    @property
    def location(self) -> str:
        """Task and split, for messages."""
        return f"evaluation.data: task {self.task.config.task!r}, split {self.split!r}"

    @property
    def is_generative(self) -> bool:
        """Whether the task asks for a text. It then has no choices."""
        return bool(self.task.config.output_type == "generate_until")

    @property
    def string_rules(self) -> list[str]:
        """Rules that are strings (field names or templates), without the rules that are functions."""
        source = self.task.fewshot_cfg if self.solved else self.task.config
        return [
            rule for rule in (source.doc_to_text, source.doc_to_choice, source.doc_to_target) if isinstance(rule, str)
        ]

    def write(self, document: TaskDocument) -> WrittenDocument:
        """Write a document.

        Raises:
            Exception: One of `RULE_ERRORS` if the rules do not expect the document.
        """
        return WrittenDocument(self.question(document), self.choices(document), self.answer(document))

    def question(self, document: TaskDocument) -> Any:
        """Return the question of a document."""
        return self.task.doc_to_text(document, self.task.fewshot_cfg.doc_to_text if self.solved else None)

    def choices(self, document: TaskDocument) -> Any:
        """Return the choices of a document; none for a generative task."""
        if self.is_generative:
            return []
        return self.task.doc_to_choice(document, self.task.fewshot_cfg.doc_to_choice if self.solved else None)

    def answer(self, document: TaskDocument) -> Any:
        """Return the answer of a document."""
        return self.task.doc_to_target(document, self.task.fewshot_cfg.doc_to_target if self.solved else None)


def right_choices(gold: Any, choices: Sequence[str]) -> set[int]:
    """Return the indices of the right choices.

    Args:
        gold: The answer of a document as the rules of its task write it: an index, a choice, or a list of these.
        choices: Its choices.
    """
    return {choices.index(g) if isinstance(g, str) else int(g) for g in (gold if isinstance(gold, list) else [gold])}

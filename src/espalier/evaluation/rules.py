"""Rules of a task: how its definition turns a document into question, choices and answer, as lm-eval applies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from lm_eval.api.task import ConfigurableTask

Document = Mapping[str, Any]

# Exceptions that rules raise for a document that they do not expect.
FAILURES = (LookupError, TypeError, ValueError, AttributeError, SyntaxError, AssertionError, TemplateError)


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
    def place(self) -> str:
        """Task and split, for messages."""
        return f"evaluation.data: task {self.task.config.task!r}, split {self.split!r}"

    @property
    def texts(self) -> list[str]:
        """Rules that are strings (field names or templates), without the rules that are functions."""
        source = self.task.fewshot_cfg if self.solved else self.task.config
        return [
            rule for rule in (source.doc_to_text, source.doc_to_choice, source.doc_to_target) if isinstance(rule, str)
        ]

    def text(self, document: Document) -> Any:
        """Return the question of a document.

        If the choices are questions (WinoGrande), return the index of the right one.
        """
        return self.task.doc_to_text(document, self.task.fewshot_cfg.doc_to_text if self.solved else None)

    def choices(self, document: Document) -> Any:
        """Return the choices of a document."""
        return self.task.doc_to_choice(document, self.task.fewshot_cfg.doc_to_choice if self.solved else None)

    def target(self, document: Document) -> Any:
        """Return the answer of a document: an index, a text, or a list of these.

        If the choices are questions (WinoGrande), return the text that follows each of them.
        """
        return self.task.doc_to_target(document, self.task.fewshot_cfg.doc_to_target if self.solved else None)

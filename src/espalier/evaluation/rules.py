"""How a task writes its documents: the rules of its definition, as lm-eval applies them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from lm_eval.api.task import ConfigurableTask

Document = Mapping[str, Any]

# What rules raise when a document is not as they expect.
FAILURES = (LookupError, TypeError, ValueError, AttributeError, SyntaxError, AssertionError, TemplateError)


@dataclass(frozen=True)
class Rules:
    """How a task writes the documents of one split.

    Attributes:
        task: The task.
        solved: Whether the documents are shown as solved examples, by the rules for those.
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
        """Where the documents are, for messages."""
        return f"evaluation.data: task {self.task.config.task!r}, split {self.split!r}"

    @property
    def texts(self) -> list[str]:
        """The rules that are no code: names of fields, or templates."""
        source = self.task.fewshot_cfg if self.solved else self.task.config
        return [
            rule for rule in (source.doc_to_text, source.doc_to_choice, source.doc_to_target) if isinstance(rule, str)
        ]

    def text(self, document: Document) -> Any:
        """Write the question; the index of the right choice where choices are questions (WinoGrande)."""
        return self.task.doc_to_text(document, self.task.fewshot_cfg.doc_to_text if self.solved else None)

    def choices(self, document: Document) -> Any:
        """Write the choices."""
        return self.task.doc_to_choice(document, self.task.fewshot_cfg.doc_to_choice if self.solved else None)

    def target(self, document: Document) -> Any:
        """Write the answer: an index, a text, or a list of these; what follows each question for WinoGrande."""
        return self.task.doc_to_target(document, self.task.fewshot_cfg.doc_to_target if self.solved else None)

"""The evaluation protocol: everything besides the model that a number depends on. Stored with every number."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TextProtocol:
    """How the rows of a perplexity text become one text."""

    name: str
    text_field: str
    joiner: str


@dataclass(frozen=True)
class Protocol:
    """Protocol of a study.

    Attributes:
        tasks: Tasks and groups of lm-eval.
        num_fewshot: Solved examples before each question.
        chat_template: Whether prompts are written with the tokenizer's chat template.
        add_bos: Whether texts begin with BOS; None is the tokenizer's own way.
        limit: Documents per task; None is all.
        window: Perplexity window in tokens.
        stride: Tokens by which the window moves.
        texts: Perplexity texts.
    """

    tasks: tuple[str, ...]
    num_fewshot: int
    chat_template: bool
    add_bos: bool | None
    limit: int | None
    window: int
    stride: int
    texts: tuple[TextProtocol, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, for `params` and files."""
        return {**asdict(self), "tasks": list(self.tasks), "texts": [asdict(text) for text in self.texts]}

    def of_requests(self) -> dict[str, Any]:
        """Return the part that decides which tokens are scored: all but the perplexity windows."""
        return {key: value for key, value in self.to_dict().items() if key not in {"window", "stride"}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Protocol:
        """Make a protocol from what `to_dict` returned."""
        texts = tuple(TextProtocol(**text) for text in values["texts"])
        return cls(**{**values, "tasks": tuple(values["tasks"]), "texts": texts})

"""The evaluation protocol: everything besides the model that a number depends on. Stored with every number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from espalier.errors import UserError

Bos = Literal["first", "every", "none"]
# Fields that came after version 0.1.0, each with what it was before: at that value they are left out of every recipe,
# so that results made before stay valid.
_OLD_DEFAULTS: dict[str, Any] = {"fewshot_as_multiturn": False, "bos": None, "max_tokens": None}
_OF_PERPLEXITY = {"window", "stride", "bos"}


@dataclass(frozen=True)
class TextProtocol:
    """How the rows of a perplexity text become one text, and how much of it is scored."""

    name: str
    text_field: str
    joiner: str
    max_tokens: int | None = None


@dataclass(frozen=True)
class Protocol:
    """Protocol of a study.

    Attributes:
        tasks: Tasks, groups and tags of lm-eval.
        num_fewshot: Solved examples before each question.
        chat_template: Whether prompts are written with the tokenizer's chat template.
        add_bos: Whether texts begin with BOS; None is the tokenizer's own way.
        limit: Documents per task; None is all.
        window: Perplexity window in tokens.
        stride: Tokens by which the window moves.
        texts: Perplexity texts.
        fewshot_as_multiturn: Whether each solved example is a turn of the chat; else all are in the user's one turn.
        bos: Which perplexity windows begin with BOS; None leaves the text as it was tokenised.
    """

    tasks: tuple[str, ...]
    num_fewshot: int
    chat_template: bool
    add_bos: bool | None
    limit: int | None
    window: int
    stride: int
    texts: tuple[TextProtocol, ...]
    fewshot_as_multiturn: bool = False
    bos: Bos | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, for `params` and files."""
        values = {
            **asdict(self),
            "tasks": list(self.tasks),
            "texts": [_without_defaults(asdict(t)) for t in self.texts],
        }
        return _without_defaults(values)

    def of_requests(self) -> dict[str, Any]:
        """Return the part that decides which tokens requests hold: nothing of how perplexity cuts its texts."""
        texts = [{key: value for key, value in asdict(text).items() if key != "max_tokens"} for text in self.texts]
        return {key: value for key, value in self.to_dict().items() if key not in _OF_PERPLEXITY} | {"texts": texts}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Protocol:
        """Make a protocol from what `to_dict` returned, of this version or an older one."""
        texts = tuple(TextProtocol(**text) for text in values["texts"])
        return cls(**{**values, "tasks": tuple(values["tasks"]), "texts": texts})


def _without_defaults(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _OLD_DEFAULTS or value != _OLD_DEFAULTS[key]}


ACC_NORM_ELSE_ACC = "acc_norm_else_acc"


def task_accuracy(metrics: Mapping[str, Any], rule: str) -> float:
    """Return the accuracy of a task that enters the mean.

    Args:
        metrics: `{metric: {"value": ..., "stderr": ...}}` of one task.
        rule: `acc_norm_else_acc` (acc_norm where the task defines it, else acc) or `acc`.

    Raises:
        UserError: If the task has no accuracy.
    """
    wanted = ("acc_norm", "acc") if rule == ACC_NORM_ELSE_ACC else ("acc",)
    for metric in wanted:
        if metric in metrics:
            return float(metrics[metric]["value"])
    raise UserError(f"a task has only the metrics {', '.join(metrics)}; the mean needs one of {', '.join(wanted)}")


def mean_accuracy(tasks: Mapping[str, Mapping[str, Any]], rule: str) -> float:
    """Return the unweighted mean over tasks."""
    values = [task_accuracy(task["metrics"], rule) for task in tasks.values()]
    return sum(values) / len(values)

"""Evaluation protocol: all settings, besides the model, that determine a result. It is stored with every result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from espalier.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Bos = Literal["first", "every", "none"]
TooLong = Literal["truncate", "skip"]
# Fields that were added after version 0.1.0, with their defaults. A field with its default value is left out of
# recipes, so that results of version 0.1.0 stay valid.
_OLD_DEFAULTS: dict[str, Any] = {
    "fewshot_as_multiturn": False,
    "bos": None,
    "max_tokens": None,
    "task_fewshots": {},
    "too_long": "truncate",
}
_OF_PERPLEXITY = {"window", "stride", "bos"}


@dataclass(frozen=True)
class TextProtocol:
    """Protocol of a perplexity text.

    Attributes:
        name: Name of the text.
        text_field: Column or key of the text in the file.
        joiner: String that joins the rows of the file.
        max_tokens: Number of first tokens to use. None uses all.
    """

    name: str
    text_field: str
    joiner: str
    max_tokens: int | None = None


@dataclass(frozen=True)
class Protocol:
    """Evaluation protocol of a study.

    Attributes:
        tasks: Tasks, groups and tags of lm-eval.
        num_fewshot: Solved examples before each question, for tasks that are not in `task_fewshots`.
        chat_template: Whether prompts are written with the tokenizer's chat template.
        add_bos: Whether texts begin with BOS. None uses the tokenizer's default.
        limit: Documents per task that are scored. None scores all.
        window: Tokens of a perplexity window.
        stride: Tokens by which the perplexity window moves.
        texts: Perplexity texts.
        fewshot_as_multiturn: Whether each solved example is a turn of its own in the chat. If not, all examples are in
            one turn of the user.
        bos: Perplexity windows that begin with BOS. None keeps the texts as they were tokenised.
        task_fewshots: Solved examples of single tasks, groups or tags.
        too_long: What happens to a document that is longer than the model's context.
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
    task_fewshots: Mapping[str, int] = field(default_factory=dict)
    too_long: TooLong = "truncate"

    def to_dict(self) -> dict[str, Any]:
        """Return the protocol as JSON values, for the `params` of rules and for files."""
        values = {
            **asdict(self),
            "tasks": list(self.tasks),
            "texts": [_without_defaults(asdict(t)) for t in self.texts],
        }
        return _without_defaults(values)

    def of_requests(self) -> dict[str, Any]:
        """Return the settings that determine the tokens of requests, as JSON values. Perplexity windows do not."""
        texts = [{key: value for key, value in asdict(text).items() if key != "max_tokens"} for text in self.texts]
        return {key: value for key, value in self.to_dict().items() if key not in _OF_PERPLEXITY} | {"texts": texts}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Protocol:
        """Create a protocol from the values that `to_dict` returned, in this version or an older one."""
        texts = tuple(TextProtocol(**text) for text in values["texts"])
        return cls(**{**values, "tasks": tuple(values["tasks"]), "texts": texts})


def _without_defaults(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _OLD_DEFAULTS or value != _OLD_DEFAULTS[key]}


ACC_NORM_ELSE_ACC = "acc_norm_else_acc"
UNNAMED_ACCURACY = "accuracy"
"""Imported accuracy whose metric is not known. It is acc_norm if the task has acc_norm, else acc."""


def entering_metrics(rule: str) -> tuple[str, ...]:
    """Return metrics by preference: the first one that a task has enters the mean over tasks.

    Args:
        rule: `acc_norm_else_acc` (`acc_norm` if the task defines it, otherwise `acc`) or `acc`.
    """
    return ("acc_norm", "acc", UNNAMED_ACCURACY) if rule == ACC_NORM_ELSE_ACC else ("acc",)


def enters_mean(evaluations: pd.DataFrame, rule: str) -> pd.Series[bool]:
    """Return for each row of the evaluations table whether its metric is the one that enters the mean over tasks.

    Each experiment has its own metrics: imported results may lack acc_norm where computed ones have it.

    Args:
        evaluations: Columns model, experiment, task and metric.
        rule: As in `entering_metrics`.
    """
    place = evaluations["metric"].map({metric: place for place, metric in enumerate(entering_metrics(rule))})
    first = place.groupby([evaluations[key] for key in ("model", "experiment", "task")]).transform("min")
    return (place == first).astype(bool)


def acc_norm_tasks(metrics: Iterable[tuple[str, str]], rule: str) -> set[str]:
    """Return the tasks whose `acc_norm` enters the mean over tasks. Of all others, `acc` does.

    Args:
        metrics: Pairs of a task or group and one of its metrics.
        rule: As in `entering_metrics`.
    """
    return {task for task, metric in metrics if metric == "acc_norm"} if rule == ACC_NORM_ELSE_ACC else set()


def task_accuracy(metrics: Mapping[str, Any], rule: str) -> float:
    """Return the accuracy of a task that is used in the mean over tasks.

    Args:
        metrics: `{metric: {"value": ..., "stderr": ...}}` of one task.
        rule: As in `entering_metrics`.

    Raises:
        UserError: If the task has no such metric.
    """
    wanted = entering_metrics(rule)
    for metric in wanted:
        if metric in metrics:
            return float(metrics[metric]["value"])
    raise UserError(f"a task has only the metrics {', '.join(metrics)}; the mean needs one of {', '.join(wanted)}")


def mean_accuracy(tasks: Mapping[str, Mapping[str, Any]], rule: str) -> float:
    """Return the unweighted mean accuracy over tasks.

    Args:
        tasks: Results of each task, with its metrics under `metrics`.
        rule: As in `entering_metrics`.

    Raises:
        UserError: If a task has no metric for the rule.
    """
    values = [task_accuracy(task["metrics"], rule) for task in tasks.values()]
    return sum(values) / len(values)

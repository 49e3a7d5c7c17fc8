"""Read `evaluation/evaluation_results.json`: task accuracies and perplexities."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from espalier.evaluation.protocol import ACC_NORM_ELSE_ACC, UNNAMED_ACCURACY, entering_metrics
from espalier.naming import NAME_PATTERN
from espalier.results.legacy.values import Notes, read_count, read_mapping, read_number

PERPLEXITY, STANDARD = "ppl", "ppl_standard_2048_512"
# The files may round to four decimals.
ROUNDING_TOLERANCE = 1e-4
_SAMPLE_KEYS = ("n_samples", "sample_len")


@dataclass(frozen=True)
class Metric:
    """Value of a metric, and its standard error; None if the file does not give one."""

    value: float
    stderr: float | None


@dataclass(frozen=True)
class TaskResult:
    """Results of one task.

    Attributes:
        metrics: Metrics by name: `acc`, `acc_norm`, or `accuracy` alone.
        n_samples: Number of documents; None if not known.
    """

    metrics: dict[str, Metric]
    n_samples: int | None

    @property
    def accuracy(self) -> float:
        """Accuracy that enters the mean."""
        return next(self.metrics[name].value for name in entering_metrics(ACC_NORM_ELSE_ACC) if name in self.metrics)


@dataclass
class LegacyEvaluation:
    """Content of the file.

    Attributes:
        tasks: Results of each task.
        perplexity: Perplexity of each text.
        n_params: Parameters of the evaluated model; None if not known.
        model_path: Path of the evaluated model when it was evaluated; None if not known.
    """

    tasks: dict[str, TaskResult] = field(default_factory=dict)
    perplexity: dict[str, float] = field(default_factory=dict)
    n_params: int | None = None
    model_path: str | None = None


def read_evaluation(content: Mapping[str, Any], notes: Notes) -> LegacyEvaluation:
    """Read the content of the file; add a note for each value that is skipped or inconsistent."""
    metrics = read_mapping(content, "metrics", notes)
    evaluation = LegacyEvaluation()
    if isinstance(error := content.get("error"), str) and error:
        notes.add(f"says {error.splitlines()[0][:200]!r}")
    path = content.get("model_path")
    evaluation.model_path = path if isinstance(path, str) else None
    info = read_mapping(metrics, "model_info", notes)
    evaluation.n_params = read_count(info.get("total_params"), "model_info.total_params", notes, low=1)
    for name, task in read_mapping(metrics, "zeroshot", notes).items():
        if not re.fullmatch(NAME_PATTERN, name) or not isinstance(task, Mapping):
            notes.add(f"zeroshot has {name[:80]!r}, which is no result of a task, not read")
        elif result := _read_task(name, task, notes):
            evaluation.tasks[name] = result
    evaluation.perplexity = _read_perplexities(metrics, notes)
    _compare_mean(evaluation, metrics.get("avg_zeroshot_acc"), notes)
    return evaluation


def _read_task(name: str, task: Mapping[str, Any], notes: Notes) -> TaskResult | None:
    results = read_mapping(task, "full_results", notes)
    metrics = {}
    for key, value in results.items():
        metric, _, filtered = key.partition(",")
        if filtered not in {"", "none"} or metric not in {"acc", "acc_norm"}:
            continue
        accuracy = read_number(value, f"{name} {metric}", notes, high=1.0)
        if accuracy is not None:
            stderr = results.get(key.replace(metric, f"{metric}_stderr", 1))
            # lm-eval writes "N/A" if there is no standard error.
            metrics[metric] = Metric(accuracy, read_number(None if stderr == "N/A" else stderr, key, notes))
    claimed = read_number(task.get("accuracy"), f"{name} accuracy", notes, high=1.0)
    if not metrics:
        if claimed is None:
            notes.add(f"{name} has no accuracy")
            return None
        notes.add(f"{name} has an accuracy without full_results; taken for the one that enters the mean")
        return TaskResult({UNNAMED_ACCURACY: Metric(claimed, None)}, None)
    result = TaskResult(metrics, _n_samples(name, metrics, results, notes))
    if claimed is not None and abs(claimed - result.accuracy) > ROUNDING_TOLERANCE:
        notes.add(f"{name} accuracy is {claimed:.6g}, its full_results say {result.accuracy:.6g}; these are used")
    return result


def _n_samples(name: str, metrics: Mapping[str, Metric], results: Mapping[str, Any], notes: Notes) -> int | None:
    """Return the number of documents from the file, or else the number that the standard errors imply."""
    for key in _SAMPLE_KEYS:
        if key in results:
            return read_count(results[key], f"{name} {key}", notes, low=1)
    implied = {n for metric in metrics.values() if (n := _possible_documents(metric)) is not None}
    if len(implied) > 1:
        notes.add(f"{name} has standard errors of {' and '.join(map(str, sorted(implied)))} documents; none taken")
        return None
    return next(iter(implied), None)


def documents_implied(accuracy: float, stderr: float) -> int | None:
    """Return the number of documents n that the standard error of an accuracy implies.

    Imported files hold the standard error but not n. lm-eval computes it from the accuracy p as
    sqrt(p (1 - p) / (n - 1)). For p = 0 or p = 1 the standard error is 0 for every n, so n is not known.

    Returns:
        The number of documents; None if it is not known.
    """
    if not (0 < accuracy < 1 and stderr > 0):
        return None
    return round(accuracy * (1 - accuracy) / stderr**2) + 1


def _possible_documents(metric: Metric) -> int | None:
    """Return `documents_implied`, or None if the accuracy is impossible with that number of documents."""
    n = documents_implied(metric.value, metric.stderr or 0.0)
    return n if n is not None and abs(metric.value * n - round(metric.value * n)) < 1e-3 else None


def _read_perplexities(metrics: Mapping[str, Any], notes: Notes) -> dict[str, float]:
    """Read perplexities with window 2048 and stride 512 from `ppl`, and other texts from `ppl_standard_2048_512`.

    If both give a text and differ, the text is skipped. Other keys, such as `ppl_quick_128`, follow another protocol
    and are ignored.
    """
    listed = read_mapping(metrics, PERPLEXITY, notes)
    perplexities = _text_perplexities(listed, PERPLEXITY, notes)
    standard = _text_perplexities(read_mapping(metrics, STANDARD, notes), STANDARD, notes)
    for text in sorted(standard.keys() & perplexities.keys()):
        if not math.isclose(perplexities[text], standard[text], rel_tol=ROUNDING_TOLERANCE):
            notes.add(f"{PERPLEXITY} and {STANDARD} of {text} differ; neither is used")
            del perplexities[text]
    # A text whose value under `ppl` is not used must not come back.
    names = {_text_name(label) for label in listed}
    return perplexities | {text: value for text, value in standard.items() if text not in names}


def _text_perplexities(values: Mapping[str, Any], key: str, notes: Notes) -> dict[str, float]:
    perplexities: dict[str, float] = {}
    for label, value in values.items():
        text = _text_name(label)
        if not re.fullmatch(NAME_PATTERN, text) or text in perplexities:
            notes.add(f"{key} has the text {label[:80]!r}, which is no new name, not read")
        elif (perplexity := read_number(value, f"{key} of {text}", notes, open_low=True)) is not None:
            perplexities[text] = perplexity
    return perplexities


def _text_name(label: str) -> str:
    """Return the name of a text: `wikitext2 (wikitext-2-raw-v1)` in the file becomes `wikitext2`."""
    return re.sub(r"\s*\([^()]*\)$", "", label)


def _compare_mean(evaluation: LegacyEvaluation, claimed: Any, notes: Notes) -> None:
    claimed = read_number(claimed, "avg_zeroshot_acc", notes, high=1.0)
    if claimed is None or not evaluation.tasks:
        return
    mean = sum(task.accuracy for task in evaluation.tasks.values()) / len(evaluation.tasks)
    if abs(mean - claimed) > ROUNDING_TOLERANCE:
        notes.add(f"avg_zeroshot_acc is {claimed:.6g}, the mean of its tasks is {mean:.6g}; the latter is used")

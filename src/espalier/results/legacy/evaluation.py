"""Read `evaluation/evaluation_results.json`: task accuracies and perplexities."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from espalier.evaluation.protocol import ACC_NORM_ELSE_ACC, mean_accuracy, task_accuracy
from espalier.naming import NAME_PATTERN
from espalier.results.legacy.values import Notes, count, number, section

PERPLEXITY, STANDARD = "ppl", "ppl_standard_2048_512"
# The files may round to four decimals.
TOLERANCE = 1e-4
_SAMPLE_KEYS = ("n_samples", "sample_len")


@dataclass
class Evaluated:
    """Content of the file.

    Attributes:
        tasks: `{task: {"metrics": {metric: {"value", "stderr"}}, "n_samples"}}`, as in metrics.json.
        perplexity: Perplexity of each text.
        n_params: Parameters of the evaluated model; None if not known.
        model_path: Path of the evaluated model when it was evaluated; None if not known.
    """

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    perplexity: dict[str, float] = field(default_factory=dict)
    n_params: int | None = None
    model_path: str | None = None


def read_evaluation(content: Mapping[str, Any], notes: Notes) -> Evaluated:
    """Read the content of the file; add a note for each value that is skipped or inconsistent."""
    metrics = section(content, "metrics", notes)
    found = Evaluated()
    if isinstance(error := content.get("error"), str) and error:
        notes.add(f"says {error.splitlines()[0][:200]!r}")
    path = content.get("model_path")
    found.model_path = path if isinstance(path, str) else None
    info = section(metrics, "model_info", notes)
    found.n_params = count(info.get("total_params"), "model_info.total_params", notes, low=1)
    for name, task in section(metrics, "zeroshot", notes).items():
        if not re.match(NAME_PATTERN, name) or not isinstance(task, Mapping):
            notes.add(f"zeroshot has {name[:80]!r}, which is no result of a task, not read")
        elif read := _task(name, task, notes):
            found.tasks[name] = read
    found.perplexity = _perplexities(metrics, notes)
    _compare_mean(found, metrics.get("avg_zeroshot_acc"), notes)
    return found


def _task(name: str, task: Mapping[str, Any], notes: Notes) -> dict[str, Any] | None:
    results = section(task, "full_results", notes)
    metrics = {}
    for key, value in results.items():
        metric, _, filtered = key.partition(",")
        if filtered not in {"", "none"} or metric not in {"acc", "acc_norm"}:
            continue
        read = number(value, f"{name} {metric}", notes, high=1.0)
        if read is not None:
            stderr = results.get(key.replace(metric, f"{metric}_stderr", 1))
            # lm-eval writes "N/A" if there is no standard error.
            metrics[metric] = {"value": read, "stderr": number(None if stderr == "N/A" else stderr, key, notes)}
    claimed = number(task.get("accuracy"), f"{name} accuracy", notes, high=1.0)
    if not metrics:
        if claimed is None:
            notes.add(f"{name} has no accuracy")
            return None
        notes.add(f"{name} has an accuracy without full_results; taken for the one that enters the mean")
        return {"metrics": {"accuracy": {"value": claimed, "stderr": None}}, "n_samples": None}
    used = task_accuracy(metrics, ACC_NORM_ELSE_ACC)
    if claimed is not None and abs(claimed - used) > TOLERANCE:
        notes.add(f"{name} accuracy is {claimed:.6g}, its full_results say {used:.6g}; these are used")
    return {"metrics": metrics, "n_samples": _n_samples(name, metrics, results, notes)}


def _n_samples(
    name: str, metrics: Mapping[str, Mapping[str, Any]], results: Mapping[str, Any], notes: Notes
) -> int | None:
    """Return the number of documents from the file, or else the number that the standard errors imply."""
    for key in _SAMPLE_KEYS:
        if key in results:
            return count(results[key], f"{name} {key}", notes, low=1)
    implied = {n for metric in metrics.values() if metric["stderr"] and (n := _implied(**metric)) is not None}
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


def _implied(value: float, stderr: float) -> int | None:
    """Return `documents_implied`, or None if an accuracy of `value` is impossible with that number of documents."""
    n = documents_implied(value, stderr)
    return n if n is not None and abs(value * n - round(value * n)) < 1e-3 else None


def _perplexities(metrics: Mapping[str, Any], notes: Notes) -> dict[str, float]:
    """Read perplexities with window 2048 and stride 512 from `ppl`, or else from `ppl_standard_2048_512`.

    If both give a text and differ, the text is skipped. Other keys, such as `ppl_quick_128`, follow another protocol
    and are ignored.
    """
    given = {key: _texts(section(metrics, key, notes), key, notes) for key in (PERPLEXITY, STANDARD)}
    if PERPLEXITY not in metrics:
        return given[STANDARD]
    found = given[PERPLEXITY]
    for text in sorted(given[STANDARD].keys() & found.keys()):
        if not math.isclose(found[text], given[STANDARD][text], rel_tol=TOLERANCE):
            notes.add(f"{PERPLEXITY} and {STANDARD} of {text} differ; neither is used")
            del found[text]
    return found


def _texts(values: Mapping[str, Any], key: str, notes: Notes) -> dict[str, float]:
    """Read the perplexity of each text. `wikitext2 (wikitext-2-raw-v1)` in the file becomes `wikitext2`."""
    found: dict[str, float] = {}
    for label, value in values.items():
        text = re.sub(r"\s*\([^()]*\)$", "", label)
        if not re.match(NAME_PATTERN, text) or text in found:
            notes.add(f"{key} has the text {label[:80]!r}, which is no new name, not read")
        elif (read := number(value, f"{key} of {text}", notes, open_low=True)) is not None:
            found[text] = read
    return found


def _compare_mean(found: Evaluated, claimed: Any, notes: Notes) -> None:
    claimed = number(claimed, "avg_zeroshot_acc", notes, high=1.0)
    if claimed is None or not found.tasks:
        return
    tasks = {name: task for name, task in found.tasks.items() if "accuracy" not in task["metrics"]}
    values = [task["metrics"]["accuracy"]["value"] for name, task in found.tasks.items() if name not in tasks]
    total = sum(values) + (mean_accuracy(tasks, ACC_NORM_ELSE_ACC) * len(tasks) if tasks else 0.0)
    mean = total / len(found.tasks)
    if abs(mean - claimed) > TOLERANCE:
        notes.add(f"avg_zeroshot_acc is {claimed:.6g}, the mean of its tasks is {mean:.6g}; the latter is used")

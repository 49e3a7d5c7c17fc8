"""Read the files of one legacy experiment and check that they belong to its folder.

If the evaluated model has another setting than the folder name, the experiment is marked `contradictory` and not used.
Smaller inconsistencies (a mean, a count, a ratio) only add a note. The files are read as JSON. Paths in them are not
opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from espalier.results.legacy.evaluation_results import LegacyEvaluation, read_evaluation
from espalier.results.legacy.gradient_diagnosis import GradientDiagnosis, read_gradients
from espalier.results.legacy.model_comparison import ModelComparison, read_comparison
from espalier.results.legacy.names import FolderNameError, normalised_name, parse_experiment, parse_search
from espalier.results.legacy.scan import (
    COMPARISON,
    CONTRADICTORY,
    EVALUATION,
    FILES,
    GRADIENTS,
    UNKNOWN,
    FoundExperiment,
    SearchFacts,
)
from espalier.results.legacy.values import Notes

OK, FAILED = "ok", "failed"
# The percentage in a folder name is usually rounded to a whole number.
RATIO_TOLERANCE = 0.005


@dataclass(frozen=True)
class LegacyExperiment:
    """Content of the files of one experiment.

    Attributes:
        status: `ok`, `failed` (no results), `unknown` or `contradictory`. The last two must not be used.
        notes: Reasons for the status, and notes on skipped or inconsistent values.
        evaluation: Accuracies and perplexities.
        diagnosis: Gradient metrics.
        comparison: Parameter counts before and after pruning.
    """

    status: str
    notes: tuple[str, ...]
    evaluation: LegacyEvaluation
    diagnosis: GradientDiagnosis
    comparison: ModelComparison

    @property
    def removed_param_fraction(self) -> float | None:
        """Achieved fraction of all parameters that was removed; None if not known."""
        return self.comparison.removed_param_fraction

    @property
    def extreme_pruning_layers(self) -> int | None:
        """Number of layers that lost more than half: from the diagnosis, or else counted from the MLP widths."""
        diagnosed = self.diagnosis.extreme_pruning_layers
        return self.comparison.extreme_pruning_layers if diagnosed is None else diagnosed


class FolderNames(NamedTuple):
    """Names of the folders of an experiment.

    Attributes:
        search: Name of its search folder.
        experiment: Name of its own folder.
    """

    search: str
    experiment: str


def read_experiment(
    found: FoundExperiment,
    search: SearchFacts,
    *,
    methods: Collection[str],
    model_names: Collection[str],
) -> LegacyExperiment:
    """Read the files of one experiment.

    Args:
        found: The experiment.
        search: Its search folder.
        methods: Known methods.
        model_names: All names of the model.
    """
    notes: list[str] = list(found.notes)
    contents = {file: _read_json_file(Path(found.source) / file, file, notes) or {} for file in found.files}
    per_file = {file: Notes(file) for file in FILES}
    evaluation = read_evaluation(contents.get(EVALUATION, {}), per_file[EVALUATION])
    diagnosis = read_gradients(contents.get(GRADIENTS, {}), per_file[GRADIENTS])
    comparison = read_comparison(contents.get(COMPARISON, {}), per_file[COMPARISON])
    has_results = bool(evaluation.tasks or evaluation.perplexity)
    contradictions = _contradictions(
        FolderNames(search.search_folder, found.folder), _folders_of(evaluation.model_path), methods, model_names
    )
    if found.status != UNKNOWN:
        notes += [f"{file}: is missing" for file in FILES if file not in found.files]
        notes += [f"{EVALUATION}: has no results"] if not has_results and EVALUATION in found.files else []
    notes += [note for file in per_file.values() for note in file]
    notes += _disagreements(evaluation, diagnosis, comparison, search.pruning_ratio)
    return LegacyExperiment(
        status=found.status or (CONTRADICTORY if contradictions else OK if has_results else FAILED),
        notes=tuple(dict.fromkeys([*contradictions, *notes])),
        evaluation=evaluation,
        diagnosis=diagnosis,
        comparison=comparison,
    )


def _read_json_file(path: Path, name: str, notes: list[str]) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    # ValueError: invalid JSON, invalid UTF-8, or an integer with too many digits.
    except (ValueError, RecursionError) as error:
        notes.append(f"{name}: is not JSON ({str(error).splitlines()[0][:100]}), not read")
        return None
    if not isinstance(content, dict):
        notes.append(f"{name}: is not a mapping, not read")
        return None
    return content


def _contradictions(
    actual: FolderNames, evaluated: FolderNames, methods: Collection[str], model_names: Collection[str]
) -> list[str]:
    """Compare the folder names with those in the path of the evaluated model."""
    same = (
        _same_search(actual.search, evaluated.search, methods, model_names),
        _same_setting(actual.experiment, evaluated.experiment),
    )
    return [
        f"{EVALUATION}: is about {claimed}, not about {name}; put it back, or name the folder rightly"
        for name, claimed, agrees in zip(actual, evaluated, same, strict=True)
        if not agrees
    ]


def _folders_of(model_path: str | None) -> FolderNames:
    """Return the folder names in a model path; empty strings if unknown."""
    *_, search, experiment, _ = ["", "", *re.split(r"[/\\]", model_path or "")]
    return FolderNames(search, experiment)


def _same_setting(first: str, second: str) -> bool:
    """Return whether two experiment folder names give the same setting, or one of them cannot be parsed."""
    try:
        return parse_experiment(first) == parse_experiment(second)
    except FolderNameError:
        return True


def _same_search(first: str, second: str, methods: Collection[str], model_names: Collection[str]) -> bool:
    """Return whether two search folder names mean the same search, or one of them cannot be parsed."""
    try:
        searches = [parse_search(name, methods, model_names) for name in (first, second)]
    except FolderNameError:
        return True
    return len({(normalised_name(search.model), search.method, search.pruning_ratio) for search in searches}) == 1


def _disagreements(
    evaluation: LegacyEvaluation, diagnosis: GradientDiagnosis, comparison: ModelComparison, pruning_ratio: float | None
) -> list[str]:
    notes = []
    removed = comparison.removed_param_fraction
    if removed is not None and pruning_ratio is not None and abs(removed - pruning_ratio) > RATIO_TOLERANCE:
        notes.append(
            f"{COMPARISON}: {removed:.2%} of the parameters were removed, "
            f"but the folder's name says {100 * pruning_ratio:.10g}%"
        )
    if None not in (evaluation.n_params, comparison.params_after) and evaluation.n_params != comparison.params_after:
        notes.append(
            f"{EVALUATION}: the model has {evaluation.n_params:,} parameters, "
            f"but {comparison.params_after:,} in {COMPARISON}"
        )
    counted, claimed = comparison.extreme_pruning_layers, diagnosis.extreme_pruning_layers
    if None not in (counted, claimed) and counted != claimed:
        notes.append(f"{GRADIENTS}: num_extreme_layers is {claimed}, {COMPARISON} has {counted}; the former is used")
    return notes

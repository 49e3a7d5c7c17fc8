"""Read the files of one legacy experiment and check that they belong to its folder.

If the evaluated model has another setting than the folder name, the experiment is marked `contradictory` and not used.
Smaller inconsistencies (a mean, a count, a ratio) only add a note. The files are read as JSON. Paths in them are not
opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.results.legacy.comparison import Compared, read_comparison
from espalier.results.legacy.evaluation import Evaluated, read_evaluation
from espalier.results.legacy.gradients import Diagnosed, read_gradients
from espalier.results.legacy.names import UnclearNameError, parse_experiment, parse_search, plain
from espalier.results.legacy.scan import COMPARISON, CONTRADICTORY, EVALUATION, FILES, GRADIENTS, UNKNOWN
from espalier.results.legacy.values import Notes

OK, FAILED = "ok", "failed"
# The percentage in a folder name is usually rounded to a whole number.
RATIO_TOLERANCE = 0.005


@dataclass(frozen=True)
class Reading:
    """Content of the files of one experiment.

    Attributes:
        status: `ok`, `failed` (no results), `unknown` or `contradictory`. The last two must not be used.
        notes: Reasons for the status, and notes on skipped or inconsistent values.
        evaluated: Accuracies and perplexities.
        diagnosed: Gradient metrics.
        compared: Parameter counts before and after pruning.
    """

    status: str
    notes: tuple[str, ...]
    evaluated: Evaluated
    diagnosed: Diagnosed
    compared: Compared

    @property
    def removed_param_fraction(self) -> float | None:
        """Achieved fraction of all parameters that was removed; None if not known."""
        return self.compared.removed_param_fraction

    @property
    def extreme_pruning_layers(self) -> int | None:
        """Number of layers that lost more than half: from the diagnosis, or else counted from the MLP widths."""
        said = self.diagnosed.extreme_pruning_layers
        return self.compared.extreme_pruning_layers if said is None else said


def read_experiment(
    found: Mapping[str, Any],
    *,
    search_folder: str,
    pruning_ratio: float | None,
    methods: Collection[str],
    model_names: Collection[str],
) -> Reading:
    """Read the files of one experiment.

    Args:
        found: `FoundExperiment.to_dict()` of the experiment.
        search_folder: Name of its search folder.
        pruning_ratio: Requested ratio; None if the name of the search folder does not give it.
        methods: Known methods.
        model_names: All names of the model.
    """
    notes: list[str] = list(found["notes"])
    contents = {file: _load(Path(found["source"]) / file, file, notes) or {} for file in found["files"]}
    per_file = {file: Notes(file) for file in FILES}
    evaluated = read_evaluation(contents.get(EVALUATION, {}), per_file[EVALUATION])
    diagnosed = read_gradients(contents.get(GRADIENTS, {}), per_file[GRADIENTS])
    compared = read_comparison(contents.get(COMPARISON, {}), per_file[COMPARISON])
    has_results = bool(evaluated.tasks or evaluated.perplexity)
    contradictions = _contradictions(
        (search_folder, found["folder"]), _folders_of(evaluated.model_path), methods, model_names
    )
    if found["status"] != UNKNOWN:
        notes += [f"{file}: is missing" for file in FILES if file not in found["files"]]
        notes += [f"{EVALUATION}: has no results"] if not has_results and EVALUATION in found["files"] else []
    notes += [note for file in per_file.values() for note in file]
    notes += _disagreements(evaluated, diagnosed, compared, pruning_ratio)
    return Reading(
        status=found["status"] or (CONTRADICTORY if contradictions else OK if has_results else FAILED),
        notes=tuple(dict.fromkeys([*contradictions, *notes])),
        evaluated=evaluated,
        diagnosed=diagnosed,
        compared=compared,
    )


def _load(path: Path, name: str, notes: list[str]) -> dict[str, Any] | None:
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
    ours: tuple[str, str], theirs: tuple[str, str], methods: Collection[str], model_names: Collection[str]
) -> list[str]:
    """Compare the folder names (search folder, experiment folder) with those in the path of the evaluated model."""
    same = (_same_search(ours[0], theirs[0], methods, model_names), _same_setting(ours[1], theirs[1]))
    return [
        f"{EVALUATION}: is about {claimed}, not about {here}; put it back, or name the folder rightly"
        for here, claimed, agrees in zip(ours, theirs, same, strict=True)
        if not agrees
    ]


def _folders_of(model_path: str | None) -> tuple[str, str]:
    """Return the names of search folder and experiment folder in a model path; empty strings if unknown."""
    *_, search, experiment, _ = ["", "", *re.split(r"[/\\]", model_path or "")]
    return search, experiment


def _same_setting(ours: str, theirs: str) -> bool:
    """Return whether two experiment folder names give the same setting, or one of them cannot be parsed."""
    try:
        return parse_experiment(ours) == parse_experiment(theirs)
    except UnclearNameError:
        return True


def _same_search(ours: str, theirs: str, methods: Collection[str], model_names: Collection[str]) -> bool:
    """Return whether two search folder names mean the same search, or one of them cannot be parsed."""
    try:
        found = [parse_search(name, methods, model_names) for name in (ours, theirs)]
    except UnclearNameError:
        return True
    return len({(plain(one.model), one.method, one.pruning_ratio) for one in found}) == 1


def _disagreements(
    evaluated: Evaluated, diagnosed: Diagnosed, compared: Compared, pruning_ratio: float | None
) -> list[str]:
    notes = []
    removed = compared.removed_param_fraction
    if removed is not None and pruning_ratio is not None and abs(removed - pruning_ratio) > RATIO_TOLERANCE:
        notes.append(
            f"{COMPARISON}: {removed:.2%} of the parameters were removed, "
            f"but the folder's name says {100 * pruning_ratio:.10g}%"
        )
    if None not in (evaluated.n_params, compared.params_after) and evaluated.n_params != compared.params_after:
        notes.append(
            f"{EVALUATION}: the model has {evaluated.n_params:,} parameters, "
            f"but {compared.params_after:,} in {COMPARISON}"
        )
    counted, claimed = compared.extreme_pruning_layers, diagnosed.extreme_pruning_layers
    if None not in (counted, claimed) and counted != claimed:
        notes.append(f"{GRADIENTS}: num_extreme_layers is {claimed}, {COMPARISON} has {counted}; the former is used")
    return notes

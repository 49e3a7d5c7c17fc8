"""The whole config of a study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from espalier.config.base import Name, Section, duplicates
from espalier.config.data import Calibration, TextSource
from espalier.config.evaluation import Evaluation
from espalier.config.export import Export
from espalier.config.gradients import Gradients
from espalier.config.grid import REFERENCE_METHODS, Grid, Method, Selection
from espalier.config.inference import Inference
from espalier.config.models import ModelEntry
from espalier.config.recovery import Recovery
from espalier.config.report import Report
from espalier.config.sandbox import Sandbox
from espalier.models.architecture import MLP_CHANNEL


class StudyConfig(Section):
    """The config of one study: its models, methods and grid, and settings of each step."""

    study: Name
    """Name of the study; results go to `results/{study}/`."""
    models: Annotated[tuple[ModelEntry, ...], Field(min_length=1)]
    """Models to prune and compare."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = REFERENCE_METHODS
    """Pruning methods that the grid may name."""
    grid: Grid = Grid()
    """Axes of the sweep."""
    calibration: Calibration = Calibration()
    """Text that importance and priors are measured on."""
    gradients: Gradients = Gradients()
    """How gradient passes use memory."""
    selection: Selection = Selection()
    """Constraints on what may be removed."""
    evaluation: Evaluation = Evaluation()
    """Tasks, perplexity and protocol."""
    recovery: Recovery | None = None
    """Fine-tuning of pruned models; none means that nothing is recovered."""
    report: Report = Report()
    """How results are presented."""
    export: Export = Export()
    """Which pruned models are written."""
    inference: Inference | None = None
    """What the target `inference` measures; without this section it measures nothing."""
    sandbox: Sandbox = Sandbox()
    """Size of the synthetic world; only used by what names the sandbox."""

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        problems = self._name_problems() or self._unit_problems()
        if problems := [*problems, *self._sandbox_problems(), *self._data_problems(), *self._race_problems()]:
            raise ValueError("\n".join(problems))
        return self

    def _name_problems(self) -> list[str]:
        problems = [
            f"{section}: two entries are named {name!r}; give each its own name"
            for section, entries in (("models", self.models), ("methods", self.methods))
            for name in duplicates(entry.name for entry in entries)
        ]
        known = [method.name for method in self.methods]
        grids = {"grid": self.grid, **{f"models[{i}].grid": model.grid for i, model in enumerate(self.models)}}
        problems += [
            f"{path}.methods: got {name!r}; allowed: {', '.join(known)} (the names under methods)"
            for path, grid in grids.items()
            for name in grid.methods or ()
            if name not in known
        ]
        ratios = sorted({ratio for grid in grids.values() for ratio in grid.pruning_ratio or ()})
        imports = any(model.legacy for model in self.models)  # the names of their folders contain further ratios
        if self.report.ratio is not None and self.report.ratio not in ratios and not imports:
            problems.append(
                f"report.ratio: got {self.report.ratio}; allowed: {', '.join(map(str, ratios))} (the grid's)"
            )
        return problems

    @property
    def _methods_of_grid(self) -> list[tuple[int, Method]]:
        """The methods that a grid names, each with its position in `methods`."""
        grids = [self.grid, *(model.grid for model in self.models)]
        names = {name for grid in grids for name in grid.methods or ()}
        return [(index, method) for index, method in enumerate(self.methods) if method.name in names]

    def _unit_problems(self) -> list[str]:
        """Return one line for each limit in `selection` that a method of the grid cannot meet or that has no effect."""
        methods, selection = self._methods_of_grid, self.selection
        problems = []
        if selection.stock_shape:
            problems += [
                f"methods[{index}]: {method.name!r} gives layers different shapes, which selection.stock_shape "
                "forbids; set allocation: same_shape or units: [layer], or remove selection.stock_shape"
                for index, method in methods
                if not method.keeps_stock_shape
            ]
        problems += self._expert_problems(methods)
        layers = [f"methods[{index}] ({method.name!r})" for index, method in methods if method.removes_layers]
        if not layers:
            return problems
        if selection.max_layer_ratio < 1:
            problems.append(
                f"selection.max_layer_ratio: {selection.max_layer_ratio} forbids removing whole layers, which "
                f"{layers[0]} does; remove one of the two"
            )
        if selection.collapse_below > 0:
            problems.append(
                f"selection.collapse_below: {selection.collapse_below} has no effect on whole layers, which "
                f"{layers[0]} removes; remove one of the two"
            )
        if selection.mlp_multiple_of > 1 and len(layers) == len(methods):
            problems.append(
                f"selection.mlp_multiple_of: {selection.mlp_multiple_of} has no effect, because all methods of the "
                "grid remove whole layers; remove it"
            )
        return problems

    def _expert_problems(self, methods: Sequence[tuple[int, Method]]) -> list[str]:
        """Return one line for each limit in `selection` that methods with units [expert] cannot meet."""
        experts = [f"methods[{index}] ({method.name!r})" for index, method in methods if method.removes_experts]
        if not experts:
            return []
        selection = self.selection
        problems = [
            f"selection.{name}: {value} gives layers different numbers of experts, but {experts[0]} removes equally "
            "many from each; remove one of the two"
            for name in ("freeze_first_layers", "freeze_last_layers", "collapse_below")
            if (value := getattr(selection, name))
        ]
        if selection.mlp_multiple_of > 1 and len(experts) == len(methods):
            problems.append(
                f"selection.mlp_multiple_of: {selection.mlp_multiple_of} has no effect, because all methods of the "
                "grid remove experts; remove it"
            )
        return problems

    def _sandbox_problems(self) -> list[str]:
        fresh = {m.name: m.sandbox for m in self.models if m.sandbox and not m.sandbox.continue_from}
        problems = []
        for i, model in enumerate(self.models):
            if model.sandbox is None or model.sandbox.continue_from is None:
                continue
            parent, architecture = model.sandbox.continue_from, model.sandbox.architecture
            allowed = [name for name, other in fresh.items() if other.architecture == architecture]
            if parent not in allowed:
                problems.append(
                    f"models[{i}].sandbox.continue_from: got {parent!r}; allowed: {', '.join(allowed) or 'none here'} "
                    f"(sandbox models of architecture {architecture} that are trained from scratch)"
                )
        return problems

    def _race_problems(self) -> list[str]:
        if self.evaluation.racing is None or not all(model.legacy for model in self.models):
            return []
        return [
            "evaluation.racing: a race of imported results is impossible: they have no single documents; remove racing"
        ]

    def _data_problems(self) -> list[str]:
        """Return one line for each perplexity text that is also read for calibration or recovery.

        Sandbox texts are not checked: the sandbox writes different texts for each purpose.
        """
        return self._revision_problems() + [
            f"{section}: {source.dataset!r}{'' if source.is_local else f' split {source.split!r}'} is also "
            f"evaluation.perplexity.texts[{i}]; {use} on another {'file' if source.is_local else 'split or dataset'}"
            for section, use, source in self._used_texts
            for i, text in enumerate(self.evaluation.perplexity.texts)
            if text.same_text(source)
        ]

    def _revision_problems(self) -> list[str]:
        """Return a line if recovery names the calibration text in another revision, in which documents have moved."""
        own, calibration = self.recovery.text if self.recovery else None, self.calibration
        if own is None or not own.is_hub or not own.same_text(calibration) or own.revision == calibration.revision:
            return []
        problem = (
            f"recovery.text.revision: got {own.revision!r}, but calibration reads the same split at revision "
            f"{calibration.revision!r}, and fine-tuning leaves out its documents; give the same revision"
        )
        return [problem]

    def warnings(self) -> list[str]:
        """Return one line for each choice that is allowed but doubtful, or does not hold for every model."""
        imported = [model.name for model in self.models if model.legacy] if self.evaluation.racing else []
        not_raced = [
            f"evaluation.racing: {name!r} is imported, so it is not raced: its results have no single documents"
            for name in imported
        ]
        unquoted = [
            f"evaluation.perplexity.texts[{number}].joiner: got {text.joiner!r}, a backslash and a letter; for a line "
            'end or a tab, use double quotes, as in joiner: "\\n\\n"'
            for number, text in enumerate(self.evaluation.perplexity.texts)
            if re.search(r"\\[nrt]", text.joiner)
        ]
        other_splits = [
            f"{section}: {source.dataset!r} is also the dataset of perplexity text {text.name!r} (another split)"
            for section, _, source in self._used_texts
            for text in self.evaluation.perplexity.texts
            if text.dataset != "sandbox" and text.same_dataset(source) and not text.same_text(source)
        ]
        return not_raced + unquoted + other_splits + self._width_warnings() + self._method_warnings()

    def _width_warnings(self) -> list[str]:
        """Return a line if `selection.mlp_multiple_of` has no effect on methods that `_unit_problems` does not refuse.

        These configs are not refused, because plans of older versions have the value in their recipes.
        """
        given, methods = self.selection.mlp_multiple_of, self._methods_of_grid
        if given == 1:
            return []
        if not any(MLP_CHANNEL in method.units for _, method in methods):
            nothing = (
                f"selection.mlp_multiple_of: {given} has no effect, because no method of the grid removes MLP "
                "channels; leave it out of new studies (a change makes the plans of this one again)"
            )
            return [nothing]
        return [
            f"selection.mlp_multiple_of: {given} has no effect on methods[{index}] ({method.name!r}), which removes "
            "whole experts (but a change makes its plans again)"
            for index, method in methods
            if method.removes_experts
        ]

    def _method_warnings(self) -> list[str]:
        """Return a line for each option of a method of the grid that has no effect because of another option."""
        equal = "all layers lose equally many experts; leave it out of new studies (a change makes its plans again)"
        found: list[tuple[int, str, object, str]] = []
        for index, method in self._methods_of_grid:
            if method.removes_experts and method.allocation != "global":
                found.append((index, "allocation", method.allocation, equal))
            if method.scope == "none":
                usual = Method(name=method.name)
                found += [
                    (index, key, value, "scope is none; leave it out")
                    for key in ("prior", "temperature", "prior_floor")
                    if (value := getattr(method, key)) != getattr(usual, key) and (key, value) != ("temperature", 0)
                ]
        return [f"methods[{index}].{key}: {value!r} has no effect, because {why}" for index, key, value, why in found]

    @property
    def _used_texts(self) -> list[tuple[str, str, TextSource]]:
        """The texts that calibration and recovery read: (section, verb for messages, source)."""
        own = self.recovery.text if self.recovery else None
        calibration = [("calibration", "calibrate", self.calibration)]
        return calibration + ([("recovery.text", "fine-tune", own)] if own else [])

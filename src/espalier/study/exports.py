"""Look-ups for exported checkpoints: the experiment that each one holds, and the files that it is made from."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from espalier.config.base import BEST
from espalier.config.study import StudyConfig
from espalier.errors import UserError
from espalier.evaluation.protocol import ACC_NORM_ELSE_ACC
from espalier.study.failures import Job
from espalier.study.paths import Paths, Wildcards
from espalier.study.recovery_results import trained_files
from espalier.study.sweep import Sweep

RECOVERED = "-recovered"
"""Suffix of the name of a recovered experiment, whose adapter or trained weights are applied before the export."""
FOLDER_PATTERNS = {"transformers": "{name}", "vllm": "{name}-vllm"}
"""Name of a checkpoint's folder under `checkpoints/{model}/`, for each format that `export_checkpoint` writes."""
_MOST_NAMES = 20


class Exports:
    """Pruned models that can be exported: the best experiment of each model, and every experiment by its name.

    Args:
        config: Config of the study.
        paths: Paths of the study.
        sweep: Experiments of the study.
    """

    def __init__(self, config: StudyConfig, paths: Paths, sweep: Sweep) -> None:
        self._config = config
        self._paths = paths
        self._sweep = sweep
        self._models = {model.name: model for model in config.models if model.legacy is None}

    @property
    def files(self) -> list[str]:
        """Outputs that target `export` requests: folders of `export_checkpoint` and files of `export_gguf`."""
        export = self._config.export
        paths = FOLDER_PATTERNS | {"gguf": f"{{name}}.{export.gguf_type}.gguf"}
        return [
            self._paths.of("export_checkpoint", model, paths[form].format(name=name))
            for model, name in self.exported
            for form in export.formats
        ]

    @property
    def exported(self) -> list[tuple[str, str]]:
        """Pairs of model and exported name: `best`, and the configured experiments that the model has.

        A model without experiments at the headline ratio, controls aside, has no best one.
        """
        named = self._config.export.experiments
        return [
            (model, name)
            for model in self._models
            for name in ((BEST, *named) if self._sweep.has_best(model) else named)
            if name in self._names(model)
        ]

    @property
    def name_pattern(self) -> str:
        """Regular expression of exported names: `best`, an experiment, or a recovered experiment."""
        return rf"(?:{BEST}|{self._sweep.name_pattern}(?:{RECOVERED})?)"

    @property
    def checkpoint_pattern(self) -> str:
        """Regular expression of the folder names that `export_checkpoint` writes."""
        return rf"{self.name_pattern}(?:-vllm)?"

    # -- params and inputs of rules ------------------------------------------------------------------------------

    def best(self, wildcards: Wildcards) -> list[str]:
        """Return the file that names the best experiment; none if an experiment is exported by its name."""
        if wildcards.exported != BEST:
            return []
        return [self._paths.of("consolidate", wildcards.model)]

    def plans(self, wildcards: Wildcards) -> list[str]:
        """Return the plan of the exported experiment; for `best`, the plans of all experiments of the model."""
        return self._files(wildcards, "plan")

    def metrics(self, wildcards: Wildcards) -> list[str]:
        """Return the metrics for the same experiments as `plans`; for a recovered one, those after recovery."""
        return self._files(wildcards, "evaluate_recovered" if wildcards.exported.endswith(RECOVERED) else "evaluate")

    def recovered(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the adapter or trained weights that a checkpoint is made from; none without recovery."""
        name = self._find(wildcards)[0]
        if not name.endswith(RECOVERED):
            return []
        return trained_files(self._config, self._paths, wildcards.model, name.removesuffix(RECOVERED))

    def settings(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the configured base model and calibration text for the model card.

        `stock` and `acc_mean_rule` are added if they are not the default, so that older exports stay valid.
        """
        model = self._models[wildcards.model]
        base = model.model_dump(include={"name", "family", "kind", "hub", "revision"})
        return {
            "base": base,
            "calibration": self._config.calibration.model_dump(include={"dataset", "config", "split"}),
            **({"stock": True} if self._config.export.stock else {}),
            **({} if (rule := self._config.report.acc_mean_rule) == ACC_NORM_ELSE_ACC else {"acc_mean_rule": rule}),
        }

    def description(self, wildcards: Wildcards) -> str:
        """Return the description of a checkpoint: one file for all formats of an experiment."""
        return self._paths.of("describe_export", wildcards.model, self._find(wildcards)[0])

    def has_stubs(self, wildcards: Wildcards) -> bool:
        """Return whether removed blocks are written as blocks of zeros, as the format `vllm` requires."""
        return self._find(wildcards)[1] == "vllm"

    def jobs(self, model: str) -> Iterator[Job]:
        """Yield the jobs that target `export` requests for a model."""
        export = self._config.export
        for name in (name for of, name in self.exported if of == model):
            yield self._job("describe_export", model, name)
            for form in export.formats:
                checkpoint = FOLDER_PATTERNS.get(form, FOLDER_PATTERNS["transformers"]).format(name=name)
                yield self._job("export_checkpoint", model, checkpoint)
            if "gguf" in export.formats:
                yield self._job("export_gguf", model, name, export.gguf_type)

    # -- problems ------------------------------------------------------------------------------------------------

    def problems(self) -> Iterator[str]:
        """Yield one line for each configured export that the study does not have."""
        names = list(dict.fromkeys(name for model in self._models for name in self._names(model)[1:]))
        for index, name in enumerate(self._config.export.experiments):
            if name not in names:
                needs = name.endswith(RECOVERED) and self._config.recovery is None
                remedy = "; recovered ones need the section `recovery`" if needs else ""
                yield f"export.experiments[{index}]: got {name!r}; allowed: {_join_names(names, name)}{remedy}"
        if self._config.export.stock:
            yield from self._stock_problems()

    def _stock_problems(self) -> Iterator[str]:
        """Yield one line for each experiment that is exported by its name and keeps no stock shape."""
        methods = {experiment.name: experiment.method for experiment in self._sweep.experiments}
        for index, name in enumerate(self._config.export.experiments):
            method = methods.get(name.removesuffix(RECOVERED))
            if method and not method.keeps_stock_shape:
                yield (
                    f"export.experiments[{index}]: {name!r} gives layers different shapes, which export.stock refuses; "
                    "leave it out, or name one with units: [layer] or allocation: same_shape"
                )

    def _job(self, rule: str, *wildcards: str) -> Job:
        return Job(self._paths.results, rule, wildcards, self._paths.of(rule, *wildcards))

    def _names(self, model: str) -> tuple[str, ...]:
        """Return the names that can be exported for a model, `best` first."""
        found = [experiment.name for experiment in self._sweep.experiments if experiment.model == model]
        return (BEST, *found, *(f"{name}{RECOVERED}" for name in found if self._config.recovery))

    def _files(self, wildcards: Wildcards, output: str) -> list[str]:
        self._check(wildcards.model, wildcards.exported)
        is_best = wildcards.exported == BEST
        names = self._sweep.names_of_model(wildcards) if is_best else [wildcards.exported.removesuffix(RECOVERED)]
        paths = [self._paths.of(output, wildcards.model, name) for name in names]
        return self._sweep.available(paths) if is_best else paths

    def _find(self, wildcards: Wildcards) -> tuple[str, str]:
        """Return the exported name and the format of a checkpoint's folder."""
        names = self._names(wildcards.model)
        folders = {folder.format(name=name): (name, form) for name in names for form, folder in FOLDER_PATTERNS.items()}
        if wildcards.checkpoint not in folders:
            self._check(wildcards.model, wildcards.checkpoint)
        return folders[wildcards.checkpoint]

    def _check(self, model: str, name: str) -> None:
        known = list(self._names(model)[1:]) if model in self._models else []
        if name not in {BEST, *known}:
            raise UserError(
                f"model {model!r} has no experiment {name!r} to export; allowed: {_join_names(known, name)}"
            )


def _join_names(names: list[str], wrong: str) -> str:
    """Join names for a message; if there are many, only those most similar to the wrong one."""
    if len(names) <= _MOST_NAMES:
        return ", ".join(names) or "none here"
    near = difflib.get_close_matches(wrong, names, n=3, cutoff=0)
    return f"{', '.join(near)} and {len(names) - len(near)} more (the folders under experiments/)"

"""Look-ups for the Snakefile and the rules: paths, params and resources that depend on the config.

Rules contain literal paths. If a path, param or resource depends on a wildcard, the rule names a method of `Study` or
of one of its attributes. Snakemake calls the method with the wildcards of a job. This module imports neither torch nor
lm-eval.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from espalier.config.literature import SHIPPED
from espalier.config.models import ModelEntry
from espalier.config.study import StudyConfig
from espalier.study.calibrations import Calibrations
from espalier.study.evaluation import EvaluationSettings
from espalier.study.exports import Exports
from espalier.study.failures import Failures
from espalier.study.handover import Handover
from espalier.study.host_memory import Memory
from espalier.study.inference import InferenceTimings
from espalier.study.legacy import LegacyResults
from espalier.study.passes import Passes
from espalier.study.paths import Paths, Wildcards, results_folder
from espalier.study.racing import Races
from espalier.study.recovery import RecoverySettings
from espalier.study.recovery_results import RecoveryResults
from espalier.study.sources import SandboxSources, StagedSources, model_slug
from espalier.study.sweep import Sweep
from espalier.study.table_sources import TableSources


class Study:
    """Look-ups for one study. Each attribute has the look-ups for one subject.

    Args:
        config: Config of the study.
        sources: Folder of the library's source files, `src/espalier`.

    Attributes:
        config: Config of the study.
        results: Folder of the study's results.
        paths: Paths of all files that rules write.
        staged: Models, tasks and texts that are staged from a hub.
        sandbox: Models, tasks and texts that the workflow makes.
        evaluation: Protocol and data files of evaluations.
        sweep: Experiments.
        races: Races among the experiments.
        calibration: Calibration sets, and the passes over them.
        tables: Results that tables and analyses read.
        legacy: Imported models.
        exports: Pruned models that can be exported.
        inference: Experiments whose inference is measured.
        failures: Reasons for missing results.
        recovery: Settings and text of recovery.
        recovered: Recovered experiments.
        memory: Host memory of jobs.
        handover: Resources of the rules that run a model and share a store.
    """

    def __init__(self, config: StudyConfig, sources: Path) -> None:
        self.config = config
        self._sources = sources
        self._models = {model.name: model for model in config.models}
        self.results = results_folder(config.study)
        self.paths = Paths(self.results)
        self.staged = StagedSources(config)
        self.sandbox = SandboxSources(config, self.paths)
        self.evaluation = EvaluationSettings(config, self.paths)
        self.sweep = Sweep(config, self.paths)
        self.races = Races(config, self.paths, self.sweep)
        self.calibration = Calibrations(config, self.paths, self.sweep)
        self.tables = TableSources(config, self.paths, self.sweep)
        self.legacy = LegacyResults(config, self.paths)
        self.exports = Exports(config, self.paths, self.sweep)
        self.inference = InferenceTimings(config, self.paths, self.sweep)
        self.failures = Failures(
            config, self.paths, self.sweep, self.tables, more_jobs=(self.exports.jobs, self.inference.jobs)
        )
        self.recovery = RecoverySettings(config, self.paths, self.sweep)
        self.recovered = RecoveryResults(config, self.paths, self.sweep, self.failures)
        recovery_dtype = config.recovery.dtype if config.recovery else "auto"
        self.memory = Memory(
            {"evaluation": config.evaluation.dtype, "recovery": recovery_dtype}, uses_gpu=self.uses_gpu
        )
        passes = Passes(config, self.paths, self.sweep, self.calibration)
        self.handover = Handover(self.paths, passes, self.evaluation, self.memory, self.gpus, self.races)

    def source_files(self, *patterns: str) -> list[str]:
        """Return the library's source files that match glob patterns, as paths relative to the working directory.

        They are inputs of cheap rules, so that editing the code reruns these rules.
        """
        found = [path for pattern in patterns for path in sorted(self._sources.glob(pattern))]
        return [os.path.relpath(path) for path in found if path.is_file()]  # no folder of compiled modules

    @property
    def figure_styles(self) -> list[str]:
        """The style file that the config adds to the style of the figures; empty if there is none."""
        return [self.config.report.style] if self.config.report.style else []

    @property
    def literature(self) -> list[str]:
        """The file of published figures, as a path relative to the working directory; empty if there is none."""
        path = self.config.report.literature
        if path == SHIPPED:
            shipped = self._sources.resolve().parents[1] / "config/literature.yaml"
            return [os.path.relpath(shipped)] if shipped.is_file() else []  # absent from a copy without its configs
        return [path] if path else []

    @property
    def literature_settings(self) -> dict[str, Any]:
        """Settings that published figures are compared with (`analysis.literature.StudySettings`).

        Those after `calibration` are left out at their defaults, so that pages of older versions stay valid.
        """
        evaluation = self.config.evaluation
        texts = evaluation.perplexity.texts
        added = {
            "task_fewshots": evaluation.task_fewshots,
            "chat_template": evaluation.chat_template,
            "max_tokens": {text.name: text.max_tokens for text in texts if text.max_tokens is not None},
        }
        return {
            "models": {model.name: model.hub or Path(model.path or "").name for model in self.config.models},
            "num_fewshot": evaluation.num_fewshot,
            "limit": evaluation.limit,
            "window": evaluation.perplexity.window,
            "stride": evaluation.perplexity.stride,
            "texts": [text.name for text in texts],
            "calibration": self.config.calibration.name,
            **{key: value for key, value in added.items() if value},
        }

    # -- names ---------------------------------------------------------------------------------------------------

    @property
    def models(self) -> list[str]:
        """Names of the models that are computed, not imported."""
        return [model.name for model in self.config.models if model.legacy is None]

    @property
    def model_names(self) -> list[str]:
        """Names of all models, computed and imported, in the order of the config."""
        return [model.name for model in self.config.models]

    @property
    def reported_models(self) -> list[str]:
        """Names of the models that have reports.

        If results may be missing, models without a manifest (`Failures.unchecked_models`) are left out, unless no other
        model remains.
        """
        unchecked = [name for name in self.models if not self.sweep.available([self.paths.of("check_model", name)])]
        return [name for name in self.model_names if name not in unchecked] or self.model_names

    @property
    def models_with_structures(self) -> list[str]:
        """Names of the models for which the rule `compare_structures` compares pruned and unpruned layers.

        If results may be missing, models without a manifest are left out, as in `reported_models`.
        """
        reported = self.reported_models
        return [*(name for name in self.models if name in reported), *self.legacy.models_with_structures]

    @staticmethod
    def constraint_of(names: Iterable[str]) -> str:
        """Return a regular expression that allows only these names as a wildcard; without names it matches nothing."""
        return "|".join(re.escape(name) for name in names) or "(?!)"

    # -- models --------------------------------------------------------------------------------------------------

    def trained_model(self, wildcards: Wildcards) -> list[str]:
        """Return the weights file of a sandbox model, an input of `check_model`; none for other models.

        The weights of a local model are not an input, so that results do not become stale if the user deletes the
        weights after use.
        """
        model = self._models[wildcards.model]
        return [self.paths.of("train_sandbox_model", model.name)] if model.sandbox else []

    def staged_model(self, wildcards: Wildcards) -> list[str]:
        """Return the file with the commit of a staged hub model; none for other models."""
        model = self._models[wildcards.model]
        return [self.paths.of("stage_model", model_slug(model))] if model.hub else []

    def manifest(self, wildcards: Wildcards) -> list[str]:
        """Return the manifest of a model; none for an imported model, whose imported tables contain its sizes."""
        return [self.paths.of("check_model", wildcards.model)] if wildcards.model in self.models else []

    def check_params(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the params of `check_model`."""
        model = self._models[wildcards.model]
        return {"folder": self.model_folder(model), "trust_remote_code": model.trust_remote_code}

    def model_folder(self, model: ModelEntry) -> str:
        """Return the folder of a model's weights, whether or not it exists; empty for an imported model."""
        if model.sandbox:
            return str(Path(self.paths.of("train_sandbox_model", model.name)).parent)
        if model.hub:
            return str(Path(self.paths.of("stage_model", model_slug(model))).parent)
        return model.path or ""

    def forecast(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the params of `forecast`."""
        from espalier.study.planned_jobs import planned_jobs

        return planned_jobs(self)

    def gpus(self, wildcards: Wildcards) -> int:
        """Return the number of GPUs that a job requests to run a model: `models[].gpus`, or 0 if no GPU is used."""
        return self._models[wildcards.model].gpus if self.uses_gpu else 0

    @property
    def uses_gpu(self) -> bool:
        """Whether jobs that run models may request a GPU."""
        return self.config.evaluation.device != "cpu"


def per_attempt(base: int) -> Callable[..., int]:
    """Return a resource that grows with each attempt: base, 2 x base, ..."""

    def resource(wildcards: Mapping[str, str], attempt: int) -> int:
        return base * attempt

    return resource

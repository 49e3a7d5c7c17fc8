"""What the rules of the sweep look up: gradient passes, priors, plans and evaluations of every experiment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from espalier.config.grid import Method
from espalier.config.study import StudyConfig
from espalier.errors import UserError
from espalier.study.experiments import Experiment, experiments_of
from espalier.study.paths import Paths

Wildcards = Any
ALLOW_MISSING = "ESPALIER_ALLOW_MISSING"
"""Names of studies whose results may be missing as by `report.allow_missing`: those of target `partial_reports`."""


class Sweep:
    """Tables over the experiments of a study.

    Args:
        config: The study.
        paths: Its paths.
    """

    def __init__(self, config: StudyConfig, paths: Paths) -> None:
        self._config = config
        self._paths = paths
        self._allow_missing = config.report.allow_missing or config.study in os.environ.get(ALLOW_MISSING, "").split()
        self._experiments = {model.name: experiments_of(config, model) for model in config.models}
        self._by_name = {(e.model, e.name): e for found in self._experiments.values() for e in found}

    @property
    def allows_missing(self) -> bool:
        """Whether tables and reports take what is finished."""
        return self._allow_missing

    @property
    def experiments(self) -> list[Experiment]:
        """Every experiment, model by model."""
        return list(self._by_name.values())

    @property
    def names(self) -> list[str]:
        """Names of experiments, each once."""
        return list(dict.fromkeys(experiment.name for experiment in self.experiments))

    @property
    def name_pattern(self) -> str:
        """Regular expression of names of experiments; which of them exist, `_find` knows.

        Not the list of names: Snakemake copies a constraint into every path, which would make thousands of
        experiments take quadratic time.
        """
        methods = {experiment.method.name for experiment in self.experiments}
        return rf"(?:{'|'.join(map(re.escape, sorted(methods)))})(?:-seq\d+)?(?:-n\d+)?-p[\d_]+(?:-s\d+)?"

    def present(self, paths: Iterable[str]) -> list[str]:
        """Return the paths; where results may be missing, only those that exist."""
        return [path for path in paths if not self._allow_missing or Path(path).exists()]

    def of_model(self, model: str) -> list[Experiment]:
        """Experiments of one model; none of one that is imported."""
        return self._experiments.get(model, [])

    def names_of(self, wildcards: Wildcards) -> list[str]:
        """Names of the experiments of one model."""
        return [experiment.name for experiment in self.of_model(wildcards.model)]

    def files(self, pattern: str) -> list[str]:
        """Fill `{model}` and `{experiment}` of a path for every experiment."""
        return [pattern.format(model=e.model, experiment=e.name) for e in self.experiments]

    @property
    def gradient_tables(self) -> list[str]:
        """Tables of all gradient passes."""
        needed = (e for e in self.experiments if e.needs_gradients)
        return list(dict.fromkeys(self.gradient_table(e) for e in needed))

    @property
    def importance_tables(self) -> list[str]:
        """Tables of the importances that plans read."""
        return list(dict.fromkeys(table for e in self.experiments for table in self._importance_table(e)))

    # -- params and inputs of rules ------------------------------------------------------------------------------

    def importance_table(self, wildcards: Wildcards) -> list[str]:
        """Importance table that a plan reads; none for a criterion without."""
        return self._importance_table(self._find(wildcards))

    def prior_table(self, wildcards: Wildcards) -> list[str]:
        """Priors table that a plan reads; none for a method without priors."""
        experiment = self._find(wildcards)
        return [self._pass_table("measure_priors", experiment)] if experiment.needs_priors else []

    def plan_params(self, wildcards: Wildcards) -> dict[str, Any]:
        """All settings of a plan."""
        return self.plan_settings(self._find(wildcards))

    # -- helpers -------------------------------------------------------------------------------------------------

    def _find(self, wildcards: Wildcards) -> Experiment:
        experiment = self._by_name.get((wildcards.model, wildcards.experiment))
        if experiment is None:
            raise UserError(f"model {wildcards.model!r} has no experiment {wildcards.experiment!r} in this study")
        return experiment

    def calibration(self, experiment: Experiment) -> str:
        """Name the calibration set of an experiment: `c4-s0`."""
        return self.calibration_name(experiment.seed or 0)

    def calibration_name(self, seed: int) -> str:
        """Name the calibration set of a seed."""
        return f"{self._config.calibration.name}-s{seed}"

    def gradient_table(self, experiment: Experiment) -> str:
        """Table of the gradient pass that an experiment reads."""
        return self._pass_table("collect_gradients", experiment)

    def plan_settings(self, experiment: Experiment) -> dict[str, Any]:
        """All settings of the plan of an experiment."""
        method = experiment.method
        return {
            "method": method.model_dump(exclude={"name"}) if experiment.needs_priors else _without_prior(method),
            "selection": self._config.selection.model_dump(),
            "pruning_ratio": experiment.pruning_ratio,
            "seq_len": experiment.seq_len,
            "n_samples": experiment.n_samples,
            "seed": experiment.seed,
        }

    def _pass_table(self, output: str, experiment: Experiment) -> str:
        return self._paths.of(output, experiment.model, self.calibration(experiment), experiment.seq_len or 0)

    def _importance_table(self, experiment: Experiment) -> list[str]:
        if not experiment.criterion.reads_model:
            return []
        criterion = experiment.method.criterion
        if not experiment.criterion.reads_text:
            return [self._paths.of("measure_weights", experiment.model, criterion)]
        if criterion == "taylor":
            return [self._pass_table("collect_gradients.importance", experiment)]
        calibration, seq_len = self.calibration(experiment), experiment.seq_len or 0
        return [self._paths.of("measure_importance", experiment.model, criterion, calibration, seq_len)]


def _without_prior(method: Method) -> dict[str, Any]:
    """Leave out what a method without priors does not use, so that changing it makes nothing stale."""
    settings = method.model_dump(exclude={"name"})
    unused = {"prior": "loss_increase", "temperature": 1.0, "tau": None, "prior_floor": 1e-4}
    return settings | unused

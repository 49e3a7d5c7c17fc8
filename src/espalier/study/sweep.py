"""Look-ups for the experiments of a study: names, passes over calibration text, priors and plans."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from espalier.config.grid import Method
from espalier.config.study import StudyConfig
from espalier.errors import UserError
from espalier.naming import CONTROL, ratio_key
from espalier.study.experiments import Experiment, experiments_of
from espalier.study.paths import Paths, Wildcards

ALLOW_MISSING = "ESPALIER_ALLOW_MISSING"
"""Environment variable: names of the studies whose results may be missing.

The driver sets it for the target `partial_reports`. It has the effect of `report.allow_missing`.
"""


class Sweep:
    """Experiments of a study, with their files and params.

    Args:
        config: Config of the study.
        paths: Paths of the study.
    """

    def __init__(self, config: StudyConfig, paths: Paths) -> None:
        self._config = config
        self._paths = paths
        self._allow_missing = config.report.allow_missing or config.study in os.environ.get(ALLOW_MISSING, "").split()
        self._experiments = {model.name: experiments_of(config, model) for model in config.models}
        self._by_name = {(e.model, e.name): e for group in self._experiments.values() for e in group}

    @property
    def allows_missing(self) -> bool:
        """Whether results may be missing, so that tables and reports contain only finished results."""
        return self._allow_missing

    @property
    def experiments(self) -> list[Experiment]:
        """Every experiment, model by model."""
        return list(self._by_name.values())

    @property
    def names(self) -> list[str]:
        """Names of all experiments, each once."""
        return list(dict.fromkeys(experiment.name for experiment in self.experiments))

    @property
    def name_pattern(self) -> str:
        """Regular expression of the names of experiments. It also matches some names that do not exist.

        It is not a list of all names, because Snakemake copies a constraint into every path. With a list, the time for
        thousands of experiments would be quadratic. `_find` rejects names that do not exist.
        """
        methods = {experiment.method.name for experiment in self.experiments}
        return rf"(?:{'|'.join(map(re.escape, sorted(methods)))})(?:-seq\d+)?(?:-n\d+)?-p[\d_]+(?:-s\d+)?"

    def available(self, paths: Iterable[str]) -> list[str]:
        """Return the paths; if results may be missing, only those that exist."""
        return [path for path in paths if not self._allow_missing or Path(path).exists()]

    def experiments_of_model(self, model: str) -> list[Experiment]:
        """Return the experiments of one model; none for an imported model."""
        return self._experiments.get(model, [])

    def at_headline(self, model: str) -> list[Experiment]:
        """Return the experiments of a model at the headline ratio: `report.ratio`, or else its own largest ratio.

        `best` is one of them (`has_best`). There is none if the grid of the model does not have `report.ratio`.
        """
        experiments = self.experiments_of_model(model)
        ratio = self._config.report.ratio or max((one.pruning_ratio for one in experiments), default=0.0)
        return [one for one in experiments if ratio_key(one.pruning_ratio) == ratio_key(ratio)]

    def has_best(self, model: str) -> bool:
        """Return whether an experiment of a model at the headline ratio may be the best. Controls never are.

        If no model has such an experiment, the jobs that need the best one say so, so all models keep theirs.
        """
        candidates = [
            name for name in self._experiments if any(one.method.criterion != CONTROL for one in self.at_headline(name))
        ]
        return model in candidates or (not candidates and bool(self.at_headline(model)))

    def names_of_model(self, wildcards: Wildcards) -> list[str]:
        """Return the names of the experiments of one model."""
        return [experiment.name for experiment in self.experiments_of_model(wildcards.model)]

    def planned_names_of_model(self, wildcards: Wildcards) -> list[str]:
        """Return the names of the experiments of one model; if results may be missing, only those with a plan."""
        plans = {self._paths.of("plan", wildcards.model, name): name for name in self.names_of_model(wildcards)}
        return [plans[path] for path in self.available(plans)]

    def files(self, pattern: str) -> list[str]:
        """Return the path of every experiment: the pattern with `{model}` and `{experiment}` filled in."""
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
        """Return the importance table that a plan reads; none if the criterion does not read the model."""
        return self._importance_table(self._find(wildcards))

    def prior_table(self, wildcards: Wildcards) -> list[str]:
        """Return the priors table that a plan reads; none for a method without priors."""
        experiment = self._find(wildcards)
        return [self.prior_table_of(experiment)] if experiment.needs_priors else []

    def plan_params(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the params of `plan`: all settings of the experiment's plan."""
        return self.plan_settings(self._find(wildcards))

    # -- look-ups by experiment ----------------------------------------------------------------------------------

    def _find(self, wildcards: Wildcards) -> Experiment:
        experiment = self._by_name.get((wildcards.model, wildcards.experiment))
        if experiment is None:
            raise UserError(f"model {wildcards.model!r} has no experiment {wildcards.experiment!r} in this study")
        return experiment

    def calibration_of(self, experiment: Experiment) -> str:
        """Return the name of an experiment's calibration set, such as `c4-s0`."""
        return self.calibration_name(experiment.seed or 0)

    def calibration_name(self, seed: int) -> str:
        """Return the name of a seed's calibration set."""
        return f"{self._config.calibration.name}-s{seed}"

    def gradient_table(self, experiment: Experiment) -> str:
        """Return the table of an experiment's gradient pass."""
        return self._pass_table("collect_gradients", experiment)

    def prior_table_of(self, experiment: Experiment) -> str:
        """Return the priors table of an experiment's pass."""
        return self._pass_table("measure_priors", experiment)

    def plan_settings(self, experiment: Experiment) -> dict[str, Any]:
        """Return all settings of an experiment's plan."""
        method = experiment.method
        selection = self._config.selection.model_dump(exclude={"stock_shape"})
        if method.removes_layers:
            selection["mlp_multiple_of"] = 1  # has no effect, so changing it makes nothing stale
        return {
            "method": method.settings if experiment.needs_priors else _without_prior(method),
            "selection": selection,
            "pruning_ratio": experiment.pruning_ratio,
            "seq_len": experiment.seq_len,
            "n_samples": experiment.n_samples,
            "seed": experiment.seed,
        }

    def _pass_table(self, output: str, experiment: Experiment) -> str:
        return self._paths.of(output, experiment.model, self.calibration_of(experiment), experiment.seq_len or 0)

    def _importance_table(self, experiment: Experiment) -> list[str]:
        if not experiment.criterion.reads_model:
            return []
        criterion = experiment.method.criterion
        if not experiment.criterion.reads_text:
            return [self._paths.of("measure_weights", experiment.model, criterion)]
        if criterion == "taylor":
            return [self._pass_table("collect_gradients.importance", experiment)]
        calibration, seq_len = self.calibration_of(experiment), experiment.seq_len or 0
        return [self._paths.of("measure_importance", experiment.model, criterion, calibration, seq_len)]


def _without_prior(method: Method) -> dict[str, Any]:
    """Return a method's settings with fixed values for its unused prior, so that changing those makes nothing stale."""
    unused = {"prior": "loss_increase", "temperature": 1.0, "tau": None, "prior_floor": 1e-4}
    return method.settings | unused

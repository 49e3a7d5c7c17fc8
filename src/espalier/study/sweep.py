"""What the rules of the sweep look up: gradient passes, priors, plans and evaluations of every experiment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from espalier.calibration.ladder import off_ladder
from espalier.config.grid import Method
from espalier.config.models import ModelEntry
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

    def samples(self, wildcards: Wildcards) -> dict[str, str]:
        """Results of single documents of one model, by experiment; `baseline` is the unpruned model."""
        model = wildcards.model
        if model not in {computed.name for computed in self._computed}:
            return {}
        files = {"baseline": self._paths.of("evaluate_baseline.samples", model)} | {
            name: self._paths.of("evaluate.samples", model, name) for name in self.names_of(wildcards)
        }
        return {name: path for name, path in files.items() if self.present([path])}

    def samples_of(self, wildcards: Wildcards) -> list[str]:
        """Files of `samples`."""
        return list(self.samples(wildcards).values())

    def names_of(self, wildcards: Wildcards) -> list[str]:
        """Names of the experiments of one model."""
        return [experiment.name for experiment in self._experiments[wildcards.model]]

    @property
    def calibrations(self) -> list[str]:
        """Names of the calibration sets, `{name}-s{seed}`."""
        return [self._calibration(seed) for seed in self._config.calibration.seeds]

    def files(self, pattern: str) -> list[str]:
        """Fill `{model}` and `{experiment}` of a path for every experiment."""
        return [pattern.format(model=e.model, experiment=e.name) for e in self.experiments]

    def calibration_checks(self, wildcards: Wildcards) -> list[str]:
        """Checks of every calibration set that an experiment uses."""
        used = dict.fromkeys((e.model, self.calibration(e)) for e in self.experiments if e.seq_len)
        return self.present(self._paths.of("check_calibration", model, calibration) for model, calibration in used)

    def manifests(self, wildcards: Wildcards) -> list[str]:
        """Manifests of all models that are computed here."""
        return self.present(self._paths.of("check_model", model.name) for model in self._computed)

    @property
    def gradient_tables(self) -> list[str]:
        """Tables of all gradient passes."""
        needed = (e for e in self.experiments if e.needs_gradients)
        return list(dict.fromkeys(self._gradient_table(e) for e in needed))

    @property
    def importance_tables(self) -> list[str]:
        """Tables of the importances that plans read."""
        return list(dict.fromkeys(table for e in self.experiments for table in self._importance_table(e)))

    def gradient_passes(self, wildcards: Wildcards) -> list[tuple[str, int, str]]:
        """Calibration set, sequence length and table of each gradient pass of one model; none for an imported one."""
        experiments = [e for e in self._experiments.get(wildcards.model, []) if e.needs_gradients]
        passes = {(self.calibration(e), e.seq_len, self._gradient_table(e)) for e in experiments if e.seq_len}
        return sorted(each for each in passes if self.present([each[2]]))

    def gradient_tables_of(self, wildcards: Wildcards) -> list[str]:
        """Tables of `gradient_passes`."""
        return [table for _, _, table in self.gradient_passes(wildcards)]

    def results_of_all(self, wildcards: Wildcards) -> list[str]:
        """Everything that the tables are made of, except manifests.

        A plan is among them only where its experiment has no metrics: those are made anew with every plan, and the
        time that Snakemake takes for a job grows with the square of its inputs.
        """
        absent = set(self.missing(wildcards))
        plans = (entry["plan"] for entry in self._entries if entry["plan"] and entry["metrics"] in absent)
        gradients = (entry["gradients"] for entry in self._entries if entry["gradients"])
        metrics = (entry["metrics"] for entry in self._entries)
        return self.present(dict.fromkeys([*metrics, *plans, *gradients]))

    def missing(self, wildcards: Wildcards) -> list[str]:
        """Return the metrics files that do not exist, where that is allowed (`Failures.experiments` has reasons)."""
        metrics = [entry["metrics"] for entry in self._entries]
        return sorted(set(metrics) - set(self.present(metrics)))

    def entries(self, wildcards: Wildcards = None) -> list[dict[str, Any]]:
        """One entry for each row of the experiments table: what the config says of it, and where its results lie."""
        return self._entries

    @cached_property
    def _entries(self) -> list[dict[str, Any]]:
        return [
            entry
            for model in self._computed
            for entry in [self._baseline_entry(model)]
            + [self._entry(model, experiment) for experiment in self._experiments[model.name]]
        ]

    # -- params and inputs of rules ------------------------------------------------------------------------------

    def sequences(self, wildcards: Wildcards) -> dict[str, Any]:
        """Which calibration sequences a gradient pass or priors job reads."""
        return self._sequences(wildcards.calibration, int(wildcards.seq_len))

    def calibration_settings(self, wildcards: Wildcards) -> list[dict[str, Any]]:
        """Every sequence length of a model with its largest sample count."""
        largest: dict[int, int] = {}
        for experiment in self._experiments[wildcards.model]:
            if experiment.seq_len and experiment.n_samples:
                largest[experiment.seq_len] = max(experiment.n_samples, largest.get(experiment.seq_len, 0))
        return [
            {**self._sequences(wildcards.calibration, seq_len), "n_samples": n_samples}
            for seq_len, n_samples in sorted(largest.items())
        ]

    def gradient_counts(self, wildcards: Wildcards) -> dict[str, Any]:
        """Largest sample count of a gradient pass, and those that are not on its ladder."""
        return self._counts(wildcards, lambda e: e.needs_gradients)

    def importance_counts(self, wildcards: Wildcards) -> dict[str, Any]:
        """The same for the pass of another criterion."""
        return self._counts(wildcards, lambda e: e.method.criterion == wildcards.text_criterion)

    def prior_counts(self, wildcards: Wildcards) -> dict[str, Any]:
        """The same for a priors job, and on how many sequences priors are measured (none: a fifth)."""
        counts = self._counts(wildcards, lambda e: e.needs_priors)
        return counts | {"prior_samples": self._config.calibration.prior_samples}

    def importance_table(self, wildcards: Wildcards) -> list[str]:
        """Importance table that a plan reads; none for a criterion without."""
        return self._importance_table(self._find(wildcards))

    def prior_table(self, wildcards: Wildcards) -> list[str]:
        """Priors table that a plan reads; none for a method without priors."""
        experiment = self._find(wildcards)
        return [self._pass_table("measure_priors", experiment)] if experiment.needs_priors else []

    def plan_params(self, wildcards: Wildcards) -> dict[str, Any]:
        """All settings of a plan."""
        return self._plan_settings(self._find(wildcards))

    def _plan_settings(self, experiment: Experiment) -> dict[str, Any]:
        method = experiment.method
        return {
            "method": method.model_dump(exclude={"name"}) if experiment.needs_priors else _without_prior(method),
            "selection": self._config.selection.model_dump(),
            "pruning_ratio": experiment.pruning_ratio,
            "seq_len": experiment.seq_len,
            "n_samples": experiment.n_samples,
            "seed": experiment.seed,
        }

    def _baseline_entry(self, model: ModelEntry) -> dict[str, Any]:
        facts = self._facts(model, "baseline") | {"pruning_ratio": 0.0}
        return {
            "facts": facts,
            "metrics": self._paths.of("evaluate_baseline", model.name),
            "plan": None,
            "settings": None,
            "gradients": None,
            "manifest": self._paths.of("check_model", model.name),
            "requests": self._paths.of("tokenize_requests", model.name),
        }

    def _entry(self, model: ModelEntry, experiment: Experiment) -> dict[str, Any]:
        return {
            "facts": self._facts(model, experiment.name)
            | {
                "method": experiment.method.name,
                "criterion": experiment.method.criterion,
                "taylor_seq_len": experiment.seq_len,
                "taylor_num_samples": experiment.n_samples,
                "calibration": None if experiment.seed is None else self._calibration(experiment.seed),
                "pruning_ratio": experiment.pruning_ratio,
            },
            "metrics": self._paths.of("evaluate", model.name, experiment.name),
            "plan": self._paths.of("plan", model.name, experiment.name),
            "settings": self._plan_settings(experiment),
            "gradients": self._gradient_table(experiment) if experiment.needs_gradients else None,
            "manifest": self._paths.of("check_model", model.name),
            "requests": self._paths.of("tokenize_requests", model.name),
        }

    def _facts(self, model: ModelEntry, experiment: str) -> dict[str, Any]:
        """Say what the config knows of a row, in the order of the table's columns."""
        names = {"study": self._config.study, "model": model.name, "family": model.family, "kind": model.kind}
        unknown = ("method", "criterion", "taylor_seq_len", "taylor_num_samples", "calibration", "pruning_ratio")
        return names | {"experiment": experiment} | dict.fromkeys(unknown)

    @property
    def _computed(self) -> list[ModelEntry]:
        return [model for model in self._config.models if model.legacy is None]

    # -- helpers -------------------------------------------------------------------------------------------------

    def _find(self, wildcards: Wildcards) -> Experiment:
        experiment = self._by_name.get((wildcards.model, wildcards.experiment))
        if experiment is None:
            raise UserError(f"model {wildcards.model!r} has no experiment {wildcards.experiment!r} in this study")
        return experiment

    def _sequences(self, calibration: str, seq_len: int) -> dict[str, Any]:
        text = self._config.calibration
        seed = text.seeds[self.calibrations.index(calibration)]
        sequences: dict[str, Any] = {"text_field": text.text_field, "seed": seed, "seq_len": seq_len}
        add_bos = self._config.evaluation.add_bos
        return sequences if add_bos is None else sequences | {"add_bos": add_bos}

    def calibration(self, experiment: Experiment) -> str:
        """Name the calibration set of an experiment: `c4-s0`."""
        return self._calibration(experiment.seed or 0)

    def _calibration(self, seed: int) -> str:
        return f"{self._config.calibration.name}-s{seed}"

    def calibration_set(self, experiment: Experiment) -> str:
        """Name the calibration set of an experiment with its sequence length: `c4-s0/seq64`."""
        return f"{self.calibration(experiment)}/seq{experiment.seq_len}"

    def _pass_table(self, output: str, experiment: Experiment) -> str:
        return self._paths.of(output, experiment.model, self.calibration(experiment), experiment.seq_len or 0)

    def _gradient_table(self, experiment: Experiment) -> str:
        return self._pass_table("collect_gradients", experiment)

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

    def _counts(self, wildcards: Wildcards, uses: Callable[[Experiment], bool]) -> dict[str, Any]:
        counts = {
            e.n_samples
            for e in self._experiments[wildcards.model]
            if e.seq_len == int(wildcards.seq_len) and e.n_samples is not None and uses(e)
        }
        return {"largest": max(counts), "extra": off_ladder(counts)}


def _without_prior(method: Method) -> dict[str, Any]:
    """Leave out what a method without priors does not use, so that changing it makes nothing stale."""
    settings = method.model_dump(exclude={"name"})
    unused = {"prior": "loss_increase", "temperature": 1.0, "tau": None, "prior_floor": 1e-4}
    return settings | unused

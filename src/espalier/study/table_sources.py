"""Look-ups for tables and analyses: the results that they read, and the configured values of each row."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from espalier.calibration.sample_counts import n_prior_sequences
from espalier.config.models import ModelEntry
from espalier.config.study import StudyConfig
from espalier.naming import BASELINE
from espalier.study.experiments import Experiment
from espalier.study.paths import Paths, Wildcards
from espalier.study.sweep import Sweep


class TableSources:
    """Results of a study that tables and analyses read.

    Args:
        config: Config of the study.
        paths: Paths of the study.
        sweep: Experiments of the study.
    """

    def __init__(self, config: StudyConfig, paths: Paths, sweep: Sweep) -> None:
        self._config, self._paths, self._sweep = config, paths, sweep
        self._models = [model for model in config.models if model.legacy is None]

    def entries(self, wildcards: Wildcards = None) -> list[dict[str, Any]]:
        """Return one entry for each row of the experiments table: its configured values and its result files."""
        return self._entries

    def results(self, wildcards: Wildcards) -> list[str]:
        """Return the metrics, plans and gradient tables that the tables are made from.

        A plan is included only if its experiment has no metrics. Otherwise the metrics are enough, because every new
        plan leads to new metrics. Fewer inputs matter: Snakemake's time for a job is quadratic in its number of inputs.
        """
        absent = set(self.missing(wildcards))
        plans = (entry["plan"] for entry in self._entries if entry["plan"] and entry["metrics"] in absent)
        gradients = (entry["gradients"] for entry in self._entries if entry["gradients"])
        metrics = (entry["metrics"] for entry in self._entries)
        return self._sweep.available(dict.fromkeys([*metrics, *plans, *gradients]))

    def missing(self, wildcards: Wildcards) -> list[str]:
        """Return the metrics files that do not exist; empty unless results may be missing.

        `Failures.missing_experiments` gives the reasons.
        """
        metrics = [entry["metrics"] for entry in self._entries]
        return sorted(set(metrics) - set(self._sweep.available(metrics)))

    def manifests(self, wildcards: Wildcards) -> list[str]:
        """Return the manifests of all computed models."""
        return self._sweep.available(self._paths.of("check_model", model.name) for model in self._models)

    def calibration_checks(self, wildcards: Wildcards) -> list[str]:
        """Return the checks of all calibration sets that experiments use."""
        used = dict.fromkeys((e.model, self._sweep.calibration_of(e)) for e in self._sweep.experiments if e.seq_len)
        return self._sweep.available(self._paths.of("check_calibration", *names) for names in used)

    def samples(self, wildcards: Wildcards) -> dict[str, str]:
        """Return the per-document results of one model, by experiment; `baseline` is the unpruned model."""
        model = wildcards.model
        if model not in {computed.name for computed in self._models}:
            return {}
        files = {BASELINE: self._paths.of("evaluate_baseline.samples", model)} | {
            name: self._paths.of("evaluate.samples", model, name) for name in self._sweep.names_of_model(wildcards)
        }
        return {name: path for name, path in files.items() if self._sweep.available([path])}

    def sample_files(self, wildcards: Wildcards) -> list[str]:
        """Return the files of `samples`."""
        return list(self.samples(wildcards).values())

    def gradient_passes(self, wildcards: Wildcards) -> list[tuple[str, int, str]]:
        """Return the calibration set, sequence length and table of each gradient pass of one model.

        Empty for an imported model.
        """
        experiments = [e for e in self._sweep.experiments_of_model(wildcards.model) if e.needs_gradients]
        passes = {
            (self._sweep.calibration_of(e), e.seq_len, self._sweep.gradient_table(e)) for e in experiments if e.seq_len
        }
        return sorted(each for each in passes if self._sweep.available([each[2]]))

    def gradient_files(self, wildcards: Wildcards) -> list[str]:
        """Return the tables of `gradient_passes`."""
        return [table for _, _, table in self.gradient_passes(wildcards)]

    def prior_passes(self, wildcards: Wildcards) -> list[tuple[str, int, int, str]]:
        """Return each pass of one model that measures priors.

        These are its calibration set, sequence length, number of sequences of its largest sample count, and table.
        Figures show the priors. A table that was deleted after its experiments were evaluated is left out, so that no
        figure causes a pass.
        """
        experiments = [e for e in self._sweep.experiments_of_model(wildcards.model) if e.needs_priors and e.seq_len]
        passes: dict[tuple[str, int, str], list[Experiment]] = {}
        for e in experiments:
            table = self._sweep.prior_table_of(e)
            passes.setdefault((self._sweep.calibration_of(e), e.seq_len or 0, table), []).append(e)
        configured = self._config.calibration.prior_samples
        return sorted(
            (calibration, seq_len, n_prior_sequences(max(e.n_samples or 1 for e in of_pass), configured), table)
            for (calibration, seq_len, table), of_pass in passes.items()
            if Path(table).exists() or not (self._sweep.allows_missing or all(map(self._is_evaluated, of_pass)))
        )

    def _is_evaluated(self, experiment: Experiment) -> bool:
        return Path(self._paths.of("evaluate", experiment.model, experiment.name)).exists()

    def prior_files(self, wildcards: Wildcards) -> list[str]:
        """Return the tables of `prior_passes`."""
        return [table for *_, table in self.prior_passes(wildcards)]

    @cached_property
    def _entries(self) -> list[dict[str, Any]]:
        return [
            entry
            for model in self._models
            for entry in [self._baseline_entry(model)]
            + [self._entry(model, experiment) for experiment in self._sweep.experiments_of_model(model.name)]
        ]

    def _baseline_entry(self, model: ModelEntry) -> dict[str, Any]:
        return {
            "facts": self._facts(model, BASELINE) | {"pruning_ratio": 0.0},
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
                "calibration": None if experiment.seed is None else self._sweep.calibration_of(experiment),
                "pruning_ratio": experiment.pruning_ratio,
            },
            "metrics": self._paths.of("evaluate", model.name, experiment.name),
            "plan": self._paths.of("plan", model.name, experiment.name),
            "settings": self._sweep.plan_settings(experiment),
            "gradients": self._sweep.gradient_table(experiment) if experiment.needs_gradients else None,
            "manifest": self._paths.of("check_model", model.name),
            "requests": self._paths.of("tokenize_requests", model.name),
        }

    def _facts(self, model: ModelEntry, experiment: str) -> dict[str, Any]:
        """Return the first columns of a row, in the order of the table; those that only a pruned model has are None."""
        names = {"study": self._config.study, "model": model.name, "family": model.family, "kind": model.kind}
        unknown = ("method", "criterion", "taylor_seq_len", "taylor_num_samples", "calibration", "pruning_ratio")
        return names | {"experiment": experiment} | dict.fromkeys(unknown)

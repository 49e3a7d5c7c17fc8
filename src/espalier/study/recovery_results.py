"""Look-ups for the results of recovery: the experiments that are recovered, and their files.

The best experiment of a model is known only after all experiments are evaluated. So a checkpoint rule
(`choose_recovered`) determines it. The inputs of recovery jobs do not depend on the checkpoint, so running it again
does not rerun them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from espalier.config.base import BEST
from espalier.config.recovery import ALL
from espalier.config.study import StudyConfig
from espalier.errors import UserError
from espalier.files import read_json
from espalier.study.failures import Failures, Reasons
from espalier.study.paths import Paths, Wildcards
from espalier.study.recovery import recovering_rule, recovery_section
from espalier.study.sweep import Sweep

Checkpoints = Any
_SHOWN = 12  # most names of experiments in an error message


def trained_files(config: StudyConfig, paths: Paths, model: str, experiment: str) -> list[str]:
    """Return the files of a recovered experiment from which its weights are made; all are in one folder."""
    if (rule := recovering_rule(config)) == "recover":
        return [paths.of("recover.config", model, experiment), paths.of("recover.weights", model, experiment)]
    return [paths.of(f"{rule}.weights", model, experiment)]


class RecoveryResults:
    """Recovered experiments of a study, and their files.

    Args:
        config: Config of the study.
        paths: Paths of the study.
        sweep: Experiments of the study.
        failures: Reasons for missing results.
    """

    def __init__(self, config: StudyConfig, paths: Paths, sweep: Sweep, failures: Failures) -> None:
        self._config, self._paths, self._sweep, self._failures = config, paths, sweep, failures
        self._models = [model.name for model in config.models if model.legacy is None] if config.recovery else []

    def result_files(self, checkpoints: Checkpoints) -> Callable[[Wildcards], list[str]]:
        """Return an input function for the metrics and training records of all recovered experiments."""
        keys = ("metrics", "training")
        return lambda _: self._sweep.available(entry[key] for entry in self._entries(checkpoints) for key in keys)

    def entries(self, checkpoints: Checkpoints) -> Callable[[Wildcards], list[dict[str, Any]]]:
        """Return a params function for the model, experiment and files of all recovered experiments."""
        return lambda _: self._entries(checkpoints)

    def missing(self, checkpoints: Checkpoints) -> Callable[[Wildcards], Reasons]:
        """Return a params function for the missing metrics and their reasons (`Failures.missing_recovered`).

        Its result is empty unless results may be missing.
        """

        def lacking(_: Wildcards) -> Reasons:
            entries = [entry for entry in self._entries(checkpoints) if not self._has_results(entry)]
            return self._failures.missing_recovered((entry["model"], entry["experiment"]) for entry in entries)

        return lacking

    def samples(self, checkpoints: Checkpoints) -> Callable[[Wildcards], dict[str, str]]:
        """Return a params function for the per-document results of a model's recovered experiments, by experiment."""

        def files(wildcards: Wildcards) -> dict[str, str]:
            entries = [entry for entry in self._entries(checkpoints) if entry["model"] == wildcards.model]
            return {entry["experiment"]: entry["samples"] for entry in entries if self._has_results(entry)}

        return files

    def sample_files(self, checkpoints: Checkpoints) -> Callable[[Wildcards], list[str]]:
        """Return an input function for the files of `samples`."""
        files = self.samples(checkpoints)
        return lambda wildcards: list(files(wildcards).values())

    def weights(self, wildcards: Wildcards) -> list[str]:
        """Return the files that the fine-tuning of an experiment wrote: those of its adapter, or all weights."""
        return trained_files(self._config, self._paths, wildcards.model, wildcards.experiment)

    @property
    def overlap_checks(self) -> list[str]:
        """Outputs of `check_recovery`, which checks that the text does not overlap with evaluation data, by model."""
        return self._sweep.available(self._paths.of("check_recovery", model) for model in self._models)

    @property
    def table(self) -> list[str]:
        """Path of the table of all recovered experiments; none if nothing is recovered."""
        return [self._paths.of("consolidate_recovery")] if self._models else []

    def analysis(self, wildcards: Wildcards) -> list[str]:
        """Return the statistics of a model's recovered experiments, for its report; none if nothing is recovered."""
        return [self._paths.of("analyse_recovery", wildcards.model)] if wildcards.model in self._models else []

    def planned_names(self, model: str) -> list[str]:
        """Return the names of a model's recovered experiments; `best` if the best is not determined yet."""
        return [name or BEST for name in sorted(self._names(model, None))] if model in self._models else []

    def problems(self) -> list[str]:
        """Return one line for each configured experiment that no model has."""
        if not self._models:
            return []
        known = list(dict.fromkeys(e.name for model in self._models for e in self._sweep.experiments_of_model(model)))
        more = f", ... ({len(known)} in all: `snakemake -n plans`)" if len(known) > _SHOWN else ""
        allowed = f"{BEST}, {ALL}, {', '.join(known[:_SHOWN])}{more}"
        unknown = [name for name in recovery_section(self._config).experiments if name not in {BEST, ALL, *known}]
        return [f"recovery.experiments: got {name!r}; allowed: {allowed}" for name in unknown]

    def warnings(self) -> list[str]:
        """Return one line if nothing is recovered, for the target `recovered`."""
        missing = "recovery: the config has no such section, so nothing is recovered; give `recovery: {}`"
        return [] if self._config.recovery else [missing]

    # -- helpers -------------------------------------------------------------------------------------------------

    def _entries(self, checkpoints: Checkpoints) -> list[dict[str, Any]]:
        return [
            self._entry(model, experiment.name)
            for model in self._models
            for wanted in [self._names(model, checkpoints)]
            for experiment in self._sweep.experiments_of_model(model)
            if experiment.name in wanted
        ]

    def _entry(self, model: str, name: str) -> dict[str, Any]:
        return {
            "model": model,
            "experiment": name,
            "metrics": self._paths.of("evaluate_recovered", model, name),
            "training": self._paths.of(recovering_rule(self._config), model, name),
            "samples": self._paths.of("evaluate_recovered.samples", model, name),
            "manifest": self._paths.of("check_model", model),
            "plan": self._paths.of("plan", model, name),
            "requests": self._paths.of("tokenize_requests", model),
        }

    def _names(self, model: str, checkpoints: Checkpoints | None) -> set[str]:
        named = set(recovery_section(self._config).experiments)
        wanted = named.intersection(experiment.name for experiment in self._sweep.experiments_of_model(model))
        at_headline = {experiment.name for experiment in self._sweep.at_headline(model)}
        if ALL in named:
            wanted |= at_headline
        elif BEST in named and self._sweep.has_best(model):
            wanted.add(self._best(model, checkpoints))
        return wanted

    def _best(self, model: str, checkpoints: Checkpoints | None) -> str:
        """Return the best experiment of a model; empty if it is not determined yet.

        If results may be missing, or without checkpoints, only an existing output of `choose_recovered` is read.
        Otherwise Snakemake runs this checkpoint first.
        """
        path = Path(self._paths.of("choose_recovered", model))
        if checkpoints is not None and not self._sweep.allows_missing:
            path = Path(checkpoints.choose_recovered.get(model=model).output[0])
        elif not path.exists():
            return ""
        try:
            return str(read_json(path)["best"])
        except (UserError, KeyError, TypeError):
            # SystemExit, because Snakemake adds a traceback to any other error of a function in a rule.
            raise SystemExit(
                f"{path}: is damaged, so the best experiment is unknown; delete it and run again"
            ) from None

    def _has_results(self, entry: dict[str, Any]) -> bool:
        return bool(self._sweep.available([entry["metrics"]]))

"""Look-ups for recovery: the experiments that are recovered, the text, and the result files.

The best experiment of a model is known only after all experiments are evaluated. So a checkpoint rule
(`choose_recovered`) determines it. The inputs of recovery jobs do not depend on the checkpoint, so running it again
does not rerun them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espalier.config.base import BEST
from espalier.config.data import SANDBOX, TextSource
from espalier.config.recovery import ALL, Recovery
from espalier.config.study import StudyConfig
from espalier.errors import UserError
from espalier.study.experiments import Experiment
from espalier.study.failures import Failures, Reasons
from espalier.study.paths import Paths
from espalier.study.sources import calibration_text, text_file
from espalier.study.sweep import Sweep

Wildcards = Any
Checkpoints = Any
_NOT_IN_PARAMS = {"experiments", "text", "token_budget", "checkpointing"}
_SHOWN = 12  # most names of experiments in an error message


class Recoveries:
    """Recovered experiments of a study.

    Args:
        config: Config of the study.
        paths: Paths of the study.
        sweep: Experiments of the study.
        failures: Reasons for missing results.
    """

    def __init__(self, config: StudyConfig, paths: Paths, sweep: Sweep, failures: Failures) -> None:
        self._config, self._paths, self._sweep, self._failures = config, paths, sweep, failures
        self._models = [model.name for model in config.models if model.legacy is None] if config.recovery else []

    @property
    def source(self) -> TextSource:
        """Source of the recovery text; the calibration text if the config gives no other."""
        own = self._config.recovery.text if self._config.recovery else None
        return own or self._config.calibration

    @property
    def is_own_text(self) -> bool:
        """Whether the recovery text is different from the calibration text."""
        calibration, source = self._config.calibration, self.source
        if source is calibration:
            return False
        return source.dataset == SANDBOX or not (source.same_dataset(calibration) and source.split == calibration.split)

    @property
    def text(self) -> str:
        """Path of the recovery text. For `recovery.text.dataset: sandbox`, it is the training text of its models."""
        if not self.is_own_text:
            return calibration_text(self._config, self._paths)
        sandbox = self._paths.of("make_world")
        return sandbox if self.source.dataset == SANDBOX else text_file(self._paths, self.source, "")

    @property
    def resources(self) -> dict[str, int]:
        """Resources that limit the memory of a recovery job."""
        section = self._config.recovery or Recovery()
        return {"token_budget": section.token_budget, "checkpointing": int(section.checkpointing)}

    @property
    def n_tokens(self) -> int:
        """Number of tokens that a recovery job trains on, over all epochs."""
        return self._section.n_sequences * self._section.seq_len * self._section.epochs

    def settings(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the params of `recover`: all settings that determine the adapters."""
        return {**self._section.model_dump(mode="json", exclude=_NOT_IN_PARAMS), **self._source_settings}

    def text_settings(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the params of `check_recovery`: the settings that determine the sequences."""
        section = self._section
        sequences = {"seed": section.seed, "seq_len": section.seq_len, "n_sequences": section.n_sequences}
        return {**sequences, **self._source_settings}

    def calibrations(self, wildcards: Wildcards) -> list[dict[str, Any]]:
        """Return a model's calibration sets that use the recovery text, each with its largest sample count."""
        largest: dict[tuple[int, int], int] = {}
        for experiment in [] if self.is_own_text else self._of(wildcards.model):
            if experiment.seq_len and experiment.n_samples:
                key = (experiment.seed or 0, experiment.seq_len)
                largest[key] = max(experiment.n_samples, largest.get(key, 0))
        add_bos = self._config.evaluation.add_bos
        bos = {} if add_bos is None else {"add_bos": add_bos}
        return [
            {"seed": seed, "seq_len": length, "n_samples": n, **bos} for (seed, length), n in sorted(largest.items())
        ]

    # -- which experiments, and their files ----------------------------------------------------------------------

    def chosen_files(self, checkpoints: Checkpoints) -> Callable[[Wildcards], list[str]]:
        """Return an input function for the metrics and training records of all recovered experiments."""
        keys = ("metrics", "training")
        return lambda _: self._sweep.present(entry[key] for entry in self._entries(checkpoints) for key in keys)

    def entries(self, checkpoints: Checkpoints) -> Callable[[Wildcards], list[dict[str, Any]]]:
        """Return a params function for the model, experiment and files of all recovered experiments."""
        return lambda _: self._entries(checkpoints)

    def missing(self, checkpoints: Checkpoints) -> Callable[[Wildcards], Reasons]:
        """Return a params function for the missing metrics and their reasons (`Failures.recovered`).

        Its result is empty unless results may be missing.
        """

        def lacking(_: Wildcards) -> Reasons:
            entries = [entry for entry in self._entries(checkpoints) if not self._is_there(entry)]
            return self._failures.recovered((entry["model"], entry["experiment"]) for entry in entries)

        return lacking

    def samples(self, checkpoints: Checkpoints) -> Callable[[Wildcards], dict[str, str]]:
        """Return a params function for the per-document results of a model's recovered experiments, by experiment."""

        def files(wildcards: Wildcards) -> dict[str, str]:
            entries = [entry for entry in self._entries(checkpoints) if entry["model"] == wildcards.model]
            return {entry["experiment"]: entry["samples"] for entry in entries if self._is_there(entry)}

        return files

    def sample_files(self, checkpoints: Checkpoints) -> Callable[[Wildcards], list[str]]:
        """Return an input function for the files of `samples`."""
        files = self.samples(checkpoints)
        return lambda wildcards: list(files(wildcards).values())

    @property
    def checks(self) -> list[str]:
        """Outputs of `check_recovery`, which checks that the text does not overlap with evaluation data, by model."""
        return self._sweep.present(self._paths.of("check_recovery", model) for model in self._models)

    @property
    def table(self) -> list[str]:
        """Path of the table of all recovered experiments; none if nothing is recovered."""
        return [self._paths.of("consolidate_recovery")] if self._models else []

    def analysis(self, wildcards: Wildcards) -> list[str]:
        """Return the statistics of a model's recovered experiments, for its report; none if nothing is recovered."""
        return [self._paths.of("analyse_recovery", wildcards.model)] if wildcards.model in self._models else []

    def planned(self, model: str) -> list[str]:
        """Return the names of a model's recovered experiments; `best` if the best is not determined yet."""
        return [name or BEST for name in sorted(self._names(model, None))] if model in self._models else []

    def problems(self) -> list[str]:
        """Return one line for each configured experiment that no model has."""
        if not self._models:
            return []
        known = list(dict.fromkeys(e.name for model in self._models for e in self._of(model)))
        more = f", ... ({len(known)} in all: `snakemake -n plans`)" if len(known) > _SHOWN else ""
        allowed = f"{BEST}, {ALL}, {', '.join(known[:_SHOWN])}{more}"
        unknown = [name for name in self._section.experiments if name not in {BEST, ALL, *known}]
        return [f"recovery.experiments: got {name!r}; allowed: {allowed}" for name in unknown]

    # -- helpers -------------------------------------------------------------------------------------------------

    @property
    def _section(self) -> Recovery:
        if self._config.recovery is None:
            raise UserError("recovery: the config has no such section, so nothing is recovered; add it")
        return self._config.recovery

    @property
    def _source_settings(self) -> dict[str, Any]:
        seeds = [] if self.is_own_text else list(self._config.calibration.seeds)
        add_bos = self._config.evaluation.add_bos
        bos = {} if add_bos is None else {"add_bos": add_bos}
        return {"text_field": self.source.text_field, "calibration_seeds": seeds, **bos}

    def _of(self, model: str) -> list[Experiment]:
        return [experiment for experiment in self._sweep.experiments if experiment.model == model]

    def _entries(self, checkpoints: Checkpoints) -> list[dict[str, Any]]:
        return [
            self._entry(model, experiment.name)
            for model in self._models
            for wanted in [self._names(model, checkpoints)]
            for experiment in self._of(model)
            if experiment.name in wanted
        ]

    def _entry(self, model: str, name: str) -> dict[str, Any]:
        return {
            "model": model,
            "experiment": name,
            "metrics": self._paths.of("evaluate_recovered", model, name),
            "training": self._paths.of("recover", model, name),
            "samples": self._paths.of("evaluate_recovered.samples", model, name),
            "manifest": self._paths.of("check_model", model),
            "plan": self._paths.of("plan", model, name),
            "requests": self._paths.of("tokenize_requests", model),
        }

    def _names(self, model: str, checkpoints: Checkpoints | None) -> set[str]:
        named = set(self._section.experiments)
        wanted = named.intersection(experiment.name for experiment in self._of(model))
        if ALL in named:
            ratio = self._config.report.ratio or max((e.pruning_ratio for e in self._of(model)), default=None)
            wanted |= {experiment.name for experiment in self._of(model) if experiment.pruning_ratio == ratio}
        elif BEST in named:
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
        return str(json.loads(path.read_text(encoding="utf-8"))["best"])

    def _is_there(self, entry: dict[str, Any]) -> bool:
        return bool(self._sweep.present([entry["metrics"]]))

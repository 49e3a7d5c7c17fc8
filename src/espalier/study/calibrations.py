"""What the rules look up of calibration: which text and sequences a pass reads, and at which sample counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from espalier.calibration.ladder import off_ladder
from espalier.config.study import StudyConfig
from espalier.planning.criteria import CRITERIA
from espalier.study.experiments import Experiment
from espalier.study.paths import Paths
from espalier.study.sources import calibration_text
from espalier.study.sweep import Sweep

Wildcards = Any


class Calibrations:
    """Calibration sets of a study, and the passes over them.

    Args:
        config: The study.
        paths: Its paths.
        sweep: Its experiments.
    """

    def __init__(self, config: StudyConfig, paths: Paths, sweep: Sweep) -> None:
        self._config, self._paths, self._sweep = config, paths, sweep

    @property
    def text(self) -> str:
        """File of the calibration text."""
        return calibration_text(self._config, self._paths)

    @property
    def names(self) -> list[str]:
        """Names of the calibration sets, `{name}-s{seed}`."""
        return [self._sweep.calibration_name(seed) for seed in self._config.calibration.seeds]

    @property
    def text_criteria(self) -> list[str]:
        """Criteria that have a pass over calibration text of their own."""
        return [name for name, criterion in CRITERIA.items() if criterion.reads_text and name != "taylor"]

    @property
    def weight_criteria(self) -> list[str]:
        """Criteria that look at the weights alone."""
        return [name for name, criterion in CRITERIA.items() if criterion.reads_model and not criterion.reads_text]

    @property
    def resources(self) -> dict[str, int]:
        """How a pass uses memory; 0 layers means as many as fit."""
        passes = self._config.gradients
        return {
            "token_budget": passes.token_budget,
            "layers_per_pass": passes.layers_per_pass or 0,
            "checkpointing": int(passes.checkpointing),
        }

    def sequences(self, wildcards: Wildcards) -> dict[str, Any]:
        """Which calibration sequences a gradient pass or priors job reads."""
        return self._sequences(wildcards.calibration, int(wildcards.seq_len))

    def settings(self, wildcards: Wildcards) -> list[dict[str, Any]]:
        """Every sequence length of a model with its largest sample count: params of `check_calibration`."""
        largest: dict[int, int] = {}
        for experiment in self._sweep.of_model(wildcards.model):
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

    def _sequences(self, calibration: str, seq_len: int) -> dict[str, Any]:
        text = self._config.calibration
        seed = text.seeds[self.names.index(calibration)]
        sequences: dict[str, Any] = {"text_field": text.text_field, "seed": seed, "seq_len": seq_len}
        add_bos = self._config.evaluation.add_bos
        return sequences if add_bos is None else sequences | {"add_bos": add_bos}

    def _counts(self, wildcards: Wildcards, uses: Callable[[Experiment], bool]) -> dict[str, Any]:
        counts = {
            e.n_samples
            for e in self._sweep.of_model(wildcards.model)
            if e.seq_len == int(wildcards.seq_len) and e.n_samples is not None and uses(e)
        }
        return {"largest": max(counts), "extra": off_ladder(counts)}

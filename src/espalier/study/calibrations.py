"""Look-ups for calibration: the text and sequences that each pass reads, and its sample counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from espalier.calibration.sample_counts import counts_off_powers_of_two
from espalier.config.study import StudyConfig
from espalier.planning.criteria import CRITERIA
from espalier.study.experiments import Experiment
from espalier.study.only_files import asked_only_for_files
from espalier.study.paths import Paths, Wildcards
from espalier.study.sources import calibration_text
from espalier.study.sweep import Sweep


class Calibrations:
    """Calibration sets of a study, and the passes over them.

    Args:
        config: Config of the study.
        paths: Paths of the study.
        sweep: Experiments of the study.
    """

    def __init__(self, config: StudyConfig, paths: Paths, sweep: Sweep) -> None:
        self._config, self._paths, self._sweep = config, paths, sweep

    @property
    def text(self) -> str:
        """Path of the calibration text."""
        return calibration_text(self._config, self._paths)

    @property
    def names(self) -> list[str]:
        """Names of the calibration sets, `{name}-s{seed}`."""
        return [self._sweep.calibration_name(seed) for seed in self._config.calibration.seeds]

    @property
    def text_criteria(self) -> list[str]:
        """Criteria that `measure_importance` computes: all that read calibration text, except taylor."""
        return [name for name, criterion in CRITERIA.items() if criterion.reads_text and name != "taylor"]

    @property
    def weight_criteria(self) -> list[str]:
        """Criteria that `measure_weights` computes: they read the weights and no calibration text."""
        return [name for name, criterion in CRITERIA.items() if criterion.reads_model and not criterion.reads_text]

    @property
    def resources(self) -> dict[str, int | str]:
        """Resources of all passes, which affect only speed and memory; as resources they cause no rerun.

        A token budget or a number of layers of 0 means as many as fit.
        """
        passes, evaluation = self._config.gradients, self._config.evaluation
        return {
            "device": evaluation.device,
            "prior_token_budget": evaluation.token_budget,
            "passes_per_job": 1 if asked_only_for_files() else passes.passes_per_job,
            "token_budget": passes.token_budget or 0,
            "layers_per_pass": passes.layers_per_pass or 0,
            "checkpointing": int(passes.checkpointing),
        }

    def sequences(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the params that select the calibration sequences of a job.

        These are `text_field`, `seed` and `seq_len`, and `add_bos` if the config sets it.
        """
        return self._sequences(wildcards.calibration, int(wildcards.seq_len))

    def settings(self, wildcards: Wildcards) -> list[dict[str, Any]]:
        """Return the params of `check_calibration`: each sequence length with its largest sample count."""
        largest: dict[int, int] = {}
        for experiment in self._sweep.experiments_of_model(wildcards.model):
            if experiment.seq_len and experiment.n_samples:
                largest[experiment.seq_len] = max(experiment.n_samples, largest.get(experiment.seq_len, 0))
        return [
            {**self._sequences(wildcards.calibration, seq_len), "n_samples": n_samples}
            for seq_len, n_samples in sorted(largest.items())
        ]

    def gradient_counts(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the sample counts of a gradient pass.

        `largest` is the largest count. `extra` lists the smaller counts that are not powers of two.
        """
        return self._counts(wildcards, lambda e: e.needs_gradients)

    def importance_counts(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the sample counts of a pass of `measure_importance`, as `gradient_counts`."""
        return self._counts(wildcards, lambda e: e.method.criterion == wildcards.text_criterion)

    def prior_counts(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the sample counts of a priors job, as `gradient_counts`, and `prior_samples`.

        `prior_samples` is the configured number of sequences; None means a fifth of each sample count.
        """
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
            for e in self._sweep.experiments_of_model(wildcards.model)
            if e.seq_len == int(wildcards.seq_len) and e.n_samples is not None and uses(e)
        }
        return {"largest": max(counts), "extra": counts_off_powers_of_two(counts)}

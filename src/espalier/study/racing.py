"""Look-ups for races: which experiments race with each other, and by which rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from espalier.config.study import StudyConfig
from espalier.evaluation.protocol import ACC_NORM_ELSE_ACC
from espalier.naming import CONTROL, ratio_key
from espalier.study.experiments import Experiment
from espalier.study.paths import Paths, Wildcards
from espalier.study.sweep import Sweep


class Races:
    """Races of a study: one among the experiments of each model and pruning ratio.

    Args:
        config: Config of the study.
        paths: Paths of the study.
        sweep: Experiments of the study.
    """

    def __init__(self, config: StudyConfig, paths: Paths, sweep: Sweep) -> None:
        self._racing, self._paths, self._sweep = config.evaluation.racing, paths, sweep
        self._experiments_per_job = config.evaluation.experiments_per_job
        self._acc_mean_rule = config.report.acc_mean_rule

    @property
    def params(self) -> dict[str, Callable[[Wildcards], dict[str, Any]]]:
        """Params of `evaluate` that it has only in a race. Without one, results of older versions stay valid."""
        return {"racing": self._params} if self._racing else {}

    def plans(self, wildcards: Wildcards) -> list[str]:
        """Return the plans of all experiments that race with this one, itself included; none without a race."""
        return [self._paths.of("plan", one.model, one.name) for one in self._competitors(wildcards)]

    def of(self, wildcards: Wildcards) -> dict[str, Any] | None:
        """Return the param `racing` of an evaluation; None without a race."""
        return self._params(wildcards) if self._racing else None

    @property
    def baselines_per_job(self) -> int:
        """Evaluations in a job of an unpruned model. In a race, it leaves the experiments to their own jobs."""
        return 1 if self._racing else self._experiments_per_job

    def _params(self, wildcards: Wildcards) -> dict[str, Any]:
        competitors = self._competitors(wildcards)
        # Races of earlier versions had no other rule. Without the key, they are not stale.
        of_rule = {} if self._acc_mean_rule == ACC_NORM_ELSE_ACC else {"acc_mean_rule": self._acc_mean_rule}
        return {
            **(self._racing.model_dump(mode="json") if self._racing else {}),
            **of_rule,
            "experiments": [one.name for one in competitors],
            "controls": [one.name for one in competitors if one.method.criterion == CONTROL],
        }

    def _competitors(self, wildcards: Wildcards) -> list[Experiment]:
        if self._racing is None:
            return []
        of_model = self._sweep.experiments_of_model(wildcards.model)
        ratio = next(one.pruning_ratio for one in of_model if one.name == wildcards.experiment)
        return [one for one in of_model if ratio_key(one.pruning_ratio) == ratio_key(ratio)]

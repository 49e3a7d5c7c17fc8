"""Further experiments that an evaluation job may evaluate: those of the config, not those found in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from espalier.config.study import StudyConfig
from espalier.study.paths import Paths, results_folder
from espalier.study.sweep import Sweep


@dataclass(frozen=True)
class PlannedExperiment:
    """An experiment of the study, whether or not it is evaluated.

    Attributes:
        plan: File of its plan. It need not exist yet.
        settings: Configured settings of the plan, as in its recipe.
        sources: Tables of importance and priors from which the plan is made.
    """

    plan: str
    settings: dict[str, Any]
    sources: tuple[str, ...]


def planned_experiments(config: StudyConfig, model: str) -> Iterator[PlannedExperiment]:
    """Yield every experiment of a model in the order of the grid.

    Args:
        config: Config of the study.
        model: Name of the model.
    """
    paths = Paths(results_folder(config.study))
    sweep = Sweep(config, paths)
    for name in sweep.names_of_model(SimpleNamespace(model=model)):
        wildcards = SimpleNamespace(model=model, experiment=name)
        yield PlannedExperiment(
            paths.of("plan", model, name),
            sweep.plan_params(wildcards),
            (*sweep.importance_table(wildcards), *sweep.prior_table(wildcards)),
        )

"""Further experiments that an evaluation job may evaluate: those of the config, not those found in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from espalier.config.study import StudyConfig
from espalier.study.paths import Paths, results_folder
from espalier.study.sweep import Sweep


def planned_experiments(config: StudyConfig, model: str) -> Iterator[dict[str, Any]]:
    """Yield every experiment of a model in the order of the grid, as arguments of `espalier.jobs.evaluation.Planned`.

    Args:
        config: Config of the study.
        model: Name of the model.
    """
    paths = Paths(results_folder(config.study))
    sweep = Sweep(config, paths)
    for name in sweep.names_of_model(SimpleNamespace(model=model)):
        wildcards = SimpleNamespace(model=model, experiment=name)
        yield {
            "plan": paths.of("plan", model, name),
            "settings": sweep.plan_params(wildcards),
            "sources": (*sweep.importance_table(wildcards), *sweep.prior_table(wildcards)),
        }

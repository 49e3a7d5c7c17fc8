"""Look-ups for inference timing: the experiments to measure, the settings, and the current measurements."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from espalier.config.base import BEST
from espalier.config.study import StudyConfig
from espalier.errors import UserError
from espalier.study.failures import Job
from espalier.study.paths import Paths, Wildcards
from espalier.study.sweep import Sweep


class InferenceTimings:
    """Experiments of a study whose inference is measured.

    Args:
        config: Config of the study.
        paths: Paths of the study.
        sweep: Experiments of the study.
    """

    def __init__(self, config: StudyConfig, paths: Paths, sweep: Sweep) -> None:
        self._inference = config.inference
        self._dtype = config.evaluation.dtype
        self._models = [model.name for model in config.models if model.legacy is None]
        self._paths = paths
        self._sweep = sweep

    @property
    def pattern(self) -> str:
        """Regular expression of the wildcard `measured`: `best`, or the name of an experiment."""
        return f"{BEST}|{self._sweep.name_pattern}"

    @property
    def files(self) -> list[str]:
        """Files of all configured measurements; none without the section `inference`."""
        return [self._paths.of("measure_inference", model, name) for model, name in self._requested()]

    def choice(self, wildcards: Wildcards) -> str:
        """Return the file that determines the plan to measure: the plan, or the model's best configuration."""
        if wildcards.measured == BEST:
            return self._paths.of("consolidate", wildcards.model)
        return self._paths.of("plan", wildcards.model, wildcards.measured)

    def experiments(self, wildcards: Wildcards) -> str:
        """Return the folder of the experiments of a model."""
        return str(Path(self._paths.of("plan", wildcards.model, "any")).parents[1])

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a measurement; empty without the section `inference`."""
        return self._inference.model_dump(exclude={"experiments"}) if self._inference else {}

    @property
    def threads(self) -> int:
        """CPU threads of a measurement."""
        return self._inference.threads if self._inference else 1

    def current(self, wildcards: Wildcards) -> dict[str, str]:
        """Return the current measurements of a model, with their SHA-256.

        A measurement is current if it was made from the present weights and plan. Reports take measurements as a param,
        not as inputs, so that making a report never starts a measurement.
        """
        names = [name for model, name in self._requested() if model == wildcards.model]
        paths = [Path(self._paths.of("measure_inference", wildcards.model, name)) for name in names]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if self._is_current(path)}

    def jobs(self, model: str) -> Iterator[Job]:
        """Yield the jobs of the configured measurements of a model."""
        for name in (name for of, name in self._requested() if of == model):
            output = self._paths.of("measure_inference", model, name)
            yield Job(self._paths.results, "measure_inference", (model, name), output)

    def problems(self, *, is_target: bool) -> list[str]:
        """Return one line for each unknown experiment name, and for the target without its config section.

        Args:
            is_target: Whether the user requests the target `inference`.
        """
        if self._inference is None:
            unset = "inference: the target needs this section of the config; give `inference: {}`"
            return [unset] if is_target else []
        known = [BEST, *self._sweep.names]
        return [
            f"inference.experiments: got {name!r}; allowed: {BEST} and the {len(known) - 1} names of this study"
            + "".join(f" (did you mean {close!r}?)" for close in difflib.get_close_matches(name, known, n=1))
            for name in self._inference.experiments
            if name not in known
        ]

    def _is_current(self, path: Path) -> bool:
        from espalier.files import read_json  # imported only when needed, so that jobs start faster
        from espalier.recipe import first_difference, inference_settings

        if not path.is_file():
            return False
        try:
            measured, model = read_json(path), path.parent.name
            experiment = measured["experiment"] if path.stem == BEST else path.name.removesuffix(".json")
            manifest = Path(self._paths.of("check_model", model))
            plan = Path(self._paths.of("plan", model, experiment))
            if not (manifest.is_file() and plan.is_file()):
                return False
            settings = inference_settings(read_json(manifest), read_json(plan), dtype=self._dtype)
            return first_difference(measured, model=model, experiment=experiment, settings=settings) is None
        except (UserError, KeyError, TypeError):  # a file is damaged; the job that reads it says so in one line
            return True

    def _requested(self) -> list[tuple[str, str]]:
        """Return pairs of model and configured experiment, or `best`. Experiments that a model lacks are skipped.

        So is `best` of a model without experiments at the headline ratio, controls aside.
        """
        names = self._inference.experiments if self._inference else ()
        having = {(one.model, one.name) for one in self._sweep.experiments}
        pairs = [(model, name) for model in self._models for name in names]
        having |= {(model, BEST) for model in self._models if self._sweep.has_best(model)}
        return [pair for pair in pairs if pair in having]

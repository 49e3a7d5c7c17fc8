"""The work on a model before its plans: passes over calibration text, priors, and passes over the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from espalier import versions
from espalier.recipe import make_recipe, weights_hash

if TYPE_CHECKING:  # a job whose result is in the store already does not read the config
    from espalier.config.study import StudyConfig
    from espalier.study.calibrations import Calibrations
    from espalier.study.experiments import Experiment
    from espalier.study.paths import Paths
    from espalier.study.sweep import Sweep

GRADIENTS, IMPORTANCE, PRIORS = "gradients.parquet", "importance.parquet", "priors.parquet"
"""Files of a pass in the store."""
_VERSIONS = {
    "collect_gradients": versions.COLLECT_GRADIENTS,
    "measure_importance": versions.MEASURE_IMPORTANCE,
    "measure_weights": versions.MEASURE_WEIGHTS,
    "measure_priors": versions.MEASURE_PRIORS,
}
PASS_RULES = tuple(_VERSIONS)


@dataclass(frozen=True)
class Pass:
    """One pass over a model.

    Attributes:
        rule: Name of its rule.
        dtype: Configured dtype of the weights.
        criterion: Criterion of the importances; None for priors.
        text: File of the calibration text; None for a criterion that reads only the weights.
        sequences: Params that select the sequences, as of the rule; empty without text.
        counts: Sample counts of the results, as in the params of the rule; empty without text.
        outputs: Path of each output, by the name of its file in the store.
    """

    rule: str
    dtype: str
    criterion: str | None = None
    text: str | None = None
    sequences: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name for messages."""
        of_text = f" of {self.sequences['seq_len']} tokens" if self.sequences else ""
        return " ".join(filter(None, [self.rule, self.criterion])) + of_text

    def recipe(self, manifest: Mapping[str, Any], text_sha256: str | None) -> dict[str, Any]:
        """Return the recipe of the pass.

        Args:
            manifest: Manifest of the model.
            text_sha256: SHA-256 of the calibration text; None without text.
        """
        return make_recipe(
            version=_VERSIONS[self.rule],
            rule=self.rule,
            criterion=self.criterion,
            weights=weights_hash(manifest),
            dtype=self.dtype,
            text=text_sha256,
            sequences=dict(self.sequences),
            counts=dict(self.counts),
        )


class Passes:
    """Look-ups of the passes of a study.

    Args:
        config: Config of the study.
        paths: Paths of the study.
        sweep: Experiments of the study.
        calibration: Calibration sets of the study.
    """

    def __init__(self, config: StudyConfig, paths: Paths, sweep: Sweep, calibration: Calibrations) -> None:
        self._dtype, self._paths, self._sweep, self._calibration = config.evaluation.dtype, paths, sweep, calibration

    def of_model(self, model: str) -> Iterator[Pass]:
        """Yield every pass of a model once, in the order of the grid."""
        seen = set()
        for experiment in self._sweep.experiments_of_model(model):
            for rule, criterion in rules_of_passes(experiment):
                which = (
                    () if rule == "measure_weights" else (self._sweep.calibration_of(experiment), experiment.seq_len)
                )
                if (rule, criterion, which) not in seen:
                    seen.add((rule, criterion, which))
                    yield self.find(rule, model, criterion, *which)

    def find(
        self, rule: str, model: str, criterion: str | None, calibration: str = "", seq_len: int | str | None = None
    ) -> Pass:
        """Return a pass.

        Args:
            rule: Name of its rule, one of `PASS_RULES`.
            model: Name of the model.
            criterion: Criterion of the importances; None for priors.
            calibration: Name of the calibration set; empty without text.
            seq_len: Length of the sequences (tokens); None without text.
        """
        if rule == "measure_weights":
            outputs = {IMPORTANCE: self._paths.of(rule, model, criterion or "")}
            return Pass(rule, self._dtype, criterion, outputs=outputs)
        which = (calibration, seq_len or 0)
        wildcards = SimpleNamespace(
            model=model, calibration=calibration, seq_len=str(seq_len), text_criterion=criterion or ""
        )
        counts, outputs = {
            "collect_gradients": (
                self._calibration.gradient_counts,
                {
                    GRADIENTS: self._paths.of("collect_gradients", model, *which),
                    IMPORTANCE: self._paths.of("collect_gradients.importance", model, *which),
                },
            ),
            "measure_importance": (
                self._calibration.importance_counts,
                {IMPORTANCE: self._paths.of("measure_importance", model, criterion or "", *which)},
            ),
            "measure_priors": (
                self._calibration.prior_counts,
                {PRIORS: self._paths.of("measure_priors", model, *which)},
            ),
        }[rule]
        return Pass(
            rule,
            self._dtype,
            criterion,
            self._calibration.text,
            self._calibration.sequences(wildcards),
            counts(wildcards),
            outputs,
        )


def planned_passes(config: StudyConfig, model: str) -> Iterator[Pass]:
    """Yield every pass of a model in a study.

    Args:
        config: Config of the study.
        model: Name of the model.
    """
    from espalier.study.calibrations import Calibrations
    from espalier.study.paths import Paths, results_folder
    from espalier.study.sweep import Sweep

    paths = Paths(results_folder(config.study))
    sweep = Sweep(config, paths)
    yield from Passes(config, paths, sweep, Calibrations(config, paths, sweep)).of_model(model)


def rules_of_passes(experiment: Experiment) -> Iterator[tuple[str, str | None]]:
    """Yield the rules of the passes that an experiment needs, each with its criterion (None for priors)."""
    criterion = experiment.method.criterion
    if experiment.criterion.reads_model and not experiment.criterion.reads_text:
        yield "measure_weights", criterion
    if not (experiment.seq_len and experiment.n_samples):
        return
    if experiment.needs_gradients:
        yield "collect_gradients", "taylor"
    if experiment.criterion.reads_text and criterion != "taylor":
        yield "measure_importance", criterion
    if experiment.needs_priors:
        yield "measure_priors", None

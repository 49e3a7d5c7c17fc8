"""The experiments of a study: every combination of the grid, with its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from espalier.config.base import duplicates
from espalier.config.grid import Method
from espalier.config.models import ModelEntry
from espalier.config.study import StudyConfig
from espalier.errors import UserError
from espalier.naming import experiment_name
from espalier.planning.criteria import CRITERIA, Criterion

LONGEST_NAME = 200
"""Most characters of an experiment's name. File systems allow 255, of which suffixes need some."""


@dataclass(frozen=True)
class Experiment:
    """One pruned model of a study. Grid axes that its method does not depend on are None.

    Attributes:
        model: Name of the model.
        method: Pruning method.
        pruning_ratio: Requested fraction of all parameters to remove.
        seq_len: Tokens of each calibration sequence.
        n_samples: Number of calibration sequences.
        seed: Seed of the calibration set, or of a random criterion.
        name: Name in paths and tables.
    """

    model: str
    method: Method
    pruning_ratio: float
    seq_len: int | None
    n_samples: int | None
    seed: int | None
    name: str

    @property
    def criterion(self) -> Criterion:
        """Criterion that computes the importances."""
        return CRITERIA[self.method.criterion]

    @property
    def needs_gradients(self) -> bool:
        """Whether importance comes from gradients; their statistics are then part of the results."""
        return "gradient" in self.criterion.needs

    @property
    def needs_priors(self) -> bool:
        """Whether scores depend on a prior."""
        return self.method.scope != "none"


def experiments_of(config: StudyConfig, model: ModelEntry) -> list[Experiment]:
    """Return the experiments of one model in the order of the grid; none for an imported model.

    Raises:
        UserError: If two experiments get the same name.
    """
    if model.legacy is not None:
        return []
    grid, overrides = config.grid, model.grid
    methods = {method.name: method for method in config.methods}
    found = list(
        _combinations(
            model.name,
            [methods[name] for name in overrides.methods or grid.methods],
            overrides.pruning_ratio or grid.pruning_ratio,
            overrides.taylor_seq_len or grid.taylor_seq_len,
            overrides.taylor_num_samples or grid.taylor_num_samples,
            config.calibration.seeds,
        )
    )
    if repeated := duplicates(experiment.name for experiment in found):
        raise UserError(
            f"grid: two experiments of model {model.name!r} would be named {repeated[0]!r}; rename a method, or give "
            "ratios that differ in their first ten digits"
        )
    if long := next((experiment.name for experiment in found if len(experiment.name) > LONGEST_NAME), None):
        raise UserError(
            f"grid: an experiment of model {model.name!r} would be named {long[:60]}..., of {len(long)} characters; "
            f"allowed: {LONGEST_NAME}. Give the method a shorter name, or a pruning_ratio of fewer digits"
        )
    return found


def uses_calibration(method: Method) -> bool:
    """Return whether a method depends on the calibration set, its sequence length and its number of samples."""
    return CRITERIA[method.criterion].reads_text or method.scope != "none"


def _combinations(
    model: str,
    methods: Iterable[Method],
    ratios: Iterable[float],
    seq_lens: Iterable[int],
    sample_counts: Iterable[int],
    seeds: tuple[int, ...],
) -> Iterator[Experiment]:
    for ratio in ratios:
        for method in methods:
            calibrated = uses_calibration(method)
            criterion = CRITERIA[method.criterion]
            seeded = calibrated or (criterion.of_groups is not None and criterion.is_seeded)
            for seed in seeds if seeded else (None,):
                for seq_len in seq_lens if calibrated else (None,):
                    for n_samples in sample_counts if calibrated else (None,):
                        name = experiment_name(
                            method.name,
                            ratio,
                            seq_len=seq_len,
                            n_samples=n_samples,
                            seed=seed if len(seeds) > 1 else None,
                        )
                        yield Experiment(model, method, ratio, seq_len, n_samples, seed, name)

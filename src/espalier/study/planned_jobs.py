"""The jobs of a study that take time, with their amount of work, as input of the forecast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from espalier.calibration.sample_counts import n_prior_sequences
from espalier.results.store import TIMING
from espalier.study.config_checks import known_sizes
from espalier.study.experiments import Experiment
from espalier.study.forecast import PlannedJob
from espalier.study.passes import rules_of_passes
from espalier.study.recovery import recovering_rule

if TYPE_CHECKING:
    from espalier.study.lookups import Study


class _PassSize(NamedTuple):
    """Amount of work of a pass, and its largest sample count: tokens, or 1 and 0 for a pass that reads no text."""

    amount: int
    n_samples: int


def planned_jobs(study: Study) -> dict[str, Any]:
    """Return the arguments of a forecast as plain values.

    Returns:
        `jobs`, each with the fields of `espalier.study.forecast.PlannedJob`, `n_params` by model, and `first_rung`, the
        share of an evaluation before a race can stop an experiment (None without races).
    """
    config = study.config
    known = {model.name: known_sizes(model, study.model_folder(model), config.sandbox) for model in config.models}
    computed = [model for model in config.models if model.legacy is None]
    jobs = [job for model in computed for job in _jobs(study, model.name, model.gpus if study.uses_gpu else 0)]
    return {
        "jobs": [asdict(job) for job in jobs],
        "n_params": {name: sizes.sizes.total_params if sizes else None for name, sizes in known.items()},
        "first_rung": config.evaluation.racing.rungs[0] if config.evaluation.racing else None,
    }


def _jobs(study: Study, model: str, gpus: int) -> Iterator[PlannedJob]:
    paths = study.paths
    experiments = study.sweep.experiments_of_model(model)

    def job(
        rule: str, *wildcards: str, amount: int = 1, on_gpu: bool = True, n_samples: int | None = None
    ) -> PlannedJob:
        entry = study.handover.entry(rule, _named(rule, wildcards)) if rule in _STORED else None
        return PlannedJob(
            rule=rule,
            model=model,
            amount=amount,
            gpus=gpus if on_gpu else 0,
            output=paths.of(rule, *wildcards),
            benchmark=paths.benchmark(rule, *wildcards),
            n_samples=n_samples,
            timing="" if entry is None else str(entry / TIMING),
        )

    if model in study.sandbox.models:
        yield job("train_sandbox_model", model, on_gpu=False)
    yield job("tokenize_requests", model, on_gpu=False)
    yield job("evaluate_baseline", model)
    for (rule, *wildcards), size in _passes(study, model, experiments).items():
        yield job(rule, *wildcards, amount=size.amount, n_samples=size.n_samples or None)
    for experiment in experiments:
        yield job("plan", model, experiment.name, on_gpu=False)
        yield job("evaluate", model, experiment.name)
    for name in study.recovered.planned_names(model):
        yield job(recovering_rule(study.config), model, name, amount=study.recovery.n_tokens)
        yield job("evaluate_recovered", model, name)


_STORED = {
    "collect_gradients": ("model", "calibration", "seq_len"),
    "measure_importance": ("model", "text_criterion", "calibration", "seq_len"),
    "measure_weights": ("model", "weight_criterion"),
    "measure_priors": ("model", "calibration", "seq_len"),
    "evaluate": ("model", "experiment"),
    "evaluate_baseline": ("model",),
}
"""Wildcards of the rules whose results are kept in a store."""


def _named(rule: str, wildcards: tuple[str, ...]) -> SimpleNamespace:
    return SimpleNamespace(**dict(zip(_STORED[rule], wildcards, strict=True)))


def _passes(study: Study, model: str, experiments: list[Experiment]) -> dict[tuple[str, ...], _PassSize]:
    """Return the size of each pass, by rule and wildcards."""
    configured = study.config.calibration.prior_samples
    found: dict[tuple[str, ...], _PassSize] = {}
    for experiment in experiments:
        for rule, criterion in rules_of_passes(experiment):
            named = (criterion,) if criterion and rule in {"measure_importance", "measure_weights"} else ()
            key, size = (rule, model, *named), _PassSize(1, 0)
            if rule != "measure_weights":
                n_samples = experiment.n_samples or 0
                n_read = n_prior_sequences(n_samples, configured) if rule == "measure_priors" else n_samples
                key += (study.sweep.calibration_of(experiment), str(experiment.seq_len))
                size = _PassSize((experiment.seq_len or 0) * n_read, n_samples)
            found[key] = max(size, found.get(key, size))
    return found

"""Every expensive job of a study, with what its time depends on: what a forecast is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from espalier.calibration.ladder import prior_samples
from espalier.config.models import ModelEntry
from espalier.config.study import StudyConfig
from espalier.study.checks import known_sizes
from espalier.study.experiments import Experiment
from espalier.study.recovery import Recoveries
from espalier.study.sweep import Sweep


class Study(Protocol):
    """What is asked of the catalogue, which imports this module."""

    config: StudyConfig
    results: str
    sweep: Sweep
    recovery: Recoveries

    @property
    def uses_gpu(self) -> bool:
        """Whether jobs that run models may ask for a GPU."""

    @property
    def sandbox_models(self) -> list[str]:
        """Models that the workflow trains."""

    def model_folder(self, model: ModelEntry) -> str:
        """Folder of a model's weights, whether or not it is there yet."""


def outlook(study: Study) -> dict[str, Any]:
    """Return the arguments of a forecast as plain values: `jobs` (as `espalier.study.forecast.Work`) and `n_params`."""
    config = study.config
    known = {model.name: known_sizes(model, study.model_folder(model), config.sandbox) for model in config.models}
    computed = [model for model in config.models if model.legacy is None]
    jobs = [job for model in computed for job in _jobs(study, model.name, model.gpus if study.uses_gpu else 0)]
    return {
        "jobs": jobs,
        "n_params": {name: sizes.structure.total_params if sizes else None for name, sizes in known.items()},
    }


def _jobs(study: Study, model: str, gpus: int) -> Iterator[dict[str, Any]]:
    results = study.results
    experiments = [experiment for experiment in study.sweep.experiments if experiment.model == model]

    def job(
        rule: str, name: str, amount: int, output: str, *, on_gpu: bool = True, n_samples: int | None = None
    ) -> dict[str, Any]:
        return {
            "rule": rule, "model": model, "amount": amount, "gpus": gpus if on_gpu else 0, "n_samples": n_samples,
            "output": f"{results}/{output}", "benchmark": f"{results}/benchmarks/{rule}/{name}.tsv",
        }  # fmt: skip

    if model in study.sandbox_models:
        weights = f"sandbox/models/{model}/model.safetensors"
        yield job("train_sandbox_model", model, 1, weights, on_gpu=False)
    yield job("tokenize_requests", model, 1, f"requests/{model}.parquet", on_gpu=False)
    yield job("evaluate_baseline", model, 1, f"baseline/{model}/metrics.json")
    for (rule, table, name), (n_tokens, n_samples) in _passes(study, model, experiments).items():
        yield job(rule, name, n_tokens, table, n_samples=n_samples)
    for experiment in experiments:
        name = f"{model}/{experiment.name}"
        yield job("plan", name, 1, f"experiments/{name}/plan.json", on_gpu=False)
        yield job("evaluate", name, 1, f"experiments/{name}/metrics.json")
    for experiment_name in study.recovery.planned(model):
        name = f"{model}/{experiment_name}"
        yield job("recover", name, study.recovery.n_tokens, f"recovered/{name}/training.json")
        yield job("evaluate_recovered", name, 1, f"recovered/{name}/metrics.json")


def _passes(study: Study, model: str, experiments: list[Experiment]) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Return tokens and largest sample count of each pass over calibration text.

    They go by rule, table and name of the benchmark file.
    """
    configured = study.config.calibration.prior_samples
    found: dict[tuple[str, str, str], tuple[int, int]] = {}

    def add(rule: str, table: str, name: str, n_tokens: int, n_samples: int) -> None:
        key = (rule, table, name)
        found[key] = max((n_tokens, n_samples), found.get(key, (0, 0)))

    for experiment in experiments:
        if not (experiment.seq_len and experiment.n_samples):
            continue
        which, criterion = study.sweep.calibration_set(experiment), experiment.method.criterion
        n_samples = experiment.n_samples
        n_tokens = experiment.seq_len * n_samples
        if experiment.needs_gradients:
            add("collect_gradients", f"gradients/{model}/{which}.parquet", f"{model}/{which}", n_tokens, n_samples)
        if experiment.criterion.reads_text and criterion != "taylor":
            name = f"{model}/{criterion}/{which}"
            add("measure_importance", f"importance/{name}.parquet", name, n_tokens, n_samples)
        if experiment.needs_priors:
            n_tokens = experiment.seq_len * prior_samples(experiment.n_samples, configured)
            add("measure_priors", f"priors/{model}/{which}.parquet", f"{model}/{which}", n_tokens, n_samples)
    return found

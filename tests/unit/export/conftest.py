"""Fixtures of the export tests: a random model with a tokenizer, a plan, and made-up results of the plan."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from espalier.export.describe import describe_export
from espalier.files import sha256_of_json
from espalier.models.manifest import make_manifest
from espalier.models.sizes import ModelSizes
from espalier.planning.plan import Plan
from espalier.recipe import evaluation_recipe
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from tests.script_server import ScriptServer
from tests.unit.conftest import random_model, with_biases

N_LAYERS, N_KV, N_CHANNELS = 4, 2, 48


@pytest.fixture(scope="session")
def check_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptServer]:
    """A process that runs the check of an export without importing torch each time."""
    server = ScriptServer(tmp_path_factory.mktemp("check"), module="espalier.export.check")
    server.start()
    yield server
    server.close()


@pytest.fixture
def quick_check(check_server: ScriptServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the new process of the check from one that has imported torch. It imports transformers and our code."""
    monkeypatch.setattr(sys, "executable", str(check_server.interpreter))


@dataclass(frozen=True)
class Source:
    """Everything that an export is made from."""

    folder: Path
    manifest: dict[str, Any]
    description: dict[str, Any]
    plan: Plan


@pytest.fixture
def make_source(tmp_path: Path, pages: list[str], quick_check: None) -> Callable[..., Source]:
    """Return a function that writes a base model and describes an export with empty blocks."""

    def make(architecture: str = "llama", **changes: Any) -> Source:
        return source_in(tmp_path / "base", architecture, pages, **changes)

    return make


WIDE = tuple(range(N_CHANNELS))
ODD = ((), (1,), (0, 1), ()), (tuple(range(0, N_CHANNELS, 2)), (), (3, 5, 7), ()), ()
"""A plan whose layers differ, with empty blocks: kept KV groups, kept channels, removed layers."""


def source_in(
    folder: Path,
    architecture: str,
    pages: list[str],
    *,
    scale: float = 1.0,
    kept: tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...], tuple[int, ...]] = ODD,
    **changes: Any,
) -> Source:
    """Write a seeded random model, with embeddings multiplied by `scale`, and describe the export of a plan."""
    tokenizer = wrap(train_tokenizer("llama", pages, 400), model_max_length=128, chat=True)
    model = random_model(architecture, len(tokenizer), num_hidden_layers=N_LAYERS, **changes)
    model.get_input_embeddings().weight.data *= scale
    with_biases(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
    structure = ModelSizes.from_dict(manifest["structure"])
    n_kv = changes.get("num_key_value_heads", N_KV)
    plan = Plan((n_kv,) * N_LAYERS, (N_CHANNELS,) * N_LAYERS, *kept)
    return Source(folder, manifest, description_of(manifest, plan, structure), plan)


def description_of(
    manifest: dict[str, Any], plan: Plan, structure: ModelSizes, *, measured: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return the description of the export of a plan, with made-up results.

    Args:
        manifest: Manifest of the base model.
        plan: The plan.
        structure: Sizes of the base model.
        measured: Content of `metrics.json` in place of the made-up one.
        settings: Further settings of `describe_export`.
    """
    weights = sha256_of_json(manifest["files"])
    selection = {"freeze_first_layers": 1, "freeze_last_layers": 0, "max_layer_ratio": 1.0}
    method = {"criterion": "random", "scope": "none", "prior": "loss_increase", "allocation": "global"}
    content = {
        "model": "A",
        "experiment": "random-p50",
        "pruning_ratio": 0.5,
        "removed_param_fraction": plan.removed_param_fraction(structure),
        "extreme_pruning_layers": plan.extreme_pruning_layers,
        "recipe": {
            "weights": weights,
            "settings": {"method": method, "selection": selection, "seq_len": None, "n_samples": None, "seed": 0},
        },
        **plan.to_dict(),
    }
    metrics = {
        "n_params": structure.total_params - plan.removed_params(structure),
        "tasks": {"piqa": {"metrics": {"acc": {"value": 0.5, "stderr": 0.25}}, "n_samples": 4}},
        "acc_mean": {"value": 0.5, "rule": "acc_norm_else_acc", "n_tasks": 1},
        "perplexity": {"plain": {"value": 12.5, "n_tokens": 100}},
        "protocol": {
            "num_fewshot": 0, "limit": None, "chat_template": False, "add_bos": None, "window": 64, "stride": 32,
        },
    }  # fmt: skip
    evaluation = {"protocol": metrics["protocol"], "dtype": "auto"}
    baseline = {
        **metrics, "n_params": structure.total_params, "acc_mean": {"value": 0.75, "rule": "acc_norm_else_acc"},
        "model": "A", "experiment": "baseline",
        "recipe": evaluation_recipe(manifest, None, **evaluation, requests="0"),
    }  # fmt: skip
    metrics |= {
        "model": "A", "experiment": "random-p50",
        "recipe": evaluation_recipe(manifest, content, **evaluation, requests="0"), **(measured or {}),
    }  # fmt: skip
    base = {"name": "A", "family": "F", "kind": "base", "hub": None, "revision": None}
    calibration = {"dataset": "d", "config": None, "split": "train"}
    return describe_export(
        plan=content,
        metrics=metrics,
        baseline=baseline,
        best=None,
        settings={"base": base, "calibration": calibration, **settings},
        manifest=manifest,
        experiment="random-p50",
        evaluation=evaluation,
    )

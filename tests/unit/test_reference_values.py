"""The numbers that a stage computes for a tiny model change only when the version of the stage changes.

After an intended change, raise the version of the stage in `espalier/versions.py` and store the new numbers:

    PYTHONPATH=src python -m tests.unit.test_reference_values
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from espalier import versions
from espalier.calibration.importance import importance_of_weights, measure_importance
from espalier.calibration.pass_size import PassSettings
from espalier.calibration.priors import measure_priors
from espalier.models.decoder import decoder_layers, n_kv_groups, n_mlp_channels, params_per_group
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.models.surgery import prune
from espalier.planning.groups import GroupTable
from espalier.planning.plan import Plan
from espalier.planning.scores import PriorColumns, ScoreSettings, score_groups
from espalier.planning.select import SelectionOptions, select_groups
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request
from tests.unit.conftest import random_model

FILE = Path(__file__).parents[1] / "data/reference_values.json"
STAGES = {
    "COLLECT_GRADIENTS": 1e-4,
    "MEASURE_IMPORTANCE": 1e-4,
    "MEASURE_WEIGHTS": 1e-6,
    "MEASURE_PRIORS": 1e-4,
    "PLAN": 0.0,
    "EVALUATE": 1e-4,
}
"""Relative tolerance of each stage; it allows for rounding by a different order of summation."""


def values() -> dict[str, Any]:
    """Run every stage on one seeded model; return the numbers of each stage."""
    model = random_model("qwen2", 40)
    tokens = torch.randint(0, 40, (8, 12), generator=torch.Generator().manual_seed(5))
    settings = PassSettings(token_budget=50)
    found: dict[str, Any] = {}
    taylor = measure_importance(model, tokens, [3, 8], settings=settings)
    found["COLLECT_GRADIENTS"] = [
        *taylor.importance["importance"][::7].tolist(),
        *(value for name in ("grad_mean", "grad_std", "grad_norm", "grad_max") for value in taylor.gradients[name]),
    ]
    found["MEASURE_IMPORTANCE"] = [
        value
        for criterion in ("taylor2", "wanda")
        for value in measure_importance(model, tokens, [8], criterion=criterion, settings=settings)
        .importance["importance"][::7]
        .tolist()
    ]
    found["MEASURE_WEIGHTS"] = importance_of_weights(model, "magnitude")["importance"][::7].tolist()
    priors = measure_priors(model, tokens, token_budget=50)
    found["MEASURE_PRIORS"] = [*priors.loss_increase.mean(0).ravel(), *priors.cosine_distance.mean(0).ravel()]
    plan = quarter_plan(model)
    found["PLAN"] = [plan.kept_kv_groups, plan.kept_mlp_channels]
    prune(model, plan.kept_kv_groups, plan.kept_mlp_channels)
    requests = [Request(row[:5].tolist(), row[5 : 6 + i % 3].tolist()) for i, row in enumerate(tokens)]
    scores = score_requests(model, requests, token_budget=64)
    found["EVALUATE"] = [score.loglikelihood for score in scores]
    return json.loads(json.dumps(found, default=float))


def quarter_plan(model: torch.nn.Module) -> Plan:
    """Make a plan at pruning ratio 0.2 from fixed, artificial importances and priors."""
    layers = [
        LayerSizes(
            n_kv_groups(layer), params_per_group(layer, "attention"), n_mlp_channels(layer),
            params_per_group(layer, "mlp"), 64,
        )
        for layer in decoder_layers(model)
    ]  # fmt: skip
    sizes = ModelSizes(tuple(layers), 40 * 64 + 32)
    groups = GroupTable.of(sizes)
    importance = (1 + torch.arange(len(groups)).numpy() * 7 % 11) * groups.cost / 1000
    prior = torch.tensor([[0.5, 0.3], [0.2, 0.4], [0.1, 0.6]]).double().numpy()
    settings = ScoreSettings("gated", temperature=0.7, tau=0.5, normalise="block")
    scores, _ = score_groups(groups, importance, settings, PriorColumns(*prior))
    options = SelectionOptions(max_layer_ratio=0.7, mlp_multiple_of=4)
    return Plan.from_mask(groups, sizes, select_groups(groups, sizes, scores, 0.2, options))


@pytest.mark.parametrize("stage", list(STAGES))
def test_numbers_change_only_with_the_version(stage: str, current: dict[str, Any]) -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))[stage]
    assert stored["version"] == getattr(versions, stage), "write the reference values of the new version"
    if tolerance := STAGES[stage]:
        assert current[stage] == pytest.approx(stored["values"], rel=tolerance, abs=1e-7), f"raise versions.{stage}"
    else:
        assert current[stage] == stored["values"], f"raise versions.{stage}"


@pytest.fixture(scope="module")
def current() -> dict[str, Any]:
    return values()


if __name__ == "__main__":
    content = {stage: {"version": getattr(versions, stage), "values": found} for stage, found in values().items()}
    FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

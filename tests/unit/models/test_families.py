"""Tests that every model family in `CONFIGS` must pass, from its folder to its scores."""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from espalier.calibration.gradients import sequence_losses
from espalier.calibration.importance import measure_importance
from espalier.calibration.pass_size import PassSettings
from espalier.calibration.priors import SCOPES, measure_priors
from espalier.models.decoder import decoder_layers, n_groups, params_per_group, projections
from espalier.models.folder import inspect_folder
from espalier.models.loading import load_model
from espalier.models.surgery import mask, prune
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request
from tests.unit.calibration.test_priors import losses_without
from tests.unit.conftest import CONFIGS, random_model, with_biases
from tests.unit.scoring.reference import plain_score

# Layer 0 loses its attention and layer 1 its MLP; the other two blocks are kept in part.
PLAN = ([[], [1]], [[3, 7, 11, 30], []])
# Layer 0 is removed whole.
DEPTH = ([[], [0, 1]], [[], list(range(48))], [0])


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return with_biases(random_model(request.param, 50))


@pytest.fixture
def sequences() -> torch.Tensor:
    return torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(5))


def test_folder_says_what_the_modules_hold(
    model: PreTrainedModel, plain_tokenizer: object, tmp_path: Path, sequences: torch.Tensor
) -> None:
    model.save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer).save_pretrained(tmp_path)
    sizes = inspect_folder(tmp_path).sizes
    assert sizes.total_params == sum(parameter.numel() for parameter in model.parameters())
    for layer, layer_sizes in zip(decoder_layers(model), sizes.layers, strict=True):
        assert layer_sizes.n_kv_groups == n_groups(layer, "attention")
        assert layer_sizes.n_mlp_channels == n_groups(layer, "mlp")
        assert layer_sizes.kv_group_params == params_per_group(layer, "attention")
        assert layer_sizes.mlp_channel_params == params_per_group(layer, "mlp")
    loaded = load_model(tmp_path, dtype="auto", device=torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(sequences).logits, model(sequences).logits)


@pytest.mark.parametrize("plan", [PLAN, DEPTH], ids=["groups", "layers"])
def test_pruned_equals_masked(
    model: PreTrainedModel, plan: tuple[list[list[int]], ...], sequences: torch.Tensor
) -> None:
    masked, pruned = copy.deepcopy(model), copy.deepcopy(model)
    mask(masked, *plan)
    prune(pruned, *plan)
    with torch.no_grad():
        expected, found = masked(sequences).logits, pruned(sequences).logits
        assert (expected - model(sequences).logits).abs().max() > 0.01  # something was removed
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_model_without_a_layer_is_a_stock_model(
    model: PreTrainedModel, tmp_path: Path, sequences: torch.Tensor
) -> None:
    """Stock code loads it, and generates with a KV cache what full passes give."""
    layer = sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    n_params = model.num_parameters()
    prune(model, *DEPTH)
    assert model.num_parameters() == n_params - layer
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(sequences).logits, model(sequences).logits)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert torch.equal(loaded.generate(sequences, **options), model.generate(sequences, use_cache=False, **options))


@pytest.mark.parametrize("plan", [None, PLAN, DEPTH], ids=["unpruned", "groups", "layers"])
def test_packed_scores_equal_one_request_at_a_time(
    model: PreTrainedModel, plan: tuple[list[list[int]], ...] | None
) -> None:
    if plan:
        prune(model, *plan)
    context = [5, 9, 2, 17, 3]
    requests = [Request(context, [1, 4]), Request(context, [8]), Request([*context, 1], [4, 4, 6]), Request([7], [9])]
    for request, score in zip(requests, score_requests(model, requests, token_budget=64), strict=True):
        expected, greedy = plain_score(model, request)
        assert score.loglikelihood == pytest.approx(expected, abs=1e-4)
        assert score.is_greedy == greedy


def test_importance_of_all_groups_is_that_of_their_weights(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    """Groups do not overlap and leave nothing out: the sum of their importance equals that of all |w g|."""
    found = measure_importance(
        model, sequences, [len(sequences)], criterion="taylor", settings=PassSettings(token_budget=24)
    )
    table = pd.DataFrame(found.importance)
    model.requires_grad_(requires_grad=True)
    (sequence_losses(model, sequences).sum() / len(sequences)).backward()
    for block in ("attention", "mlp"):
        found_in = [projection for projection in projections(model) if projection.block == block]
        grouped = [projection.weight for projection in found_in]
        # The bias of a projection that writes to the residual stream belongs to no group.
        grouped += [one.bias for one in found_in if one.bias is not None and one.name not in {"o_proj", "down_proj"}]
        expected = sum(float((weight.detach() * weight.grad).abs().double().sum()) for weight in grouped)
        assert table[table.block == block].importance.sum() == pytest.approx(expected, rel=1e-4)


def test_priors_equal_whole_runs_without_the_block(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    priors = measure_priors(model, sequences, token_budget=24)
    with torch.no_grad():
        intact = sequence_losses(model, sequences)
    for layer in range(model.config.num_hidden_layers):
        for position, scope in enumerate(SCOPES):
            expected = (losses_without(model, layer, scope, sequences) - intact).numpy()
            np.testing.assert_allclose(priors.loss_increase[:, layer, position], expected, atol=2e-5)

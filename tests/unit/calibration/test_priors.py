"""Priors against runs of the whole model in which a hook sets the output of a block to zero."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM, PreTrainedModel

from espalier.calibration import priors as priors_module
from espalier.calibration.gradients import sequence_losses as summed_loss
from espalier.calibration.priors import SCOPES, measure_priors
from espalier.errors import UserError
from espalier.tables import PriorTable
from tests.unit.conftest import random_model, with_biases

SHAPES = {
    "llama": {},
    "llama-biased": {
        "attention_bias": True,
        "mlp_bias": True,
    },  # o_proj and down_proj have a bias too; removing the block must remove it
    "qwen2-tied": {"tie_word_embeddings": True},
    "qwen3": {},
    "mistral-window": {"sliding_window": 5},
}


@pytest.fixture(params=list(SHAPES))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    shape = {"num_hidden_layers": 3} | SHAPES[request.param]
    return with_biases(random_model(request.param.split("-")[0], 40, initializer_range=0.2, **shape))


@pytest.fixture
def sequences() -> torch.Tensor:
    return torch.randint(0, 40, (5, 12), generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def losses_without(model: PreTrainedModel, layer: int, scope: str, sequences: torch.Tensor) -> torch.Tensor:
    """Return the losses of the whole model when the blocks of this scope add nothing to the residual stream."""
    module = model.model.layers[layer]

    def zero_attention(_: object, __: object, output: tuple) -> tuple:
        return (torch.zeros_like(output[0]), *output[1:])

    def zero_mlp(_: object, __: object, output: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(output)

    hooks: list[tuple[torch.nn.Module, Callable]] = []
    if scope in {"layer", "attention"}:
        hooks.append((module.self_attn, zero_attention))
    if scope in {"layer", "mlp"}:
        hooks.append((module.mlp, zero_mlp))
    handles = [block.register_forward_hook(hook) for block, hook in hooks]
    losses = summed_loss(model, sequences)
    for handle in handles:
        handle.remove()
    return losses


def assert_priors_equal_whole_runs(model: PreTrainedModel, sequences: torch.Tensor, token_budget: int = 24) -> None:
    """Assert that each prior is what the losses rise by when its layer or block is left out of a whole run."""
    priors = measure_priors(model, sequences, token_budget=token_budget)
    with torch.no_grad():
        intact = summed_loss(model, sequences)
    for layer in range(model.config.num_hidden_layers):
        for position, scope in enumerate(SCOPES):
            expected = (losses_without(model, layer, scope, sequences) - intact).numpy()
            np.testing.assert_allclose(priors.loss_increase[:, layer, position], expected, atol=2e-5)
    assert np.abs(priors.loss_increase).max() > 0.01  # the compared values are not all zero


@pytest.mark.parametrize(("token_budget", "state_bytes"), [(12, 1), (30, 40_000), (1000, 2**20)])
def test_loss_increase_equals_a_whole_run_without_the_block(
    model: PreTrainedModel,
    sequences: torch.Tensor,
    token_budget: int,
    state_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The result does not depend on how many sequences and hidden states are in memory at once."""
    monkeypatch.setattr(priors_module, "STATE_BYTES_ON_CPU", state_bytes)
    assert_priors_equal_whole_runs(model, sequences, token_budget)


def test_cosine_distance_equals_that_of_the_hidden_states(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    priors = measure_priors(model, sequences, token_budget=1000)
    states: dict[str, torch.Tensor] = {}
    layer = model.model.layers[1]
    handles = [
        layer.input_layernorm.register_forward_pre_hook(lambda _, args: states.update(before=args[0])),
        layer.post_attention_layernorm.register_forward_pre_hook(lambda _, args: states.update(between=args[0])),
        model.model.layers[2].input_layernorm.register_forward_pre_hook(lambda _, args: states.update(after=args[0])),
    ]
    with torch.no_grad():
        model(sequences)
    for handle in handles:
        handle.remove()
    pairs = (("before", "after"), ("before", "between"), ("between", "after"))
    for position, (a, b) in enumerate(pairs):
        u, v = states[a].double().numpy(), states[b].double().numpy()
        cosine = (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
        np.testing.assert_allclose(priors.cosine_distance[:, 1, position], (1 - cosine).mean(axis=1), atol=1e-5)


def test_the_model_is_left_as_it_was(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    before = model(sequences).logits
    measure_priors(model, sequences, token_budget=50)
    assert torch.equal(model(sequences).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_rows_average_the_first_sequences(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    import pandas as pd

    priors = measure_priors(model, sequences, token_budget=1000)
    table = PriorTable.validate(pd.DataFrame(priors.columns(n_samples=10, n_sequences=2)))
    assert len(table) == 9
    row = table[(table.layer == 2) & (table.scope == "mlp")].iloc[0]
    assert row.loss_increase == pytest.approx(priors.loss_increase[:2, 2, 2].mean())
    assert row.cosine_distance == pytest.approx(priors.cosine_distance[:2, 2, 2].mean())


def test_a_loss_of_the_unpruned_model_that_is_not_finite_is_refused(sequences: torch.Tensor) -> None:
    model = random_model("llama", 40)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[:] = float("nan")
    with pytest.raises(UserError, match=r"priors: the loss of the unpruned model is not finite at sequence 0; load"):
        measure_priors(model, sequences, token_budget=50)


def test_a_loss_without_a_block_that_is_not_finite_names_the_block() -> None:
    increase = np.zeros((3, 2, 3))  # sequences, layers, scopes
    increase[2, 1, 1] = np.inf
    with pytest.raises(UserError, match=r"the loss without the attention of layer 1 is not finite at sequence 2; load"):
        priors_module._check_losses_finite(increase)


def test_out_of_memory_measures_fewer_sequences_at_once(
    model: PreTrainedModel, sequences: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = measure_priors(model, sequences, token_budget=1000)
    forward = type(model.model.layers[0]).forward
    max_batch_size = 4

    def failing(self: torch.nn.Module, hidden: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        if len(hidden) > max_batch_size:
            raise torch.OutOfMemoryError
        return forward(self, hidden, *args, **kwargs)

    monkeypatch.setattr(type(model.model.layers[0]), "forward", failing)
    found = measure_priors(model, sequences, token_budget=1000)
    np.testing.assert_allclose(found.loss_increase, plain.loss_increase, atol=2e-5)
    max_batch_size = 0
    monkeypatch.setattr(priors_module, "_layer_inputs", _raise_out_of_memory)
    with pytest.raises(UserError, match=r"priors: GPU memory exhausted by one sequence of 12 tokens; use a shorter"):
        measure_priors(model, sequences, token_budget=1000)


def _raise_out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError


def test_a_model_that_scales_branches_and_logits(sequences: torch.Tensor) -> None:
    """Granite multiplies the output of each block by a constant and divides its logits by another."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=40,
        num_key_value_heads=2,
        initializer_range=0.3,
        logits_scaling=3.0,
        residual_multiplier=0.6,
        **shape,
    )
    model = GraniteForCausalLM(config).eval()
    priors = measure_priors(model, sequences, token_budget=50)
    with torch.no_grad():
        intact = summed_loss(model, sequences)
    for position, scope in enumerate(SCOPES):
        expected = (losses_without(model, 1, scope, sequences) - intact).numpy()
        np.testing.assert_allclose(priors.loss_increase[:, 1, position], expected, atol=2e-5)
    assert np.abs(priors.loss_increase).max() > 0.01

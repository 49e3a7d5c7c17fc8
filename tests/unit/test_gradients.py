"""Gradients, importance and statistics against hand-worked cases, finite differences and plain backward passes."""

import math

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.gradients.accumulate import Gradient, accumulate, summed_loss
from espalier.gradients.importance import taylor_importance
from espalier.gradients.snapshots import collect_snapshots
from espalier.gradients.statistics import Moments, model_metrics, moments_of, pool
from espalier.ladder import ladder, off_ladder, prior_samples
from espalier.models.decoder import Projection
from espalier.tables import Gradients, Importance
from tests.unit.conftest import random_model

SHAPES = {
    "llama": {},
    "llama-mha": {"num_key_value_heads": 4},  # one query head per KV head
    "llama-head-dim": {"head_dim": 12},  # not hidden / heads = 8
    "llama-gqa-7": {"hidden_size": 56, "num_attention_heads": 7, "num_key_value_heads": 1},
    "qwen2-tied": {"tie_word_embeddings": True},  # with biases
    "mistral": {},
}


@pytest.fixture(params=list(SHAPES))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    model = random_model(request.param.split("-")[0], 40, initializer_range=0.2, **SHAPES[request.param])
    with torch.no_grad():  # biases start at zero, where they would have no importance
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
    return model


@pytest.fixture
def sequences() -> torch.Tensor:
    return torch.randint(0, 40, (8, 12), generator=torch.Generator().manual_seed(5))


def mean_loss(model: PreTrainedModel, sequences: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss over sequences, in the model's own dtype (transformers' own loss is float32)."""
    logits = model(input_ids=sequences).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), sequences[:, 1:].flatten())


def test_importance_by_hand() -> None:
    """Two query heads of size 1 on one KV head, hidden size 2, MLP of two channels; sums over 2 samples.

    KV group: q |1*2|+|2*0| + |0*1|+|1*-4| = 6;  k |1*1|+|-1*1| = 2;  v |3*2|+|0*9| = 6;
    o (columns of both heads) |1*1|+|1*1|+|2*-1|+|0*5| = 4;  bias of q |1*2|+|1*0| = 2;  in all 20, halved: 10.
    Channel 0: gate |1*1|+|2*1| = 3, up |0*1|+|1*1| = 1, down column 0 |1*4|+|1*0| = 4: 8, halved 4.
    Channel 1: gate |0*7|+|-1*2| = 2, up |2*2|+|2*0| = 4, down column 1 |3*1|+|0*2| = 3: 9, halved 4.5.
    """

    def of(name: str, block: str, weight: list, total: list) -> Gradient:
        parameter = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float32))
        return Gradient(
            Projection(0, name, block, parameter, None), parameter, torch.tensor(total, dtype=torch.float32)
        )

    gradients = [
        of("q_proj", "attention", [[1, 2], [0, 1]], [[2, 0], [1, -4]]),
        of("q_proj", "attention", [1, 1], [2, 0]),
        of("k_proj", "attention", [[1, -1]], [[1, 1]]),
        of("v_proj", "attention", [[3, 0]], [[2, 9]]),
        of("o_proj", "attention", [[1, 1], [2, 0]], [[1, 1], [-1, 5]]),
        of("o_proj", "attention", [5, 5], [5, 5]),  # its bias belongs to no group
        of("gate_proj", "mlp", [[1, 2], [0, -1]], [[1, 1], [7, 2]]),
        of("up_proj", "mlp", [[0, 1], [2, 2]], [[1, 1], [2, 0]]),
        of("down_proj", "mlp", [[1, 3], [1, 0]], [[4, 1], [0, 2]]),
    ]
    importance = taylor_importance(gradients, n_samples=2, n_kv_groups=[1])
    assert importance[0, "attention"].tolist() == [10.0]
    assert importance[0, "mlp"].tolist() == [4.0, 4.5]


def test_gradient_is_that_of_the_mean_loss(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    (_, gradients), *_ = [(count, list(sums)) for count, sums in accumulate(model, sequences, [8], token_budget=30)]
    mean_loss(model, sequences).backward()
    for gradient in gradients:
        torch.testing.assert_close(gradient.total / 8, gradient.parameter.grad, atol=1e-6, rtol=1e-4)


def test_signed_taylor_sum_is_the_slope_of_scaling_a_group(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    """Scaling channel 3 of layer 1 by (1 + e) changes the loss by e * sum of w g: checked by central differences.

    The norms of transformers compute in float32 even in a float64 model, so a loss carries noise of about 1e-7. With
    e = 0.03 that is about 1e-3 of the difference, as is the error of the difference itself, of order e**2.
    """
    model = model.double()
    down = model.model.layers[1].mlp.down_proj.weight
    *_, (_, gradients) = accumulate(model, sequences, [8], token_budget=1000)
    total = next(g.total for g in gradients if g.parameter is down).double() / 8
    slope = float((down.detach()[:, 3] * total[:, 3]).sum())
    losses = []
    with torch.no_grad():
        original = down[:, 3].clone()
        for factor in (1.03, 0.97):
            down[:, 3] = original * factor
            losses.append(float(mean_loss(model, sequences)))
    assert slope == pytest.approx((losses[0] - losses[1]) / 0.06, rel=5e-3)


@pytest.mark.parametrize("token_budget", [12, 36, 1000])
def test_a_snapshot_equals_a_run_of_that_many_samples_at_any_batch_size(
    model: PreTrainedModel, sequences: torch.Tensor, token_budget: int
) -> None:
    importance, statistics = collect_snapshots(model, sequences, [1, 2, 3, 8], token_budget=token_budget)
    Importance.validate(importance)
    Gradients.validate(statistics)
    alone, statistics_alone = collect_snapshots(model, sequences[:3], [3], token_budget=1000)
    of_three = importance[importance.n_samples == 3]
    np.testing.assert_allclose(of_three.importance, alone.importance, rtol=2e-4)
    np.testing.assert_allclose(statistics[statistics.n_samples == 3].grad_norm, statistics_alone.grad_norm, rtol=2e-4)


def test_the_model_is_left_as_it_was(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.model.embed_tokens.weight.requires_grad_(requires_grad=False)
    required = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    collect_snapshots(model, sequences, [2, 8], token_budget=50)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
        assert parameter.requires_grad == required[name]
        assert not parameter._post_accumulate_grad_hooks


def test_statistics_of_a_projection_are_those_of_its_gradient(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    _, statistics = collect_snapshots(model, sequences, [8], token_budget=50)
    mean_loss(model, sequences).backward()
    attention = model.model.layers[1].self_attn.q_proj
    parts = [attention.weight] + ([attention.bias] if attention.bias is not None else [])
    grad = torch.cat([part.grad.flatten() for part in parts]).double().abs()
    row = statistics[(statistics.layer == 1) & (statistics.projection == "q_proj")].iloc[0]
    assert row.n_params == len(grad)
    assert row.grad_mean == pytest.approx(float(grad.mean()), rel=1e-4)
    assert row.grad_std == pytest.approx(float(grad.std(correction=0)), rel=1e-4)
    assert row.grad_norm == pytest.approx(float(grad.norm()), rel=1e-4)
    assert row.grad_max == pytest.approx(float(grad.max()), rel=1e-4)


def test_pooled_statistics_are_those_of_all_values_together() -> None:
    first, second = np.array([1.0, -3.0, 2.0]), np.array([0.5, -0.25])
    parts = [Moments(len(g), float(abs(g).sum()), float((g**2).sum()), float(abs(g).max())) for g in (first, second)]
    both = abs(np.concatenate([first, second]))
    pooled = pool(parts).statistics()
    expected = {
        "n_params": 5, "grad_mean": both.mean(), "grad_std": both.std(), "grad_norm": math.sqrt((both**2).sum()),
        "grad_max": 3.0,
    }  # fmt: skip
    assert pooled == pytest.approx(expected)
    assert pool([moments_of(part.statistics()) for part in parts]).statistics() == pytest.approx(expected)


def test_model_metrics_by_hand() -> None:
    layers = [
        {"grad_mean": 0.0, "grad_norm": 1.0, "grad_std": 2.0, "grad_max": 0.0},
        {"grad_mean": 0.5, "grad_norm": 4.0, "grad_std": 3.0, "grad_max": 0.0},
        {"grad_mean": 2.0, "grad_norm": 2.0, "grad_std": 2.5, "grad_max": 0.0},
    ]
    assert model_metrics(layers) == {
        "grad_mean_ratio": 4.0,  # 2 / 0.5: the smallest non-zero one
        "grad_norm_ratio": 4.0,
        "grad_std_ratio": 1.5,
        "grad_max_ratio": None,  # no layer has any
        "grad_mean_range": 2.0,
        "grad_norm_range": 3.0,
    }


def test_sequences_longer_than_the_context_are_refused(sequences: torch.Tensor) -> None:
    model = random_model("llama", 40, max_position_embeddings=8)
    with pytest.raises(UserError, match=r"grid.taylor_seq_len: got 12, but the model's context is 8 tokens"):
        collect_snapshots(model, sequences, [1], token_budget=50)


def test_a_gradient_that_is_not_finite_names_layer_and_sequence(sequences: torch.Tensor) -> None:
    model = random_model("llama", 40)
    odd = sequences.clone()
    odd[odd == 39] = 0
    odd[5, 4] = 39  # only sequence 5 reads the broken embedding
    with torch.no_grad():
        model.model.embed_tokens.weight[39] = float("inf")
    with pytest.raises(
        UserError, match=r"gradients: not finite in layer \d, \w+_proj, at sequence 5; load the model in"
    ):
        collect_snapshots(model, odd, [2, 8], token_budget=50)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_loss_of_a_sequence_is_that_of_transformers(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    losses = summed_loss(model, sequences)
    expected = [model(input_ids=row[None], labels=row[None]).loss for row in sequences]
    torch.testing.assert_close(losses, torch.stack(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("counts", "largest", "extra"),
    [([128, 256, 512], 512, []), ([32, 100, 128], 128, [100]), ([3], 3, []), ([1], 1, []), ([100, 3, 64], 100, [3])],
)
def test_the_ladder(counts: list[int], largest: int, extra: list[int]) -> None:
    assert off_ladder(counts) == extra
    steps = ladder(largest, extra)
    assert set(counts) <= set(steps)
    assert steps[-1] == largest
    assert steps == sorted({1 << i for i in range(20) if 1 << i <= largest} | set(extra) | {largest})


def test_prior_samples_are_a_fifth_rounded_up() -> None:
    assert [prior_samples(n) for n in (1, 4, 5, 6, 128, 512)] == [1, 1, 1, 2, 26, 103]

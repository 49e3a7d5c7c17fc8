"""Importance and gradient statistics, against hand-worked values, finite differences and plain backward passes."""

import copy
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel

from espalier.calibration import gradients
from espalier.calibration.gradients import (
    MAX_LOGITS,
    NonFiniteError,
    Sums,
    _name_non_finite,
    accumulate,
    backward,
    run_forward_backward,
    sequence_losses,
)
from espalier.calibration.importance import group_importance, importance_of_weights, measure_importance
from espalier.calibration.pass_size import PassSettings
from espalier.calibration.reductions import reduce_parameters
from espalier.errors import UserError
from espalier.models.decoder import Projection
from espalier.planning.criteria import CRITERIA, Criterion
from espalier.progress import Progress
from espalier.tables import GradientStatistics, Importance
from tests.unit.conftest import random_model, with_biases

SHAPES = {
    "llama": {},
    "llama-mha": {"num_key_value_heads": 4},  # one query head per KV head
    "llama-head-dim": {"head_dim": 12},  # not hidden / heads = 8
    "llama-gqa-4": {"num_key_value_heads": 1},
    "llama-gqa-7": {"hidden_size": 56, "num_attention_heads": 7, "num_key_value_heads": 1},
    "qwen2-tied": {"tie_word_embeddings": True},  # with biases
    "mistral": {},
}


FISHER = Criterion(lambda known: known.weight.square() * known.squared_gradient, frozenset({"squared_gradient"}))
"""A criterion that needs only squared gradients: the example of CONTRIBUTING.md without its factor 0.5."""


@pytest.fixture(params=list(SHAPES))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return with_biases(random_model(request.param.split("-")[0], 40, initializer_range=0.2, **SHAPES[request.param]))


@pytest.fixture
def sequences() -> torch.Tensor:
    return torch.randint(0, 40, (8, 12), generator=torch.Generator().manual_seed(5))


def mean_loss(model: PreTrainedModel, sequences: torch.Tensor) -> torch.Tensor:
    """Return the mean next-token loss in the dtype of the model (the loss of transformers is always float32)."""
    logits = model(input_ids=sequences).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), sequences[:, 1:].flatten())


def collect(
    model: PreTrainedModel, sequences: torch.Tensor, counts: list[int], *, criterion: str = "taylor", **settings: object
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    found = measure_importance(
        model, sequences, counts, criterion=criterion, settings=PassSettings(**({"token_budget": 50} | settings))
    )
    importance = Importance.validate(pd.DataFrame(found.importance))
    return importance, None if found.gradients is None else GradientStatistics.validate(pd.DataFrame(found.gradients))


def accumulated(model: PreTrainedModel, sequences: torch.Tensor, needs: set[str]) -> list[Sums]:
    with Progress("test", total=sequences.numel(), unit="tokens") as progress:
        layers = range(model.config.num_hidden_layers)
        passed = accumulate(
            model, sequences, [len(sequences)], needs, lambda _, sums: list(sums),
            layers=layers, batch_size=2, progress=progress,
        )  # fmt: skip
        return next(passed)


def slices_of_groups(model: PreTrainedModel) -> Iterator[tuple[tuple[int, str, int], list[torch.Tensor]]]:
    """Yield views of the weights of each KV group and of MLP channels 0 and 31, independently of the library."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shared = config.num_attention_heads // config.num_key_value_heads
    for number, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        for kv in range(config.num_key_value_heads):
            queries = slice(kv * shared * head, (kv + 1) * shared * head)
            keys = slice(kv * head, (kv + 1) * head)
            views = [attention.q_proj.weight[queries], attention.k_proj.weight[keys], attention.v_proj.weight[keys]]
            views.append(attention.o_proj.weight[:, queries])
            if attention.q_proj.bias is not None:
                views += [attention.q_proj.bias[queries], attention.k_proj.bias[keys], attention.v_proj.bias[keys]]
            yield (number, "attention", kv), views
        for channel in (0, 31):
            views = [mlp.gate_proj.weight[channel], mlp.up_proj.weight[channel], mlp.down_proj.weight[:, channel]]
            yield (number, "mlp", channel), views


def test_importance_by_hand() -> None:
    """Two layers in which every residual stream stays a multiple of (1, 1), so that a norm's output is (1, 1).

    Hidden size 2, one head of size 2, vocabulary 2, sequence 0 0: one loss, at token 0, whose embedding is (1, 1).
    In both layers v = 0.5 I and o = I: attention (token 0 sees itself only) adds 0.5 (1, 1). Channel 0 has
    gate.n = ln 3, so silu = 0.75 ln 3, and up.n = 2, so its activation is a = 1.5 ln 3 = 1.647918; with down = (d, d),
    d = 0.25 and 0.5, it adds d a (1, 1). Channel 1 has up = 0: nothing. The stream after layer 0 is q (1, 1), the last
    one r (1, 1):
        q = 1 + 0.5 + 0.25 a = 1.911980,  r = q + 0.5 + 0.5 a = 3.235939.
    The head is the identity: logits (1, 1), target 0, so d loss / d n = (-1/2, 1/2). It is orthogonal to (1, 1), so
    a norm over a stream s (1, 1) only divides it by s: in layer 1, d loss / d stream = e / r with e = (-1/2, 1/2).
    MLPs pass no gradient back (down.e = 0). The attention of layer 1 passes back o v / q = 0.5 / q of it, so in
    layer 0 it is f e / r with f = 1 + 0.5 / q = 1.261509.
        o: 2 entries 1 * (0.5 / 2r);  v: 2 entries 0.5 * (1 / 2r);  q and k: 0 (a softmax of one);  in all 1 / r.
        down of channel 0: 2 entries d * (a / 2r) = d a / r;  gate and up: 0.  In layer 0 all times f.
    """
    model = random_model(
        "llama", 2, hidden_size=2, intermediate_size=2, num_attention_heads=1, num_key_value_heads=1,
        rms_norm_eps=1e-12, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    with torch.no_grad():
        model.model.embed_tokens.weight[0] = 1.0
        model.lm_head.weight.copy_(torch.eye(2))
        for layer, d in zip(model.model.layers, (0.25, 0.5), strict=True):
            layer.self_attn.v_proj.weight.copy_(0.5 * torch.eye(2))
            layer.self_attn.o_proj.weight.copy_(torch.eye(2))
            layer.mlp.gate_proj.weight.fill_(math.log(3) / 2)
            layer.mlp.up_proj.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
            layer.mlp.down_proj.weight.copy_(torch.tensor([[d, d], [d, d]]))
    table, _ = collect(model, torch.zeros(1, 2, dtype=torch.long), [1])
    a, r, f = 1.647918, 3.235939, 1.261509
    expected = [f / r, f * 0.25 * a / r, 0, 1 / r, 0.5 * a / r, 0]  # layer 0: attention, channels; layer 1 likewise
    assert table.importance.tolist() == pytest.approx(expected, abs=1e-6)


def test_every_criterion_by_hand() -> None:
    """Two query heads of size 1 on one KV head, hidden size 2, MLP of two channels; sums over 2 samples.

    taylor, KV group: q |1*2|+|2*0| + |0*1|+|1*-4| = 6;  k |1*1|+|-1*1| = 2;  v |3*2|+|0*9| = 6;
    o (columns of both heads) |1*1|+|1*1|+|2*-1|+|0*5| = 4;  bias of q |1*2|+|1*0| = 2;  in all 20, halved: 10.
    Channel 0: gate |1*1|+|2*1| = 3, up |0*1|+|1*1| = 1, down column 0 |1*4|+|1*0| = 4: 8, halved 4.
    Channel 1: gate |0*7|+|-1*2| = 2, up |2*2|+|2*0| = 4, down column 1 |3*1|+|0*2| = 3: 9, halved 4.5.
    taylor2 adds half of w^2 F; the sums of squared gradients are 4 everywhere, so F = 2 and w^2 is added:
    q 1+4+0+1 = 6, k 2, v 9, o 1+1+4+0 = 6, bias of q 2: 25, in all 35. Channel 0: 1+4 + 0+1 + 1+1 = 8, in all 12.
    Channel 1: 0+1 + 4+4 + 9+0 = 18, in all 22.5.
    magnitude: q 4, k 2, v 3, o 4, bias 2: 15. Channel 0: 3+1+2 = 6. Channel 1: 1+4+3 = 8.
    wanda: sums of squared inputs (8, 18) are norms (2, 3); a bias reads 1 at 2 * 8 tokens, norm sqrt(8).
    q (1*2+2*3)+(0+1*3) = 11, k 2+3 = 5, v 6+0 = 6, o (1*2+1*3)+(2*2+0) = 9, bias 2 sqrt(8): 31 + 2 sqrt(8).
    Channel 0: gate 2+6 = 8, up 0+3 = 3, down (reads its channel, norm 2) 1*2+1*2 = 4: 15.
    Channel 1: gate 0+3 = 3, up 4+6 = 10, down (norm 3) 3*3+0 = 9: 22.
    """

    def of(name: str, block: str, weight: list, total: list) -> Sums:
        parameter = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float32))
        inputs = torch.tensor([8.0, 18.0]) if parameter.dim() == 2 else torch.tensor(16.0)
        gradient = torch.tensor(total, dtype=torch.float32)
        return Sums(
            Projection(0, name, block, parameter, None), parameter, gradient, torch.full_like(gradient, 4.0), inputs
        )

    sums = [
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
    expected = {
        "taylor": (10.0, [4.0, 4.5]),
        "taylor2": (35.0, [12.0, 22.5]),
        "magnitude": (15.0, [6.0, 8.0]),
        "wanda": (31 + 2 * math.sqrt(8), [15.0, 22.0]),
    }
    for criterion, (attention, mlp) in expected.items():
        importance = group_importance(sums, reduce_parameters(CRITERIA[criterion], sums, 2), {0: 1})
        assert importance[0, "attention"].tolist() == pytest.approx([attention])
        assert importance[0, "mlp"].tolist() == pytest.approx(mlp)


def test_gradient_is_that_of_the_mean_loss(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    sums = accumulated(model, sequences, {"gradient"})
    mean_loss(model, sequences).backward()
    for each in sums:
        torch.testing.assert_close(each.gradient / 8, each.parameter.grad, atol=1e-6, rtol=1e-4)


def test_signed_taylor_sum_is_the_slope_of_scaling_a_group(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    """Scaling a group by (1 + e) changes the loss by e * sum of w g, as central differences confirm.

    The loss is of high order in e (a group's q k and o v are products), so differences at e = 0.01 and 0.02 are
    extrapolated: (4 D(e) - D(2e)) / 3. The norms of transformers compute in float32 even in a float64 model, so a
    loss has an error of about 1e-7 and a slope an error of about 1e-5.
    """
    model = model.double()
    signed = Criterion(lambda known: known.weight * known.gradient, frozenset({"gradient"}))
    kv_groups = dict.fromkeys(range(2), model.config.num_key_value_heads)
    sums = accumulated(model, sequences, {"gradient"})
    slopes = group_importance(sums, reduce_parameters(signed, sums, 8), kv_groups)
    largest = max(abs(values).max() for values in slopes.values())
    with torch.no_grad():
        for (layer, block, group), views in slices_of_groups(model):
            originals, losses = [view.clone() for view in views], []
            for factor in (1.01, 0.99, 1.02, 0.98):
                for view, original in zip(views, originals, strict=True):
                    view.copy_(original * factor)
                losses.append(float(mean_loss(model, sequences)))
            for view, original in zip(views, originals, strict=True):
                view.copy_(original)
            narrow, wide = (losses[0] - losses[1]) / 0.02, (losses[2] - losses[3]) / 0.04
            found = (4 * narrow - wide) / 3
            assert slopes[layer, block][group] == pytest.approx(found, rel=1e-2, abs=1e-3 * largest)


def test_taylor2_adds_half_the_squared_single_sample_gradients(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    mean, squares = {}, {}
    for row in sequences:
        model.zero_grad()
        mean_loss(model, row[None]).backward()
        for name, parameter in model.named_parameters():
            mean[name] = mean.get(name, 0) + parameter.grad / 8
            squares[name] = squares.get(name, 0) + parameter.grad**2 / 8
    model.zero_grad(set_to_none=True)
    down = model.model.layers[1].mlp.down_proj.weight.detach()
    name = "model.layers.1.mlp.{}_proj.weight"
    expected = (down * mean[name.format("down")]).abs().sum(0) + (down**2 * squares[name.format("down")]).sum(0) / 2
    for projection in ("gate", "up"):
        weight = model.get_parameter(name.format(projection)).detach()
        g, f = mean[name.format(projection)], squares[name.format(projection)]
        expected += (weight * g).abs().sum(1) + (weight**2 * f).sum(1) / 2
    table, statistics = collect(model, sequences, [8], criterion="taylor2")
    found = table[(table.layer == 1) & (table.block == "mlp")].importance.to_numpy()
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4)
    assert statistics is not None


def test_wanda_is_weight_times_norm_of_the_input(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    inputs: dict[str, torch.Tensor] = {}
    attention = model.model.layers[1].self_attn
    handles = [
        attention.v_proj.register_forward_pre_hook(lambda _, args: inputs.update(v=args[0])),
        attention.o_proj.register_forward_pre_hook(lambda _, args: inputs.update(o=args[0])),
    ]
    with torch.no_grad():
        model(sequences[:4])
    for handle in handles:
        handle.remove()
    norms = {name: (x.double() ** 2).sum(dim=(0, 1)).div(4).sqrt() for name, x in inputs.items()}
    table, statistics = collect(model, sequences, [2, 4], criterion="wanda")
    assert statistics is None
    rows = table[(table.n_samples == 4) & (table.layer == 1) & (table.block == "attention")]
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = head * config.num_attention_heads // config.num_key_value_heads
    weights = {n: getattr(attention, f"{n}_proj").weight.detach().double().abs() for n in "qkvo"}
    per_row = {n: (weights[n] * norms["v"]).sum(1) for n in "qkv"}  # q, k and v read the same input
    per_row["o"] = (weights["o"] * norms["o"]).sum(0)
    if attention.q_proj.bias is not None:
        for n in "qkv":
            per_row[n] += getattr(attention, f"{n}_proj").bias.detach().double().abs() * math.sqrt(12)
    sizes = {"q": width, "k": head, "v": head, "o": width}
    expected = sum(per_row[n].view(-1, size).sum(1) for n, size in sizes.items())
    np.testing.assert_allclose(rows.importance.to_numpy(), expected.numpy(), rtol=1e-4)


def test_magnitude_reads_no_text(model: PreTrainedModel) -> None:
    table = Importance.validate(pd.DataFrame(importance_of_weights(model, "magnitude")))
    assert set(table.n_samples) == {0}
    for (layer, block, group), views in slices_of_groups(model):
        row = table[(table.layer == layer) & (table.block == block) & (table.group == group)].iloc[0]
        assert row.importance == pytest.approx(sum(float(view.detach().abs().sum()) for view in views), rel=1e-5)


@pytest.mark.parametrize("criterion", ["taylor", "taylor2", "wanda"])
@pytest.mark.parametrize(
    "settings",
    [{"token_budget": 12}, {"token_budget": 1000}, {"layers_per_pass": 1}, {"checkpointing": True}],
    ids=str,
)
def test_pass_settings_do_not_change_the_result(
    model: PreTrainedModel, sequences: torch.Tensor, criterion: str, settings: dict[str, object]
) -> None:
    plain, plain_statistics = collect(model, sequences, [1, 2, 3, 8], criterion=criterion)
    found, statistics = collect(model, sequences, [1, 2, 3, 8], criterion=criterion, **settings)
    pd.testing.assert_frame_equal(found, plain, rtol=2e-4)
    if plain_statistics is not None:
        pd.testing.assert_frame_equal(statistics, plain_statistics, rtol=2e-4)


def test_a_snapshot_equals_a_run_of_that_many_samples(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    importance, statistics = collect(model, sequences, [1, 2, 3, 8])
    alone, statistics_alone = collect(model, sequences[:3], [3])
    of_three = importance[importance.n_samples == 3].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_three, alone, rtol=2e-4)
    pd.testing.assert_frame_equal(
        statistics[statistics.n_samples == 3].reset_index(drop=True), statistics_alone, rtol=2e-4
    )


def test_a_128_sample_snapshot_of_a_512_sample_pass_equals_a_128_sample_run() -> None:
    model = random_model("llama", 40)
    sequences = torch.randint(0, 40, (512, 8), generator=torch.Generator().manual_seed(1))
    long, _ = collect(model, sequences, [128, 512], token_budget=1024)
    alone, _ = collect(model, sequences[:128], [128], token_budget=1024)
    pd.testing.assert_frame_equal(long[long.n_samples == 128].reset_index(drop=True), alone, rtol=1e-6)


def test_bfloat16_weights_are_accumulated_in_float32() -> None:
    """512 equal gradients: a bfloat16 sum would stop growing at 256 times the addend."""
    model = random_model("llama", 40, dtype=torch.bfloat16)
    sequences = torch.randint(0, 40, (1, 8), generator=torch.Generator().manual_seed(1)).repeat(512, 1)
    table, statistics = collect(model, sequences, [1, 512], token_budget=8)
    first, last = (table[table.n_samples == n].importance.to_numpy() for n in (1, 512))
    np.testing.assert_allclose(last, first, rtol=1e-5)
    assert np.isfinite(statistics[["grad_mean", "grad_std", "grad_norm", "grad_max"]].to_numpy()).all()


@pytest.mark.parametrize("max_batch_size", [3, 1])
def test_out_of_memory_makes_the_pass_smaller(
    model: PreTrainedModel, sequences: torch.Tensor, monkeypatch: pytest.MonkeyPatch, max_batch_size: int
) -> None:
    """Running out of memory above a batch size, also in the middle of a pass, does not change the results."""
    plain, _ = collect(model, sequences, [1, 2, 8], token_budget=1000)

    def limited(model: PreTrainedModel, batch: torch.Tensor, scale: float) -> None:
        if len(batch) > max_batch_size:
            raise torch.OutOfMemoryError
        backward(model, batch, scale)

    monkeypatch.setattr("espalier.calibration.gradients.backward", limited)
    found, _ = collect(model, sequences, [1, 2, 8], token_budget=1000)
    pd.testing.assert_frame_equal(found, plain, rtol=2e-4)


def test_out_of_memory_takes_fewer_layers_and_then_refuses(
    sequences: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model("llama", 40)
    plain, _ = collect(model, sequences, [8])
    n_trained_at_most = 7

    def limited(model: PreTrainedModel, batch: torch.Tensor, scale: float) -> None:
        if sum(parameter.requires_grad for parameter in model.parameters()) > n_trained_at_most:
            raise torch.OutOfMemoryError
        backward(model, batch, scale)

    monkeypatch.setattr("espalier.calibration.gradients.backward", limited)
    found, _ = collect(model, sequences, [8])
    pd.testing.assert_frame_equal(found, plain, rtol=2e-4)
    n_trained_at_most = 6
    with pytest.raises(UserError, match=r"GPU memory exhausted: .* one layer; set gradients.layers_per_pass: 1 and"):
        collect(model, sequences, [8])


@pytest.mark.parametrize(
    ("criterion", "token_budget", "layers_per_pass", "sizes"),
    [
        ("taylor", 10_000, None, [(2, 4), (2, 2), (2, 1), (1, 1), (1, 1)]),  # 8 sequences, 4 from snapshot to snapshot
        ("taylor2", 10_000, None, [(2, 1), (1, 1), (1, 1)]),  # squared gradients always take one sequence at a time
        ("fisher", 10_000, 64, [(2, 1), (1, 1), (1, 1)]),  # the model has 2 layers, whatever the config says
    ],
)
def test_a_retry_always_has_a_smaller_size(
    sequences: torch.Tensor, monkeypatch: pytest.MonkeyPatch, criterion: str, token_budget: int,
    layers_per_pass: int | None, sizes: list[tuple[int, int]],
) -> None:  # fmt: skip
    """The simulated device has room for the sums of one layer: only 7 parameters may require a gradient."""
    monkeypatch.setitem(CRITERIA, "fisher", FISHER)
    tried = []

    def limited(model: PreTrainedModel, batch: torch.Tensor, scale: float) -> None:
        if sum(parameter.requires_grad for parameter in model.parameters()) > 7:
            raise torch.OutOfMemoryError
        backward(model, batch)

    def recorded(*args: object, layers: range, batch_size: int, **kwargs: object) -> object:
        tried.append((len(layers), batch_size))
        return accumulate(*args, layers=layers, batch_size=batch_size, **kwargs)

    monkeypatch.setattr("espalier.calibration.gradients.backward", limited)
    monkeypatch.setattr("espalier.calibration.importance.accumulate", recorded)
    model = random_model("llama", 40)
    collect(
        model, sequences, [4, 8], criterion=criterion, token_budget=token_budget, layers_per_pass=layers_per_pass
    )  # fmt: skip
    assert tried == sizes


def test_a_retry_halves_the_layers_that_failed(sequences: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry halves the number of layers in the failed part of the pass.

    With 5 layers, 4 at a time, the second part has one layer. Retries with 4 or 2 layers would only repeat it.
    """
    tried = []

    def recorded(*args: object, layers: range, batch_size: int, **kwargs: object) -> object:
        tried.append((layers.start, layers.stop))
        if layers.start == 4:
            raise torch.OutOfMemoryError
        return accumulate(*args, layers=layers, batch_size=batch_size, **kwargs)

    monkeypatch.setattr("espalier.calibration.importance.accumulate", recorded)
    model = random_model("llama", 40, num_hidden_layers=5)
    with pytest.raises(UserError, match="not one sequence of 12 tokens fits beside the sums of one layer"):
        collect(model, sequences, [8], token_budget=12, layers_per_pass=4)
    assert tried == [(0, 4), (4, 5)]


def test_the_model_is_left_as_it_was(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.model.embed_tokens.weight.requires_grad_(requires_grad=False)
    required = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    collect(model, sequences, [2, 8], checkpointing=True)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
        assert parameter.requires_grad == required[name]
        assert not parameter._post_accumulate_grad_hooks


def test_statistics_of_a_projection_are_those_of_its_gradient(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    _, statistics = collect(model, sequences, [8])
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


def test_sequences_longer_than_the_context_are_refused(sequences: torch.Tensor) -> None:
    model = random_model("llama", 40, max_position_embeddings=8)
    with pytest.raises(UserError, match=r"got 12, but the model's context is 8 tokens; give at most 8"):
        collect(model, sequences, [1])


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
        collect(model, odd, [2, 8])
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("scale", [None, 2.0**40], ids=["usual", "too large at first"])
def test_small_gradients_of_a_float16_model_are_kept(
    scale: float | None, sequences: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest float16 is 6e-8. A scale that makes gradients infinite is lowered, and the pass begins again."""
    model = random_model("llama", 40)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e-5)
    model = model.half()

    def sums_of(model: PreTrainedModel) -> list[torch.Tensor]:
        def read(_: int, sums: Sequence[Sums]) -> list[torch.Tensor]:
            if any(each.first_non_finite() for each in sums):
                raise NonFiniteError("sums")
            return [total.clone() for each in sums for total in (each.gradient, each.squared_gradient)]

        with Progress("test", total=sequences.numel(), unit="tokens") as progress:
            needs = {"gradient", "squared_gradient"}
            return next(accumulate(model, sequences, [8], needs, read, layers=[0, 1], batch_size=2, progress=progress))

    def largest_error() -> float:
        return max(float((one - other).norm() / other.norm()) for one, other in zip(sums_of(model), exact, strict=True))

    exact = sums_of(copy.deepcopy(model).float())
    if scale:
        monkeypatch.setattr(gradients, "loss_scale", lambda *_: scale)
    assert largest_error() < 0.02
    monkeypatch.setattr(gradients, "loss_scale", lambda *_: 1.0)
    assert largest_error() > 0.3


@pytest.mark.parametrize("criterion", ["fisher", "taylor2"])
def test_squared_gradients_that_overflow_are_named(
    sequences: torch.Tensor, monkeypatch: pytest.MonkeyPatch, criterion: str
) -> None:
    """Gradients of about 1e20 are finite, but their squares exceed the largest float32."""
    monkeypatch.setitem(CRITERIA, "fisher", FISHER)

    def scaled(model: PreTrainedModel, batch: torch.Tensor, _: float) -> None:
        (sequence_losses(model, batch).sum() * (1e24 if batch[0, 0] == 39 else 1)).backward()

    monkeypatch.setattr("espalier.calibration.gradients.backward", scaled)
    odd = sequences.clone()
    odd[:, 0] = torch.tensor([0, 1, 2, 39, 4, 5, 6, 7])
    with pytest.raises(
        UserError, match=r"squared gradients: not finite in layer \d, \w+_proj, at sequence 3; load the model in"
    ):
        collect(random_model("llama", 40), odd, [2, 8], criterion=criterion)


def test_a_sum_that_overflows_although_each_sequence_is_finite_is_an_error(sequences: torch.Tensor) -> None:
    model = random_model("llama", 40)
    sums = accumulated(model, sequences, {"gradient"})
    sums[3].gradient.fill_(float("inf"))
    error = _name_non_finite(model, sums, sequences, 8, {"gradient"}, "not finite")
    assert str(error).startswith("gradients: the sum over 8 sequences is not finite in layer 0, though each")


def test_logits_in_pieces_do_not_change_the_gradients(
    model: PreTrainedModel, sequences: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = accumulated(model, sequences, {"gradient"})
    monkeypatch.setitem(MAX_LOGITS, "cpu", 5 * 40)  # five positions at a time, of 2 * 11
    for each, expected in zip(accumulated(model, sequences, {"gradient"}), whole, strict=True):
        torch.testing.assert_close(each.gradient, expected.gradient, atol=1e-6, rtol=1e-4)


def test_backward_gives_the_gradients_of_transformers_own_loss(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    backward(model, sequences)
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    for row in sequences:
        model(input_ids=row[None], labels=row[None]).loss.backward()
    named = dict(model.named_parameters())
    assert "model.layers.0.self_attn.q_proj.weight" in found
    for name, gradient in found.items():
        if "embed" not in name and "lm_head" not in name:
            torch.testing.assert_close(gradient, named[name].grad, atol=1e-6, rtol=1e-4)


def test_run_forward_backward_leaves_no_gradients(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    """The trial run that measures peak memory removes its gradients and hooks and keeps foreign layer wrappers."""
    layer = model.model.layers[0]
    wrapped, calls = layer.forward, []
    layer.forward = lambda *args, **kwargs: calls.append(1) or wrapped(*args, **kwargs)
    wrapper = layer.forward
    run_forward_backward(model, sequences[:1], checkpointing=True)
    assert calls == [1, 1]  # forward, and again in the backward pass
    assert layer.forward is wrapper
    assert "forward" not in model.model.layers[1].__dict__
    for parameter in model.parameters():
        assert parameter.grad is None
        assert not parameter._post_accumulate_grad_hooks


def test_loss_of_a_sequence_is_that_of_transformers(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    losses = sequence_losses(model, sequences)
    expected = [model(input_ids=row[None], labels=row[None]).loss for row in sequences]
    torch.testing.assert_close(losses, torch.stack(expected), atol=1e-6, rtol=1e-5)

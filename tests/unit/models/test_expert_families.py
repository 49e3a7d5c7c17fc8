"""Tests that every family with experts must pass, from its folder to its scores."""

import copy
import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassClassValidationError
from tools.families import README, experts_table
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from espalier.calibration.gradients import sequence_losses
from espalier.calibration.importance import importance_of_weights, measure_importance
from espalier.calibration.pass_size import PassSettings
from espalier.errors import UserError
from espalier.export.build import check_target, find_stock_shape, stock_model
from espalier.files import read_json, write_json
from espalier.jobs.check_architecture import check_architecture
from espalier.models.architecture import EXPERT_FAMILIES, FAMILIES, PROJECTION_NAMES
from espalier.models.decoder import decoder_layers, n_groups, params_per_group
from espalier.models.experts import n_experts, params_per_expert
from espalier.models.folder import inspect_folder
from espalier.models.kept_experts import KeptExperts
from espalier.models.loading import load_model
from espalier.models.manifest import make_manifest
from espalier.models.sizes import ModelSizes, sizes_from_shapes
from espalier.models.surgery import mask, prune
from espalier.planning.make_plan import PlanSettings, make_plan
from espalier.planning.plan import Plan
from espalier.planning.scores import ScoreSettings
from espalier.planning.select import SelectionOptions
from espalier.planning.stock import StockShape, stock_kv_group_counts, stock_shape
from espalier.recovery.lora import LoraSettings, attach
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request
from espalier.serving.inference_timing import versions_of
from tests.unit.calibration.test_priors import assert_priors_equal_whole_runs
from tests.unit.scoring.reference import plain_score

CONFIGS = {
    name: getattr(transformers, family.config)
    for name, family in EXPERT_FAMILIES.items()
    if hasattr(transformers, family.config)
}
N_EXPERTS, CHOSEN, WIDTH = 6, 2, 24
CPU = torch.device("cpu")
SETTINGS = PlanSettings(
    "taylor", "loss_increase", ScoreSettings(), "global", SelectionOptions(), 0.2, n_samples=3, seed=0
)  # fmt: skip
EXPERTS = {0: KeptExperts((1, 2, 4)), 1: KeptExperts((0, 3, 5))}
CHANNELS = {
    layer: KeptExperts(tuple(range(N_EXPERTS)), tuple(tuple(range(e, e + 16, 2)) for e in range(N_EXPERTS)))
    for layer in (0, 1)
}
WHOLE = ([[0, 1]] * 2, [list(range(WIDTH))] * 2)
# Arguments of `prune`: experts; channels of experts beside KV groups; experts without channels; a whole layer.
PLANS = {
    "experts": (*WHOLE, (), EXPERTS),
    "channels": ([[], [1]], [list(range(8))] * 2, (), CHANNELS),
    "empty": (WHOLE[0], [[], list(range(WIDTH))], (), {0: KeptExperts((1, 2), ((), ()))}),
    "layers": ([[], [0, 1]], [[], list(range(WIDTH))], (0,), {}),
}


def expert_model(name: str, dtype: torch.dtype = torch.float32, **changes: object) -> PreTrainedModel:
    """Return a seeded random model with two layers of six experts, of which each token is routed to two."""
    shape: dict[str, object] = {
        "hidden_size": 32, "intermediate_size": WIDTH, "moe_intermediate_size": WIDTH, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_experts": N_EXPERTS,
        "num_local_experts": N_EXPERTS, "num_experts_per_tok": CHOSEN, "shared_expert_intermediate_size": 16,
        "max_position_embeddings": 128, "initializer_range": 0.3, "pad_token_id": None, "eos_token_id": None,
        "vocab_size": 50,
    }  # fmt: skip
    torch.manual_seed(0)
    known = inspect.signature(CONFIGS[name]).parameters
    values = {key: value for key, value in (shape | changes).items() if key in known}
    model = AutoModelForCausalLM.from_config(CONFIGS[name](**values), dtype=dtype).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(std=0.2)
    return model


def sizes_of(model: PreTrainedModel) -> ModelSizes:
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return sizes_from_shapes(shapes, model.config.to_dict())


def plan_for(model: PreTrainedModel, sequences: torch.Tensor, ratio: float, criterion: str, **changes: object) -> Plan:
    found = measure_importance(model, sequences, [3], criterion=criterion, settings=PassSettings())
    table = pa.Table.from_pandas(pd.DataFrame(found.importance))
    settings = replace(SETTINGS, criterion=criterion, pruning_ratio=ratio, **changes)
    return make_plan(sizes_of(model), settings, table, None)[0]


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return expert_model(request.param)


@pytest.fixture
def sequences() -> torch.Tensor:
    return torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def folder(model: PreTrainedModel, plain_tokenizer: object, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_families_with_experts_are_no_dense_families() -> None:
    assert {"mixtral", "qwen3_moe"} <= set(CONFIGS)
    assert not set(EXPERT_FAMILIES) & set(FAMILIES)


@pytest.mark.parametrize("name", [name for name in EXPERT_FAMILIES if name in CONFIG_MAPPING_NAMES])
def test_the_table_names_the_classes_of_transformers(name: str) -> None:
    """A family with a wrong name would not be in `CONFIGS`, so no other test would cover it."""
    family = EXPERT_FAMILIES[name]
    assert family.config == CONFIG_MAPPING_NAMES[name]
    assert family.causal == MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]
    assert name in CONFIGS


def test_the_readme_lists_them() -> None:
    """`python -m tools.families` writes the table; the tests of this file hold for each of its rows."""
    rows = [line.split(" | ") for line in experts_table().splitlines()[2:]]
    assert [row[1] for row in rows] == [f"`{name}`" for name in EXPERT_FAMILIES]
    assert experts_table() in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("n_kv_groups", [1, 2, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_stock_checkpoints_have_the_heads_of_the_table(
    name: str, n_kv_groups: int, tmp_path: Path, sequences: torch.Tensor
) -> None:
    """A stock class loads a pruned model of one shape exactly if the table says that it accepts the number of heads."""
    model = expert_model(name, num_key_value_heads=4)
    accepts = n_kv_groups in stock_kv_group_counts(4, model.config.to_dict())
    prune(model, [range(n_kv_groups)] * 2, WHOLE[1])
    try:
        stock_model(model, StockShape(2, n_kv_groups, None, N_EXPERTS, WIDTH)).save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path)
    except (StrictDataclassClassValidationError, ValueError, RuntimeError):
        assert not accepts
        return
    assert accepts
    with torch.no_grad():
        torch.testing.assert_close(loaded(sequences).logits, model(sequences).logits)


def test_folder_says_what_the_modules_hold(folder: Path, model: PreTrainedModel, sequences: torch.Tensor) -> None:
    """The folder stores a tensor for each expert, and transformers merges them when it loads the model."""
    found = inspect_folder(folder)
    assert found.sizes == sizes_of(model)
    assert found.n_params == model.num_parameters()
    assert "mlp.gate" not in found.block_norms
    for layer, sizes in zip(decoder_layers(model), found.sizes.layers, strict=True):
        assert (sizes.n_experts, sizes.experts_per_token, sizes.n_mlp_channels) == (N_EXPERTS, CHOSEN, WIDTH)
        assert (sizes.n_kv_groups, sizes.kv_group_params) == (2, params_per_group(layer, "attention"))
        # gate, up and down of 24 channels, and a row of the router, each of 32 numbers
        assert sizes.expert_params == params_per_expert(layer) == 3 * 24 * 32 + 32
        assert sizes.mlp_channel_params == params_per_group(layer, "mlp") == N_EXPERTS * 3 * 32
    manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
    assert ModelSizes.from_dict(manifest["structure"]) == found.sizes
    assert manifest["config"]["num_experts_per_tok"] == CHOSEN
    loaded = load_model(folder, dtype="auto", device=CPU)
    with torch.no_grad():
        torch.testing.assert_close(loaded(sequences).logits, model(sequences).logits)


def test_the_check_before_all_jobs_passes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_architecture(folder)
    assert not caplog.records


def test_a_config_that_asks_for_router_logits(
    model: PreTrainedModel, folder: Path, sequences: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    """With them, transformers computes a training loss, for which each layer must have all experts of the config."""
    write_json(folder / "config.json", read_json(folder / "config.json") | {"output_router_logits": True})
    check_architecture(folder)
    assert not caplog.records
    loaded, masked = load_model(folder, dtype="auto", device=CPU), copy.deepcopy(model)
    uneven = {0: KeptExperts((1, 2, 4)), 1: KeptExperts((0, 5))}
    prune(loaded, *WHOLE, (), uneven)
    mask(masked, *WHOLE, (), uneven)
    with torch.no_grad():
        torch.testing.assert_close(loaded(sequences).logits, masked(sequences).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("plan", PLANS)
def test_pruned_equals_masked(model: PreTrainedModel, plan: str, sequences: torch.Tensor) -> None:
    masked, pruned = copy.deepcopy(model), copy.deepcopy(model)
    mask(masked, *PLANS[plan])
    prune(pruned, *PLANS[plan])
    with torch.no_grad():
        expected, found = masked(sequences).logits, pruned(sequences).logits
        assert (expected - model(sequences).logits).abs().max() > 0.01  # something was removed
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert pruned.num_parameters() < model.num_parameters()


def test_a_removed_expert_is_a_logit_of_minus_infinity(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    """The formula of the MLP, written out with all experts: experts 1, 2 and 4 of layer 0 are left."""
    pruned = copy.deepcopy(model)
    prune(pruned, *WHOLE, (), {0: EXPERTS[0]})
    layer, cut = decoder_layers(model)[0], decoder_layers(pruned)[0]
    hidden = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(2))
    experts, router = layer.mlp.experts, layer.mlp.gate
    logits = hidden[0] @ router.weight.T
    logits[:, [0, 3, 5]] = -torch.inf
    weights, chosen = logits.softmax(dim=-1).topk(CHOSEN, dim=-1)
    if model.config.model_type == "mixtral" or model.config.norm_topk_prob:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    expected = torch.zeros(7, 32)
    for token, position in np.ndindex(7, CHOSEN):
        expert = int(chosen[token, position])
        gate, up = (experts.gate_up_proj[expert] @ hidden[0, token]).split(WIDTH)
        expected[token] += weights[token, position] * (experts.down_proj[expert] @ (nn.functional.silu(gate) * up))
    if hasattr(layer.mlp, "shared_expert"):
        expected += torch.sigmoid(layer.mlp.shared_expert_gate(hidden[0])) * layer.mlp.shared_expert(hidden[0])
    with torch.no_grad():
        torch.testing.assert_close(cut.mlp(hidden)[0], expected, atol=1e-4, rtol=1e-4)


def test_importance_is_that_of_the_weights(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    """Brute force: |w g| of each expert's slices and router row, and of each channel of each expert."""
    found = measure_importance(model, sequences, [3], criterion="taylor", settings=PassSettings(token_budget=24))
    table = pd.DataFrame(found.importance).set_index(["layer", "block", "group"]).sort_index().importance
    model.requires_grad_(requires_grad=True)
    (sequence_losses(model, sequences).sum() / len(sequences)).backward()
    for number, layer in enumerate(decoder_layers(model)):
        experts, router = layer.mlp.experts, layer.mlp.gate
        parts = [(each * each.grad).detach().abs().double() for each in (experts.gate_up_proj, experts.down_proj)]
        channels = parts[0].reshape(N_EXPERTS, 2, WIDTH, 32).sum(dim=(1, 3)) + parts[1].sum(dim=1)
        rows = (router.weight * router.weight.grad).detach().abs().double().sum(dim=1)
        assert table[number, "mlp"].to_numpy() == pytest.approx(channels.flatten().numpy(), rel=1e-4, abs=1e-7)
        assert table[number, "experts"].to_numpy() == pytest.approx((channels.sum(dim=1) + rows).numpy(), rel=1e-4)
    assert all(not parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_importance_of_an_expert_is_a_finite_difference(name: str, sequences: torch.Tensor) -> None:
    """The sum of |w g| over an expert is the slope of the loss along the direction |w| sign(g)."""
    model = expert_model(name, dtype=torch.float64)
    model.set_experts_implementation("eager")  # the default kernel has no float64
    found = measure_importance(model, sequences, [3], criterion="taylor", settings=PassSettings(token_budget=24))
    table = pd.DataFrame(found.importance).set_index(["layer", "block", "group"]).sort_index().importance
    model.requires_grad_(requires_grad=True)
    (sequence_losses(model, sequences).sum() / len(sequences)).backward()
    for expert in range(N_EXPERTS):
        losses = []
        for step in (3e-4, -3e-4):
            moved = copy.deepcopy(model)
            before, after = decoder_layers(model)[1].mlp, decoder_layers(moved)[1].mlp
            with torch.no_grad():
                for path in ("experts.gate_up_proj", "experts.down_proj", "gate.weight"):
                    old, new = before.get_parameter(path), after.get_parameter(path)
                    new[expert].add_(step * old[expert].detach().abs() * old.grad[expert].sign())
                losses.append(float(sequence_losses(moved, sequences).double().mean()))
        assert (losses[0] - losses[1]) / 6e-4 == pytest.approx(table[1, "experts", expert], rel=5e-3, abs=1e-3)


@pytest.mark.parametrize("criterion", ["taylor2", "wanda"])
def test_sums_do_not_depend_on_how_the_pass_is_divided(
    model: PreTrainedModel, criterion: str, sequences: torch.Tensor
) -> None:
    tables = [
        measure_importance(model, sequences, [1, 3], criterion=criterion, settings=settings).importance["importance"]
        for settings in (PassSettings(), PassSettings(token_budget=12, layers_per_pass=1, checkpointing=True))
    ]
    np.testing.assert_allclose(*tables, rtol=1e-4, atol=1e-6)


def test_wanda_is_the_norm_of_the_inputs_of_an_expert(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    """By hand for gate and up of layer 0, whose inputs are those of the tokens routed to the expert."""
    found = measure_importance(model, sequences, [3], criterion="wanda", settings=PassSettings())
    table = pd.DataFrame(found.importance).set_index(["layer", "block", "group"]).sort_index().importance
    seen: list[tuple[torch.Tensor, ...]] = []
    experts = decoder_layers(model)[0].mlp.experts
    with torch.no_grad():
        experts.register_forward_pre_hook(lambda _module, args: seen.append(args))
        model(sequences)
    hidden, chosen, _ = seen[0]
    for expert in range(N_EXPERTS):
        inputs = hidden[(chosen == expert).any(dim=1)]
        gate, up = (inputs @ experts.gate_up_proj[expert].T).split(WIDTH, dim=1)
        inner = (nn.functional.silu(gate) * up).square().sum(dim=0).div(3).sqrt()
        norms = inputs.square().sum(dim=0).div(3).sqrt()
        by_row = (experts.gate_up_proj[expert].abs() * norms).sum(dim=1)
        expected = by_row[:WIDTH] + by_row[WIDTH:] + experts.down_proj[expert].abs().sum(dim=0) * inner
        found_here = table[0, "mlp"].to_numpy()[expert * WIDTH : (expert + 1) * WIDTH]
        assert found_here == pytest.approx(expected.detach().numpy(), rel=1e-4, abs=1e-5)


def test_magnitude_reads_no_text(model: PreTrainedModel) -> None:
    table = pd.DataFrame(importance_of_weights(model, "magnitude"))
    mlp = decoder_layers(model)[1].mlp
    expected = mlp.experts.gate_up_proj[3].abs().sum() + mlp.experts.down_proj[3].abs().sum()
    expected = float((expected + mlp.gate.weight[3].abs().sum()).detach())
    row = table[(table.layer == 1) & (table.block == "experts") & (table.group == 3)]
    assert row.importance.item() == pytest.approx(expected, rel=1e-5)


def test_reap_is_a_mean_over_tokens(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    """A loop over tokens and experts, from the inputs that transformers gives to the experts of each layer."""
    seen: list[tuple[torch.Tensor, ...]] = []
    handles = [
        layer.mlp.experts.register_forward_pre_hook(lambda _module, args: seen.append(args))
        for layer in decoder_layers(model)
    ]
    with torch.no_grad():
        model(sequences[:2])
    for handle in handles:
        handle.remove()
    found = measure_importance(model, sequences, [2, 3], criterion="reap", settings=PassSettings(token_budget=12))
    table = pd.DataFrame(found.importance)
    assert found.gradients is None
    assert set(table.block) == {"experts"}
    for layer, (hidden, chosen, weights) in enumerate(seen):
        experts = decoder_layers(model)[layer].mlp.experts
        values: dict[int, list[float]] = {expert: [] for expert in range(N_EXPERTS)}
        for token, place in np.ndindex(*chosen.shape):
            expert = int(chosen[token, place])
            gate, up = (experts.gate_up_proj[expert] @ hidden[token]).split(WIDTH)
            output = experts.down_proj[expert] @ (nn.functional.silu(gate) * up)
            values[expert].append(float(weights[token, place] * output.norm()))
        rows = table[(table.layer == layer) & (table.n_samples == 2)].sort_values("group")
        expected = [np.mean(each) if each else 0.0 for each in values.values()]
        assert rows.importance.to_numpy() == pytest.approx(np.array(expected), rel=1e-4)


@pytest.mark.parametrize("criterion", ["reap", "taylor"])
def test_experts_that_no_token_reached_are_named(
    model: PreTrainedModel, criterion: str, sequences: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    """Two tokens reach at most four of six experts."""
    seen: list[torch.Tensor] = []
    handle = decoder_layers(model)[1].mlp.experts.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    with torch.no_grad():
        model(sequences[:1, :2])
    handle.remove()
    unreached = sorted(set(range(N_EXPERTS)) - set(seen[0].flatten().tolist()))
    found = measure_importance(model, sequences[:1, :2], [1], criterion=criterion, settings=PassSettings())
    names = ", ".join(map(str, unreached))
    line = f"layer 1: no token of 1 sequences of 2 tokens was routed to {len(unreached)} of 6 experts ({names})"
    assert line in caplog.text
    table = pd.DataFrame(found.importance)
    if criterion == "reap":
        zero = table[(table.layer == 1) & (table.importance == 0)].group.tolist()
        assert zero == unreached


def test_priors_equal_whole_runs_without_the_block(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    assert_priors_equal_whole_runs(model, sequences)


@pytest.mark.parametrize("plan", [None, *PLANS])
def test_packed_scores_equal_one_request_at_a_time(model: PreTrainedModel, plan: str | None) -> None:
    if plan:
        prune(model, *PLANS[plan])
    context = [5, 9, 2, 17, 3]
    requests = [Request(context, [1, 4]), Request(context, [8]), Request([*context, 1], [4, 4, 6]), Request([7], [9])]
    for request, score in zip(requests, score_requests(model, requests, token_budget=64), strict=True):
        expected, greedy = plain_score(model, request)
        assert score.loglikelihood == pytest.approx(expected, abs=1e-4)
        assert score.is_greedy == greedy


@pytest.mark.parametrize("criterion", ["reap", "taylor", "wanda"])
def test_a_plan_of_experts_is_a_stock_model(
    model: PreTrainedModel, criterion: str, sequences: torch.Tensor, tmp_path: Path
) -> None:
    """Each layer loses the experts of the lowest importance, and stock code loads and runs the rest."""
    plan = plan_for(model, sequences, 0.3, criterion, units=("expert",))
    sizes = sizes_of(model)
    found = measure_importance(model, sequences, [3], criterion=criterion, settings=PassSettings())
    table = pd.DataFrame(found.importance)
    n_removed = int(0.3 * sizes.total_params) // (2 * sizes.layers[0].expert_params)
    assert 0 < n_removed < N_EXPERTS - CHOSEN
    for layer in (0, 1):
        rows = table[(table.layer == layer) & (table.block == "experts")].sort_values("importance")
        assert sorted(rows.group.tolist()[n_removed:]) == list(plan.kept_experts[layer].experts)
    assert Plan.from_dict(plan.to_dict()) == plan
    prune(model, *plan.kept_units)
    assert model.num_parameters() == sizes.total_params - plan.removed_params(sizes)
    shape = stock_shape(plan.kept)
    assert shape is not None
    assert (shape.n_experts, shape.n_expert_channels) == (N_EXPERTS - n_removed, WIDTH)
    stock_model(model, shape).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert n_experts(decoder_layers(loaded)[0]) == N_EXPERTS - n_removed
    with torch.no_grad():
        torch.testing.assert_close(loaded(sequences).logits, model(sequences).logits)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert torch.equal(loaded.generate(sequences, **options), model.generate(sequences, use_cache=False, **options))


@pytest.mark.parametrize("allocation", ["global", "uniform", "same_shape"])
@pytest.mark.parametrize("criterion", ["taylor", "magnitude", "random"])
def test_channels_inside_experts(
    model: PreTrainedModel, allocation: str, criterion: str, sequences: torch.Tensor, tmp_path: Path
) -> None:
    """Each expert keeps its own channels, those of the highest importance, and as many as the others of its layer."""
    if criterion == "taylor":
        plan = plan_for(model, sequences, 0.4, criterion, allocation=allocation)
        table = pd.DataFrame(
            measure_importance(model, sequences, [3], criterion=criterion, settings=PassSettings()).importance
        )
    else:
        settings = replace(SETTINGS, criterion=criterion, pruning_ratio=0.4, allocation=allocation)
        weights = pa.Table.from_pandas(pd.DataFrame(importance_of_weights(model, "magnitude")))
        plan = make_plan(sizes_of(model), settings, weights, None)[0]
        table = pd.DataFrame(importance_of_weights(model, "magnitude"))
    sizes = sizes_of(model)
    assert Plan.from_dict(plan.to_dict()) == plan
    assert any(kept < WIDTH for kept in plan.n_kept_mlp_channels)
    for layer, kept in plan.kept_experts.items():
        width = plan.n_kept_mlp_channels[layer]
        assert width in {0, 8, 16, 24}
        assert kept.experts == tuple(range(N_EXPERTS))
        for expert, channels in enumerate(kept.channels or ()):
            assert len(channels) == width
            rows = table[(table.layer == layer) & (table.block == "mlp")].sort_values("group").importance.to_numpy()
            order = np.argsort(rows[expert * WIDTH : (expert + 1) * WIDTH], kind="stable")
            if criterion != "random":
                assert sorted(order[WIDTH - width :]) == list(channels)
    pruned, masked = copy.deepcopy(model), copy.deepcopy(model)
    prune(pruned, *plan.kept_units)
    mask(masked, *plan.kept_units)
    assert pruned.num_parameters() == sizes.total_params - plan.removed_params(sizes)
    with torch.no_grad():
        torch.testing.assert_close(pruned(sequences).logits, masked(sequences).logits, atol=1e-5, rtol=1e-5)
    shape = stock_shape(plan.kept)
    if allocation == "same_shape":
        assert shape is not None
    if shape is not None:
        stock_model(pruned, shape).save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        with torch.no_grad():
            torch.testing.assert_close(loaded(sequences).logits, pruned(sequences).logits)


def test_layers_that_differ_are_not_exported(model: PreTrainedModel, folder: Path) -> None:
    sizes, kept = sizes_of(model), PLANS["empty"][3]
    plan = replace(Plan.identity(sizes), kept_experts=Plan.identity(sizes).kept_experts | {0: kept[0]})
    manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
    plan = replace(plan, kept_mlp_channels=((), plan.kept_mlp_channels[1]))
    with pytest.raises(UserError, match=r"2 different numbers of experts \(6 in layer 1; 2 in layer 0\)"):
        find_stock_shape(plan, manifest, required=True)
    with pytest.raises(UserError, match=r"layers have experts and all have one shape in a checkpoint; plan with units"):
        check_target("A", model.config.model_type)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "mixtral"])
def test_dense_layers_among_layers_with_experts(name: str, sequences: torch.Tensor, tmp_path: Path) -> None:
    """Without layer 1, the config of the stock model says again which layers are dense."""
    model = expert_model(name, num_hidden_layers=4, mlp_only_layers=[2], decoder_sparse_step=1, intermediate_size=40)
    plan = plan_for(model, sequences, 0.2, "reap", units=("expert",))
    assert plan.n_experts == (6, 6, 0, 6)
    assert plan.n_kept_experts[2] is None
    widths = [list(range(width)) for width in (24, 0, 40, 24)]
    prune(model, [[0, 1], [], [0, 1], [0, 1]], widths, (1,))
    assert model.config.mlp_only_layers == [1]
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(sequences).logits, model(sequences).logits)


@pytest.mark.parametrize(
    ("kept", "line"),
    [
        (KeptExperts((3,)), r"kept_experts\[0\]: keeps 1 experts, but each token is routed to 2; keep at least 2"),
        (KeptExperts((2, 1)), r"kept_experts\[0\]: experts must increase"),
        (KeptExperts((1, 6)), r"kept_experts\[0\]: experts are numbered from 0 to 5"),
        (KeptExperts((1, 2), ((0,), (0, 1))), r"keep equally many channels; give as many indices for each"),
        (KeptExperts((1, 2), ((0, 1), (0, 24))), r"channels are numbered from 0 to 23"),
        (KeptExperts((1, 2), ((0, 1), (0, 2))), r"kept_mlp_channels\[0\]: got 24 channels, but each expert keeps 2"),
    ],
)
def test_experts_that_do_not_fit_are_refused(kept: KeptExperts, line: str) -> None:
    model = expert_model("mixtral")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=line):
        prune(model, *WHOLE, (), {0: kept})
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(UserError, match="layer 7 of the model has no experts"):
        prune(model, *WHOLE, (), {7: kept})


def test_only_attention_gets_adapters(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    prune(model, *PLANS["experts"])
    adapted = attach(model, LoraSettings(4, 8, 0.0, PROJECTION_NAMES, 0))
    adapted(input_ids=sequences, labels=sequences).loss.backward()
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 4 * 2  # layers, projections, A and B
    assert all("self_attn" in name for name in trained)


def test_versions_of_a_timed_model(model: PreTrainedModel) -> None:
    versions = versions_of(model, *PLANS["experts"], multiple=8)
    assert [n_experts(decoder_layers(each)[0]) for each in versions.values()] == [N_EXPERTS, 3]


def test_group_counts_of_experts(model: PreTrainedModel) -> None:
    layer = decoder_layers(model)[0]
    assert (n_groups(layer, "attention"), n_groups(layer, "mlp"), n_experts(layer)) == (2, WIDTH, N_EXPERTS)

"""Removing whole layers: the result equals skipping them, in one pass, with a KV cache, and saved and loaded."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import DynamicCache, StaticCache

from espalier.errors import UserError
from espalier.export.build import export_model
from espalier.models.depth import remove_layers
from espalier.models.surgery import copy_sharing_tensors, mask, prune
from espalier.planning.plan import Plan as GroupPlan
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request
from tests.unit.conftest import random_model
from tests.unit.models.test_surgery import (
    ATOL,
    CASES,
    N_CHANNELS,
    N_LAYERS,
    Case,
    generate,
    logits,
    n_params,
    tokens,
    uncached,
)
from tests.unit.scoring.reference import plain_score

REMOVED = {"first": [0], "middle": [1, 2], "last": [3], "all but one": [0, 1, 3], "one of each type": [0, 2]}
Plan = tuple[list[list[int]], list[list[int]], list[int]]


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def depth_plan(case: Case, removed: list[int]) -> Plan:
    """Return a plan that removes layers and keeps all groups of the others."""
    kept = [layer not in removed for layer in range(N_LAYERS)]
    groups = [list(range(case.n_kv_heads)) if keep else [] for keep in kept]
    return groups, [list(range(N_CHANNELS)) if keep else [] for keep in kept], removed


def without(model: PreTrainedModel, removed: list[int]) -> PreTrainedModel:
    """Return a copy whose removed layers return their input: the reference, which needs no surgery."""
    skipping = copy.deepcopy(model)

    def skip(_module: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, object], _output: object) -> object:
        return args[0] if args else kwargs["hidden_states"]

    for layer in removed:
        skipping.model.layers[layer].register_forward_hook(skip, with_kwargs=True)
    return skipping


@pytest.mark.parametrize("removed", REMOVED.values(), ids=REMOVED.keys())
def test_removed_equals_skipped_and_masked(case: Case, removed: list[int]) -> None:
    model = case.model()
    pruned, masked = copy.deepcopy(model), copy.deepcopy(model)
    prune(pruned, *depth_plan(case, removed))
    mask(masked, *depth_plan(case, removed))
    expected = logits(without(model, removed), tokens())
    torch.testing.assert_close(logits(pruned, tokens()), expected, atol=ATOL, rtol=0)
    torch.testing.assert_close(logits(masked, tokens()), expected, atol=ATOL, rtol=0)
    assert (expected - logits(model, tokens())).abs().max() > 0.1  # the layers matter


def test_layers_and_groups_are_removed_together(case: Case) -> None:
    kv_groups, channels = case.plan([0], [2])
    kv_groups[1], channels[1] = [], []
    model = case.model()
    pruned, masked = copy.deepcopy(model), copy.deepcopy(model)
    prune(pruned, kv_groups, channels, [1])
    mask(masked, kv_groups, channels, [1])
    torch.testing.assert_close(logits(pruned, tokens()), logits(masked, tokens()), atol=ATOL, rtol=0)


@pytest.mark.parametrize("removed", [[0], [0, 2], [1, 2]])
def test_generation_with_a_cache_equals_full_passes(case: Case, removed: list[int]) -> None:
    """Prompts of 7 tokens and 8 new ones exceed the window of 5."""
    model = case.model()
    prune(model, *depth_plan(case, removed))
    prompt = tokens(3, 7)
    expected = uncached(model, prompt, 8)
    assert torch.equal(generate(model, prompt, 8), expected)
    assert torch.equal(generate(model, prompt, 8, cache_implementation="static"), expected)
    for cache in (DynamicCache(config=model.config), StaticCache(config=model.config, max_cache_len=16)):
        with torch.no_grad():
            pieces = [
                model(input_ids=piece, past_key_values=cache).logits for piece in tokens().split([5, 1, 1, 3, 2], dim=1)
            ]
        torch.testing.assert_close(torch.cat(pieces, dim=1), logits(model, tokens()), atol=ATOL, rtol=0)
        assert len(cache.layers) == N_LAYERS - len(removed)


def test_packed_scores_equal_one_request_at_a_time(case: Case) -> None:
    model = case.model()
    prune(model, *depth_plan(case, [0, 2]))
    context = [5, 9, 2, 17, 3, 8, 40]
    requests = [Request(context, [1, 4]), Request(context, [8]), Request([*context, 1], [4, 4, 6]), Request([7], [9])]
    for request, score in zip(requests, score_requests(model, requests, token_budget=64), strict=True):
        assert score.loglikelihood == pytest.approx(plain_score(model, request)[0], abs=1e-4)


def test_a_saved_model_is_loaded_by_stock_code(case: Case, tmp_path: Path) -> None:
    model = case.model()
    prune(model, *depth_plan(case, [0, 2]))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert loaded.config.num_hidden_layers == len(loaded.model.layers) == 2
    assert [layer.self_attn.layer_idx for layer in loaded.model.layers] == [0, 1]
    torch.testing.assert_close(logits(loaded, tokens()), logits(model, tokens()), atol=ATOL, rtol=0)
    assert torch.equal(generate(loaded, tokens(2, 7), 8), uncached(model, tokens(2, 7), 8))


def test_parameter_count_and_tied_embeddings(case: Case) -> None:
    model = case.model()
    layer, n_before = n_params(model.model.layers[1]), n_params(model)
    prune(model, *depth_plan(case, [1, 2]))
    assert n_params(model) == n_before - 2 * layer
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is case.tied


def test_sliding_layers_stay_those_that_they_were() -> None:
    case = CASES["qwen2 hybrid"]  # max_window_layers 2: full, full, sliding, sliding
    for removed, types, n_first in (
        ([0], ["full_attention", "sliding_attention", "sliding_attention"], 1),
        ([3], ["full_attention", "full_attention", "sliding_attention"], 2),
        ([0, 1], ["sliding_attention", "sliding_attention"], 0),
        ([2, 3], ["full_attention", "full_attention"], 2),
    ):
        model = case.model()
        prune(model, *depth_plan(case, removed))
        assert model.config.layer_types == types
        assert model.config.max_window_layers == n_first
        assert model.model.has_sliding_layers is ("sliding_attention" in types)
        assert [layer.self_attn.layer_idx for layer in model.model.layers] == list(range(len(types)))


def test_no_layer_slides_if_the_first_sliding_layer_is_beyond_the_last() -> None:
    model = random_model("qwen2", 50, max_window_layers=5)  # of two layers
    prune(model, [(), (0, 1)], [(), tuple(range(48))], [0])
    assert model.config.max_window_layers == 4


def test_a_copy_that_shares_tensors_leaves_the_config_of_the_original() -> None:
    case = CASES["qwen2 hybrid"]
    model = case.model()
    before = logits(model, tokens())
    prune(copy_sharing_tensors(model), *depth_plan(case, [0, 3]))
    assert model.config.num_hidden_layers == len(model.config.layer_types) == N_LAYERS
    assert torch.equal(logits(model, tokens()), before)


def test_sizes_of_single_layers_move_with_their_layers(tmp_path: Path) -> None:
    """Layers of 1, 2, 1, 2 KV groups and 8, 16, 24, 32 channels, as `per_layer_config` of an exported model says."""
    groups = ((0,), (0, 1), (1,), (0, 1))
    channels = tuple(tuple(range(n)) for n in (8, 16, 24, 32))
    model = random_model("llama", 400, num_hidden_layers=4)
    prune(model, groups, channels)
    exported = export_model(model, GroupPlan((2,) * 4, (48,) * 4, groups, channels), stubs=False)
    exported.save_pretrained(tmp_path)
    model = type(exported).from_pretrained(tmp_path).eval()
    for removed, sizes in (([0], [(2, 16), (1, 24), (2, 32)]), ([1, 2], [(1, 8), (2, 32)])):
        shorter = copy.deepcopy(model)
        kept = [layer not in removed for layer in range(4)]
        prune(
            shorter,
            [range(len(groups[layer])) if keep else () for layer, keep in enumerate(kept)],
            [range(len(channels[layer])) if keep else () for layer, keep in enumerate(kept)],
            removed,
        )
        found = [(one.num_key_value_heads, one.intermediate_size) for one in shorter.config.per_layer_config]
        assert found == sizes
        expected = logits(without(model, removed), tokens())
        torch.testing.assert_close(logits(shorter, tokens()), expected, atol=ATOL, rtol=0)
        assert torch.equal(generate(shorter, tokens(2, 7), 8), uncached(shorter, tokens(2, 7), 8))


def test_lists_with_an_entry_for_each_layer_are_cut() -> None:
    """Whatever has another length is no list of layers."""
    config = SimpleNamespace(
        num_hidden_layers=4, layer_types=list("abcd"), mlp_layer_types=("w", "x", "y", "z"), no_rope_layers=[1, 0],
        intermediate_size=[8, 16, 24, 32], layer_rope_theta=[1.0, 2.0, 3.0, 4.0], max_window_layers=3,
        num_attention_heads_per_layer=[4, 3, 2, 1],
    )  # fmt: skip
    model = nn.Module()
    model.model, model.config = nn.Module(), config
    model.model.layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(4))
    remove_layers(model, [1, 3])
    assert vars(config) == {
        "num_hidden_layers": 2, "layer_types": ["a", "c"], "mlp_layer_types": ["w", "y"], "no_rope_layers": [1, 0],
        "intermediate_size": [8, 24], "layer_rope_theta": [1.0, 3.0], "max_window_layers": 2,
        "num_attention_heads_per_layer": [4, 2],
    }  # fmt: skip


def test_layers_with_experts_stay_those_that_they_were() -> None:
    """Of layers 0 to 5, every second one has experts, but layer 3 has none: 1 and 5. Layers 0 and 4 go."""
    config = SimpleNamespace(num_hidden_layers=6, mlp_only_layers=[3], decoder_sparse_step=2)
    model = nn.Module()
    model.model, model.config = nn.Module(), config
    model.model.layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(6))
    remove_layers(model, [0, 4])
    assert vars(config) == {"num_hidden_layers": 4, "mlp_only_layers": [1, 2], "decoder_sparse_step": 1}


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ([4], r"removed_layers: got index 4, but there are 4 \(0 to 3\)"),
        ([2, 1], r"removed_layers: indices must increase, each given once"),
        ([0, 1, 2, 3], r"removed_layers: got all 4 layers of the model; keep at least one"),
        ([1], r"removed_layers: layer 1 is removed, but keeps groups; make the plan again"),
    ],
)
@pytest.mark.parametrize("function", [prune, mask])
def test_wrong_layers_are_refused_before_anything_changes(function: object, removed: list[int], message: str) -> None:
    case = CASES["llama"]
    model = case.model()
    groups, channels, _ = depth_plan(case, [] if removed == [1] else removed)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=message):
        function(model, groups, channels, removed)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert len(model.model.layers) == model.config.num_hidden_layers == N_LAYERS

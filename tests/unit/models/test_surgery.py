"""Pruning a decoder: the result equals masking it, in one pass and in generation with a KV cache."""

import copy
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, Olmo2Config, Olmo2ForCausalLM, PreTrainedModel
from transformers.cache_utils import DynamicCache, StaticCache

from espalier.errors import UserError
from espalier.models import decoder, folder, surgery
from espalier.models.surgery import mask, prune
from tests.unit.conftest import random_model

VOCAB = 61
HIDDEN = 32
N_LAYERS = 4
N_CHANNELS = 24
# Logits reach 13. Over 350 random plans, another order of summation changed them by up to 2.9e-5 in float32.
ATOL = 1e-4

Plan = tuple[list[list[int]], list[list[int]]]


@dataclass(frozen=True)
class Case:
    """An architecture with its heads. The head size always differs from hidden_size / n_heads."""

    architecture: str
    n_heads: int
    n_kv_heads: int
    head_dim: int
    tied: bool = False
    more: dict[str, object] = field(default_factory=dict)

    def model(self) -> PreTrainedModel:
        """Return a seeded random model."""
        model = random_model(
            self.architecture,
            VOCAB,
            hidden_size=HIDDEN,
            intermediate_size=N_CHANNELS,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=self.n_heads,
            num_key_value_heads=self.n_kv_heads,
            head_dim=self.head_dim,
            tie_word_embeddings=self.tied,
            pad_token_id=0,
            **self.more,
        )
        # transformers initialises biases to 0 and norms to 1, so errors in cutting them would not show.
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
        return model

    def plan(self, empty_attention: list[int], empty_mlp: list[int], seed: int = 0) -> Plan:
        """Return a plan that keeps a random half of each block, and nothing of the blocks in the given layers."""
        rng = np.random.default_rng(seed)

        def half(n: int, empty: list[int]) -> list[list[int]]:
            kept = [sorted(rng.choice(n, size=n // 2, replace=False).tolist()) for _ in range(N_LAYERS)]
            return [[] if layer in empty else groups for layer, groups in enumerate(kept)]

        return half(self.n_kv_heads, empty_attention), half(N_CHANNELS, empty_mlp)


CASES = {
    "llama": Case("llama", 4, 4, 10),
    "llama biases": Case("llama", 8, 2, 6, tied=True, more={"attention_bias": True, "mlp_bias": True}),
    "mistral": Case("mistral", 8, 2, 6, more={"sliding_window": None}),
    "mistral sliding": Case("mistral", 4, 2, 16, tied=True, more={"sliding_window": 5}),
    "qwen2": Case("qwen2", 14, 2, 6),
    # Layers 0 and 1 have full attention, 2 and 3 a window. The first cache layer of each type gives its masks.
    "qwen2 hybrid": Case(
        "qwen2", 4, 2, 6, tied=True, more={"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
    ),
    "qwen3": Case("qwen3", 8, 2, 6, tied=True),
    "qwen3 biases": Case("qwen3", 4, 4, 12, more={"attention_bias": True}),
}
EMPTY = {
    "none": ([], []),
    "first": ([0], [0]),
    "middle": ([1], [2]),
    "last": ([3], [3]),
    "first of each kind": ([0, 2], []),
    "all attention": ([0, 1, 2, 3], []),
    "everything": ([0, 1, 2, 3], [0, 1, 2, 3]),
}
WITHOUT_FIRST = {name: EMPTY[name] for name in ("first", "first of each kind", "all attention")}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def tokens(n_rows: int = 2, n_tokens: int = 12) -> torch.Tensor:
    """Return random tokens. None is 0, the padding token."""
    return torch.randint(1, VOCAB, (n_rows, n_tokens), generator=torch.Generator().manual_seed(2))


def logits(model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=input_ids, use_cache=False).logits


def masked_and_pruned(model: PreTrainedModel, plan: Plan) -> tuple[PreTrainedModel, PreTrainedModel]:
    masked, pruned = copy.deepcopy(model), copy.deepcopy(model)
    mask(masked, *plan)
    prune(pruned, *plan)
    return masked, pruned


def n_params(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- names and sizes ---


def test_projections_are_those_that_the_folder_check_asks_for() -> None:
    assert {role.path for role in decoder.ALL_ROLES} == set(folder.SUPPORTED_PROJECTIONS)
    assert set(decoder.ROLES) < set(decoder.ALL_ROLES)
    assert {"o_proj", "down_proj"} == decoder.COLUMN_GROUPED


def test_sizes_are_read_from_the_modules(case: Case) -> None:
    for layer in decoder.decoder_layers(case.model()):
        assert decoder.head_dim(layer) == case.head_dim != HIDDEN // case.n_heads
        assert decoder.n_kv_groups(layer) == case.n_kv_heads
        assert decoder.n_query_heads_per_group(layer) == case.n_heads // case.n_kv_heads
        assert decoder.n_mlp_channels(layer) == N_CHANNELS


def test_projections_come_layer_by_layer() -> None:
    model = CASES["qwen2"].model()
    found = list(decoder.projections(model))
    assert [(p.layer, p.name) for p in found[:8]] == [(0, role.name) for role in decoder.ROLES] + [(1, "q_proj")]
    assert len(found) == 7 * N_LAYERS
    assert [p.bias is not None for p in found[:7]] == [True, True, True, False, False, False, False]
    assert found[7].weight is model.model.layers[1].self_attn.q_proj.weight


def test_parameters_per_group() -> None:
    (layer, *_) = decoder.decoder_layers(CASES["llama biases"].model())
    # 4 query heads and one key and value head of size 6, each row with a bias; 24 columns of o_proj.
    assert decoder.params_per_group(layer, "attention") == (4 + 1 + 1) * 6 * (HIDDEN + 1) + 4 * 6 * HIDDEN
    assert decoder.params_per_group(layer, "mlp") == 2 * (HIDDEN + 1) + HIDDEN


# --- one pass ---


@pytest.mark.parametrize("empty", EMPTY.values(), ids=EMPTY.keys())
def test_pruned_equals_masked(case: Case, empty: tuple[list[int], list[int]]) -> None:
    model = case.model()
    masked, pruned = masked_and_pruned(model, case.plan(*empty))
    torch.testing.assert_close(logits(pruned, tokens()), logits(masked, tokens()), atol=ATOL, rtol=0)
    assert (logits(pruned, tokens()) - logits(model, tokens())).abs().max() > 0.1  # pruning changes the logits


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_pruned_equals_masked_for_any_plan(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(list(CASES.values())))

    def kept(n: int) -> list[list[int]]:
        subsets = st.sets(st.integers(0, n - 1)).map(sorted)
        return data.draw(st.lists(subsets, min_size=N_LAYERS, max_size=N_LAYERS))

    plan = kept(case.n_kv_heads), kept(N_CHANNELS)
    masked, pruned = masked_and_pruned(case.model(), plan)
    torch.testing.assert_close(logits(pruned, tokens()), logits(masked, tokens()), atol=ATOL, rtol=0)


def test_eager_attention_equals_masked() -> None:
    case = CASES["qwen2"]
    masked, pruned = masked_and_pruned(case.model(), case.plan([0], [1]))
    for model in (masked, pruned):
        model.set_attn_implementation("eager")
    torch.testing.assert_close(logits(pruned, tokens()), logits(masked, tokens()), atol=ATOL, rtol=0)


def test_masking_leaves_what_is_kept() -> None:
    model = CASES["llama biases"].model()
    before = copy.deepcopy(model.model.layers[0])
    mask(model, [[1], [], [0, 1], [0]], [list(range(1, N_CHANNELS)), [], [0], [3]])
    after = model.model.layers[0]
    # Group 0 is query rows 0 to 23 (4 heads of size 6), key and value rows 0 to 5, o_proj columns 0 to 23.
    for name, size in (("q_proj", 24), ("k_proj", 6), ("v_proj", 6)):
        old, new = getattr(before.self_attn, name), getattr(after.self_attn, name)
        assert not new.weight[:size].any()
        assert not new.bias[:size].any()
        assert torch.equal(new.weight[size:], old.weight[size:])
        assert torch.equal(new.bias[size:], old.bias[size:])
    assert not after.self_attn.o_proj.weight[:, :24].any()
    assert torch.equal(after.self_attn.o_proj.weight[:, 24:], before.self_attn.o_proj.weight[:, 24:])
    assert torch.equal(after.self_attn.o_proj.bias, before.self_attn.o_proj.bias)
    assert not after.mlp.down_proj.weight[:, 0].any()
    assert after.mlp.down_proj.bias.all()


def test_keeping_everything_changes_nothing(case: Case) -> None:
    model = case.model()
    before, parameters = logits(model, tokens()), list(model.parameters())
    everything = [list(range(case.n_kv_heads))] * N_LAYERS, [list(range(N_CHANNELS))] * N_LAYERS
    prune(model, *everything)
    assert torch.equal(logits(model, tokens()), before)
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    mask(model, *everything)
    assert torch.equal(logits(model, tokens()), before)


# --- what is left ---


def test_parameter_count_is_the_closed_form(case: Case) -> None:
    model = case.model()
    biased_rows = model.model.layers[0].self_attn.q_proj.bias is not None  # q, k and v all have a bias, or none has
    n_before = n_params(model)
    kv_groups, channels = case.plan([0, 2], [0, 3])
    prune(model, kv_groups, channels)
    n_query = case.n_heads // case.n_kv_heads
    per_group = case.head_dim * (2 * n_query + 2) * HIDDEN + biased_rows * case.head_dim * (n_query + 2)
    per_channel = 3 * HIDDEN + 2 * bool(case.more.get("mlp_bias"))
    removed_groups = N_LAYERS * case.n_kv_heads - sum(map(len, kv_groups))
    removed_channels = N_LAYERS * N_CHANNELS - sum(map(len, channels))
    assert n_params(model) == n_before - removed_groups * per_group - removed_channels * per_channel


def test_an_emptied_layer_keeps_norms_and_output_biases_only() -> None:
    expected = {
        "llama": [],
        "llama biases": ["mlp.down_proj.bias", "self_attn.o_proj.bias"],
        "qwen2": [],
        "qwen3": ["self_attn.k_norm.weight", "self_attn.q_norm.weight"],
    }
    norms = ["input_layernorm.weight", "post_attention_layernorm.weight"]
    for name, rest in expected.items():
        model = CASES[name].model()
        prune(model, *CASES[name].plan([1], [1]))
        prefix = "model.layers.1."
        left = [key.removeprefix(prefix) for key in model.state_dict() if key.startswith(prefix)]
        assert sorted(left) == sorted(norms + rest), name


def test_features_and_sizes_follow_the_weights() -> None:
    model = CASES["llama biases"].model()
    prune(model, [[1]] * N_LAYERS, [[2, 5, 7]] * N_LAYERS)
    layer = model.model.layers[2]
    assert (layer.self_attn.q_proj.in_features, layer.self_attn.q_proj.out_features) == (HIDDEN, 24)
    assert (layer.self_attn.o_proj.in_features, layer.self_attn.o_proj.out_features) == (24, HIDDEN)
    assert layer.self_attn.num_key_value_groups == 4
    assert layer.mlp.intermediate_size == layer.mlp.down_proj.in_features == 3
    assert model.config.num_key_value_heads == 2  # one number cannot describe layers that differ
    assert model.config.intermediate_size == N_CHANNELS


def test_head_counts_of_other_modelling_code_follow() -> None:
    model = CASES["qwen2"].model()
    attention = model.model.layers[1].self_attn
    attention.num_heads, attention.num_key_value_heads = 14, 2
    prune(model, [[0, 1], [1], [0], []], [[0]] * N_LAYERS)
    assert (attention.num_heads, attention.num_key_value_heads) == (7, 1)


def test_new_weights_own_their_memory_and_the_old_are_freed() -> None:
    model = CASES["qwen2"].model()
    old = [weakref.ref(projection.weight) for projection in decoder.projections(model)]
    prune(model, *CASES["qwen2"].plan([], []))
    assert all(reference() is None for reference in old)
    for projection in decoder.projections(model):
        assert projection.weight.is_contiguous()
        assert projection.weight.untyped_storage().nbytes() == projection.weight.nbytes


@pytest.mark.parametrize("training", [True, False])
def test_dtype_training_mode_and_requires_grad_stay(training: bool) -> None:
    model = CASES["llama biases"].model().to(torch.bfloat16).train(training)
    frozen = ["q_proj.weight", "up_proj.bias", "down_proj.bias"]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith(tuple(frozen)))
    prune(model, *CASES["llama biases"].plan([1], [2]))
    assert all(module.training is training for module in model.modules())
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert parameter.requires_grad is not name.endswith(tuple(frozen))
    assert logits(model, tokens()).dtype == torch.bfloat16


def test_gradients_equal_those_of_the_masked_model(case: Case) -> None:
    masked, pruned = masked_and_pruned(case.model(), case.plan([0, 3], [2]))
    for model in (masked, pruned):
        model(input_ids=tokens(), labels=tokens(), use_cache=False).loss.backward()
    gradients = {name: parameter.grad for name, parameter in masked.named_parameters()}
    n_compared = 0
    for name, parameter in pruned.named_parameters():
        reference = gradients[name]
        if parameter.grad is None:
            assert "norm" in name
            assert not reference.any()  # only the norms of an emptied block are unused
        elif parameter.shape == reference.shape:
            torch.testing.assert_close(parameter.grad, reference, atol=ATOL, rtol=1e-4)
            n_compared += 1
        else:
            assert parameter.grad.isfinite().all()
            assert parameter.grad.any()
    # Embedding, final norm, and the norms of the layers without those of the emptied MLP (1) and attention (2).
    assert n_compared >= 2 + 2 * N_LAYERS - 3


# --- generation with a cache ---


def uncached(model: PreTrainedModel, prompt: torch.Tensor, n_new: int) -> torch.Tensor:
    """Decode greedily without a cache."""
    for _ in range(n_new):
        prompt = torch.cat([prompt, logits(model, prompt)[:, -1:].argmax(dim=-1)], dim=1)
    return prompt


def generate(model: PreTrainedModel, prompt: torch.Tensor, n_new: int, **options: object) -> torch.Tensor:
    mask_ = options.pop("attention_mask", torch.ones_like(prompt))
    # No end token: all rows run to the full length.
    return model.generate(
        prompt, attention_mask=mask_, max_new_tokens=n_new, do_sample=False, eos_token_id=None, **options
    )


@pytest.fixture(params=WITHOUT_FIRST.values(), ids=WITHOUT_FIRST.keys())
def pruned(case: Case, request: pytest.FixtureRequest) -> PreTrainedModel:
    """Return a model without attention in layer 0. Prompts of 7 tokens and 8 new ones exceed the window of 5."""
    model = case.model()
    prune(model, *case.plan(*request.param))
    return model


def test_greedy_generation_equals_uncached(pruned: PreTrainedModel) -> None:
    prompt = tokens(3, 7)
    expected = uncached(pruned, prompt, 8)
    assert torch.equal(generate(pruned, prompt, 8), expected)
    assert torch.equal(generate(pruned, prompt, 8, cache_implementation="static"), expected)


def test_cached_logits_equal_uncached(pruned: PreTrainedModel) -> None:
    """Not only the tokens are equal but also the logits, with input in pieces of 5, 1, 1, 3 and 2 tokens."""
    input_ids = tokens(2, 12)
    for cache in (DynamicCache(config=pruned.config), StaticCache(config=pruned.config, max_cache_len=16)):
        pieces = []
        for piece in input_ids.split([5, 1, 1, 3, 2], dim=1):
            with torch.no_grad():
                pieces.append(pruned(input_ids=piece, past_key_values=cache).logits)
        torch.testing.assert_close(torch.cat(pieces, dim=1), logits(pruned, input_ids), atol=ATOL, rtol=0)
        assert int(cache.get_seq_length()) == 12


def test_beam_search_equals_uncached(pruned: PreTrainedModel) -> None:
    prompt = tokens(2, 7)
    expected = generate(pruned, prompt, 8, num_beams=3, use_cache=False)
    assert torch.equal(generate(pruned, prompt, 8, num_beams=3), expected)


@pytest.mark.parametrize("cache", [None, "static"])
def test_left_padded_batch_equals_single_rows(pruned: PreTrainedModel, cache: str | None) -> None:
    rows = [tokens(1, 7)[0], tokens(1, 4)[0], tokens(1, 6)[0]]
    padded = torch.stack([nn.functional.pad(row, (7 - len(row), 0)) for row in rows])
    batch = generate(pruned, padded, 8, attention_mask=(padded != 0).long(), cache_implementation=cache)
    for row, generated in zip(rows, batch, strict=True):
        assert torch.equal(generated[7 - len(row) :], uncached(pruned, row[None], 8)[0])


def test_generation_with_attention_everywhere_and_no_mlp(case: Case) -> None:
    model = case.model()
    prune(model, *case.plan([], [0, 1, 2, 3]))
    assert torch.equal(generate(model, tokens(2, 7), 8), uncached(model, tokens(2, 7), 8))


def test_the_last_tokens_of_a_cache_can_be_taken_back(case: Case) -> None:
    if case.more.get("sliding_window"):
        pytest.skip("transformers cannot crop a sliding window that is full")
    model = case.model()
    prune(model, *case.plan([0, 2], []))
    with torch.no_grad():
        cache = model(input_ids=tokens(), use_cache=True).past_key_values
        cache.crop(-4)
        again = model(input_ids=tokens()[:, 8:], past_key_values=cache).logits
    torch.testing.assert_close(again, logits(model, tokens())[:, 8:], atol=ATOL, rtol=0)


# --- refusals ---

HALF: Plan = ([[0]] * N_LAYERS, [[0, 1]] * N_LAYERS)


@pytest.mark.parametrize(
    ("kv_groups", "channels", "message"),
    [
        ([[0]] * 3, HALF[1], r"kept_kv_groups: got 3 layers, but the model has 4; make the plan"),
        (HALF[0], [[0]] * 5, r"kept_mlp_channels: got 5 layers, but the model has 4; make the plan"),
        ([[0], [2], [0], [0]], HALF[1], r"kept_kv_groups\[1\]: got index 2, but there are 2 \(0 to 1\)"),
        ([[0], [0], [-1, 0], [0]], HALF[1], r"kept_kv_groups\[2\]: got index -1, but there are 2 \(0 to 1\)"),
        (HALF[0], [[0], [0], [0], [3, 24]], r"kept_mlp_channels\[3\]: got index 24, but there are 24 \(0 to 23\)"),
        (HALF[0], [[0], [2, 1], [0], [0]], r"kept_mlp_channels\[1\]: indices must increase, each given once"),
        ([[0, 0], [0], [0], [0]], HALF[1], r"kept_kv_groups\[0\]: indices must increase, each given once"),
        ([[False, True], [0], [0], [0]], HALF[1], r"kept_kv_groups\[0\]: got a mask of true and false; give the ind"),
        (np.ones((4, 2), dtype=bool), HALF[1], r"kept_kv_groups\[0\]: got a mask of true and false; give the indices"),
    ],
)
@pytest.mark.parametrize("function", [prune, mask])
def test_plans_that_do_not_fit_are_refused_before_anything_changes(
    function: object, kv_groups: list[list[int]], channels: list[list[int]], message: str
) -> None:
    model = CASES["llama biases"].model()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=message):
        function(model, kv_groups, channels)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert len(model.state_dict()) == len(before)


def test_numpy_indices_are_taken() -> None:
    model = CASES["llama biases"].model()
    prune(model, [np.array([1])] * N_LAYERS, [np.flatnonzero(np.arange(N_CHANNELS) % 2)] * N_LAYERS)
    assert model.model.layers[0].mlp.intermediate_size == N_CHANNELS // 2


def test_a_pruned_model_is_refused() -> None:
    model = CASES["llama"].model()
    prune(model, *CASES["llama"].plan([], [1]))
    with pytest.raises(UserError, match=r"already pruned.*load the base model again"):
        prune(model, *CASES["llama"].plan([], []))


def test_weights_that_are_not_loaded_are_refused() -> None:
    model = CASES["llama"].model().to("meta")
    with pytest.raises(UserError, match=r"not in memory \(device meta\); load it without offloading"):
        prune(model, *CASES["llama"].plan([], []))


def test_other_architectures_are_refused_by_name() -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(UserError, match=r"architecture GPT2LMHeadModel is not supported: it has no model\.layers"):
        prune(gpt2, [[0]], [[0]])
    config = Olmo2Config(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=N_CHANNELS, num_hidden_layers=1, num_attention_heads=4
    )
    # Its norm covers all 32 query rows. Removing a head would change all others, so masking and pruning would differ.
    with pytest.raises(UserError, match=r"Olmo2ForCausalLM is not supported: layer 0 has self_attn\.q_norm\.weight"):
        prune(Olmo2ForCausalLM(config), [[0]], [[0]])


class Adapted(nn.Module):
    """A wrapper of a projection, such as adapters create."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base


def test_layers_that_do_not_split_into_groups_are_refused() -> None:
    def broken(path: str, module: nn.Module | None) -> PreTrainedModel:
        model = CASES["llama"].model()
        parent, name = path.rsplit(".", 1)
        setattr(model.get_submodule(parent), name, module)
        return model

    layer = "model.layers.1."
    refusals = {
        r"LlamaForCausalLM is not supported: layer 1 lacks mlp\.up_proj;": broken(layer + "mlp.up_proj", None),
        r"layer 1 has a Adapted with adapters or quantised weights as self_attn\.q_proj": broken(
            layer + "self_attn.q_proj", Adapted(nn.Linear(1, 1))
        ),
        r"layer 1 has q, k, v, o of shapes \(80, 32\).* which do not form KV groups": broken(
            layer + "self_attn.q_proj", nn.Linear(HIDDEN, 80)
        ),
        r"layer 1 has gate, up, down of shapes .*\(7, 32\).* which do not form channels": broken(
            layer + "mlp.up_proj", nn.Linear(HIDDEN, 7)
        ),
        r"layer 1 does not say its head_dim": broken(layer + "self_attn.head_dim", None),
    }
    for message, model in refusals.items():
        with pytest.raises(UserError, match=message):
            decoder.decoder_layers(model)


# --- the checks after the cut ---


def test_weights_that_are_not_finite_are_found() -> None:
    model = CASES["llama"].model()
    model.model.layers[2].mlp.up_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(RuntimeError, match=r"layer 2: mlp\.up_proj has weights that are not finite"):
        prune(model, [[0]] * N_LAYERS, [[0]] * N_LAYERS)


def test_wrong_shapes_and_counts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surgery, "_cut_block", lambda *_: None)
    with pytest.raises(RuntimeError, match=r"layer 0: self_attn\.q_proj has shape \[84, 32\] instead of \[42, 32\]"):
        prune(CASES["qwen2"].model(), *HALF)
    # 14 query heads and 2 key and value heads of size 6 in 4 layers stay, though the plan removes them.
    with pytest.raises(RuntimeError, match=r"the pruned model has [\d,]+ parameters instead of [\d,]+"):
        prune(CASES["qwen2"].model(), [[]] * N_LAYERS, [list(range(N_CHANNELS))] * N_LAYERS)

"""The transformers classes of pruned models compute the same as the models that were pruned in memory."""

import ast
import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaConfig, PreTrainedModel
from transformers.cache_utils import StaticCache

from espalier.export.build import STUB_CHANNELS, export_model
from espalier.models import pruned
from espalier.models.architecture import PROJECTION_NAMES
from espalier.models.configuration_pruned import PrunedLlamaConfig
from espalier.models.loading import load_model
from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from tests.unit.models.test_surgery import CASES, EMPTY, N_CHANNELS, N_LAYERS, Case, generate, logits, tokens, uncached

SIZES = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 8}


def pruned_and_plan(case: Case, empty: tuple[list[int], list[int]]) -> tuple[PreTrainedModel, Plan]:
    model = case.model()
    kv_groups, channels = case.plan(*empty)
    prune(model, kv_groups, channels)
    before = (case.n_kv_heads,) * N_LAYERS, (N_CHANNELS,) * N_LAYERS
    return model, Plan(*before, tuple(map(tuple, kv_groups)), tuple(map(tuple, channels)))


def saved(case: Case, empty: tuple[list[int], list[int]], folder: Path, *, stubs: bool = False) -> PreTrainedModel:
    """Save the export of a pruned model and return the pruned model."""
    model, plan = pruned_and_plan(case, empty)
    export_model(model, plan, stubs=stubs).save_pretrained(folder)
    return model


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.mark.parametrize("stubs", [False, True], ids=["removed", "stubs"])
@pytest.mark.parametrize("empty", EMPTY.values(), ids=EMPTY.keys())
def test_loaded_equals_pruned(case: Case, empty: tuple[list[int], list[int]], stubs: bool, tmp_path: Path) -> None:
    """A loaded model gives identical logits and generates the same tokens, with and without stubs."""
    model = saved(case, empty, tmp_path, stubs=stubs)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, tokens()), logits(model, tokens()))
    prompt = tokens(3, 7)
    expected = uncached(model, prompt, 8)
    assert torch.equal(generate(loaded, prompt, 8), expected)
    assert torch.equal(generate(loaded, prompt, 8, cache_implementation="static"), expected)
    beams = generate(model, prompt, 8, num_beams=3, use_cache=False)
    assert torch.equal(generate(loaded, prompt, 8, num_beams=3), beams)
    padded = torch.nn.functional.pad(prompt[1:2, 3:], (3, 0))
    batch = generate(loaded, padded, 8, attention_mask=(padded != 0).long())
    assert torch.equal(batch[:, 3:], uncached(model, prompt[1:2, 3:], 8))


def test_names_and_counts_of_parameters_are_those_of_surgery(case: Case) -> None:
    model, plan = pruned_and_plan(case, EMPTY["first"])
    exported = export_model(model, plan, stubs=False)
    assert {name: p.shape for name, p in exported.named_parameters()} == {
        name: p.shape for name, p in model.named_parameters()
    }
    assert exported.num_parameters() == model.num_parameters()


def test_stubs_are_zeros_and_output_biases_stay() -> None:
    model, plan = pruned_and_plan(CASES["llama biases"], EMPTY["first"])
    layer = export_model(model, plan, stubs=True).model.layers[0]
    assert layer.self_attn.k_proj.weight.shape == (6, 32)  # one head of size 6
    assert layer.self_attn.q_proj.weight.shape == (24, 32)  # and the four query heads that share it
    assert layer.mlp.up_proj.weight.shape == (STUB_CHANNELS, 32)
    for linear in (layer.self_attn.q_proj, layer.self_attn.v_proj, layer.mlp.gate_proj):
        assert not linear.weight.any()
        assert not linear.bias.any()
    assert torch.equal(layer.self_attn.o_proj.bias, model.model.layers[0].self_attn.o_proj.bias)
    assert layer.mlp.down_proj.bias.all()


def test_saving_a_loaded_model_again_loses_nothing(case: Case, tmp_path: Path) -> None:
    model = saved(case, EMPTY["first"], tmp_path / "first")
    AutoModelForCausalLM.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "second")
    assert torch.equal(logits(again, tokens()), logits(model, tokens()))
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "second"))
    assert first == second


def test_the_headless_model_loads(case: Case, tmp_path: Path) -> None:
    """`AutoModel` loads the model without its head, as vLLM's Transformers backend does."""
    model = saved(case, EMPTY["first"], tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = model.model(input_ids=tokens()).last_hidden_state
        assert torch.equal(loaded(input_ids=tokens()).last_hidden_state, expected)


@pytest.mark.parametrize("options", [{"device_map": "auto"}, {"attn_implementation": "eager"}], ids=["map", "eager"])
def test_other_ways_to_load(options: dict[str, str], tmp_path: Path) -> None:
    model = saved(CASES["qwen2"], EMPTY["first"], tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, **options)
    # Another attention implementation sums in another order.
    torch.testing.assert_close(logits(loaded, tokens()), logits(model, tokens()), atol=1e-4, rtol=0)


def test_setting_the_attention_implementation_reaches_every_layer(tmp_path: Path) -> None:
    saved(CASES["qwen2"], EMPTY["first"], tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded.set_attn_implementation("eager")
    attention = [layer.self_attn for layer in loaded.model.layers if hasattr(layer.self_attn, "config")]
    assert len(attention) == N_LAYERS - 1
    assert {module.config._attn_implementation for module in attention} == {"eager"}


def test_bfloat16_and_a_training_step(tmp_path: Path) -> None:
    saved(CASES["llama biases"], EMPTY["first"], tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).train()
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    optimiser = torch.optim.SGD(loaded.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = loaded(input_ids=tokens(), labels=tokens()).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_weights_made_anew_are_drawn_like_those_of_the_base_model() -> None:
    """A pruned model made from a config has random weights with the base model's standard deviation."""
    config = CASES["llama"].model().config
    per_layer = {"0": SIZES | {"num_attention_heads": 2}, "1": SIZES | {"skip": ["attention"]}}
    values = {key: value for key, value in config.to_diff_dict().items() if key != "model_type"}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(PrunedLlamaConfig(**values, per_layer_config=per_layer))
    std = {name: p.std().item() for name, p in model.named_parameters() if "proj" in name and p.numel() > 500}
    assert len(std) > 10
    # The sample standard deviation of 500 values is within 10% of the true one (three standard errors).
    assert all(abs(value / config.initializer_range - 1) < 0.1 for value in std.values()), std


def test_a_cache_that_is_made_in_advance(tmp_path: Path) -> None:
    """A static cache can be allocated before the first forward pass, as `generate` does for chunked prefill."""
    model = saved(CASES["llama"], EMPTY["first"], tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    cache = StaticCache(config=loaded.config, max_cache_len=16)
    heads, head_dim = loaded._get_static_cache_init_shape()
    cache.early_initialization(2, heads, head_dim, torch.float32, torch.device("cpu"))
    with torch.no_grad():
        found = loaded(input_ids=tokens(2, 12), past_key_values=cache).logits
    torch.testing.assert_close(found, logits(model, tokens(2, 12)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"skip": ["mlp", "norm"]}, r"per_layer_config\[1\]\.skip: got \['norm'\]; allowed: attention, mlp"),
        ({"num_attention_heads": 3}, r"per_layer_config\[1\]: 3 query heads on 2 key/value heads; the base .* 2 on"),
    ],
)
def test_sizes_that_are_no_cut_are_refused(sizes: dict[str, object], message: str) -> None:
    with pytest.raises(Exception, match=message):
        PrunedLlamaConfig(
            hidden_size=32, num_attention_heads=8, num_key_value_heads=4, num_hidden_layers=2,
            per_layer_config={"0": SIZES, "1": SIZES | sizes},
        )  # fmt: skip


def test_the_code_that_travels_imports_only_what_a_stranger_has() -> None:
    """The code in an exported folder imports only torch, transformers, huggingface_hub and the standard library."""
    for name in pruned.EXPORTED_FILES:
        tree = ast.parse(Path(pruned.__file__).with_name(name).read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
        for node in imports:
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom) and node.level:
                files = [node.module] if node.module else [alias.name for alias in node.names]
                assert {f"{file}.py" for file in files} <= set(pruned.EXPORTED_FILES)
                continue
            allowed = {"torch", "transformers", "huggingface_hub"} | set(sys.stdlib_module_names)
            assert {module.split(".")[0] for module in modules} <= allowed, (name, modules)


def test_every_layer_is_written_out(tmp_path: Path) -> None:
    """`per_layer_config` also has the layers that keep the size of the base model."""
    case = CASES["llama"]
    everything = ([list(range(case.n_kv_heads))] * N_LAYERS, [list(range(N_CHANNELS))] * N_LAYERS)
    plan = Plan(
        (case.n_kv_heads,) * N_LAYERS, (N_CHANNELS,) * N_LAYERS, *(tuple(map(tuple, kept)) for kept in everything)
    )
    export_model(case.model(), plan, stubs=False).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["per_layer_config"] == {
        str(layer): {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 24} for layer in range(4)
    }
    assert AutoConfig.from_pretrained(tmp_path).head_dim == 10


@pytest.mark.parametrize("name", ["num_attention_heads", "num_key_value_heads", "intermediate_size"])
def test_a_size_that_differs_between_layers_is_no_attribute(case: Case, name: str, tmp_path: Path) -> None:
    """Programs that read the attribute with a default must not get the sizes of the base model."""
    saved(case, next(iter(EMPTY.values())), tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert getattr(config, name, None) is None
    assert not hasattr(config, name)
    with pytest.raises(AttributeError, match=rf"{name} differs between the layers .* read config.per_layer_config"):
        getattr(config, name)
    assert getattr(config.per_layer_config[0], name) >= 0
    assert config.hidden_size > 0


def test_configs_can_be_compared_and_copied(case: Case, tmp_path: Path) -> None:
    """The comparison of a stock config would read sizes that differ between layers."""
    saved(case, next(iter(EMPTY.values())), tmp_path)
    config, again = AutoConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)
    assert config == again == copy.deepcopy(config) == type(config).from_dict(config.to_dict())
    again.per_layer_config = again.to_dict()["per_layer_config"] | {1: {"skip": ["mlp"]}}
    assert config != again
    assert config != case.model().config


@pytest.mark.parametrize("empty", sorted(EMPTY.keys() - {"everything"}))
def test_lora_on_all_projections_by_name(case: Case, empty: str, tmp_path: Path) -> None:
    """Blocks that are gone have no projections. PEFT leaves them out, or refuses their biases with the remedy."""
    import peft  # takes seconds

    model = saved(case, EMPTY[empty], tmp_path)
    expected = logits(model, tokens())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=list(PROJECTION_NAMES))
    if biases := [name for name, module in loaded.named_modules() if type(module).__name__ == "OutputBias"]:
        with pytest.raises(ValueError, match=r"bias of a removed block.*: give its full name in exclude_modules"):
            peft.get_peft_model(loaded, settings)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        settings.exclude_modules = biases
    adapted = peft.get_peft_model(loaded, settings)
    torch.testing.assert_close(logits(adapted, tokens()), expected)
    projections = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert sum(name.endswith("lora_A") for name, _ in adapted.named_modules()) == len(projections) - 1  # the head


def test_prefix_tuning_fails_and_does_not_compute_something_else(case: Case, tmp_path: Path) -> None:
    """Peft makes prefixes for the heads of the base model, which do not fit pruned layers."""
    import peft  # takes seconds

    saved(case, EMPTY["first"], tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    adapted = peft.get_peft_model(model, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    with pytest.raises(RuntimeError):
        adapted(input_ids=tokens())


def test_a_head_of_its_own_is_exported_whatever_the_base_config_ties(tmp_path: Path) -> None:
    """A checkpoint with an output matrix is exported with it, even if its config says that embeddings are tied."""
    torch.manual_seed(0)
    base = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=N_CHANNELS, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(base).save_pretrained(tmp_path / "base")
    tensors = load_file(tmp_path / "base/model.safetensors")
    tensors["lm_head.weight"] = torch.randn(50, 32)
    save_file(tensors, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    model = load_model(tmp_path / "base", dtype="auto", device=torch.device("cpu"))
    kept = ((0,), (0, 1)), (tuple(range(4)), tuple(range(N_CHANNELS)))
    prune(model, *kept)
    exported = export_model(model, Plan((2, 2), (N_CHANNELS,) * 2, *kept), stubs=False)
    assert exported.num_parameters() == model.num_parameters()
    exported.save_pretrained(tmp_path / "exported")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    assert not loaded.config.tie_word_embeddings
    assert torch.equal(logits(loaded, tokens() % 50), logits(model, tokens() % 50))

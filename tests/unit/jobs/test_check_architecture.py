"""The check on a small copy shows whether surgery, priors and packed scoring support an architecture."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from transformers import LlamaConfig, PreTrainedConfig
from transformers.models.llama import modeling_llama

from espalier.errors import UserError
from espalier.export.build import export_model
from espalier.files import read_json, write_json
from espalier.jobs import check_architecture as checks
from espalier.jobs.check_architecture import check_architecture, check_layers_removable, small_copy
from espalier.models import pruned  # noqa: F401 (registers the classes)
from espalier.models.configuration_pruned import PrunedLlamaConfig
from espalier.models.decoder import decoder_layers, n_groups
from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from tests.unit.conftest import random_model

SIZES = {
    "vocab_size": 500, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 4, "max_position_embeddings": 4096,
}  # fmt: skip
PASS = [
    "Cohere2", "Gemma2", "Granite", "Llama", "Mistral", "Mixtral", "Olmo", "Phi3", "Qwen2", "Qwen2Moe", "Qwen3",
    "Qwen3Moe", "SmolLM3", "StableLm",
]  # fmt: skip
REFUSED = {
    "Jamba": "the model has layers of linear_attention; only full and sliding are evaluated",
    "Llama4Text": "the model has layers of chunked_attention; only full and sliding are evaluated",
    "GptOss": "layer 0 has experts, but no router mlp.gate; pruning them would need an entry in the table of layouts",
    "Olmo2": r"layer 0 has self_attn.q_norm.weight of shape \(32,\), which belongs to no single group",
}


def saved(folder: Path, config: PreTrainedConfig) -> Path:
    config.save_pretrained(folder)
    return folder


def config_of(name: str, **changes: object) -> PreTrainedConfig:
    config: PreTrainedConfig = getattr(transformers, f"{name}Config")(**(SIZES | changes))
    return config


@pytest.mark.parametrize("name", PASS)
def test_supported_architectures_pass(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_architecture(saved(tmp_path, config_of(name)))
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("espalier")]


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_architectures_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"architecture \w+ is not supported: {REFUSED[name]}"):
        check_architecture(saved(tmp_path, config_of(name)))


@pytest.mark.parametrize("family", ["cohere2", "gemma2", "llama", "mistral", "phi3", "qwen2", "smollm3"])
def test_an_exported_model_whose_layers_differ_passes(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It can be pruned again if it keeps a part of each block."""
    model = random_model(family, 50)
    layers = decoder_layers(model)
    before = [tuple(n_groups(layer, block) for layer in layers) for block in ("attention", "mlp")]
    kv_groups = [list(range(max(1, n - number % 2))) for number, n in enumerate(before[0])]
    channels = [list(range(n - number)) for number, n in enumerate(before[1])]
    prune(model, kv_groups, channels)
    plan = Plan(before[0], before[1], tuple(map(tuple, kv_groups)), tuple(map(tuple, channels)))
    export_model(model, plan, stubs=False).save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    del config["auto_map"]  # the classes of the project; those in an exported folder are copies of them
    write_json(tmp_path / "config.json", config)
    check_architecture(tmp_path)
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("espalier")]


def test_a_small_copy_keeps_which_layers_differ() -> None:
    by_layer = {
        0: {"num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 900},
        1: {"num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 20},
        2: {"num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 900},
    }
    shape = {"hidden_size": 256, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 1000}
    config = PrunedLlamaConfig(**(SIZES | shape), per_layer_config=by_layer)
    first, second = decoder_layers(small_copy(config))  # 2 of the 4 query heads share each of the 2 KV heads
    assert (first.self_attn.q_proj.out_features, first.self_attn.k_proj.out_features) == (4 * 8, 2 * 8)
    assert (second.self_attn.q_proj.out_features, second.self_attn.k_proj.out_features) == (2 * 8, 8)
    assert (first.mlp.up_proj.out_features, second.mlp.up_proj.out_features) == (48, 20)


LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1] * 4, "long_factor": [1, 2, 4, 8],
    "original_max_position_embeddings": 2048, "factor": 2,
}  # fmt: skip
ROPES = [LONGROPE, {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}]


@pytest.mark.parametrize("rope", ROPES, ids=["longrope", "dynamic"])
def test_positions_that_scale_with_the_length_pass(rope: dict[str, object], tmp_path: Path) -> None:
    check_architecture(saved(tmp_path, config_of("Llama", rope_parameters=rope)))


@pytest.mark.parametrize("rope", ROPES, ids=["longrope", "dynamic"])
def test_scaling_positions_are_refused_if_batches_mix_lengths(
    rope: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If scoring does not separate requests by length, the small copy shows the wrong scores."""
    monkeypatch.setattr("espalier.scoring.engine.length_thresholds", lambda _: [])
    monkeypatch.setattr("espalier.scoring.engine.scales_with_length", lambda _: False)
    with pytest.raises(
        UserError, match=r"LlamaForCausalLM is not supported: requests that are scored together get oth"
    ):
        check_architecture(saved(tmp_path, config_of("Llama", rope_parameters=rope)))


def test_a_block_that_does_more_than_its_groups_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The patched MLP also adds a term that depends on its number of channels, so channels cannot be removed."""

    def forward(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)) + self.gate_proj.weight.shape[0] * x

    monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaMLP.forward", forward)
    with pytest.raises(UserError, match=r"a pruned copy computes other logits than one whose groups are set to zero"):
        check_architecture(saved(tmp_path, config_of("Llama")))


@pytest.mark.parametrize(
    ("only_with_cache", "problem"),
    [(False, r"from those of a model that skips these layers"), (True, r"with a KV cache")],
    ids=["always", "with a cache"],
)
def test_layers_that_depend_on_their_number_are_refused_only_if_layers_are_removed(
    only_with_cache: bool,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The patched attention is divided by the number of its layer, which changes when earlier layers are removed."""
    stock = modeling_llama.LlamaAttention.forward

    def forward(self: torch.nn.Module, *args: object, **kwargs: object) -> tuple[torch.Tensor, None]:
        output, weights = stock(self, *args, **kwargs)
        is_scaled = not only_with_cache or kwargs.get("past_key_values") is not None
        return output / (1 + (1 + self.layer_idx) * is_scaled), weights

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", forward)
    folder = saved(tmp_path, config_of("Llama"))
    check_architecture(folder)
    found = (
        r"layers of architecture LlamaForCausalLM cannot be removed \(a small copy without layers 0: its logits differ "
        rf"by up to [0-9.]+ {problem}\)"
    )
    (record,) = [record for record in caplog.records if record.name.startswith("espalier")]
    assert re.search(rf"methods with units: \[layer\] will fail: {found}$", record.getMessage())
    with pytest.raises(UserError, match=rf"{found}; leave out the model, or the methods with units: \[layer\]"):
        check_layers_removable(folder)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("_update_config", r"its logits differ by up to .* skips these layers"),
        ("check_removed_layers", "ValueError: no"),
    ],
)
def test_what_goes_wrong_without_a_layer_is_named(
    name: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layer types of a shorter Gemma 2 are those of other layers, or the removal fails."""

    def fail(*_: object) -> None:
        if name == "check_removed_layers":
            raise ValueError("no")

    monkeypatch.setattr(f"espalier.models.depth.{name}", fail)
    folder = saved(tmp_path, config_of("Gemma2"))
    message = rf"cannot be removed \(a small copy without layers 0: {problem}\); leave out"
    with pytest.raises(UserError, match=message):
        check_layers_removable(folder)


def test_blocks_that_do_more_than_add_to_the_residual_stream_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_without", _without_nothing)
    with pytest.raises(UserError, match=r"the prior of layer 0 is not the loss of the model without it"):
        check_architecture(saved(tmp_path, config_of("Llama")))


def test_a_skipped_check_is_logged_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("sizes of the wrong kind")

    monkeypatch.setattr(checks, "small_copy", fail)
    folder = saved(tmp_path, config_of("Llama"))
    check_architecture(folder)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{folder}: its architecture was not checked, because no small copy of the model could be made "
        "(ValueError('sizes of the wrong kind'))"
    )


def test_a_model_that_cannot_read_a_text_is_refused(tmp_path: Path) -> None:
    """The folder can be loaded, but its first forward pass fails."""
    folder = saved(tmp_path, config_of("Gemma2", sliding_window=None))
    with pytest.raises(
        UserError, match=r"Gemma2ForCausalLM as config.json describes it cannot read a text \(ValueError"
    ):
        check_architecture(folder)


def test_a_copy_that_is_too_small_refuses_no_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = config_of("Gemma2", sliding_window=None)
    monkeypatch.setattr(checks, "small_copy", lambda *_, **__: small_copy(small))
    check_architecture(saved(tmp_path, config_of("Gemma2")))
    assert "its architecture was not checked" in caplog.text


def test_the_copy_is_small_and_has_every_kind_of_layer() -> None:
    config = LlamaConfig(**(SIZES | {"hidden_size": 4096, "num_attention_heads": 32, "vocab_size": 128_256}))
    model = small_copy(config)
    assert model.num_parameters() < 2_000_000
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (4, 2)
    sliding = config_of("Gemma2")
    assert set(small_copy(sliding).config.layer_types) == set(sliding.layer_types)


def _without_nothing(_layer: object, _blocks: object) -> object:
    import contextlib

    return contextlib.nullcontext()

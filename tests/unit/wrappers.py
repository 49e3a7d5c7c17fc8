"""Tiny random wrappers of each kind in the table, and their folders in the layouts that exist."""

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from espalier.files import read_json, write_json
from espalier.models.wrappers import text_name

_TEXT = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "initializer_range": 0.3,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# Parts of several kinds of vision models. Each kind reads the keys that it knows.
_IMAGE = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_heads": 2,
    "depth": 1, "image_size": 28, "patch_size": 14, "embed_dim": 16, "out_hidden_size": 32,
    "num_position_embeddings": 4, "deepstack_visual_indexes": [0],
}  # fmt: skip
_PERCEIVER = {"hidden_size": 32, "resampler_n_latents": 2, "resampler_depth": 1, "resampler_n_heads": 2,
              "resampler_head_dim": 8, "num_key_value_heads": 1}  # fmt: skip
_SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
_SLIDING = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
# What the text models of some wrappers need besides.
_NEEDED = {
    "exaone4_5": _SLIDING,
    "gemma3": _SLIDING,
    "qwen2_vl": {"rope_parameters": _SECTIONS},
    "qwen2_5_vl": {"rope_parameters": _SECTIONS},
    "qwen3_vl": {"rope_parameters": {**_SECTIONS, "mrope_section": [2, 1, 1], "mrope_interleaved": True}},
}


def random_wrapper(
    model_type: str, *, text: dict[str, object] | None = None, tied: bool | None = None, dtype: str = "float32"
) -> PreTrainedModel:
    """Return a seeded random wrapper whose text model has two layers, four query heads and two KV heads.

    Args:
        model_type: A key of the table of wrappers.
        text: Other values of the text model's config.
        tied: Whether input and output embeddings are one matrix; None for the default of the wrapper.
        dtype: Dtype of all weights.
    """
    config_class = CONFIG_MAPPING[model_type]
    defaults = config_class()
    values = {"model_type": defaults.text_config.model_type, **_TEXT, **_NEEDED.get(model_type, {}), **(text or {})}
    parts = {"text_config": copy.deepcopy(values)}
    parts["vision_config"] = {"model_type": defaults.vision_config.model_type, **_IMAGE}
    if hasattr(defaults, "perceiver_config"):
        parts["perceiver_config"] = dict(_PERCEIVER)
    config = config_class(**parts, **({} if tied is None else {"tie_word_embeddings": tied}))
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # newly created biases are zero, so errors in them would not show
            nn.init.normal_(parameter, std=0.2)
    return model


SPELLINGS = {
    "transformers 4.51": ("language_model.model.", "language_model.lm_head."),
    "transformers 4.52": ("model.language_model.", "lm_head."),
    "idefics": ("model.text_model.", "lm_head."),
    "qwen2_vl": ("model.", "lm_head."),
}
"""How the names of the text model's tensors begin: those of its decoder, and its head."""


def respell(folder: Path, spelling: str) -> None:
    """Rename the tensors of the text model in a saved wrapper, as another version of transformers writes them."""
    decoder, head = SPELLINGS[spelling]
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        own = text_name(name)
        if own is None:
            tensors[name] = tensor
        elif own.startswith("lm_head."):
            tensors[head + own.removeprefix("lm_head.")] = tensor
        else:
            tensors[decoder + own.removeprefix("model.")] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def flatten_config(folder: Path) -> None:
    """Write the text model's part of config.json at its top level, as transformers wrote Qwen2-VL up to 4.51."""
    config = read_json(folder / "config.json")
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    old = {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
    write_json(folder / "config.json", text | config | old)

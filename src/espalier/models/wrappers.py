"""The table of wrappers: models that contain a text model, such as those that also read images.

Of a wrapper in the table, only the text model is used. It is loaded by the text class of transformers, so all other
modules treat it like any text model. This module finds its part of config.json and its tensors. It reads JSON only;
`espalier.models.text_config` fills in what config.json leaves to the defaults of transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from espalier.errors import UserError
from espalier.models.architecture import EMBEDDINGS, HEAD, LAYERS, NORM
from espalier.models.config_file import CONFIG, check_values, read_config


class Wrapper(NamedTuple):
    """A kind of wrapper whose text model is used.

    On text alone, the logits of the text class equal those of the wrapper (`tests/unit/models/test_wrappers.py`).

    Attributes:
        title: Name in documents.
        families: Types of text models that the tests cover, keys of the table of families. Others are tried, too.
        text_type: The `model_type` of the text class, if the text model has a type without a text class.
        is_flat: Whether old checkpoints have the text model's part of config.json at its top level.
    """

    title: str
    families: tuple[str, ...]
    text_type: str | None = None
    is_flat: bool = False


# transformers has no text class with an output head for the text models of Qwen-VL. Their rotary positions have three
# sections (time, height, width), which are all equal for text. They are then those of Qwen2 and Qwen3.
WRAPPERS = {
    "deepseek_vl": Wrapper("DeepSeek-VL", ("llama",)),
    "exaone4_5": Wrapper("EXAONE 4.5", ("exaone4",)),
    "gemma3": Wrapper("Gemma 3", ("gemma3_text",)),
    "got_ocr2": Wrapper("GOT-OCR2", ("qwen2",)),
    "idefics2": Wrapper("Idefics2", ("mistral",)),
    "idefics3": Wrapper("Idefics3", ("llama",)),
    "internvl": Wrapper("InternVL", ("qwen2", "qwen3", "llama")),
    "lighton_ocr": Wrapper("LightOnOCR", ("qwen3",)),
    "llava": Wrapper("LLaVA", ("llama", "mistral")),
    "llava_next": Wrapper("LLaVA-NeXT", ("llama", "mistral", "qwen2")),
    "llava_next_video": Wrapper("LLaVA-NeXT-Video", ("llama",)),
    "llava_onevision": Wrapper("LLaVA-OneVision", ("qwen2",)),
    "mistral3": Wrapper("Mistral 3", ("mistral", "ministral3")),
    "qwen2_vl": Wrapper("Qwen2-VL", ("qwen2",), text_type="qwen2", is_flat=True),
    "qwen2_5_vl": Wrapper("Qwen2.5-VL", ("qwen2",), text_type="qwen2", is_flat=True),
    "qwen3_vl": Wrapper("Qwen3-VL", ("qwen3",), text_type="qwen3"),
    "smolvlm": Wrapper("SmolVLM", ("llama",)),
    "video_llama_3": Wrapper("VideoLLaMA 3", ("qwen2",)),
    "video_llava": Wrapper("Video-LLaVA", ("llama",)),
    "vipllava": Wrapper("VipLLaVA", ("llama",)),
}
"""Wrappers by the `model_type` at the top of config.json."""

TEXT, IMAGE = "text_config", "vision_config"
"""Keys of config.json for the parts of a wrapper."""
_SOUND = ("audio_config", "thinker_config")
_PARTS = (TEXT, "llm_config", "language_config", IMAGE, "encoder_config", *_SOUND)
"""Keys of config.json that only models of several parts have."""
_NEEDED = {
    "aya_vision": "a decision about the logit scale, which its wrapper in transformers leaves out",
    "cohere2_vision": "a decision about the logit scale, which its wrapper in transformers leaves out",
    "florence2": "units for layers of an encoder and for cross-attention",
    "mllama": "units for layers that attend to images (cross-attention)",
    "paligemma": "masks that let all tokens of a prompt attend to each other",
}
"""What other wrappers would need, by `model_type`."""

PREFIXES = {
    "language_model.model.": "model.",
    f"language_model.{HEAD}.": f"{HEAD}.",
    "model.language_model.": "model.",
    "model.text_model.": "model.",
}
"""How names of tensors begin in wrappers, and in the text model. transformers 4 and 5 write different ones.

Qwen2-VL and Qwen2.5-VL have the names of the text model itself, beside `visual.`.
"""
KEY_MAPPING = {f"^{re.escape(old)}": new for old, new in PREFIXES.items()}
"""`PREFIXES` for `from_pretrained(key_mapping=...)`."""
_OWN = (f"{LAYERS}.", f"{NORM}.", f"{HEAD}.", EMBEDDINGS)


def find_wrapper(folder: str | Path, config: Mapping[str, Any]) -> Wrapper | None:
    """Return the kind of wrapper that a config.json describes; None if it describes a model of one part.

    Args:
        folder: The model folder, for messages.
        config: Content of its config.json.

    Raises:
        UserError: If it is a wrapper that is not in the table, or has no part for its text model.
    """
    model_type = config.get("model_type") or ""
    if wrapper := WRAPPERS.get(model_type):
        _section(folder, config, wrapper)
        return wrapper
    part = next((key for key in _PARTS if isinstance(config.get(key), dict)), None)
    if part is None:
        return None
    architecture = (config.get("architectures") or ["unnamed"])[0]
    needed = _NEEDED.get(model_type)
    if needed is None and any(isinstance(config.get(key), dict) for key in _SOUND):
        needed = "an entry in the table of wrappers; no model that reads sound has one"
    raise UserError(
        f"{folder}: {architecture} is a wrapper around a text model ({part} in config.json) that is not supported"
        f"{f'; it would need {needed}' if needed else ''}. Give one of these wrappers, whose text model is used: "
        f"{', '.join(WRAPPERS)}; or save the text model as a folder of its own, with its own config.json"
    )


def text_name(name: str) -> str | None:
    """Return the name in the text model of a tensor of a wrapper; None if it belongs to another part."""
    for old, new in PREFIXES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name if name.startswith(_OWN) else None


def read_text_config(folder: str | Path) -> dict[str, Any]:
    """Read the config of the text model in a folder, as far as config.json has it.

    Returns:
        The content of config.json. Of a wrapper, the part for its text model, with the `model_type` of the text class.

    Raises:
        UserError: If there is no config.json, a value has a wrong type, or it is a wrapper that is not supported.
    """
    config = read_config(folder)
    wrapper = find_wrapper(folder, config)
    if wrapper is None:
        return config
    section = _section(folder, config, wrapper)
    check_values(Path(folder) / CONFIG, section, within=f"{TEXT}.")
    return section | {
        "model_type": wrapper.text_type or section.get("model_type") or wrapper.families[0],
        "tie_word_embeddings": bool(config.get("tie_word_embeddings") or section.get("tie_word_embeddings")),
    }


def _section(folder: str | Path, config: Mapping[str, Any], wrapper: Wrapper) -> dict[str, Any]:
    """Return the part of config.json for the text model."""
    section = config.get(TEXT)
    if isinstance(section, dict):
        return section
    if wrapper.is_flat and section is None and "num_hidden_layers" in config:
        return {key: value for key, value in config.items() if key != IMAGE}
    raise UserError(
        f"{Path(folder) / CONFIG}: has no mapping {TEXT}, which describes the text model of {wrapper.title}; correct "
        "the file, or copy or stage the model again"
    )

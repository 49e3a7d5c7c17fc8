"""The transformers config of the text model in a folder, which may be a wrapper (`espalier.models.wrappers`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from espalier.errors import UserError
from espalier.models.architecture import OUTPUT_EMBEDDINGS
from espalier.models.config_file import read_config
from espalier.models.folder import read_headers
from espalier.models.wrappers import Wrapper, find_wrapper, read_text_config

# Keys of rotary parameters for the three sections of positions, which are equal for text, and the old name of
# `rope_type`, which may be `mrope`.
_SECTIONS = ("mrope_section", "mrope_interleaved", "type")
# Keys that do not describe the text model when another class reads it.
_NOT_COPIED = ("model_type", "architectures", "transformers_version")
# Keys that scale or cap logits, with the values that change nothing. Some wrappers in transformers ignore them.
_LOGIT_SCALES = {"logit_scale": (None, 1), "logits_scaling": (None, 1), "final_logit_softcapping": (None,)}

_PLAIN_OUTPUTS = {
    "output_router_logits": False, "output_hidden_states": False, "output_attentions": False, "return_dict": True,
}  # fmt: skip


def use_plain_outputs(config: PretrainedConfig) -> PretrainedConfig:
    """Let a model return its logits and nothing else, whatever config.json says, and return its config.

    Some checkpoints ask for the logits of all routers. transformers then computes a training loss that needs equally
    many experts in all layers. Other keys keep tensors of all layers in memory, or make the outputs tuples.

    Args:
        config: Config of the model, modified in place.
    """
    for key, usual in _PLAIN_OUTPUTS.items():
        if getattr(config, key, usual) != usual:
            setattr(config, key, usual)
    return config


def load_config(folder: str | Path, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """Load the config of the text model in a folder, with the defaults of transformers.

    Args:
        folder: The model folder.
        trust_remote_code: Whether code in the folder may run. Code of a wrapper never runs.

    Raises:
        UserError: If it is a wrapper that is not supported, or a value in config.json has a wrong type.
    """
    wrapper = find_wrapper(folder, read_config(folder))
    if wrapper is None:
        own = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
        return use_plain_outputs(own)
    section = read_text_config(folder)  # checks its values
    whole = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    text: PretrainedConfig = whole.text_config
    text.tie_word_embeddings = bool(whole.tie_word_embeddings)
    if section["tie_word_embeddings"] and OUTPUT_EMBEDDINGS not in read_headers(folder):
        # Version 4 of transformers may say so in the part for the text model only, where version 5 does not look. The
        # head would be random.
        text.tie_word_embeddings = True
    text.dtype = whole.dtype or text.dtype
    if wrapper.text_type:
        text = _as_text_class(text, wrapper.text_type)
    _check_logits(folder, text, wrapper)
    return use_plain_outputs(text)


def _as_text_class(text: PretrainedConfig, model_type: str) -> PretrainedConfig:
    """Return the config as one of a type that has a text class."""
    values: dict[str, Any] = {key: value for key, value in text.to_dict().items() if key not in _NOT_COPIED}
    rope = values["rope_parameters"].items()
    values["rope_parameters"] = {key: value for key, value in rope if key not in _SECTIONS}
    return AutoConfig.for_model(model_type, **values)


def _check_logits(folder: str | Path, text: PretrainedConfig, wrapper: Wrapper) -> None:
    """Check that the text model does not scale its logits.

    Wrappers of transformers have an output head of their own, which leaves out the scale.
    """
    for key, usual in _LOGIT_SCALES.items():
        if (value := getattr(text, key, None)) not in usual:
            raise UserError(
                f"{folder}: the text model in this {wrapper.title} scales its logits ({key}: {value}), but its wrapper "
                "in transformers does not, so the two disagree. Save the text model as a folder of its own, with its "
                "own config.json"
            )

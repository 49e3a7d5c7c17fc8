"""Read `config.json` of a model folder and the index of its weights, and check the values that Espalier computes with.

These files are the user's own, so no message advises to delete them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier.errors import UserError
from espalier.files import strict_json

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
"""Config of a PEFT adapter. transformers adds the adapter to a model that it loads from the folder of this file."""
_REMEDY = "correct the file, or copy or stage the model again"


_FEW = "a whole number from 1 to 100,000"
_COUNT, _INDEX = "a whole number greater than 0 and less than 2^31", "a whole number from 0, less than 2^31"
_TOKEN, _TOKENS = "a token id, or -1 for none", "a token id or a list of them, or -1 for none"
_POSITIVE, _NOT_NEGATIVE = "a number greater than 0", "a number from 0"
_SHARE, _RATE = "a number greater than 0, at most 1", "a number from 0, less than 1"
_TEXT, _TEXTS = "a text of at most 200 printable characters", "a list of texts of at most 200 printable characters"
_FLAG, _MAPPING = "true or false", "a mapping of keys to values"
_KEYS = {
    "architectures": _TEXTS, "model_type": _TEXT, "num_hidden_layers": _FEW, "num_labels": _FEW, "hidden_size": _COUNT,
    "intermediate_size": _COUNT, "num_attention_heads": _COUNT, "num_key_value_heads": _COUNT, "head_dim": _COUNT,
    "vocab_size": _COUNT, "max_position_embeddings": _COUNT, "sliding_window": _NOT_NEGATIVE,
    "max_window_layers": _INDEX, "layer_types": _TEXTS, "tie_word_embeddings": _FLAG, "use_sliding_window": _FLAG,
    "attention_bias": _FLAG, "mlp_bias": _FLAG, "hidden_act": _TEXT, "rms_norm_eps": _RATE, "layer_norm_eps": _RATE,
    "attention_dropout": _RATE, "hidden_dropout": _RATE, "resid_pdrop": _RATE, "embd_pdrop": _RATE,
    "attn_pdrop": _RATE, "bos_token_id": _TOKENS, "eos_token_id": _TOKENS, "pad_token_id": _TOKEN, "dtype": _TEXT,
    "torch_dtype": _TEXT, "rope_parameters": _MAPPING, "rope_scaling": _MAPPING, "rope_theta": _POSITIVE,
    "partial_rotary_factor": _SHARE, "attn_logit_softcapping": _POSITIVE, "final_logit_softcapping": _POSITIVE,
    "query_pre_attn_scalar": _POSITIVE, "embedding_multiplier": _POSITIVE, "attention_multiplier": _POSITIVE,
    "residual_multiplier": _POSITIVE, "logits_scaling": _POSITIVE, "logit_scale": _POSITIVE,
}  # fmt: skip
"""Keys that change what a model computes. All are optional here: wrappers around a text model have them further inside.
"""
_ROPE_KEYS = {
    "rope_theta": _POSITIVE, "factor": _POSITIVE, "original_max_position_embeddings": _COUNT,
    "partial_rotary_factor": _SHARE, "low_freq_factor": _POSITIVE, "high_freq_factor": _POSITIVE,
    "attention_factor": _POSITIVE, "beta_fast": _POSITIVE, "beta_slow": _POSITIVE,
}  # fmt: skip
"""Keys of `rope_parameters` and `rope_scaling`, which may have one mapping for each type of layer."""


def _fits(value: Any, expected: str) -> bool:
    """Return whether a JSON value is of the expected kind. JSON has one type of numbers, so 32.0 is a whole number."""
    if expected == _TOKENS:
        return all(_fits(item, _TOKEN) for item in (value if isinstance(value, list) else [value]))
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    is_finite = -1e300 < number < 1e300  # not `math.isfinite`, which refuses whole numbers of hundreds of digits
    is_whole = is_finite and number == int(number)
    return {
        _FEW: is_whole and 0 < number <= 100_000,
        _COUNT: is_whole and 0 < number < 2**31,
        _INDEX: is_whole and 0 <= number < 2**31,
        _TOKEN: is_whole and -1 <= number < 2**31,
        _TOKENS: (isinstance(value, list) and all(_fits(item, _TOKEN) for item in value))
        or (is_whole and -1 <= number < 2**31),
        _POSITIVE: is_finite and number > 0,
        _NOT_NEGATIVE: is_finite and number >= 0,
        _SHARE: 0 < number <= 1,
        _RATE: 0 <= number < 1,
        _TEXT: _is_short_text(value),
        _FLAG: isinstance(value, bool),
        _TEXTS: isinstance(value, list) and all(map(_is_short_text, value)),
        _MAPPING: isinstance(value, dict),
    }[expected]


def _is_short_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200 and value.isprintable()


def _check_values(path: Path, content: Mapping[str, Any], expected: Mapping[str, str], inside: str = "") -> None:
    for key, kind in expected.items():
        value = content.get(key)
        if value is not None and not _fits(value, kind):
            raise UserError(f"{path}: {inside}{key} is {json.dumps(value)[:60]}; allowed: {kind}; {_REMEDY}")


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read `config.json` of a model folder.

    Raises:
        UserError: If there is no such file, it is not JSON, a value is of a wrong type or out of range, or the folder
            has a PEFT adapter.
    """
    path = Path(folder) / CONFIG
    if path.with_name(ADAPTER).exists():
        raise UserError(
            f"{folder}: has a PEFT adapter ({ADAPTER}), which transformers would add to the model; merge it into its "
            "base model (merge_and_unload, save_pretrained) and give the merged model, or give a folder without it"
        )
    if not path.is_file():
        raise UserError(f"{folder}: has no config.json; give a folder written by save_pretrained")
    content = _read_mapping(path)
    check_values(path, content)
    return content


def check_values(path: Path, content: Mapping[str, Any], within: str = "") -> None:
    """Check the values that change what a model computes.

    Args:
        path: The file, for the message.
        content: Content of the file, or of a section of it.
        within: Name of the section with a dot, for the message.

    Raises:
        UserError: If a value is of a wrong type or out of range.
    """
    _check_values(path, content, _KEYS, within)
    for key in ("rope_parameters", "rope_scaling"):
        rope = content.get(key) or {}
        for name, inner in ((key, rope), *((f"{key}.{layer}", one) for layer, one in rope.items())):
            if isinstance(inner, dict):
                _check_values(path, inner, _ROPE_KEYS, f"{within}{name}.")


def require(folder: str | Path, config: dict[str, Any], *keys: str) -> None:
    """Check that keys of a config have values.

    Raises:
        UserError: If one is missing or null.
    """
    for key in keys:
        if config.get(key) is None:
            raise UserError(f"{Path(folder) / CONFIG}: {key} is missing; {_REMEDY}")


def read_weight_map(folder: str | Path) -> dict[str, str]:
    """Read from the index of a sharded checkpoint which file holds each tensor.

    Raises:
        UserError: If the index is not JSON, lacks one of its two mappings, or names a file outside the folder.
    """
    path = Path(folder) / INDEX
    content = _read_mapping(path)
    found = content.get("weight_map")
    if not isinstance(found, dict) or not found:
        raise UserError(f"{path}: has no weight_map that names the file of each tensor; {_REMEDY}")
    for name, file in found.items():
        is_name = isinstance(file, str) and Path(file).name == file and 0 < len(file) <= 255 and file.isprintable()
        if not is_name:
            raise UserError(f"{path}: weight_map gives {str(file)[:60]!r} for {name}; allowed: a file name; {_REMEDY}")
    if not isinstance(content.get("metadata"), dict):
        raise UserError(
            f'{path}: has no mapping `metadata`, which transformers reads; add "metadata": {{}} to the file'
        )
    return found


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = strict_json(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as JSON ({reason}); {_REMEDY}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {json.dumps(content)[:40]} instead of a mapping of keys to values; {_REMEDY}")
    return content

"""Read `config.json` of a model folder and the index of its weights, and check the values that Espalier computes with.

These files are the user's own, so no message advises to delete them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier.errors import UserError

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
_REMEDY = "correct the file, or copy or stage the model again"


_COUNT, _NUMBER, _TEXT = "a whole number greater than 0", "a number", "a text"
_FLAG, _TEXTS, _MAPPING = "true or false", "a list of texts", "a mapping of keys to values"
_KEYS = {
    "architectures": _TEXTS, "model_type": _TEXT, "num_hidden_layers": _COUNT, "hidden_size": _COUNT,
    "num_attention_heads": _COUNT, "num_key_value_heads": _COUNT, "head_dim": _COUNT, "vocab_size": _COUNT,
    "max_position_embeddings": _COUNT, "sliding_window": _NUMBER, "max_window_layers": _NUMBER, "layer_types": _TEXTS,
    "tie_word_embeddings": _FLAG, "use_sliding_window": _FLAG, "hidden_act": _TEXT, "rms_norm_eps": _NUMBER,
    "dtype": _TEXT, "torch_dtype": _TEXT, "rope_parameters": _MAPPING, "rope_scaling": _MAPPING,
    "rope_theta": _NUMBER,
}  # fmt: skip
"""Keys that Espalier reads. All are optional here, because wrappers around a text model have them further inside."""


def _fits(value: Any, expected: str) -> bool:
    """Whether a JSON value is of the expected kind. JSON has one type of numbers, so 32.0 is a whole number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        _COUNT: is_number and 0 < value < 2**40 and value == int(value),
        _NUMBER: is_number,
        _TEXT: isinstance(value, str),
        _FLAG: isinstance(value, bool),
        _TEXTS: isinstance(value, list) and all(isinstance(item, str) for item in value),
        _MAPPING: isinstance(value, dict),
    }[expected]


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read `config.json` of a model folder.

    Raises:
        UserError: If there is no such file, it is not JSON, or a value that Espalier reads has a wrong type.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: has no config.json; give a folder written by save_pretrained")
    content = _read_mapping(path)
    check_values(path, content)
    return content


def check_values(path: Path, content: Mapping[str, Any], within: str = "") -> None:
    """Check the types of the values that Espalier reads.

    Args:
        path: The file, for the message.
        content: Content of the file, or of a section of it.
        within: Name of the section with a dot, for the message.

    Raises:
        UserError: If a value has a wrong type.
    """
    for key, expected in _KEYS.items():
        value = content.get(key)
        if value is not None and not _fits(value, expected):
            raise UserError(f"{path}: {within}{key} is {json.dumps(value)[:60]}; allowed: {expected}; {_REMEDY}")


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
        UserError: If the index is not JSON, has no `weight_map`, or names a file outside the folder.
    """
    path = Path(folder) / INDEX
    found = _read_mapping(path).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise UserError(f"{path}: has no weight_map that names the file of each tensor; {_REMEDY}")
    for name, file in found.items():
        if not isinstance(file, str) or not file or Path(file).name != file:
            raise UserError(f"{path}: weight_map gives {str(file)[:60]!r} for {name}; allowed: a file name; {_REMEDY}")
    return found


def _read_mapping(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"holds {constant}")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as JSON ({reason}); {_REMEDY}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {json.dumps(content)[:40]} instead of a mapping of keys to values; {_REMEDY}")
    return content

"""A model folder: its config, the shapes of its tensors, and their content, read one tensor at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from espalier.errors import UserError
from espalier.models.architecture import ATTENTION, BLOCKS, LAYERS, MLP, OUTPUT_EMBEDDINGS
from espalier.models.config_file import read_config
from espalier.models.folder import weight_files

MODEL_TYPES = ("llama", "mistral", "qwen2")
STOCK_TYPES = (*MODEL_TYPES, "qwen3")
"""Values of `model_type` of folders whose layers all have one shape."""
_PRUNED = "pruned_"
# Keys of config.json that do not belong to the config of the base architecture.
_NOT_COMPUTED = ("model_type", "per_layer_config", "architectures", "auto_map", "transformers_version")

QUERIES, KEYS, _ = ATTENTION.readers


@dataclass(frozen=True)
class LayerShape:
    """Sizes of one decoder layer, taken from the shapes of its tensors.

    Attributes:
        n_heads: Number of query heads; 0 if attention was removed.
        n_kv_heads: Number of key/value heads; 0 if attention was removed.
        n_ff: Number of MLP channels; 0 if the MLP was removed.
        has_attention_bias: Whether the output projection of attention has a bias. It remains if all heads are removed.
        has_mlp_bias: Whether the output projection of the MLP has a bias. It remains if all channels are removed.
    """

    n_heads: int
    n_kv_heads: int
    n_ff: int
    has_attention_bias: bool = False
    has_mlp_bias: bool = False


@dataclass(frozen=True)
class Source:
    """A model folder.

    Attributes:
        folder: Path of the folder.
        config: Config of the base architecture, as transformers reads it, without the sizes of single layers.
        shapes: Shape of each tensor, by name.
        files: Name of the file that contains each tensor, by name of the tensor.
        is_stock: Whether the folder is one of a stock model: its config has one shape for all layers.
    """

    folder: Path
    config: Any
    shapes: dict[str, tuple[int, ...]]
    files: dict[str, str]
    is_stock: bool = False

    @property
    def head_dim(self) -> int:
        """Number of elements of a head."""
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads)

    @property
    def n_bytes(self) -> int:
        """Total size of the weight files."""
        return sum((self.folder / name).stat().st_size for name in set(self.files.values()))

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor as float32.

        Raises:
            UserError: If the folder does not contain the tensor.
        """
        if name not in self.files:
            raise UserError(f"{self.folder}: has no tensor {name}; export or stage the model again")
        with safe_open(self.folder / self.files[name], framework="pt") as tensors:
            return tensors.get_tensor(name).to(torch.float32)

    def layers(self) -> list[LayerShape]:
        """Return the sizes of every layer.

        Raises:
            UserError: If a layer has some but not all projections of a block, or a number of rows that is no multiple
                of the head size.
        """
        return [self._layer(index) for index in range(self.config.num_hidden_layers)]

    def _layer(self, index: int) -> LayerShape:
        prefix = f"{LAYERS}.{index}."
        rows: dict[str, int] = {}
        for block in BLOCKS.values():
            found = [name for name in block.names if f"{prefix}{block.path}.{name}.weight" in self.shapes]
            if found and len(found) < len(block.names):
                missing = sorted(set(block.names) - set(found))
                raise UserError(f"{self.folder}: layer {index} has {', '.join(found)} but not {', '.join(missing)}")
            rows |= {name: self.shapes[f"{prefix}{block.path}.{name}.weight"][0] for name in found}
        if rows.get(QUERIES, 0) % self.head_dim or rows.get(KEYS, 0) % self.head_dim:
            raise UserError(f"{self.folder}: layer {index} has rows that are no multiple of head_dim {self.head_dim}")
        return LayerShape(
            n_heads=rows.get(QUERIES, 0) // self.head_dim,
            n_kv_heads=rows.get(KEYS, 0) // self.head_dim,
            n_ff=rows.get(MLP.counted, 0),
            has_attention_bias=f"{prefix}{ATTENTION.writer_path}.bias" in self.shapes,
            has_mlp_bias=f"{prefix}{MLP.writer_path}.bias" in self.shapes,
        )


def open_source(folder: str | Path) -> Source:
    """Read the config and the tensor shapes of a model folder, without the weights.

    Raises:
        UserError: If the folder has no config, no safetensors weights, or a model that cannot be written as GGUF.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: has no config.json; give a folder that the workflow exported, or of a base model")
    raw = read_config(folder)
    is_stock = not str(raw.get("model_type", "")).startswith(_PRUNED) and "per_layer_config" not in raw
    config = _base_config(folder, raw, STOCK_TYPES if is_stock else MODEL_TYPES)
    shapes: dict[str, tuple[int, ...]] = {}
    files: dict[str, str] = {}
    for file in weight_files(folder):
        try:
            with safe_open(folder / file, framework="pt") as tensors:
                found = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 (it is not iterable)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / file}: cannot be read ({error}); export or stage the model again") from None
        shapes |= found
        files |= dict.fromkeys(found, file)
    normed = [name for name in shapes if "q_norm" in name or "k_norm" in name]
    if normed and not (is_stock and config.model_type == "qwen3"):
        raise UserError(f"{folder}: {normed[0]}: GGUF has no architecture for norms of queries or keys in layers of "
                        "different sizes; export to transformers instead")  # fmt: skip
    # The config may be wrong. Like transformers, treat embeddings as untied if the weights contain an output matrix.
    config.tie_word_embeddings = OUTPUT_EMBEDDINGS not in shapes
    return Source(folder, config, shapes, files, is_stock)


def _base_config(folder: Path, raw: dict[str, Any], allowed: tuple[str, ...]) -> Any:
    model_type = str(raw.get("model_type", "")).removeprefix(_PRUNED)
    if model_type == "qwen3" and model_type not in allowed:
        raise UserError(
            f"{folder}: Qwen3 has norms of queries and keys, for which GGUF has no architecture with layers of "
            "different sizes; export to transformers instead"
        )
    if model_type not in allowed:
        raise UserError(
            f"{folder}: model type {model_type!r} cannot be written as GGUF; allowed: {', '.join(MODEL_TYPES)}, pruned "
            "or not, and qwen3 in one shape; export to transformers instead"
        )
    values = {key: value for key, value in raw.items() if key not in _NOT_COMPUTED}
    return AutoConfig.for_model(model_type, **values)

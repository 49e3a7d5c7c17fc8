"""Look at a model folder without loading weights: is it one that Espalier can prune?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from espalier.errors import UserError
from espalier.files import read_json
from espalier.models.structure import PROJECTIONS, structure_of
from espalier.planning.structure import ModelStructure

TOKENIZER_FILES = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
_LAYER = re.compile(r"^model\.layers\.(\d+)\.(.+)\.weight$")
_IN_BLOCK = re.compile(r"^model\.layers\.\d+\.((?:self_attn|mlp)\.\w+)\.(weight|bias)$")


@dataclass(frozen=True)
class ModelFolder:
    """What a folder holds.

    Attributes:
        architecture: Name of the model class, such as `LlamaForCausalLM`.
        model_type: Type in the transformers config, such as `llama`.
        n_layers: Number of decoder layers.
        n_params: Parameters, tied embeddings once.
        weight_files: Names of the safetensors files.
        structure: Sizes of what can be removed, layer by layer.
        biases: Projections that have a bias in some layer, such as `self_attn.q_proj`.
        block_norms: Norms inside attention or MLP blocks, such as `self_attn.q_norm`.
    """

    architecture: str
    model_type: str
    n_layers: int
    n_params: int
    weight_files: tuple[str, ...]
    structure: ModelStructure
    biases: tuple[str, ...]
    block_norms: tuple[str, ...]


def inspect_folder(folder: str | Path, *, trust_remote_code: bool = False) -> ModelFolder:
    """Check that a folder holds a decoder with the seven projections, its tokenizer and safetensors weights.

    Raises:
        UserError: With one line that names the folder, what is wrong and the remedy.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model folder; give one written by save_pretrained, or a hub repository")
    config = _read_config(folder, trust_remote_code)
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES):
        raise UserError(f"{folder}: has no tokenizer (tokenizer.json); save it there with tokenizer.save_pretrained")
    weight_files = _weight_files(folder)
    shapes = _tensor_shapes(folder, weight_files)
    architecture = (config.get("architectures") or ["unnamed"])[0]
    n_layers = _check_projections(folder, architecture, config, set(shapes))
    structure = structure_of(shapes, config)
    parts = {match.groups() for name in shapes if (match := _IN_BLOCK.match(name))}
    return ModelFolder(
        architecture=architecture,
        model_type=config.get("model_type", ""),
        n_layers=n_layers,
        n_params=structure.total_params,
        weight_files=weight_files,
        structure=structure,
        biases=tuple(sorted(part for part, kind in parts if kind == "bias")),
        block_norms=tuple(sorted({part for part, _ in parts} - set(PROJECTIONS))),
    )


def _read_config(folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: has no config.json; give a folder written by save_pretrained")
    config: dict[str, Any] = read_json(folder / "config.json")
    if "auto_map" in config and not trust_remote_code:
        raise UserError(
            f"{folder}: brings its own code (auto_map in config.json), which is not run; "
            "read that code and set trust_remote_code: true for this model"
        )
    return config


def _weight_files(folder: Path) -> tuple[str, ...]:
    if (folder / "model.safetensors").is_file():  # transformers prefers it to an index
        return ("model.safetensors",)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(index)["weight_map"].values()))
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise UserError(f"{folder}: {missing[0]} is listed in {index.name} but missing; copy or stage it again")
        return tuple(names)
    if any(folder.glob("*.bin")):
        raise UserError(
            f"{folder}: has only .bin weights, which are pickles and are never read; load them where you trust them "
            "and save with save_pretrained, which writes safetensors"
        )
    raise UserError(f"{folder}: has no weights (model.safetensors); give a folder written by save_pretrained")


def _tensor_shapes(folder: Path, weight_files: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name in weight_files:
        try:
            with safe_open(folder / name, framework="np") as tensors:
                shapes |= {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118 (no mapping, though it has keys)
        except SafetensorError as error:
            raise UserError(f"{folder / name}: is not a complete safetensors file ({error}); fetch it again") from None
    return shapes


def _check_projections(folder: Path, architecture: str, config: dict[str, Any], tensors: set[str]) -> int:
    """Check that every layer has exactly the seven projections; return the number of layers."""
    layers: dict[int, set[str]] = {}
    for name in tensors:
        if match := _LAYER.match(name):
            layers.setdefault(int(match[1]), set()).add(match[2])
    missing = [p for p in PROJECTIONS if not layers or any(p not in found for found in layers.values())]
    if missing:
        raise UserError(
            f"{folder}: architecture {architecture} is not supported: its layers lack {', '.join(missing)}; "
            "supported are decoders with separate q, k, v, o, gate, up and down projections "
            "(Llama, Mistral, Qwen2, Qwen3 and the like)"
        )
    n_layers = config.get("num_hidden_layers")
    if n_layers != len(layers):
        raise UserError(
            f"{folder}: config.json says {n_layers} layers but the weights hold {len(layers)}; copy or stage it again"
        )
    return len(layers)

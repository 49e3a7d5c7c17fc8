"""Check, without loading weights, whether Espalier can prune the model in a folder."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from espalier.errors import UserError
from espalier.files import why_no_file
from espalier.models.architecture import (
    BLOCKS,
    DIFFERING_LAYERS,
    EMBEDDINGS,
    EXPERTS,
    FINAL_NORM,
    HEAD,
    LAYERS,
    LAYOUTS,
    OUTPUT_EMBEDDINGS,
    BlockNames,
    find_layout,
    find_unsupported,
)
from espalier.models.config_file import INDEX, read_config, read_weight_map, require
from espalier.models.sizes import (
    ModelSizes,
    find_stored_expert,
    head_size,
    merge_experts,
    modules_of,
    sizes_from_shapes,
)
from espalier.models.wrappers import PREFIXES, TEXT, Wrapper, find_wrapper, read_text_config, text_name

TOKENIZER_FILES = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
FILE_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".py")
"""Suffixes of the files that a model consists of; the manifest has their checksums."""
# Dtypes of full precision, as safetensors names them.
_FLOAT_TYPES = {"F64", "F32", "F16", "BF16"}
# Dtypes that neither full precision nor a quantised checkpoint has.
_NO_QUANTISED_TYPES = {"C64", "C128", "BOOL"}
# Suffixes of the tensors that quantised checkpoints store beside a weight or instead of it (fp8, GPTQ, AWQ,
# bitsandbytes, compressed-tensors).
_QUANTISED = (
    "_scale_inv", ".weight_scale", ".input_scale", ".weight_packed", ".qweight", ".qzeros", ".scales", ".absmax",
    ".quant_map", ".SCB",
)  # fmt: skip
# Buffers that older checkpoints store: rotary frequencies, causal masks, positions. They are not parameters:
# transformers computes them from the config.
_BUFFER = re.compile(r"(^|\.)(rotary_emb\.|masked_bias$|position_ids$|(self_attn|attn|attention)\.bias$)")
_OF_DECODER = (f"{LAYERS.partition('.')[0]}.", f"{HEAD}.")
_LAYER_WEIGHT = re.compile(rf"^{re.escape(LAYERS)}\.(\d+)\.(.+)\.weight$")
_ANY_LAYER_WEIGHT = re.compile(r"^(.*?layers\.\d+)\.(.+)\.weight$")
_LAYER_TENSOR = re.compile(rf"^{re.escape(LAYERS)}\.(\d+)\.(.+)$")
_WHOLE = tuple(f"{BLOCKS['mlp'].path}.{name}" for name in EXPERTS.whole)
# Names within the layer of all projections of all layouts.
SUPPORTED_PROJECTIONS = tuple(
    dict.fromkeys(path for layouts in LAYOUTS.values() for one in layouts for path in one.paths)
)
_PATHS = "|".join(re.escape(block.path) for block in BLOCKS.values())
_OF_EXPERTS = {EXPERTS.router, *_WHOLE}
_IN_BLOCK = re.compile(rf"^{re.escape(LAYERS)}\.\d+\.((?:{_PATHS})\.\w+)\.(weight|bias)$")


class TensorHeader(NamedTuple):
    """Shape and dtype (`BF16`, `F32`, ...) of a tensor, from the header of a safetensors file."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def n_bytes(self) -> int:
        """Size of the tensor."""
        bits = re.search(r"\d+", self.dtype)  # BOOL has none
        return math.prod(self.shape) * int(bits[0] if bits else 8) // 8


class LeftOut(NamedTuple):
    """The parts of a wrapper that are not used.

    Attributes:
        architecture: Class of the wrapper, such as `Gemma3ForConditionalGeneration`.
        model_type: `model_type` of the wrapper, such as `gemma3`.
        n_params_left_out: Parameters of its other parts.
        n_bytes_left_out: Their size in the files.
    """

    architecture: str
    model_type: str
    n_params_left_out: int
    n_bytes_left_out: int


class IncompleteConfigError(UserError):
    """The config of a text model leaves sizes to the defaults of transformers."""


@dataclass(frozen=True)
class ModelFolder:
    """Description of the model in a folder. Of a wrapper, the text model alone is described.

    Attributes:
        architecture: Name of the model class, such as `LlamaForCausalLM`.
        model_type: `model_type` in the transformers config, such as `llama`.
        n_layers: Number of decoder layers.
        n_params: Number of parameters; tied embeddings count once.
        weight_files: Names of the safetensors files.
        sizes: Sizes of the model, layer by layer.
        biases: Projections that have a bias in some layer, such as `self_attn.q_proj`.
        block_norms: Norms inside attention or MLP blocks, such as `self_attn.q_norm`.
        wrapper: What is left out of a wrapper; None if the folder holds a model of one part.
    """

    architecture: str
    model_type: str
    n_layers: int
    n_params: int
    weight_files: tuple[str, ...]
    sizes: ModelSizes
    biases: tuple[str, ...]
    block_norms: tuple[str, ...]
    wrapper: LeftOut | None = None


def inspect_folder(
    folder: str | Path, *, trust_remote_code: bool = False, text_config: Mapping[str, Any] | None = None
) -> ModelFolder:
    """Check that a folder holds a decoder with the seven projections, its tokenizer and safetensors weights.

    Args:
        folder: The model folder.
        trust_remote_code: Whether code in the folder may run.
        text_config: Config of the text model with the defaults of transformers, if the folder is a wrapper. By
            default, config.json alone is read.

    Raises:
        IncompleteConfigError: If `text_config` is not given, and config.json does not give the sizes of the text model.
        UserError: If it does not. The message is one line: the folder, the problem and the remedy.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model folder; give one written by save_pretrained, or a hub repository")
    for path in sorted(folder.iterdir()):
        if path.suffix not in FILE_SUFFIXES:
            continue
        if problem := why_no_file(path):
            raise UserError(f"{path}: {problem}; give the file that belongs there, or take the entry out of the folder")
        if not path.name.isprintable():
            raise UserError(f"{str(path)!a}: its name has characters that cannot be printed; rename the file")
    config = _read_config(folder, trust_remote_code)
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES):
        raise UserError(f"{folder}: has no tokenizer (tokenizer.json); save it there with tokenizer.save_pretrained")
    wrapper = find_wrapper(folder, config)
    files = weight_files(folder)
    stored = _stored_headers(folder, files)
    headers = _own_headers(folder, stored, wrapper)
    architecture = (config.get("architectures") or ["unnamed"])[0]
    _check_precision(folder, config, headers)
    left_out = _left_out(architecture, config, stored) if wrapper else None
    if wrapper:
        config = dict(text_config or _complete_text_config(folder))
    shapes = _merge_experts(folder, parameter_shapes(headers, config))
    _check_names(folder, architecture, set(shapes))
    n_layers = _check_projections(folder, architecture, config, set(shapes))
    _check_shapes(folder, shapes, config)
    _check_expert_shapes(folder, shapes, config)
    sizes = sizes_from_shapes(shapes, config)
    parts = {match.groups() for name in shapes if (match := _IN_BLOCK.match(name))}
    return ModelFolder(
        architecture=architecture,
        model_type=config.get("model_type") or "",
        n_layers=n_layers,
        n_params=sizes.total_params,
        weight_files=files,
        sizes=sizes,
        biases=tuple(sorted(part for part, kind in parts if kind == "bias")),
        block_norms=tuple(sorted({part for part, _ in parts} - set(SUPPORTED_PROJECTIONS) - _OF_EXPERTS)),
        wrapper=left_out,
    )


def _left_out(architecture: str, config: Mapping[str, Any], stored: Mapping[str, TensorHeader]) -> LeftOut:
    others = [header for name, header in stored.items() if text_name(name) is None and not is_buffer(name)]
    return LeftOut(
        architecture,
        config["model_type"],
        n_params_left_out=sum(math.prod(header.shape) for header in others),
        n_bytes_left_out=sum(header.n_bytes for header in others),
    )


def _complete_text_config(folder: Path) -> dict[str, Any]:
    config = read_text_config(folder)
    for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"):
        if config.get(key) is None:
            raise IncompleteConfigError(f"{folder}: config.json leaves {key} of the text model to transformers")
    return config


def _read_config(folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    config = read_config(folder)
    if "auto_map" in config and not trust_remote_code:
        raise UserError(
            f"{folder}: brings its own code (auto_map in config.json), which is not run; "
            "read that code and set trust_remote_code: true for this model"
        )
    return config


def weight_files(folder: Path) -> tuple[str, ...]:
    """Return the names of the safetensors files in a folder that transformers loads.

    Raises:
        UserError: If there are none, or if one that the index lists is missing.
    """
    if (folder / "model.safetensors").is_file():  # transformers prefers this file to an index
        return ("model.safetensors",)
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(read_weight_map(folder).values()))
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise UserError(f"{folder}: {missing[0]} is listed in {index.name} but missing; copy or stage it again")
        return tuple(names)
    if any(folder.glob("*.bin")):
        raise UserError(
            f"{folder}: has only .bin weights, which are pickles and are never read; load them where you trust them "
            "and save with save_pretrained, which writes safetensors"
        )
    if others := sorted(path.name for path in folder.glob("*.safetensors")):
        raise UserError(
            f"{folder}: has neither model.safetensors nor {INDEX}, but {others[0]}, which transformers does not read; "
            "copy or stage the model again, or save it there with save_pretrained"
        )
    raise UserError(f"{folder}: has no weights (model.safetensors); give a folder written by save_pretrained")


def _stored_headers(folder: Path, files: tuple[str, ...]) -> dict[str, TensorHeader]:
    headers: dict[str, TensorHeader] = {}
    for name in files:
        try:
            with safe_open(folder / name, framework="np") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (it has keys, but is not a mapping)
                    tensor = tensors.get_slice(key)
                    headers[key] = TensorHeader(tuple(tensor.get_shape()), tensor.get_dtype())
        except SafetensorError as error:
            raise UserError(f"{folder / name}: is not a complete safetensors file ({error}); fetch it again") from None
    return headers


def _own_headers(folder: Path, stored: Mapping[str, TensorHeader], wrapper: Wrapper | None) -> dict[str, TensorHeader]:
    """Return the headers of the tensors that are used. Those of a wrapper get their names in the text model."""
    if wrapper is None:
        return dict(stored)
    names: dict[str, str] = {}
    for name in stored:
        if (own := text_name(name)) is None:
            continue
        if own in names:
            raise UserError(
                f"{folder}: tensors {names[own]} and {name} are the same tensor of the text model in this "
                f"{wrapper.title}; copy or stage the model again"
            )
        names[own] = name
    if set(names) <= {EMBEDDINGS, FINAL_NORM, OUTPUT_EMBEDDINGS}:
        raise UserError(
            f"{folder}: has no tensors of the layers of the text model in this {wrapper.title}, whose names begin with "
            f"{', '.join(prefix for prefix, own in PREFIXES.items() if own == 'model.')} or {LAYERS}.; copy or stage "
            "the model again"
        )
    return {own: stored[name] for own, name in names.items()}


def parameter_shapes(headers: Mapping[str, TensorHeader], config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter. Buffers are left out, and tied embeddings occur once.

    If the config ties the embeddings and the files hold both, this function assumes that they are equal.
    `espalier.models.manifest` compares their values.
    """
    tied = config.get("tie_word_embeddings", False) and EMBEDDINGS in headers
    return {
        name: header.shape
        for name, header in headers.items()
        if not is_buffer(name) and not (tied and name == OUTPUT_EMBEDDINGS)
    }


def is_parameter(name: str) -> bool:
    """Return whether a tensor of a checkpoint, by its name in the text model, is a parameter that a decoder may have.

    Buffers are none, and neither is a tensor outside the decoder, such as a value head.
    """
    return name.startswith(_OF_DECODER) and not is_buffer(name)


def is_buffer(name: str) -> bool:
    """Return whether a tensor of a checkpoint is a buffer that transformers computes from the config."""
    return _BUFFER.search(name) is not None


def check_config(folder: str | Path) -> None:
    """Check what config.json alone can tell, such as before the weights are fetched.

    Raises:
        UserError: If the file cannot be used, or describes a quantised model or a wrapper that is not supported.
    """
    config = read_config(folder)
    find_wrapper(folder, config)
    _check_precision(Path(folder), config, {})


def read_headers(folder: str | Path) -> dict[str, TensorHeader]:
    """Read the headers of the tensors of the model in a folder, by their names in the text model.

    Raises:
        UserError: If the model is quantised. The message has the remedy.
    """
    folder = Path(folder)
    config = read_config(folder)
    headers = _own_headers(folder, _stored_headers(folder, weight_files(folder)), find_wrapper(folder, config))
    _check_precision(folder, config, headers)
    return headers


def _check_precision(folder: Path, config: Mapping[str, Any], headers: Mapping[str, TensorHeader]) -> None:
    """Check that a checkpoint is not quantised: surgery and gradients need weights in full precision.

    The dtype matters for every tensor that the decoder reads, biases included. transformers converts all of them.
    """
    remedy = (
        "give the checkpoint in full precision, or dequantise it first (load it with transformers, "
        "`model.dequantize()`, save_pretrained)"
    )
    parts = [part for part in (config, config.get(TEXT)) if isinstance(part, dict)]
    keys = ("quantization_config", "compression_config")
    quantisation = next((part[key] for part in parts for key in keys if part.get(key) is not None), None)
    if quantisation is not None:
        method = quantisation.get("quant_method", "unnamed method") if isinstance(quantisation, dict) else quantisation
        raise UserError(f"{folder}: is quantised (quantization_config in config.json: {str(method)[:60]}); {remedy}")
    for name, header in headers.items():
        is_read = name.endswith(".weight") or is_parameter(name)
        if is_read and header.dtype in _NO_QUANTISED_TYPES:
            allowed = ", ".join(sorted(_FLOAT_TYPES))
            raise UserError(
                f"{folder}: tensor {name} is of type {header.dtype}; allowed: {allowed}; copy or stage the model again"
            )
        if name.endswith(_QUANTISED) or (is_read and header.dtype not in _FLOAT_TYPES):
            raise UserError(f"{folder}: is quantised (tensor {name} is of type {header.dtype}); {remedy}")


def _check_projections(folder: Path, architecture: str, config: dict[str, Any], tensors: set[str]) -> int:
    """Check that every layer has the projections of a known layout; return the number of layers."""
    layers: dict[int, set[str]] = {}
    for name in tensors:
        if match := _LAYER_WEIGHT.match(name):
            layers.setdefault(int(match[1]), set()).add(match[2])
    with_experts = _layers_with_experts(tensors)
    layouts = _layouts(set().union(*layers.values()))
    projections = [path for layout in layouts for path in layout.paths]
    of_mlp = set(layouts[1].paths)
    if with_experts:
        _check_says_experts_per_token(folder, architecture, config)
        # Layers without experts are dense. All layers may have experts.
        dense = [found for number, found in layers.items() if number not in with_experts]
        absent = [part for part in layouts[0].paths if not any(part in found for found in layers.values())]
        absent += [part for part in layouts[1].paths if dense and not any(part in found for found in dense)]
    else:
        absent = [part for part in projections if not any(part in found for found in layers.values())]
    unsupported = find_unsupported(name for name in tensors if not (with_experts and _belongs_to_experts(name)))
    if absent or unsupported:
        problems = [f"lack {', '.join(absent)}"] if absent else []
        problems += [f"have {unsupported.title} ({unsupported.needed})"] if unsupported else []
        raise UserError(
            f"{folder}: architecture {architecture} is not supported: its layers {', and '.join(problems)}; "
            "supported are decoders with separate q, k, v, o, gate, up and down projections "
            "(Llama, Mistral, Qwen2, Qwen3 and the like), with q, k, v or gate, up fused (Phi-3, GLM), or with experts "
            "(Mixtral, Qwen3-MoE)"
        )
    require(folder, config, "num_hidden_layers", "hidden_size", "num_attention_heads")
    n_layers = config["num_hidden_layers"]
    if n_layers != len(layers) or max(layers) >= len(layers):
        raise UserError(
            f"{folder}: config.json says {n_layers} layers but the weights hold {len(layers)} (the last is layer "
            f"{max(layers)}); copy or stage it again"
        )
    for number, found in sorted(layers.items()):
        needed = [part for part in projections if number not in with_experts or part not in of_mlp]
        if missing := [part for part in needed if part not in found]:
            if config.get(DIFFERING_LAYERS):
                raise UserError(
                    f"{folder}: its layer {number} has no {missing[0].partition('.')[0]}, because the model is already "
                    "pruned; prune its base model instead, or a pruned model that keeps a part of each block"
                )
            raise UserError(
                f"{folder}: tensor {LAYERS}.{number}.{missing[0]}.weight is missing, which other layers have; copy "
                "or stage the model again"
            )
    return len(layers)


def _check_says_experts_per_token(folder: Path, architecture: str, config: Mapping[str, Any]) -> None:
    if config.get("num_experts_per_tok") is None:
        raise UserError(
            f"{folder}: architecture {architecture} is not supported: its layers have experts, but config.json does "
            "not say how many of them a token gets (num_experts_per_tok); supported are experts of the families "
            "Mixtral, Qwen2-MoE and Qwen3-MoE"
        )


def _check_names(folder: Path, architecture: str, tensors: set[str]) -> None:
    """Check that layers with all projections have the usual name.

    Models that were saved without their head, or from inside another module, have other names.
    """
    found: dict[str, dict[str, str]] = {}
    for name in sorted(tensors):
        if match := _ANY_LAYER_WEIGHT.match(name):
            found.setdefault(match[1], {})[match[2]] = name
    whole = {layer: names for layer, names in found.items() if all(find_layout(block, names) for block in BLOCKS)}
    if whole and not any(layer.startswith(f"{LAYERS}.") for layer in found):
        odd = next(iter(next(iter(whole.values())).values()))
        raise UserError(
            f"{folder}: its tensors have names such as {odd}, but those of {architecture} begin with {LAYERS}.; load "
            "the model with the class that wrote it and save the text model with its output head (save_pretrained)"
        )


def _merge_experts(folder: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters in memory, where all experts of a layer are in two tensors.

    Raises:
        UserError: If tensors of an expert are missing, or the experts of a layer differ in shape.
    """
    found: dict[str, dict[int, dict[str, tuple[int, ...]]]] = {}
    for name, shape in shapes.items():
        stored = find_stored_expert(name)
        if stored is not None and stored.expert >= 0:
            found.setdefault(stored.prefix, {}).setdefault(stored.expert, {})[stored.part] = shape
    for prefix, experts in found.items():
        for number in range(max(experts) + 1):
            of_one = experts.get(number, {})
            if missing := sorted({"gate", "up", "down"} - set(of_one)):
                raise UserError(
                    f"{folder}: {prefix.rstrip('.')} has no {missing[0]} projection of expert {number}; copy or stage "
                    "the model again"
                )
            if of_one != experts[min(experts)] or not of_one["gate"] == of_one["up"] == of_one["down"][::-1]:
                raise UserError(
                    f"{folder}: the experts of {prefix.rstrip('.')} differ in shape (expert {number}: "
                    f"{', '.join(map(str, of_one.values()))}); copy or stage the model again"
                )
    return merge_experts(shapes)


def _check_expert_shapes(folder: Path, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> None:
    """Check that the tensors of experts and routers fit each other, and that a router chooses among its experts."""
    for number in sorted(_layers_with_experts(shapes)):
        paths = (EXPERTS.reader_path, EXPERTS.writer_path, EXPERTS.router_path)
        reader, writer, router = (shapes[f"{LAYERS}.{number}.{path}"] for path in paths)
        n, hidden, width = writer if len(writer) == 3 else (0, 0, 0)
        if 0 in writer or (reader, writer, router) != ((n, 2 * width, hidden), (n, hidden, width), (n, hidden)):
            raise UserError(
                f"{folder}: the experts of {LAYERS}.{number} have shapes {reader} and {writer} and their router "
                f"{router}, which do not form gate, up, down and one row per expert; copy or stage the model again"
            )
        chosen = config["num_experts_per_tok"]
        if not isinstance(chosen, int) or not 1 <= chosen <= n:
            raise UserError(
                f"{folder}: num_experts_per_tok in config.json is {chosen!r}, but {LAYERS}.{number} has {n} experts; "
                f"allowed: 1 to {n}. Correct the file, or copy or stage the model again"
            )


def _layers_with_experts(tensors: Iterable[str]) -> set[int]:
    """Return the numbers of the layers that have all tensors of experts in the known layout."""
    found: dict[int, set[str]] = {}
    for name in tensors:
        if match := _LAYER_TENSOR.match(name):
            found.setdefault(int(match[1]), set()).add(match[2])
    needed = {EXPERTS.reader_path, EXPERTS.writer_path, EXPERTS.router_path}
    return {number for number, names in found.items() if needed <= names}


def _belongs_to_experts(name: str) -> bool:
    """Return whether a tensor belongs to a mixture of experts in the known layout."""
    match = _LAYER_TENSOR.match(name)
    known = {EXPERTS.reader_path, EXPERTS.writer_path, EXPERTS.router_path}
    return match is not None and (match[2] in known or match[2].startswith(_WHOLE))


def _layouts(modules: set[str]) -> list[BlockNames]:
    """Return the layout of each block of a layer that has these modules; the usual layout if none fits."""
    return [find_layout(block, modules) or BLOCKS[block] for block in BLOCKS]


def _check_shapes(folder: Path, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> None:
    """Check that the projections are matrices that hold whole heads. `load_model` compares all shapes later."""
    head_dim = head_size(shapes, config)
    for name, shape in shapes.items():
        if not _LAYER_WEIGHT.match(name) or not name.removesuffix(".weight").endswith(SUPPORTED_PROJECTIONS):
            continue
        if len(shape) != 2 or 0 in shape:
            raise UserError(
                f"{folder}: tensor {name} has shape {shape}, and is no matrix; copy or stage the model again"
            )
    for layer in sorted({match[1] for name in shapes if (match := _LAYER_WEIGHT.match(name))}, key=int):
        prefix = f"{LAYERS}.{layer}."
        own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        for layout, unit in zip(_layouts(modules_of(own)), (head_dim, 1), strict=True):
            if layout.path == BLOCKS["mlp"].path and EXPERTS.reader_path in own:
                continue
            rows, width = own[f"{layout.counted_path}.weight"][0], own[f"{layout.writer_path}.weight"][1]
            parts = layout.part_sizes(layout.counted, rows, width)
            if unit == 0 or parts[-1] <= 0 or parts[-1] % unit or sum(parts) != rows:
                raise UserError(
                    f"{folder}: tensor {prefix}{layout.counted_path}.weight has {rows} rows, which are no whole heads "
                    f"of {head_dim} as config.json describes them; the two do not belong together: copy or stage the "
                    "model again"
                )

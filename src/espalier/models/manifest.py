"""The manifest of a model: a small file with the sizes and checksums of the model's files.

Jobs depend on the manifest instead of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from espalier.errors import UserError
from espalier.files import size_and_sha256
from espalier.models.architecture import EMBEDDINGS, OUTPUT_EMBEDDINGS
from espalier.models.config_file import read_config
from espalier.models.decoder import decoder_layers, head_dim
from espalier.models.folder import FILE_SUFFIXES, ModelFolder, inspect_folder, is_parameter
from espalier.models.loading import load_model
from espalier.models.sizes import sizes_from_shapes
from espalier.models.text_config import load_config
from espalier.models.wrappers import find_wrapper, text_name
from espalier.progress import Progress

# Keys of config.json that reports need for costs and for verdicts on serving programs. Reports do not read the model.
_CONFIG_KEYS = {
    "attention_bias", "bos_token_id", "dtype", "eos_token_id", "head_dim", "hidden_act", "hidden_size",
    "intermediate_size", "layer_types", "max_position_embeddings", "max_window_layers", "mlp_bias", "model_type",
    "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "pad_token_id", "rms_norm_eps",
    "rope_parameters", "rope_scaling", "rope_theta", "sliding_window", "tie_word_embeddings", "torch_dtype",
    "use_sliding_window", "vocab_size",
    # Of models with experts.
    "decoder_sparse_step", "mlp_only_layers", "moe_intermediate_size", "norm_topk_prob", "num_experts",
    "num_experts_per_tok", "num_local_experts", "shared_expert_intermediate_size",
}  # fmt: skip


def make_manifest(name: str, folder: str | Path, *, trust_remote_code: bool, commit: str | None) -> dict[str, Any]:
    """Check a model folder, including the values of all weights, and return its manifest.

    Args:
        name: Name of the model in the study.
        folder: Folder in the format of `save_pretrained`.
        trust_remote_code: Whether code in the folder may run.
        commit: Commit of the hub repository, if it came from one.

    Raises:
        UserError: If the folder cannot be used: a tensor is missing, unexpected, quantised, of a wrong shape or not
            finite, or surgery does not support the layers.
    """
    folder = Path(folder)
    config = _config_of(folder)
    summary = inspect_folder(folder, trust_remote_code=trust_remote_code, text_config=config)
    summary, head = _as_loaded(folder, summary, config, trust_remote_code)
    check_finite(folder, summary)
    return {
        "model": name,
        "folder": str(folder),
        "commit": commit,
        "trust_remote_code": trust_remote_code,
        **{key: value for key, value in asdict(summary).items() if key not in {"sizes", "wrapper"}},
        **{key: list(getattr(summary, key)) for key in ("weight_files", "biases", "block_norms")},
        "structure": summary.sizes.to_dict(),
        **({"wrapper": summary.wrapper._asdict()} if summary.wrapper else {}),
        "config": _described_config(config, head),
        "files": {
            path.name: size_and_sha256(path) for path in sorted(folder.iterdir()) if path.suffix in FILE_SUFFIXES
        },
    }


def _config_of(folder: Path) -> dict[str, Any]:
    """Return the content of config.json. Of a wrapper, the config of its text model with the defaults of transformers.

    Defaults matter there: config.json of many wrappers leaves out sizes of the text model.
    """
    config = read_config(folder)
    if find_wrapper(folder, config) is None:
        return config
    with _config_errors_named(folder):
        return json.loads(load_config(folder).to_json_string(use_diff=False))  # type: ignore[no-any-return]


@contextmanager
def _config_errors_named(folder: Path) -> Iterator[None]:
    """Turn errors of transformers into a UserError. For a config that it cannot use, it raises many kinds of errors."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(
            f"{folder}: transformers cannot build the model that config.json describes ({type(error).__name__}: "
            f"{reason}); correct the file, or copy or stage the model again"
        ) from error


def _described_config(config: Mapping[str, Any], head: int) -> dict[str, Any]:
    """Return the part of a config that the manifest has.

    Readers of the manifest compute the size of a head as hidden size / heads where the config does not have it, so
    another size is added.

    Args:
        config: Content of the model's config.json.
        head: Size of a head.
    """
    described = {key: value for key, value in config.items() if key in _CONFIG_KEYS}
    if not config.get("head_dim") and head != config["hidden_size"] // config["num_attention_heads"]:
        described["head_dim"] = head
    return described


def _as_loaded(
    folder: Path, summary: ModelFolder, config: Mapping[str, Any], trust_remote_code: bool
) -> tuple[ModelFolder, int]:
    """Return the summary with the sizes of the model that transformers builds from the folder, and its head size.

    This reads only headers, and the embeddings if the config ties them.
    """
    with _config_errors_named(folder):
        model = load_model(folder, dtype="auto", device=torch.device("meta"), trust_remote_code=trust_remote_code)
    if model.config.tie_word_embeddings and _has_equal_embeddings(folder, summary):
        model.tie_weights()
    head = head_dim(decoder_layers(model)[0])
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    sizes = sizes_from_shapes(shapes, config)
    architecture = type(model).__name__ if summary.wrapper else summary.architecture
    return replace(summary, architecture=architecture, sizes=sizes, n_params=sizes.total_params), head


def _has_equal_embeddings(folder: Path, summary: ModelFolder) -> bool:
    """Return whether tied embeddings are stored once, or twice with the same values.

    transformers ties them only in these cases. An output head with other values stays separate.
    """
    found: list[torch.Tensor] = []
    for file in summary.weight_files:
        with safe_open(folder / file, framework="pt") as tensors:
            names = _names_of(summary, tensors.keys())
            found += [tensors.get_tensor(name) for name, own in names if own in {EMBEDDINGS, OUTPUT_EMBEDDINGS}]
    return len(found) < 2 or torch.equal(*found)


def _names_of(summary: ModelFolder, names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the stored names of the tensors that are used, each with its name in the text model."""
    pairs = ((name, text_name(name) if summary.wrapper else name) for name in names)
    return [(name, own) for name, own in pairs if own is not None]


def check_finite(folder: Path, summary: ModelFolder) -> None:
    """Check that all weights are finite, and that no two files disagree about one; of a wrapper, of its text model.

    Buffers and tensors outside the decoder are not checked, because no model reads them.

    Raises:
        UserError: If a tensor contains NaN or infinity, or is in two files with different values. The message names the
            first such tensor.
    """
    holders: dict[str, str] = {}
    total = sum((folder / name).stat().st_size for name in summary.weight_files)
    with Progress("checking weights", total=total, unit="B") as progress:
        for name in summary.weight_files:
            with safe_open(folder / name, framework="pt") as tensors:
                for key, own in _names_of(summary, tensors.keys()):
                    if not is_parameter(own):
                        continue
                    tensor = tensors.get_tensor(key)
                    first = holders.setdefault(key, name)
                    if first != name and not _has_equal_tensor(folder / first, key, tensor):
                        raise UserError(
                            f"{folder}: tensor {key} is in both {first} and {name}, with different values; the files "
                            "belong to different models: copy or stage the model again"
                        )
                    if not torch.isfinite(tensor).all():
                        raise UserError(f"{folder / name}: {key} has values that are not finite; fetch the model again")
                    progress.advance(tensor.numel() * tensor.element_size())


def _has_equal_tensor(file: Path, name: str, expected: torch.Tensor) -> bool:
    with safe_open(file, framework="pt") as tensors:
        return bool(torch.equal(tensors.get_tensor(name), expected))


def check_unchanged(manifest: Mapping[str, Any]) -> Path:
    """Check that the model's files still have the sizes in the manifest, and return their folder.

    Checksums are not compared.

    Raises:
        UserError: If a file is missing or has another size.
    """
    folder = Path(manifest["folder"])
    for name, expected in manifest["files"].items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != expected["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes, not {expected['bytes']}"
            raise UserError(
                f"{path}: {found}; it changed after it was checked. Restore it, or delete the manifest of model "
                f"{manifest['model']!r} to have it checked again"
            )
    return folder

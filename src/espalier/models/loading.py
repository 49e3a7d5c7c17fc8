"""Load a model and its tokenizer from a local folder: safetensors only, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from espalier.errors import UserError


def choose_device(device: str) -> torch.device:
    """Resolve `auto` to the GPU if there is one, else the CPU.

    Raises:
        UserError: If `cuda` is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("evaluation.device: got 'cuda', but no GPU is visible to this job; give 'cpu' or 'auto'")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def load_model(
    folder: str | Path,
    *,
    dtype: str,
    device: torch.device,
    trust_remote_code: bool = False,
    spread: Mapping[str, int] | None = None,
) -> PreTrainedModel:
    """Load weights for inference.

    Args:
        folder: Folder in the format of `save_pretrained`; single or sharded safetensors.
        dtype: `auto` (as stored), `float32`, `bfloat16` or `float16`.
        device: Where to put the weights.
        trust_remote_code: Whether code in the folder may run.
        spread: GPU of each module (`espalier.models.spread`), instead of one device.
    """
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        device_map=dict(spread) if spread else None,
    )
    return model.eval() if spread else model.to(device).eval()


def load_tokenizer(folder: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)

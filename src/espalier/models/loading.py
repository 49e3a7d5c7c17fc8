"""Load a model and its tokenizer from a local folder. Only safetensors are read; nothing is downloaded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from espalier.errors import UserError
from espalier.models.architecture import HEAD
from espalier.models.config_file import read_config
from espalier.models.wrappers import KEY_MAPPING, find_wrapper

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
_RANDOM = ("dropout", "alpha")
"""Settings of tokenizers (BPE, Unigram) that make their tokens random, as some trainings want."""
LONGEST_REASON = 200
"""Most characters of a message of transformers that an error quotes."""


def choose_device(device: str) -> torch.device:
    """Return the torch device for `auto`, `cpu` or `cuda`; `auto` means the GPU if there is one, otherwise the CPU.

    Raises:
        UserError: If `cuda` is requested and there is no GPU.
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
    device_map: Mapping[str, int] | None = None,
) -> PreTrainedModel:
    """Load weights for inference; every parameter comes from the folder. Of a wrapper, only the text model is loaded.

    Args:
        folder: Folder in the format of `save_pretrained`.
        dtype: `auto` (as stored), `float32`, `bfloat16` or `float16`.
        device: Device of the weights. Weights for a GPU are loaded directly from the files, so the host memory holds
            one tensor at a time. With `meta`, only the headers of the weight files are read.
        trust_remote_code: Whether code in the folder may run.
        device_map: GPU of each module (`espalier.models.from_manifest.device_map`), used instead of `device`.

    Raises:
        UserError: If the model is quantised, or a tensor of the decoder is missing, unexpected or of a wrong shape.
    """
    # Not at the top of the module: a job that needs only a tokenizer then loads no code of models.
    from transformers import AutoModelForCausalLM

    from espalier.models.folder import is_buffer, read_headers
    from espalier.models.text_config import load_config, use_plain_outputs

    headers = read_headers(folder)
    of_wrapper: dict[str, Any] = {}
    if find_wrapper(folder, read_config(folder)):
        of_wrapper = {"config": load_config(folder), "key_mapping": KEY_MAPPING}
    with _without_report() if of_wrapper else nullcontext():
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code and not of_wrapper,
            device_map=dict(device_map) if device_map else None if device.type == "cpu" else {"": device},
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `_check_tensors` raises an error that names them
            **of_wrapper,
        )
    if of_wrapper:
        found["unexpected_keys"] = set(found["unexpected_keys"]) & set(headers)  # others belong to other parts
        model._weight_conversions = None  # otherwise `save_pretrained` writes the names of the wrapper  # noqa: SLF001
    found["unexpected_keys"] = {name for name in found["unexpected_keys"] if not is_buffer(name)}
    _check_tensors(folder, model, found)
    use_plain_outputs(model.config)
    return model.eval()


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep out of the log the report of transformers that lists all tensors of the other parts of a wrapper."""
    loading = logging.getLogger("transformers.modeling_utils")

    def is_no_report(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    loading.addFilter(is_no_report)
    try:
        yield
    finally:
        loading.removeFilter(is_no_report)


def _check_tensors(folder: str | Path, model: PreTrainedModel, found: Mapping[str, Any]) -> None:
    """Raise an error if tensors are missing, unexpected or of a wrong shape.

    transformers only logs a warning: it fills missing tensors with random numbers and ignores unexpected tensors.
    """
    architecture = type(model).__name__
    again = "copy or stage the model again"
    if mismatched := sorted(found["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise UserError(
            f"{folder}: tensor {name} has shape {tuple(stored)}, but config.json asks for {tuple(expected)}; the two "
            f"do not belong together: {again}"
        )
    if missing := sorted(found["missing_keys"]):
        raise UserError(f"{folder}: {_name_tensors(missing)} missing from the weights of {architecture}; {again}")
    unexpected = sorted(found["unexpected_keys"])
    in_decoder = [name for name in unexpected if name.startswith((f"{model.base_model_prefix}.", f"{HEAD}."))]
    if in_decoder:
        raise UserError(
            f"{folder}: {_name_tensors(in_decoder)} in the weights, but {architecture} as config.json describes it "
            f"does not read it, so the model would compute something else; correct config.json, or {again}"
        )
    if unexpected:
        logger.warning("%s: tensors outside the decoder are ignored, such as %s", folder, unexpected[0])


def _name_tensors(names: Sequence[str]) -> str:
    """Name the first tensor and count the others."""
    more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return f"tensor {names[0]}{more}"


def load_tokenizer(
    folder: str | Path, *, trust_remote_code: bool = False, add_bos: bool | None = None
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder.

    Args:
        folder: The model folder.
        trust_remote_code: Whether code in the folder may run.
        add_bos: Whether texts begin with the BOS token. It overrides the post-processor of the tokenizer; None keeps
            the behaviour of the tokenizer. `add_bos_token` of lm-eval's `hf` backend has the same meaning.

    Raises:
        UserError: If transformers cannot load it, it cannot encode a text, or it encodes texts at random.
    """
    from transformers import AutoTokenizer

    bos = {} if add_bos is None else {"add_bos_token": add_bos}
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code, **bos
        )
        tokenizer("1")  # raises an error for some settings that are read only now
    except BaseException as error:  # a panic of the library tokenizers is no Exception
        if isinstance(error, MemoryError | KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        reason = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}..."
        raise UserError(
            f"{folder}: transformers cannot load its tokenizer ({reason}); save it there again with "
            "tokenizer.save_pretrained"
        ) from error
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if random := [name for name in _RANDOM if getattr(model, name, None)]:
        raise UserError(
            f"{folder}: its tokenizer draws the tokens of a text at random ({random[0]}: {getattr(model, random[0]):g} "
            "in tokenizer.json), so no result could be repeated; set it to null there"
        )
    return tokenizer


def special_tokens(add_bos: bool | None) -> dict[str, bool]:
    """Return the keyword argument for encoding a text with a tokenizer that was loaded with `add_bos`."""
    return {} if add_bos is None else {"add_special_tokens": add_bos}

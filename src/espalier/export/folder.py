"""Write the files of an exported folder except its model card: weights, config, code, tokenizer and plan."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from espalier.errors import UserError
from espalier.export.licence import copy_licences
from espalier.files import read_json, write_json
from espalier.models import pruned

_GENERATION, _TOKENIZER = "generation_config.json", "tokenizer_config.json"


def write_model(model: PreTrainedModel, sizes: Mapping[str, Any] | None, folder: Path) -> None:
    """Write the weights (sharded as transformers does by default), the config and the code that loads them.

    Args:
        model: Result of `espalier.export.build.export_model` or `stock_model`.
        sizes: Result of `espalier.export.build.layer_sizes`. It replaces the `per_layer_config` that transformers
            writes, which pads the layer numbers with zeros and leaves out empty `skip` lists. None for a stock model,
            whose folder gets no code.
        folder: Folder to write to.
    """
    model.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # save_pretrained writes files that only their owner can read
    if sizes is None:
        return
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"per_layer_config": dict(sizes)})
    for name in pruned.EXPORTED_FILES:
        shutil.copyfile(Path(pruned.__file__).with_name(name), folder / name)


def write_beside(
    base: Path, tokenizer: PreTrainedTokenizerBase, plan: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path
) -> None:
    """Write tokenizer, generation config, licence texts, and the plan with the checksums of the base model.

    The tokenizer is saved instead of copied, because saving records its class. transformers may derive the class of the
    base model's tokenizer from the `model_type`, and the export has another `model_type`.
    """
    tokenizer.save_pretrained(folder)
    if "wrapper" in manifest:
        written = read_json(folder / _TOKENIZER)
        written.pop("processor_class", None)  # it also reads images
        write_json(folder / _TOKENIZER, written)
    if (base / _GENERATION).is_file():
        shutil.copyfile(base / _GENERATION, folder / _GENERATION)
    copy_licences(base, folder)
    keys = ("model", "architecture", "commit", "n_params", "wrapper", "files")
    described = {key: manifest[key] for key in keys if key in manifest}
    write_json(folder / "plan.json", {**plan, "base_model": described})


@contextlib.contextmanager
def full_disk_named(place: Path) -> Iterator[None]:
    """Turn the errors of different libraries about a full disk into one message.

    Args:
        place: Path that the block writes to, for the message.

    Raises:
        UserError: If the block fails because the disk is full.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error):
            raise UserError(
                f"{place}: the disk is full; nothing of the checkpoint was kept. Make room and run again"
            ) from None
        raise


def tokens_of(tokenizer: PreTrainedTokenizerBase, texts: tuple[str, ...]) -> dict[str, list[int]]:
    """Return the token ids of each text."""
    return {text: list(tokenizer(text)["input_ids"]) for text in texts}

"""Write what an exported folder holds besides its card: weights, config, code, tokenizer, plan."""

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

_GENERATION = "generation_config.json"


def write_model(model: PreTrainedModel, sizes: Mapping[str, Any], folder: Path) -> None:
    """Write weights (sharded by transformers' default), config and the code that loads them.

    Args:
        model: As `espalier.export.build.export_model` makes it.
        sizes: What `per_layer_config` is to hold; transformers would pad its keys with zeros and leave out empty
            `skip` lists, which readers then have to allow for.
        folder: Where to write.
    """
    model.save_pretrained(folder)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"per_layer_config": dict(sizes)})
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # they are written for their owner alone
    for name in pruned.EXPORTED_FILES:
        shutil.copyfile(Path(pruned.__file__).with_name(name), folder / name)


def write_beside(
    base: Path, tokenizer: PreTrainedTokenizerBase, plan: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path
) -> None:
    """Write tokenizer, generation config, licence texts and the plan with the checksums of the base model.

    The tokenizer is saved, not copied: its class is then named, where the base model's may follow from a `model_type`
    that the export no longer has.
    """
    tokenizer.save_pretrained(folder)
    if (base / _GENERATION).is_file():
        shutil.copyfile(base / _GENERATION, folder / _GENERATION)
    copy_licences(base, folder)
    described = {key: manifest[key] for key in ("model", "architecture", "commit", "n_params", "files")}
    write_json(folder / "plan.json", {**plan, "base_model": described})


@contextlib.contextmanager
def full_disk_named(place: Path) -> Iterator[None]:
    """Say in one line that the disk is full, whichever library finds out.

    Raises:
        UserError: Instead of an error that means so.
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
    """Return the tokens of texts."""
    return {text: list(tokenizer(text)["input_ids"]) for text in texts}

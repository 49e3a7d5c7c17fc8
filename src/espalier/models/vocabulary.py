"""Check token ids against the model's embedding: a tokenizer may have more tokens than the embedding has rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from espalier.errors import UserError


def vocab_size_of(manifest: Mapping[str, Any]) -> int:
    """Return the number of rows of a model's embedding from its manifest.

    If config.json has no `vocab_size`, the default in the config class of transformers is returned.
    """
    size = manifest["config"].get("vocab_size")
    if size is None:
        from espalier.models.text_config import load_config

        size = load_config(manifest["folder"], trust_remote_code=manifest["trust_remote_code"]).vocab_size
    return int(size)


def check_token_ids(tokens: npt.NDArray[np.integer[Any]], vocab_size: int, what: str) -> None:
    """Check that every token id has a row in the embedding; on a GPU, a missing row would end the process.

    Args:
        tokens: Token ids, of any shape.
        vocab_size: Number of rows of the embedding.
        what: Source of the tokens, for the message.

    Raises:
        UserError: If a token id has no row. The message has such a token id and the number of rows.
    """
    smallest, largest = int(tokens.min(initial=0)), int(tokens.max(initial=0))
    if smallest < 0 or largest >= vocab_size:
        wrong = smallest if smallest < 0 else largest
        raise UserError(
            f"{what}: has token {wrong}, but the model's embedding has {vocab_size} rows (tokens 0 to "
            f"{vocab_size - 1}); tokenizer and weights do not belong together: copy or stage the model again"
        )

"""Do token ids fit the model's embedding? A tokenizer may have more tokens than the model has rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import AutoConfig

from espalier.errors import UserError


def vocab_size_of(manifest: Mapping[str, Any]) -> int:
    """Return the rows of a model's embedding, from its manifest, or from its folder where config.json leaves it out."""
    size = manifest["config"].get("vocab_size")
    if size is None:
        config = AutoConfig.from_pretrained(
            manifest["folder"], local_files_only=True, trust_remote_code=manifest["trust_remote_code"]
        )
        size = config.vocab_size
    return int(size)


def check_token_ids(tokens: npt.NDArray[np.integer[Any]], vocab_size: int, what: str) -> None:
    """Refuse tokens without a row of the embedding; on a GPU they would end the process.

    Args:
        tokens: Token ids of any shape.
        vocab_size: Rows of the embedding.
        what: What the tokens are of, for the message.

    Raises:
        UserError: With the token, its place and the number of rows.
    """
    largest = int(tokens.max(initial=0))
    if largest >= vocab_size:
        raise UserError(
            f"{what}: has token {largest}, but the model's embedding has {vocab_size} rows (tokens 0 to "
            f"{vocab_size - 1}); tokenizer and weights do not belong together: copy or stage the model again"
        )

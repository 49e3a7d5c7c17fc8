"""Build the tokenised requests of a model, or reuse those of a model with the same tokenizer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from espalier import versions
from espalier.errors import UserError
from espalier.evaluation.explain import load_checked_tasks
from espalier.evaluation.protocol import Protocol
from espalier.evaluation.recipe import make_recipe
from espalier.evaluation.requests import TokenisedRequests, read_requests
from espalier.evaluation.zeroshot import encode_tasks
from espalier.files import sha256_of, sha256_of_json, whole_file
from espalier.texts import read_texts


def build_or_reuse(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    protocol: Protocol,
    *,
    data_folder: Path,
    data_files: Sequence[str],
    texts: Sequence[str],
    scratch: Path,
) -> tuple[int, bool]:
    """Write the requests of one model.

    Requests depend on tokenizer, protocol and documents only, so they are kept in `.shared/` beside `path` under a
    hash of these three, and `path` is a hard link. Two jobs with one tokenizer wait for each other.

    Args:
        path: Where the requests go.
        tokenizer: Tokenizer of the model.
        protocol: Evaluation protocol.
        data_folder: Folder with `{task}/{split}.parquet`.
        data_files: The files that the tasks are read from.
        texts: Files of the perplexity texts, in the order of the protocol.
        scratch: Folder for temporary files.

    Returns:
        Number of requests of tasks, and whether they were there already.
    """
    recipe = make_recipe(
        version=versions.TOKENIZE_REQUESTS,
        protocol=protocol.of_requests(),
        tokenizer=tokenizer_fingerprint(tokenizer, with_chat_template=protocol.chat_template),
        files=[sha256_of(file) for file in (*data_files, *texts)],
    )
    shared = path.parent / ".shared" / f"{sha256_of_json(recipe)}.parquet"
    shared.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(shared.with_suffix(".lock")):
        reused = shared.exists()
        if not reused:
            build(tokenizer, protocol, recipe, data_folder=data_folder, texts=texts, scratch=scratch).write(shared)
        n_requests = len(read_requests(shared).requests)
    with whole_file(path) as temporary:
        os.link(shared, temporary)
    return n_requests, reused


def build(
    tokenizer: PreTrainedTokenizerBase,
    protocol: Protocol,
    recipe: dict[str, Any],
    *,
    data_folder: Path,
    texts: Sequence[str],
    scratch: Path,
) -> TokenisedRequests:
    """Tokenise tasks and perplexity texts.

    Raises:
        UserError: If a task or text cannot be read, a document cannot be scored, or the chat template is missing.
    """
    if protocol.chat_template and not tokenizer.chat_template:
        raise UserError(
            f"evaluation.chat_template: is true, but the tokenizer of {tokenizer.name_or_path} has no chat template"
        )
    tasks = load_checked_tasks(
        list(protocol.tasks), data_folder, scratch, num_fewshot=protocol.num_fewshot, limit=protocol.limit
    )
    return TokenisedRequests(
        requests=encode_tasks(tasks, tokenizer, protocol),
        texts={
            text.name: encode_text(tokenizer, text.joiner.join(read_texts(file, text.text_field)), protocol.add_bos)
            for text, file in zip(protocol.texts, texts, strict=True)
        },
        recipe=recipe,
    )


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, add_bos: bool | None) -> list[int]:
    """Tokenise a whole text; special tokens as the tokenizer adds them unless `add_bos` says otherwise."""
    special = {} if add_bos is None else {"add_special_tokens": add_bos}
    tokens: list[int] = tokenizer(text, verbose=False, **special)["input_ids"]
    return tokens


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase, *, with_chat_template: bool) -> str:
    """Hash all that decides what a tokenizer makes of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    template = tokenizer.chat_template if with_chat_template else None
    return sha256_of_json([type(tokenizer).__name__, content, special, template])

"""Tokenised requests of a model: built, or reused from a model with the same tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from espalier import versions
from espalier.errors import UserError
from espalier.evaluation.generation import check_answers_fit
from espalier.evaluation.load_checked import load_checked_tasks
from espalier.evaluation.protocol import Protocol
from espalier.evaluation.task_evaluation import check_not_all_skipped, encode_tasks
from espalier.evaluation.tasks import leaf_tasks, packaged_entries
from espalier.evaluation.tokenised_requests import TokenisedRequests, read_requests
from espalier.evaluation.too_long import without_too_long
from espalier.files import atomic_file, link_or_copy, locked, sha256_of, sha256_of_json
from espalier.models.loading import special_tokens
from espalier.models.vocabulary import check_token_ids
from espalier.recipe import make_recipe
from espalier.text_files import read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
OF_PROCESSOR = "chat_template.json"
"""Old file with a chat template. Processors read it, but tokenizers do not."""


class RequestsWritten(NamedTuple):
    """Summary of the requests that were written.

    Attributes:
        n_requests: Number of requests of tasks.
        reused: Whether they were reused from a model with the same tokenizer.
    """

    n_requests: int
    reused: bool


def build_or_reuse(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    protocol: Protocol,
    *,
    data_folder: Path,
    data_files: Sequence[str],
    texts: Sequence[str],
    scratch: Path,
    vocab_size: int,
    context: int | None = None,
) -> RequestsWritten:
    """Write the tokenised requests of a model, and build them unless a model with the same tokenizer has them.

    Requests depend only on the tokenizer, the protocol and the documents. They are stored in the folder `.shared` next
    to `path`, in a file named after a hash of these. `path` becomes a hard link to this file, or a copy. A lock makes
    jobs with the same tokenizer wait for each other.

    Args:
        path: File of tokenised requests to write.
        tokenizer: Tokenizer of the model.
        protocol: Evaluation protocol.
        data_folder: Folder with `{task}/{split}.parquet`, or with JSON files of the same names.
        data_files: Files that the tasks are read from.
        texts: Files of the perplexity texts, in the order of the protocol.
        scratch: Folder for temporary files.
        vocab_size: Rows of the model's embedding.
        context: The model's context in tokens, or None if its config does not give it.

    Raises:
        UserError: If a task or text cannot be read, or does not fit the model (`check_requests`), or if a task has no
            document, or no answer, that fits in its context.
    """
    recipe = make_recipe(
        version=versions.TOKENIZE_REQUESTS,
        protocol=protocol.of_requests(),
        tokenizer=tokenizer_fingerprint(tokenizer, with_chat_template=protocol.chat_template),
        files=[sha256_of(file) for file in (*data_files, *texts)],
    )
    shared = path.parent / ".shared" / f"{sha256_of_json(recipe)}.parquet"
    shared.parent.mkdir(parents=True, exist_ok=True)
    with locked(shared.with_suffix(".lock")):
        requests = _read_shared(shared)
        reused = requests is not None
        if requests is None:
            build(tokenizer, protocol, recipe, data_folder=data_folder, texts=texts, scratch=scratch).write(shared)
            requests = read_requests(shared)
    check_requests(requests, vocab_size=vocab_size, context=context, bos_token=tokenizer.bos_token_id)
    if context is not None:
        _check_context(protocol, requests, context)
    with atomic_file(path) as temporary:
        link_or_copy(shared, temporary)
    return RequestsWritten(len(requests.requests), reused)


def _read_shared(shared: Path) -> TokenisedRequests | None:
    """Read requests that are named after the hash of their recipe.

    A damaged file, or one with another recipe, is deleted, and the reason is logged.

    Returns:
        The requests, or None if there are none that can be used.
    """
    try:
        requests = read_requests(shared)
    except FileNotFoundError:
        return None
    except UserError:
        problem = "is damaged"
    else:
        if sha256_of_json(requests.recipe) == shared.stem:
            return requests
        problem = "has requests of another recipe"
    logger.warning("%s: %s; it is dropped and made again", shared, problem)
    shared.unlink(missing_ok=True)
    return None


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

    Args:
        tokenizer: Tokenizer of the model.
        protocol: Evaluation protocol.
        recipe: Recipe to store with the requests.
        data_folder: Folder with `{task}/{split}.parquet`, or with JSON files of the same names.
        texts: Files of the perplexity texts, in the order of the protocol.
        scratch: Folder for temporary files.

    Raises:
        UserError: If a task or text cannot be read, a document cannot be scored, the chat template is missing, or the
            tokenizer ends each text with a special token.
    """
    _check_ends_no_text(tokenizer, protocol.add_bos)
    if protocol.chat_template and not tokenizer.chat_template:
        of_processor = (Path(tokenizer.name_or_path) / OF_PROCESSOR).is_file()
        more = f"; put the template of its {OF_PROCESSOR}, which only processors read, into chat_template.jinja"
        raise UserError(
            f"evaluation.chat_template: is true, but the tokenizer of {tokenizer.name_or_path} has no chat template"
            f"{more if of_processor else ''}"
        )
    tasks = load_checked_tasks(
        list(protocol.tasks),
        data_folder,
        scratch,
        num_fewshot=protocol.num_fewshot,
        limit=protocol.limit,
        task_fewshots=protocol.task_fewshots,
    )
    requests, n_encoded_apart = encode_tasks(tasks, tokenizer, protocol)
    for task, count in sorted(n_encoded_apart.items()):
        logger.warning(
            "task %s: %d continuations are encoded apart from their contexts, since one token would span both",
            task,
            count,
        )
    return TokenisedRequests(
        requests=requests,
        texts={
            text.name: encode_text(tokenizer, text.joiner.join(read_texts(file, text.text_field)), protocol.add_bos)
            for text, file in zip(protocol.texts, texts, strict=True)
        },
        recipe=recipe,
        n_encoded_apart=n_encoded_apart,
    )


def _check_ends_no_text(tokenizer: PreTrainedTokenizerBase, add_bos: bool | None) -> None:
    """Check that a tokenizer adds no special token, such as EOS, to the end of a text.

    lm-eval takes as many tokens off the beginning of context and choice as the context alone has. With a token at the
    end of both, it would score that token in the place of the choice's first one.

    Raises:
        UserError: If it adds one.
    """
    last = encode_text(tokenizer, "1", add_bos)[-1:]
    if last and last != encode_text(tokenizer, "1", add_bos=False)[-1:] and last[0] in tokenizer.all_special_ids:
        token = tokenizer.convert_ids_to_tokens(last[0])
        raise UserError(
            f"{tokenizer.name_or_path}: its tokenizer ends each text with {token!r}, which would be scored in the "
            "place of the first token of a choice; set evaluation.add_bos to true or false, which leaves it out, or "
            "take it out of the post_processor in tokenizer.json"
        )


def check_requests(requests: TokenisedRequests, *, vocab_size: int, context: int | None, bos_token: int | None) -> None:
    """Check that requests fit a model: every token has a row of the embedding, and continuations fit in the context.

    Perplexity texts without a token besides BOS are refused, too. Whether a text of one token can be scored depends on
    `evaluation.perplexity.bos`, so this is checked when it is scored.

    Args:
        requests: Tokenised requests.
        vocab_size: Rows of the model's embedding.
        context: The model's context in tokens. None skips the check of continuations.
        bos_token: The BOS token, or None if the tokenizer has none.

    Raises:
        UserError: If a request or text does not fit. The message names the first one.
    """
    for key, request in requests.requests.items():
        check_token_ids(np.concatenate([request.context, request.continuation]), vocab_size, key.document)
        if context is not None and len(request.continuation) > context:
            raise UserError(
                f"{key.document}, choice {key.choice}: has {len(request.continuation)} tokens to score, but the "
                f"model's context is {context}; take the document out of the data"
            )
    for name, tokens in requests.texts.items():
        if set(np.asarray(tokens).tolist()) <= {bos_token}:
            raise UserError(f"evaluation.perplexity: text {name!r} has no tokens to score; give a longer text")
        check_token_ids(np.asarray(tokens), vocab_size, f"perplexity text {name}")


def _check_context(protocol: Protocol, requests: TokenisedRequests, context: int) -> None:
    """Check what evaluations would refuse, which run hours later.

    Raises:
        UserError: If all documents of a multiple-choice task would be skipped, or if an answer of a generative task may
            fill the context.
    """
    if protocol.too_long == "skip":
        tasks = dict.fromkeys(key.task for key in requests.requests)
        check_not_all_skipped(without_too_long(requests, context).requests, tasks, context)
    entries = packaged_entries(protocol.tasks)
    for task in leaf_tasks(protocol.tasks, entries):
        definition = entries[task].cfg or {}
        if definition.get("output_type") == "generate_until":
            check_answers_fit(task, definition.get("generation_kwargs"), context)


def check_tokenizer(
    path: Path, requests: TokenisedRequests, tokenizer: PreTrainedTokenizerBase, protocol: Protocol
) -> None:
    """Check that requests were tokenised with a model's own tokenizer: files of two models may have been exchanged.

    Other versions of the libraries may describe a tokenizer differently. Requests of other versions are not checked.

    Args:
        path: File of the requests, for the message.
        requests: Tokenised requests.
        tokenizer: Tokenizer of the model, as `load_tokenizer` returns it.
        protocol: Evaluation protocol.

    Raises:
        UserError: If the requests belong to another tokenizer.
    """
    made = make_recipe(tokenizer=tokenizer_fingerprint(tokenizer, with_chat_template=protocol.chat_template))
    if requests.recipe["versions"] != made["versions"]:
        return
    if requests.recipe["settings"]["tokenizer"] != made["settings"]["tokenizer"]:
        raise UserError(f"{path}: has requests of a model with another tokenizer; delete it and run again")


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, add_bos: bool | None) -> list[int]:
    """Tokenise a whole text. The tokenizer's default decides about special tokens unless `add_bos` is given."""
    tokens: list[int] = tokenizer(text, verbose=False, **special_tokens(add_bos))["input_ids"]
    return tokens


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase, *, with_chat_template: bool) -> str:
    """Return a hash of everything that determines the tokens of a text.

    Args:
        tokenizer: Tokenizer of the model.
        with_chat_template: Whether the chat template is part of the hash.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    template = tokenizer.chat_template if with_chat_template else None
    return sha256_of_json([type(tokenizer).__name__, content, special, template])

"""Tokenizers as in the three model families, trained on the sandbox text.

=========  =====================================================  ==========================
family     model                                                  begins a text with
=========  =====================================================  ==========================
llama      byte-level BPE                                         BOS, by a post-processor
mistral    BPE over Metaspace pieces, with byte fallback          BOS, by a post-processor
qwen2      byte-level BPE                                         nothing (it has no BOS)
=========  =====================================================  ==========================
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS, UNKNOWN = "<s>", "</s>", "<unk>"
USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def train_tokenizer(architecture: str, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a tokenizer of the same type as in the real models of the architecture.

    Args:
        architecture: `llama`, `qwen2` or `mistral`.
        texts: Training texts.
        vocab_size: Upper bound on the number of tokens, special tokens included.
    """
    if architecture == "mistral":
        return _train_metaspace(texts, vocab_size)
    return _train_byte_level(architecture, texts, vocab_size)


def wrap(tokenizer: Tokenizer, *, model_max_length: int, chat: bool) -> PreTrainedTokenizerFast:
    """Wrap a tokenizer for transformers. Only chat models get a chat template."""
    from transformers import PreTrainedTokenizerFast

    has_bos = tokenizer.token_to_id(BOS) is not None
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS if has_bos else None,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
    )
    if chat:
        wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def _train_byte_level(architecture: str, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    with_bos = architecture == "llama"
    tokenizer = Tokenizer(models.BPE())
    if architecture == "qwen2":
        _split_as_qwen2(tokenizer)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ([BOS] if with_bos else []) + [EOS, USER, ASSISTANT, END]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if with_bos:
        tokenizer.post_processor = _prepend_bos(tokenizer)
    return tokenizer


def _split_as_qwen2(tokenizer: Tokenizer) -> None:
    """Set the pre-tokenizer that transformers uses for every Qwen2 model, whatever its tokenizer.json says."""
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _train_metaspace(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.NFC()
    # As in SentencePiece, no token crosses punctuation or a line end.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Split(Regex(r"\n|[.,:?!]"), "isolated")]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    special = [UNKNOWN, BOS, EOS, USER, ASSISTANT, END, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = _prepend_bos(tokenizer)
    return _with_ordinary_bytes(tokenizer)


def _with_ordinary_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Turn the byte tokens into ordinary tokens.

    The trainer accepts them only as special tokens, and special tokens are left out of decoded text.
    """
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(content))


def _prepend_bos(tokenizer: Tokenizer) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )

"""Comparison of token ids: llama.cpp against the tokenizer."""

import inspect
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.qwen2 import tokenization_qwen2

from espalier.errors import UserError
from espalier.export.gguf import check, pretokenizers
from espalier.export.gguf.texts import TEXTS
from espalier.export.gguf.vocabulary import describe
from espalier.export.gguf.write import export_gguf
from tests.unit.conftest import random_model
from tests.unit.export.gguf.conftest import save_pruned

ENDS = {"bos_token": "<s>", "eos_token": "</s>"}
UNKNOWN = "<unk>"
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJ", "0123456789", " ", " ", " \t\n\r",
    ".,;:!?'\"()[]{}<>/\\|-_=+*&^%$#@~`",
    "\u00e9\u00fc\u00f1\u00df\u0153", "\u0430\u0431\u0432\u0413", "\u6f22\u5b57\u304b", "\u0661\u00b2\u00bd\u2167",
    "\U0001f600\u200d\u2764\ufe0f",
)  # fmt: skip


def random_texts(n: int, seed: int = 0) -> list[str]:
    """Return random strings that mix alphabets; none begins with a space."""
    draw = random.Random(seed)
    texts = []
    for _ in range(n):
        runs = ["".join(draw.choices(draw.choice(ALPHABETS), k=draw.randint(1, 4))) for _ in range(draw.randint(1, 12))]
        texts.append("x" + "".join(runs))
    return texts


def byte_level(split: pretokenizers.Split) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer with a split, on texts that cross its boundaries."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=split.ignore_merges))
    first: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if split.digits else []
    if split.pattern != pretokenizers.GPT2:
        first = [pre_tokenizers.Split(Regex(split.pattern), "isolated")]
    use_regex = split.pattern == pretokenizers.GPT2
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, last]) if first else last
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS * 20, *random_texts(3000, seed=1)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ENDS)


def sentencepiece(kind: str) -> PreTrainedTokenizerFast:
    """Train a SentencePiece tokenizer: `legacy` as in Llama 2, or with a `prepend_scheme` (Mistral v0.3: `first`)."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True))
    if kind == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, limit_alphabet=120, show_progress=False,
                                  max_token_length=12)  # fmt: skip
    lines = [line for text in [*TEXTS * 5, *random_texts(1000, seed=1)] for line in text.split("\n")]
    tokenizer.train_from_iterator(lines, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ENDS, unk_token=UNKNOWN)


def exported(tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a file of a random model with this tokenizer; the check at export compares ids."""
    model = random_model("llama", len(tokenizer) + 8, max_position_embeddings=256)  # rows without a token, too
    save_pruned(model, tokenizer, folder / "pruned")
    facts = export_gguf(folder / "pruned", folder / "model.gguf", gguf_type="F32", name="model")
    assert facts["llama_cpp"]["n_texts"] == len(TEXTS)
    assert facts["llama_cpp"]["n_of_them_with_other_ids"] == 0
    return folder / "model.gguf"


def ids_of(file: Path, texts: list[str]) -> list[list[int]]:
    """Return the token ids of texts from llama.cpp, which runs in a new process."""
    return check._ask(file, texts, [1, 2])[0]["ids"]


@pytest.mark.llama
@pytest.mark.parametrize("split", pretokenizers.NAMES, ids=pretokenizers.NAMES.values())
def test_byte_level_ids_are_equal(split: pretokenizers.Split, tmp_path: Path) -> None:
    tokenizer = byte_level(split)
    texts = [*random_texts(500), " leading", "  two", "", "\n"]
    assert ids_of(exported(tokenizer, tmp_path), texts) == [tokenizer(text).input_ids for text in texts]


@pytest.mark.llama
@pytest.mark.parametrize("kind", ["legacy", "first", "always", "never"])
def test_sentencepiece_ids_are_equal(kind: str, tmp_path: Path) -> None:
    tokenizer = sentencepiece(kind)
    texts = random_texts(500)
    file = exported(tokenizer, tmp_path)
    assert ids_of(file, texts) == [tokenizer(text).input_ids for text in texts]
    leading = [" leading", "  two"]
    same = ids_of(file, leading) == [tokenizer(text).input_ids for text in leading]
    known = describe(tokenizer, len(tokenizer)).differences
    assert same == (not any("begins with a space" in difference for difference in known))


@pytest.mark.llama
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral"])
def test_sandbox_ids_are_equal(
    architecture: str, tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast], pages: list[str]
) -> None:
    file = exported(tokenizers[architecture], tmp_path)
    raw = AutoConfig.for_model(architecture)  # selects the tokenizer class, as in the base model's folder
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "pruned", config=raw)
    texts = [*random_texts(500), *pages[:50]]
    assert ids_of(file, texts) == [tokenizer(text).input_ids for text in texts]
    # Ids differ exactly where the export says so.
    known = " ".join(describe(tokenizer, len(tokenizer)).differences)
    for text, difference in (
        ("cafe\u0301", "NFC"),
        (" leading", "begins with a space"),
        ("<|user|>\nWhere is it?<|end|>\n<|assistant|>\n", "after a special token"),
    ):
        assert (ids_of(file, [text]) != [tokenizer(text).input_ids]) == (difference in known), difference


@pytest.mark.llama
def test_special_tokens_that_strip(tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    content = json.loads(tokenizers["llama"].backend_tokenizer.to_str())
    content["added_tokens"][2]["lstrip"] = True
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), **ENDS)
    assert any("beside special tokens" in difference for difference in describe(tokenizer, 500).differences)
    text = f"before   {content['added_tokens'][2]['content']}"
    assert ids_of(exported(tokenizer, tmp_path), [text]) != [tokenizer(text).input_ids]


def test_expressions_are_those_of_transformers() -> None:
    """The expressions in `pretokenizers` are equal to those in transformers."""
    assert tokenization_qwen2.PRETOKENIZE_REGEX == pretokenizers.QWEN2
    pattern = inspect.signature(TikTokenConverter).parameters["pattern"].default
    assert pattern == pretokenizers.LLAMA3


def test_a_llama_tokenizer_of_transformers(tmp_path: Path) -> None:
    """`LlamaTokenizer`, the class that Llama 2 and Mistral use, with the vocabulary of a trained tokenizer."""
    model = json.loads(sentencepiece("first").backend_tokenizer.to_str())["model"]
    tokenizer = LlamaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    described = describe(tokenizer, len(tokenizer))
    assert (described.model, described.add_space_prefix) == ("llama", True)
    assert described.add_bos == (tokenizer("a").input_ids[0] == tokenizer.bos_token_id)
    assert [difference.split(":")[0] for difference in described.differences] == [
        "a text that begins with a space",
        "text after a special token",
    ]


@pytest.mark.llama
def test_a_wrong_split_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_level(pretokenizers.Split(pretokenizers.LLAMA3, digits=False, ignore_merges=True))
    monkeypatch.setattr("espalier.export.gguf.vocabulary.byte_level_name", lambda _, **__: "gpt-2")
    with pytest.raises(UserError, match="makes other ids"):
        exported(tokenizer, tmp_path)
    assert not (tmp_path / "model.gguf").exists()


def test_unknown_tokenizers_are_refused(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    odd = byte_level(pretokenizers.Split(r"\w+|\W", digits=False, ignore_merges=False))
    with pytest.raises(
        UserError, match=r"pre-tokenizer Split '\\\\w\+\|\\\\W' \+ ByteLevel .* is not one that llama.cpp"
    ):
        describe(odd, len(odd))
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, UNKNOWN)))
    with pytest.raises(UserError, match="a WordLevel tokenizer is not written"):
        describe(words, 2)
    with pytest.raises(UserError, match=r"ids up to 499, the embedding 400 rows"):
        describe(tokenizers["llama"], 400)


def test_merges_that_scores_cannot_express_are_refused() -> None:
    """The token abc has the merge a + bc, but ab is merged first, so only llama.cpp makes abc, from ab + c."""
    tokenizer = sentencepiece("first")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    for token in ("\u00a1", "\u00bf", "\u00a7", "\u00a1\u00bf", "\u00bf\u00a7", "\u00a1\u00bf\u00a7"):
        vocabulary.setdefault(token, len(vocabulary))
    content["model"]["merges"] += [["\u00a1", "\u00bf"], ["\u00bf", "\u00a7"], ["\u00a1", "\u00bf\u00a7"]]
    changed = Tokenizer.from_str(json.dumps(content))
    changed = PreTrainedTokenizerFast(tokenizer_object=changed, **ENDS)
    with pytest.raises(UserError, match="would merge 1 tokens that the tokenizer does not"):
        describe(changed, len(changed))

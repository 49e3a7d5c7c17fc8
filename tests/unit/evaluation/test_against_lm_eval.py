"""Log-likelihoods and choices against lm-eval's own `hf` backend, request by request.

`test_evaluation.py` compares whole evaluations of the seven tasks. This module uses text that is hard to tokenise.
"""

import itertools
import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.evaluation.language_model import EspalierLM, RequestEncoder
from espalier.models.surgery import prune
from tests.unit.conftest import random_model

LIMIT = 64
CONTEXTS = [
    "",  # replaced by the prefix token
    "Question: Which thing is red?\nAnswer:",
    "The crimson lantern is in the",
    "ends with spaces  ",  # lm-eval moves them to the continuation
    "Zürich, naïve façade — 東京の塔は赤い。🦊 Что",
    "a very long context that the model cannot read as a whole, " * 12,
    "She is called Ro",  # joined with `sa`, the tokens differ from those of the parts
]
CHOICES = [
    " yes",
    " no",
    "sa and she is tall",
    " größer yet 東京 🦊",
    "é",
    " the stone tower stands beside the quiet river and nobody has ever opened its crimson door",
    " " + "xyz " * 13,  # about 40 tokens
]


def instances(pairs: Sequence[tuple[str, str]]) -> list[Instance]:
    return [
        Instance("loglikelihood", {}, pair, i % len(CHOICES), ("piqa", i // len(CHOICES), 1))
        for i, pair in enumerate(pairs)
    ]


REQUESTS = instances(list(itertools.product(CONTEXTS, CHOICES)))


def reference(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch_size: int, **options: object) -> HFLM:
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device="cpu", max_length=LIMIT, **options)


def ours(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, add_bos: bool | None = None) -> EspalierLM:
    return EspalierLM(model, tokenizer, add_bos=add_bos, token_budget=256)


def assert_equal_choices(found: np.ndarray, expected: np.ndarray) -> None:
    """Check that log-likelihoods agree within 1e-3, and choices wherever the margin is larger than that."""
    np.testing.assert_allclose(found, expected, atol=1e-3)
    found, expected = found.reshape(-1, len(CHOICES)), expected.reshape(-1, len(CHOICES))
    margin = np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0]
    assert (margin > 1e-3).sum() >= len(expected) - 1
    assert (found.argmax(1) == expected.argmax(1))[margin > 1e-3].all()


@pytest.mark.parametrize("add_bos", [None, False])
@pytest.mark.parametrize("kind", ["whole", "pruned", "window"])
def test_difficult_text_scores_as_in_lm_evals_hf_backend(
    kind: str, add_bos: bool | None, architecture: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    changes: dict[str, object] = {"max_position_embeddings": LIMIT}
    if kind == "window":  # qwen2: in the second layer only; llama ignores the key
        changes |= {"sliding_window": 7}
        changes |= {"use_sliding_window": True, "max_window_layers": 1} if architecture == "qwen2" else {}
    model = random_model(architecture, len(tokenizer), **changes)
    if kind == "pruned":
        prune(model, [[], [1]], [[3, 7, 11, 30], []])
    expected = reference(model, tokenizer, 4, add_bos_token=add_bos).loglikelihood(REQUESTS, disable_tqdm=True)
    found = ours(model, tokenizer, add_bos).loglikelihood(REQUESTS)
    assert_equal_choices(np.array([f[0] for f in found]), np.array([e[0] for e in expected]))
    assert [f[1] for f in found] == [e[1] for e in expected]


def test_the_requests_cover_difficult_cases(tokenizer: PreTrainedTokenizerFast) -> None:
    """The cases above have the intended properties with every tokenizer."""
    encoder = RequestEncoder(tokenizer, None)
    encoder.loglikelihood(REQUESTS)
    encoded = list(encoder.encoded.values())
    sizes = {len(request.continuation) for request in encoded}
    assert min(sizes) <= 2
    assert 40 <= max(sizes) <= LIMIT
    assert any(len(request.context) + len(request.continuation) > LIMIT + 1 for request in encoded)
    assert len(encoded[0].context) == 1
    joined = encoded[CONTEXTS.index("She is called Ro") * len(CHOICES) + CHOICES.index("sa and she is tall")]
    parts = tokenizer.encode("sa and she is tall", add_special_tokens=False)
    assert list(joined.continuation) != parts


@pytest.mark.parametrize("length", [3, LIMIT, 5 * LIMIT + 3])
def test_whole_texts_score_as_in_lm_eval(length: int, architecture: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = random_model(architecture, len(tokenizer), max_position_embeddings=LIMIT)
    words = "The stone tower stands beside the quiet river. Zürich 東京 "
    text = tokenizer.decode(tokenizer.encode(words * 50, add_special_tokens=False)[:length])
    requests = [Instance("loglikelihood_rolling", {}, (t,), 0, ("wikitext", i, 1)) for i, t in enumerate((text, "red"))]
    expected = reference(model, tokenizer, 2).loglikelihood_rolling(requests, disable_tqdm=True)
    assert ours(model, tokenizer).loglikelihood_rolling(requests) == pytest.approx(expected, abs=1e-3)


def test_whole_texts_that_overflow_are_named(architecture: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = random_model(architecture, len(tokenizer))
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    request = Instance("loglikelihood_rolling", {}, ("red",), 0, ("wikitext", 3, 1))
    with pytest.raises(UserError, match=r"task wikitext, document 3: log-likelihood is nan"):
        ours(model, tokenizer).loglikelihood_rolling([request])


def test_bfloat16_is_no_worse_than_lm_evals_own(architecture: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """The error against float32 is at most that of lm-eval at two batch sizes.

    A direct comparison would be too strict. On a CPU, two batch sizes of a tiny model often agree to the bit. lm-eval
    computes its log-softmax in bfloat16, which causes a larger error than any order of packing.
    """
    model = random_model(architecture, len(tokenizer), torch.bfloat16, max_position_embeddings=LIMIT)

    def scores(lm: EspalierLM | HFLM) -> np.ndarray:
        return np.array([score for score, _ in lm.loglikelihood(REQUESTS, disable_tqdm=True)])

    packed = scores(ours(model, tokenizer))
    theirs = [scores(reference(model, tokenizer, size)) for size in (1, 8)]
    in_float32_softmax = scores(reference(model, tokenizer, 1, softmax_dtype="float32"))
    exact = scores(reference(model.float(), tokenizer, 1))
    assert np.abs(packed - exact).max() <= max(np.abs(their - exact).max() for their in theirs)
    assert np.abs(packed - in_float32_softmax).max() <= max(np.abs(their - exact).max() for their in theirs)


def test_documents_that_are_cut_are_counted(
    architecture: str, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    lm = ours(random_model(architecture, len(tokenizer), max_position_embeddings=LIMIT), tokenizer)
    with caplog.at_level(logging.WARNING, logger="espalier"):
        lm.loglikelihood(REQUESTS)
    n_cut = lm.n_truncated["piqa"]
    assert 1 <= n_cut < len(CONTEXTS)
    cut, where = f"{n_cut} of {len(CONTEXTS)} documents", f"the model's context of {LIMIT} tokens"
    assert caplog.messages == [f"task piqa: {cut} are longer than {where} and lose their beginning"]


def test_a_choice_without_tokens_or_with_too_many_is_named(
    architecture: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    lm = ours(random_model(architecture, len(tokenizer), max_position_embeddings=16), tokenizer)
    for choice, problem in (
        ("", r"its continuation '' has no tokens to score; correct the document or take it out"),
        (" xyz" * 40, r"has \d+ tokens to score; 1 to 16 \(the model's context\)"),
    ):
        with pytest.raises(UserError, match=rf"task piqa, document 0, choice 0: {problem}"):
            lm.loglikelihood(instances([("red", choice)]))

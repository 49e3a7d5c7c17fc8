"""Training text: seeded, packed into sequences, and separate from the calibration and evaluation texts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerFast

from espalier.calibration.sequences import SequenceSettings, document_order, drawn_documents
from espalier.config import load_study
from espalier.errors import UserError
from espalier.evaluation.tokenised_requests import TokenisedRequests
from espalier.files import write_json, write_parquet
from espalier.models.manifest import make_manifest
from espalier.recovery.training_sequences import (
    TrainingTextSettings,
    check_not_calibrated,
    check_not_evaluated,
    load_training_sequences,
    make_sequences,
    training_order,
)
from espalier.study.lookups import Study

A = SimpleNamespace(model="A")
STUDY = {
    "study": "s",
    "models": [{"name": "A", "family": "Llama", "kind": "base", "path": "models/a"}],
    "methods": [{"name": "taylor"}],
}
SETTINGS = TrainingTextSettings(text_field="text", seed=0, calibration_seeds=[0], seq_len=32, n_sequences=20)


def test_what_calibration_reaches_first_stays_out() -> None:
    """Of 10 documents, the half that comes last in the calibration order of the only seed is used."""
    order = document_order(10, 7)
    assert sorted(training_order(10, seed=0, calibration_seeds=[7])) == sorted(order[5:])


def test_with_several_seeds_the_earliest_place_counts() -> None:
    """With several calibration seeds, the rank of a document is its earliest place in any of the orders."""
    kept = training_order(100, seed=0, calibration_seeds=[0, 1, 2])
    places = [min(document_order(100, seed).index(number) for seed in (0, 1, 2)) for number in range(100)]
    assert len(kept) == 50
    assert min(places[number] for number in kept) >= max(
        place for number, place in enumerate(places) if number not in kept
    )


def test_orders_are_seeded_and_another_text_is_used_whole() -> None:
    """Equal seeds give equal orders; without calibration on the same text, all documents are used."""
    first, again, other = (training_order(40, seed=seed, calibration_seeds=[]) for seed in (0, 0, 1))
    assert first == again != other
    assert sorted(first) == sorted(other) == list(range(40))


def test_documents_are_joined_with_their_special_tokens_and_cut(
    pages: list[str], tokenizer: PreTrainedTokenizerFast
) -> None:
    sequences = make_sequences(pages, tokenizer, [3, 1, 2], n_sequences=4, seq_len=50)
    end = tokenizer.eos_token_id
    stream = [token for number in (3, 1, 2) for token in (*tokenizer(pages[number])["input_ids"], end)]
    assert sequences.tokens.ravel().tolist() == stream[:200]
    used = 1 + int(np.searchsorted(np.cumsum([len(tokenizer(pages[n])["input_ids"]) + 1 for n in (3, 1, 2)]), 200))
    assert sequences.documents == [3, 1, 2][:used]


def test_fewer_sequences_are_the_first_of_more(pages: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
    """A smaller number of sequences gives the first sequences of a larger number."""
    order = training_order(len(pages), seed=0, calibration_seeds=[0])
    many, few = (make_sequences(pages, tokenizer, order, n_sequences=n, seq_len=32).tokens for n in (40, 10))
    np.testing.assert_array_equal(many[:10], few)


def test_too_little_text_is_refused_with_numbers(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["The ball is red."] * 3
    n_tokens = 3 * (len(tokenizer(texts[0])["input_ids"]) + 1)
    with pytest.raises(
        UserError,
        match=rf"recovery: 1,000 sequences of 8 tokens asked for, but the 3 documents have {n_tokens} tokens, enough "
        rf"for {n_tokens // 8}; give a smaller recovery.n_sequences or seq_len, or a longer recovery.text",
    ):
        make_sequences(texts, tokenizer, [0, 1, 2], n_sequences=1000, seq_len=8)


@pytest.fixture
def text(tmp_path: Path, pages: list[str]) -> str:
    path = tmp_path / "text.parquet"
    write_parquet(path, pa.table({"text": pages}))
    return str(path)


def test_calibration_and_recovery_share_no_document(
    text: str, pages: list[str], model_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    manifest = make_manifest("A", model_folder, trust_remote_code=False, commit=None)
    sequences = load_training_sequences(manifest, text, SETTINGS)
    calibrations = [SequenceSettings("text", seed=0, seq_len=length, n_samples=100) for length in (16, 64)]
    check_not_calibrated(sequences, manifest, text, calibrations)
    for one in calibrations:
        assert set(sequences.documents).isdisjoint(
            drawn_documents(pages, tokenizer, n_samples=one.n_samples, seq_len=one.seq_len, seed=one.seed)
        )
    with pytest.raises(UserError, match=r"recovery: \d+ of its \d+ documents are in the calibration set of seed 0, 29"):
        check_not_calibrated(sequences, manifest, text, [SequenceSettings("text", seed=0, seq_len=16, n_samples=290)])


def test_calibration_sets_are_read_with_their_own_text_field(
    tmp_path: Path, pages: list[str], model_folder: Path, tokenizer: PreTrainedTokenizerFast,
    load_script: Callable[[str], ModuleType],
) -> None:  # fmt: skip
    """Only every third title is long enough for calibration, so that 90 samples need documents of the second half."""
    titles = [page if number % 3 == 0 else "A ball." for number, page in enumerate(pages)]
    text, manifest, requests = (tmp_path / name for name in ("text.parquet", "manifest.json", "requests.parquet"))
    write_parquet(text, pa.table({"text": pages, "title": titles}))
    write_json(manifest, make_manifest("A", model_folder, trust_remote_code=False, commit=None))
    TokenisedRequests({}, {"plain": tokenizer("The ball is red. " * 30)["input_ids"]}, {}).write(requests)
    calibration = {"dataset": str(text), "text_field": "title"}
    grid = {"methods": ["taylor"], "taylor_seq_len": [16], "taylor_num_samples": [90], "pruning_ratio": [0.2]}
    recovery = {"seq_len": 32, "n_sequences": 200, "text": {"dataset": str(text)}}
    study = Study(load_study(STUDY | {"calibration": calibration, "grid": grid, "recovery": recovery}), Path())
    shared = r"recovery: \d+ of its \d+ documents are in the calibration set of seed 0, 90 sequences of 16 tokens"
    with pytest.raises(UserError, match=shared):
        load_script("check_recovery").main(
            manifest=str(manifest), requests=str(requests), text=study.recovery.text,
            settings=study.recovery.text_settings(A), calibrations=study.recovery.calibrations(A),
            dtype="auto", checked=str(tmp_path / "checked.json"),
        )  # fmt: skip


@pytest.mark.parametrize(("dtype", "stored"), [("auto", "float16"), ("bfloat16", "float16"), ("auto", "bfloat16")])
def test_a_float16_model_is_refused_before_anything_is_pruned(
    dtype: str, stored: str, tmp_path: Path, load_script: Callable[[str], ModuleType]
) -> None:
    manifest = tmp_path / "manifest.json"
    write_json(manifest, {"model": "A", "config": {"dtype": stored}})
    error = (UserError, "recovery.dtype: got 'auto', but the weights of model 'A' are float16, in which small") if (
        (dtype, stored) == ("auto", "float16")
    ) else (KeyError, "folder")  # fmt: skip
    with pytest.raises(error[0], match=error[1]):
        load_script("check_recovery").main(
            manifest=str(manifest), requests="", text="",
            settings={"text_field": "text", "seed": 0, "calibration_seeds": [], "seq_len": 8, "n_sequences": 1},
            calibrations=[], dtype=dtype, checked="",
        )  # fmt: skip


def test_fifty_tokens_of_what_is_evaluated_are_refused(
    text: str, pages: list[str], model_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    manifest = make_manifest("A", model_folder, trust_remote_code=False, commit=None)
    sequences = load_training_sequences(manifest, text, replace(SETTINGS, seq_len=64))
    number = sequences.documents[1]
    apart = TokenisedRequests({}, {"plain": tokenizer("The ball is red. " * 30)["input_ids"]}, {})
    compared = check_not_evaluated(sequences, manifest, text, "text", apart)
    assert [one.documents_by_windows for one in compared] == [len(sequences.documents)] * 2
    evaluated = TokenisedRequests({}, {"plain": tokenizer(f"It is said: {pages[number]}")["input_ids"]}, {})
    with pytest.raises(
        UserError,
        match=rf"^recovery: document {number} \(the first is 0\) shares 50 consecutive tokens with one of the "
        "perplexity texts; fine-tune on text that is not evaluated on$",
    ):
        check_not_evaluated(sequences, manifest, text, "text", evaluated)

"""Generative tasks: answers equal those of lm-eval's `hf` backend to the character, and have results of their own."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.evaluation.build_requests import build_or_reuse
from espalier.evaluation.evaluator import evaluate_model
from espalier.evaluation.generation import Generator, Prompt, check_answers_fit
from espalier.evaluation.language_model import EspalierLM
from espalier.evaluation.protocol import Protocol
from espalier.evaluation.stopwatch import Stopwatch
from espalier.evaluation.task_evaluation import evaluate_generation
from espalier.evaluation.tasks import Tasks, generation_problem, load_tasks
from espalier.evaluation.tokenised_requests import read_requests
from espalier.models.surgery import mask, prune
from espalier.sandbox.corpora import make_task_documents
from espalier.sandbox.splits import splits
from espalier.sandbox.world import World
from espalier.tables import Generations
from tests.unit.conftest import random_model

LAYERS = 3
ALL, CUT = ((0, 1), tuple(range(48))), ((1,), tuple(range(9, 30)))
PLANS: dict[str, Any] = {
    "unpruned": None,
    "cut": [CUT, ALL, CUT],
    "no attention in the first layer": [((), ALL[1]), CUT, ALL],
    "no attention at all": [((), ALL[1])] * LAYERS,
    "empty blocks": [ALL, ((), ()), CUT],
    "without the first layer": [None, ALL, CUT],
}
"""Kept KV groups and MLP channels of each layer. None removes the layer."""
PROMPTS = ["The red box is", "A", "Where does the old man go? He goes to the", "In the garden " * 9, "1 + 1 ="]
SETTINGS: list[dict[str, Any]] = [
    {"until": ["e", " the"], "max_gen_toks": 24},
    {"until": [], "max_gen_toks": 12},
    {"until": "\n", "max_gen_toks": 30, "do_sample": False, "temperature": 0.0},
]


def pruned(model: PreTrainedModel, plan: Any, surgery: Any = prune) -> PreTrainedModel:
    if plan is not None:
        removed = [index for index, kept in enumerate(plan) if kept is None]
        groups, channels = zip(*(kept or ((), ()) for kept in plan), strict=True)
        surgery(model, groups, channels, removed)
    return model


def make_model(architecture: str, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> PreTrainedModel:
    """Return a random model whose end token is that of its tokenizer, as in published models."""
    model = random_model(architecture, len(tokenizer), num_hidden_layers=LAYERS, **changes)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 2  # so that some answers end with it
    return model


def instances(settings: list[dict[str, Any]] = SETTINGS) -> list[Instance]:
    pairs = [(prompt, one) for one in settings for prompt in PROMPTS]
    return [Instance("generate_until", {}, pair, 0, ("t", number, 1)) for number, pair in enumerate(pairs)]


def hf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch_size: int, add_bos: bool | None) -> list[str]:
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, add_bos_token=add_bos, max_length=64)
    found: list[str] = lm.generate_until(instances(), disable_tqdm=True)
    return found


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_answers_equal_lm_evals_to_the_character(
    plan: Any, tokenizer: PreTrainedTokenizerFast, architecture: str
) -> None:
    """With batches of one and of many, whose paddings differ. One prompt is longer than the context allows."""
    window = {"sliding_window": 16} if architecture == "mistral" else {}
    model = pruned(make_model(architecture, tokenizer, max_position_embeddings=64, **window), plan)
    expected = hf(model, tokenizer, 1, None)
    assert len(set(expected)) > 5
    for budget in (64, 150, 10_000):
        lm = EspalierLM(model, tokenizer, add_bos=None, token_budget=budget)
        assert lm.generate_until(instances()) == expected
        assert lm.n_truncated["t"] >= 1
    masked = pruned(make_model(architecture, tokenizer, max_position_embeddings=64, **window), plan, mask)
    assert hf(masked, tokenizer, 1, None) == expected


@pytest.mark.parametrize("architecture", ["llama"], indirect=True)
@pytest.mark.parametrize("add_bos", [True, False])
def test_answers_follow_the_rule_for_bos(add_bos: bool, tokenizer: PreTrainedTokenizerFast, architecture: str) -> None:
    model = make_model(architecture, tokenizer, max_position_embeddings=64)
    lm = EspalierLM(model, tokenizer, add_bos=add_bos, token_budget=10_000)
    assert lm.generate_until(instances()) == hf(model, tokenizer, 1, add_bos)


@pytest.mark.parametrize("architecture", ["llama"], indirect=True)
def test_an_answer_does_not_depend_on_its_batch(tokenizer: PreTrainedTokenizerFast, architecture: str) -> None:
    """Even if the model's config names no end token. lm-eval's answers then go on after it in larger batches."""
    model = make_model(architecture, tokenizer, max_position_embeddings=64)
    model.generation_config.eos_token_id = None
    expected = hf(model, tokenizer, 1, None)
    assert EspalierLM(model, tokenizer, add_bos=None, token_budget=10_000).generate_until(instances()) == expected
    assert hf(model, tokenizer, 5, None) != expected


@pytest.mark.parametrize("architecture", ["qwen2"], indirect=True)
def test_the_cache_gives_what_whole_sequences_give(tokenizer: PreTrainedTokenizerFast, architecture: str) -> None:
    model = pruned(make_model(architecture, tokenizer), PLANS["no attention in the first layer"])
    generator = Generator(model, tokenizer, add_bos=None, token_budget=1000)
    settings = {"until": [], "max_gen_toks": 10}
    found = generator.answer([Prompt(text, settings, len(tokenizer.encode(text)), 10) for text in PROMPTS])
    for text, answer in zip(PROMPTS, found, strict=True):
        tokens = tokenizer.encode(text)
        for _ in range(10):
            with torch.no_grad():
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
            if tokens[-1] == tokenizer.eos_token_id:
                break
        assert answer == tokenizer.decode(tokens[len(tokenizer.encode(text)) :], skip_special_tokens=True)


def test_less_memory_means_smaller_batches(
    tokenizer: PreTrainedTokenizerFast, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = EspalierLM(make_model(architecture, tokenizer), tokenizer, add_bos=None, token_budget=10_000)
    expected, largest = lm.generate_until(instances()), 2
    generate = lm.model.generate

    def limited(*args: Any, **kwargs: Any) -> Any:
        if len(kwargs["input_ids"]) > largest:
            raise torch.OutOfMemoryError
        return generate(*args, **kwargs)

    monkeypatch.setattr(lm.model, "generate", limited)
    assert lm.generate_until(instances()) == expected
    largest = 0
    with pytest.raises(UserError, match="is out of memory with a single prompt of"):
        lm.generate_until(instances())


# -- whole tasks ---------------------------------------------------------------------------------------------------

PROTOCOL = Protocol(
    tasks=("piqa", "gsm8k"), num_fewshot=0, chat_template=False, add_bos=None, limit=None, window=64, stride=32,
    texts=(), task_fewshots={"gsm8k": 2},
)  # fmt: skip


def sums(n: int, offset: int, long: int = -1) -> list[dict[str, str]]:
    return [
        {
            "question": ("Long. " * 200 if i == long else "") + f"What is {i + offset} and {i}?",
            "answer": f"It is a sum.\n#### {2 * i + offset}",
        }
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def data(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write documents of a multiple-choice and of a generative task."""
    folder = tmp_path_factory.mktemp("data")
    for task in ("piqa", "gsm8k"):
        (folder / task).mkdir()
    for split in splits("piqa"):
        rows = make_task_documents(world, "piqa", split, 12, 0)
        (folder / f"piqa/{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    for split, rows in {"train": sums(6, 40), "test": sums(7, 3, long=4)}.items():
        (folder / f"gsm8k/{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def load(data: Path, scratch: Path) -> Tasks:
    return load_tasks(["piqa", "gsm8k"], data, scratch, task_fewshots={"gsm8k": 2})


@pytest.mark.usefixtures("no_report_on_the_machine")
@pytest.mark.parametrize("changes", [{}, {"chat_template": True, "fewshot_as_multiturn": True}, {"limit": 3}])
def test_results_equal_lm_evals(
    changes: dict[str, Any], data: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, architecture: str
) -> None:
    """Two examples are shown in gsm8k, none in piqa."""
    protocol = replace(PROTOCOL, **changes)
    model = make_model(architecture, tokenizer, max_position_embeddings=700)
    generative = load(data, tmp_path / "ours").generative
    assert generative is not None
    lm = EspalierLM(model, tokenizer, add_bos=None, token_budget=9_000)
    ours = evaluate_generation(lm, generative, protocol)
    reference = load(data, tmp_path / "theirs").generative
    assert reference is not None
    theirs = simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=700),
        tasks=list(reference.leaves.values()), num_fewshot=2, limit=protocol.limit,
        apply_chat_template=protocol.chat_template, fewshot_as_multiturn=protocol.fewshot_as_multiturn,
        task_manager=TaskManager(include_defaults=False),
    )  # fmt: skip
    content = ours.tasks["gsm8k"]
    assert set(content["metrics"]) == {"exact_match,strict-match", "exact_match,flexible-extract"}
    for metric, value in content["metrics"].items():
        name, filtered = metric.split(",")
        assert value["value"] == theirs["results"]["gsm8k"][metric]
        assert value["stderr"] == theirs["results"]["gsm8k"][f"{name}_stderr,{filtered}"]
    assert (content["n_shot"], content["n_samples"]) == (2, protocol.limit or 7)
    assert content["n_truncated"] == (1 if protocol.limit is None else 0)
    answers = Generations.validate(ours.answers)
    expected = [(one["doc_id"], one["filter"], one["resps"][0][0]) for one in theirs["samples"]["gsm8k"]]
    assert list(answers[["doc_id", "filter", "answer"]].itertuples(index=False, name=None)) == expected


@pytest.mark.parametrize("architecture", ["llama"], indirect=True)
def test_generative_results_never_enter_the_mean(
    data: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, architecture: str
) -> None:
    model = make_model(architecture, tokenizer, max_position_embeddings=700)
    found = {}
    for too_long in ("truncate", "skip"):
        protocol = replace(PROTOCOL, too_long=too_long)
        build_or_reuse(
            tmp_path / "requests.parquet", tokenizer, protocol, data_folder=data, data_files=[], texts=[],
            scratch=tmp_path, vocab_size=len(tokenizer),
        )  # fmt: skip
        requests = read_requests(tmp_path / "requests.parquet")
        assert {key.task for key in requests.requests} == {"piqa"}
        found[too_long] = evaluate_model(
            model, tokenizer, tasks=load(data, tmp_path / too_long), requests=requests, protocol=protocol,
            token_budget=9_000, stopwatch=Stopwatch(),
        )  # fmt: skip
    metrics = found["truncate"].metrics
    assert metrics["acc_mean"]["n_tasks"] == 1
    assert metrics["acc_mean"]["value"] == metrics["tasks"]["piqa"]["metrics"]["acc_norm"]["value"]
    assert list(metrics["generation"]) == ["gsm8k"]
    cut, skipped = (found[one].metrics["generation"]["gsm8k"] for one in ("truncate", "skip"))
    assert (cut["n_truncated"], cut["n_samples"], "n_skipped" in cut) == (1, 7, False)
    assert (skipped["n_truncated"], skipped["n_samples"], skipped["n_skipped"]) == (0, 6, 1)
    # All other answers are the same, although lm-eval draws other examples if it runs on some of the documents.
    all_answers, some = found["truncate"].generations, found["skip"].generations
    assert all_answers is not None
    assert some is not None
    kept = all_answers[all_answers.doc_id != 4].reset_index(drop=True)
    assert kept.equals(some)


def test_answers_that_fill_the_context_are_refused(data: Path, tmp_path: Path) -> None:
    generative = load(data, tmp_path).generative
    assert generative is not None
    with pytest.raises(UserError, match="an answer of 'gsm8k' may have 256 tokens, but the model's context is 200"):
        check_answers_fit("gsm8k", generative.leaves["gsm8k"].get_config("generation_kwargs"), 200)


def test_answers_that_fill_the_context_are_refused_before_any_evaluation(
    data: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Also if the requests are those of another model, with a longer context."""
    files = sorted(map(str, data.glob("*/*.json")))

    def build(context: int) -> None:
        build_or_reuse(
            tmp_path / "A.parquet", tokenizer, PROTOCOL, data_folder=data, data_files=files, texts=[],
            scratch=tmp_path, vocab_size=len(tokenizer), context=context,
        )  # fmt: skip

    build(257)
    with pytest.raises(UserError, match="an answer of 'gsm8k' may have 256 tokens, but the model's context is 256, so"):
        build(256)


def test_only_generative_tasks_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gsm8k only generate text; the mean accuracy needs at least one"):
        load_tasks(["gsm8k"], data, tmp_path)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (None, "without a stop rule"),
        ({}, "without a stop rule"),
        ({"until": []}, "without a stop rule"),
        ({"until": [""]}, "without a stop rule"),
        ({"until": ["\n"], "do_sample": True}, "samples its answers"),
        ({"until": ["\n"], "temperature": 0.7}, "samples its answers"),
        ({"until": ["\n"], "num_beams": 4}, "searches with several beams"),
        ({"until": "\n"}, None),
        ({"until": [], "max_gen_toks": 9}, None),
        ({"max_new_tokens": 9, "do_sample": False, "temperature": 0.0}, None),
    ],
)
def test_the_stop_rule_and_greedy_answers(settings: dict[str, Any] | None, problem: str | None) -> None:
    found = generation_problem({"generation_kwargs": settings} if settings is not None else {})
    assert found is None if problem is None else problem in str(found)


def test_a_prompt_with_a_token_that_the_model_does_not_have_is_named(
    architecture: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    """On a GPU, it would end the process."""
    model = make_model(architecture, tokenizer)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["<|more|>"])
    generator = Generator(model, tokenizer, add_bos=None, token_budget=64)
    request = Instance("generate_until", {}, ("red <|more|>", SETTINGS[1]), 0, ("t", 3, 1))
    with pytest.raises(
        UserError, match=rf"task t, document 3: has token {len(tokenizer) - 1}, but the model's embedding"
    ):
        generator.prompt(request)

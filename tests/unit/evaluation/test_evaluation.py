"""Evaluation through lm-eval: it equals lm-eval's `hf` backend, tokenises requests once, and names bad input."""

import gc
import os
import shutil
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from pandera.errors import SchemaError, SchemaErrors
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from espalier.calibration.sequences import draw_sequences
from espalier.errors import UserError
from espalier.evaluation import evaluator
from espalier.evaluation.build_requests import build_or_reuse, check_tokenizer, encode_text, tokenizer_fingerprint
from espalier.evaluation.definitions import not_raced, packaged_tasks, racing_problems, unknown_task_problems
from espalier.evaluation.evaluator import DocumentAnswers, Evaluator, evaluate_model
from espalier.evaluation.language_model import EspalierLM, RequestEncoder
from espalier.evaluation.protocol import Protocol, TextProtocol, mean_accuracy, task_accuracy
from espalier.evaluation.racing import race_order
from espalier.evaluation.settings import EvaluatorSettings
from espalier.evaluation.stopwatch import Stopwatch
from espalier.evaluation.task_evaluation import evaluate_tasks
from espalier.evaluation.tasks import Tasks, fewshots_of, leaf_tasks, load_tasks, packaged_entries
from espalier.evaluation.tokenised_requests import RequestKey, TokenisedRequests, read_requests
from espalier.evaluation.too_long import without_too_long
from espalier.files import read_json, read_table, write_parquet, write_result, write_table
from espalier.models.from_manifest import load_from_manifest
from espalier.models.loading import load_tokenizer
from espalier.models.manifest import make_manifest
from espalier.planning.plan import Plan
from espalier.results.race_store import ExperimentAnswers, TaskFacts
from espalier.results.store import Store
from espalier.sandbox.corpora import make_lines, make_task_documents
from espalier.sandbox.splits import splits
from espalier.sandbox.tasks import TASKS
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from espalier.sandbox.world import World
from espalier.scoring.requests import Request, Score
from espalier.tables import Samples
from tests.unit.conftest import random_model
from tests.unit.scoring.reference import plain_score

N_DOCUMENTS = 12
"""Documents of each split of a task."""
ONE_ARCHITECTURE = pytest.mark.parametrize("architecture", ["llama"], indirect=True)
"""For tests of what depends on neither the tokenizer nor the layers."""
PROTOCOL = Protocol(
    tasks=tuple(TASKS),
    num_fewshot=0,
    chat_template=False,
    add_bos=None,
    limit=None,
    window=64,
    stride=32,
    texts=(TextProtocol("plain", "text", "\n\n"),),
)


@pytest.fixture(scope="module")
def data(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write task documents and a perplexity text; return their folder."""
    folder = tmp_path_factory.mktemp("data")
    for task in TASKS:
        for split in splits(task):
            documents = make_task_documents(world, task, split, N_DOCUMENTS, 0)
            write_parquet(folder / task / f"{split}.parquet", pa.Table.from_pylist(documents))
    write_parquet(folder / "text.parquet", pa.table({"text": make_lines(world, "plain", 30, 0)}))
    return folder


@pytest.fixture(scope="module")
def tasks(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    return load_tasks(list(TASKS), data, tmp_path_factory.mktemp("scratch"))


@pytest.fixture
def model(architecture: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return random_model(architecture, len(tokenizer))


def changed(**changes: object) -> Protocol:
    return Protocol.from_dict({**PROTOCOL.to_dict(), **changes})


def requests_for(
    tmp_path: Path, data: Path, tokenizer: PreTrainedTokenizerFast, protocol: Protocol = PROTOCOL
) -> TokenisedRequests:
    path = tmp_path / "requests" / "A.parquet"
    files = sorted(str(file) for file in data.glob("*/*.parquet"))
    texts = [str(data / "text.parquet")]
    build_or_reuse(
        path, tokenizer, protocol,
        data_folder=data, data_files=files, texts=texts, scratch=tmp_path, vocab_size=len(tokenizer),
    )  # fmt: skip
    return read_requests(path)


@pytest.mark.usefixtures("no_report_on_the_machine")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_fewshot": 2},
        {"chat_template": True},
        {"chat_template": True, "num_fewshot": 2, "fewshot_as_multiturn": True},
        {"chat_template": True, "num_fewshot": 2, "fewshot_as_multiturn": False},
        {"add_bos": False},
        {"add_bos": True},
        {"limit": 7},
    ],
    ids=["plain", "fewshot", "chat", "chat-turns", "chat-one-turn", "no-bos", "bos", "limit"],
)
def test_every_value_equals_lm_evals_hf_backend(
    changes: dict[str, object], tmp_path: Path, data: Path, tokenizer: PreTrainedTokenizerFast, architecture: str
) -> None:
    """Metrics are identical, log-likelihoods agree within 1e-4; some prompts exceed the context of 64 tokens."""
    protocol = changed(**changes)
    model = random_model(architecture, len(tokenizer), max_position_embeddings=64)
    tasks = load_tasks(list(TASKS), data, tmp_path / "ours")
    requests = requests_for(tmp_path, data, tokenizer, protocol)
    lm = EspalierLM(model, tokenizer, add_bos=protocol.add_bos, token_budget=512, requests=requests)
    ours = evaluate_tasks(lm, tasks, protocol)

    reference_lm = HFLM(
        pretrained=model, tokenizer=tokenizer, batch_size=4, add_bos_token=protocol.add_bos, device="cpu",
        max_length=64,
    )  # fmt: skip
    theirs = simple_evaluate(
        reference_lm,
        tasks=list(load_tasks(list(TASKS), data, tmp_path / "theirs").leaves.values()),
        num_fewshot=protocol.num_fewshot,
        limit=protocol.limit,
        apply_chat_template=protocol.chat_template,
        fewshot_as_multiturn=protocol.fewshot_as_multiturn,
        task_manager=TaskManager(include_defaults=False),  # tasks are loaded; reading all definitions is slow
    )
    for task in TASKS:
        reference = theirs["results"][task]
        for metric, value in ours.tasks[task]["metrics"].items():
            assert value["value"] == reference[f"{metric},none"], (task, metric)
            assert value["stderr"] == reference[f"{metric}_stderr,none"], (task, metric)
        assert 0 <= ours.tasks[task]["n_truncated"] <= ours.tasks[task]["n_samples"]
        assert ours.tasks[task]["version"] == theirs["versions"][task]
        assert ours.tasks[task]["n_samples"] == theirs["n-samples"][task]["effective"]
        expected = [resp[0] for sample in theirs["samples"][task] for resp in sample["filtered_resps"]]
        rows = ours.samples[ours.samples.task == task]
        np.testing.assert_allclose(rows.loglikelihood, expected, atol=1e-4)
    n_truncated = sum(result["n_truncated"] for result in ours.tasks.values())
    assert n_truncated > 0 or not protocol.num_fewshot


def test_stored_requests_give_the_same_results(
    tmp_path: Path, data: Path, tasks: Tasks, tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel
) -> None:
    requests = requests_for(tmp_path, data, tokenizer)
    results = [
        evaluate_tasks(EspalierLM(model, tokenizer, add_bos=None, token_budget=512, requests=given), tasks, PROTOCOL)
        for given in (requests, None)
    ]
    pd.testing.assert_frame_equal(results[0].samples, results[1].samples)


def test_metrics_are_recomputed_from_samples_to_the_last_digit(
    tmp_path: Path, data: Path, tasks: Tasks, tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel
) -> None:
    stopwatch = Stopwatch()
    result = evaluate_model(
        model, tokenizer, tasks=tasks, requests=requests_for(tmp_path, data, tokenizer), protocol=PROTOCOL,
        token_budget=512, stopwatch=stopwatch,
    )  # fmt: skip
    write_result(tmp_path / "m.json", result.metrics)
    write_table(tmp_path / "s.parquet", Samples.validate(result.samples))
    stored, table = read_json(tmp_path / "m.json"), read_table(tmp_path / "s.parquet")
    accuracies = []
    for task, content in stored["tasks"].items():
        rows = table[table.task == task].assign(
            acc=lambda r: r.loglikelihood, acc_norm=lambda r: r.loglikelihood / r.n_chars
        )
        for metric, value in content["metrics"].items():
            best = rows.loc[rows.groupby("doc_id")[metric].idxmax()]
            assert best.gold.mean() == value["value"], (task, metric)
        accuracies.append(content["metrics"].get("acc_norm", content["metrics"]["acc"])["value"])
    assert stored["acc_mean"] == {"value": sum(accuracies) / 7, "rule": "acc_norm_else_acc", "n_tasks": 7}
    assert (table.n_bytes > table.n_chars).any()  # some choices are not ASCII
    assert stored["protocol"] == PROTOCOL.to_dict()
    perplexity = stored["perplexity"]["plain"]
    assert perplexity["n_tokens"] > 100
    assert (perplexity["window"], perplexity["stride"]) == (64, 32)
    assert perplexity["begins_with_bos"] == (tokenizer.bos_token_id is not None)
    assert list(stopwatch.seconds) == ["load", "requests", "forward", "metrics"]
    assert [part for part, seconds in stopwatch.seconds.items() if seconds == 0] == ["load"]


PLANS = (None, Plan((2, 2), (48, 48), ((0,), (0, 1)), (tuple(range(13)), tuple(range(5, 48)))), None,
         Plan((2, 2), (48, 48), ((1,), ()), ((), tuple(range(48)))))  # fmt: skip
"""The unpruned model, before and after pruned ones that cut or remove each kind of block."""


@pytest.fixture
def make_evaluator(tmp_path: Path, data: Path, model_folder: Path) -> Callable[..., Evaluator]:
    requests_for(tmp_path, data, load_tokenizer(model_folder))
    manifest = make_manifest("A", str(model_folder), trust_remote_code=False, commit=None)
    settings = EvaluatorSettings(data, changed(limit=3).to_dict(), "float32", "cpu", 0, 512, 1)
    return lambda **changes: Evaluator(
        manifest, requests=tmp_path / "requests/A.parquet", settings=replace(settings, **changes)
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen2"], indirect=True)  # Qwen2 has biases
def test_weights_are_read_once_and_no_evaluation_changes_the_next(
    make_evaluator: Callable[[], Evaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    monkeypatch.setattr(
        evaluator, "load_from_manifest", lambda *args, **kwargs: loads.append(1) or load_from_manifest(*args, **kwargs)
    )
    shared = make_evaluator()
    found = [shared.evaluate(plan) for plan in PLANS]
    assert len(loads) == 1
    for plan, result in zip(PLANS, found, strict=True):
        alone = make_evaluator().evaluate(plan)
        pd.testing.assert_frame_equal(result.samples, alone.samples)
        assert {**result.metrics, "timing_s": None} == {**alone.metrics, "timing_s": None}
    assert found[1].metrics["n_params"] < found[0].metrics["n_params"]


@ONE_ARCHITECTURE
def test_layers_are_compiled_if_the_settings_say_so(
    make_evaluator: Callable[..., Evaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(evaluator, "compile_layers", compiled.append)
    plain = make_evaluator().evaluate(PLANS[1])
    assert compiled == []
    found = make_evaluator(compile_layers=True).evaluate(PLANS[1])
    assert [model.num_parameters() for model in compiled] == [found.metrics["n_params"]]
    pd.testing.assert_frame_equal(found.samples, plain.samples)


@ONE_ARCHITECTURE
def test_answers_in_parts_give_the_results_of_one_evaluation(make_evaluator: Callable[[], Evaluator]) -> None:
    plan, shared = PLANS[1], make_evaluator()
    assert plan is not None
    expected = shared.evaluate(plan)
    first = shared.answer(plan, [(task, 1) for task in TASKS], with_perplexity=False)
    assert {key[:2] for key in first.scores} == {(task, 1) for task in TASKS}
    assert first.perplexity == {}
    rest = shared.answer(plan, [(task, n) for task in TASKS for n in (0, 2)], with_perplexity=True)
    found = shared.summarise(replace(rest, scores={**rest.scores, **first.scores}))
    pd.testing.assert_frame_equal(found.samples, expected.samples, rtol=1e-5)
    left_out = {"timing_s": None, "tasks": None}
    assert {**found.metrics, **left_out} == {**expected.metrics, **left_out}
    for task, content in found.metrics["tasks"].items():
        for name, metric in content["metrics"].items():
            assert metric["value"] == expected.metrics["tasks"][task]["metrics"][name]["value"]
    # Some of the documents only: the metrics are those of lm-eval on them.
    some = shared.summarise(replace(rest, perplexity={}))
    rows = expected.samples[expected.samples["doc_id"] != 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(some.samples, rows, rtol=1e-5)
    for task, content in some.metrics["tasks"].items():
        assert (content["n_samples"], content["limit"]) == (2, 3)
        own = rows[rows["task"] == task]
        answered = own.loc[own.groupby("doc_id")["loglikelihood"].idxmax(), "gold"]
        assert content["metrics"]["acc"]["value"] == answered.mean()
    assert some.metrics["perplexity"] == {}
    # What a race knows of the tasks. The requests of this fixture have all documents.
    facts, blank = shared.race_facts(), shared.blank_samples()
    assert {task: (fact["n_documents"], fact["metric"]) for task, fact in facts.items()} == {
        task: (N_DOCUMENTS, "acc" if task in {"boolq", "winogrande"} else "acc_norm") for task in TASKS
    }
    assert facts["boolq"]["tokens"] > 5
    columns = ["loglikelihood", "is_greedy"]
    of_protocol = blank[blank["doc_id"] < 3].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_protocol.drop(columns=columns), expected.samples.drop(columns=columns))


SIZES = {"en": 40, "fr": 5, "jp": 12, "pt": 1, "ru": 7, "zh": 9}
"""Documents of each task of the group `xwinograd` in `grouped`."""


@pytest.fixture
def grouped(
    tmp_path: Path, data: Path, world: World, tokenizer: PreTrainedTokenizerFast, model_folder: Path
) -> Callable[[str, int], Evaluator]:
    """Return a function that makes the evaluator of PIQA and a group, for a context and what to do beyond it."""
    folder = tmp_path / "tasks"
    shutil.copytree(data / "piqa", folder / "piqa")
    documents = make_task_documents(world, "winogrande", "validation", 100, 0)
    for language, n in SIZES.items():
        write_parquet(folder / f"xwinograd_{language}" / "test.parquet", pa.Table.from_pylist(documents[:n]))
        documents = documents[n:]
    shutil.copy(data / "text.parquet", folder)

    def make(too_long: str, context: int) -> Evaluator:
        protocol = changed(tasks=["piqa", "xwinograd"], too_long=too_long)
        requests_for(tmp_path, folder, tokenizer, protocol)
        manifest = make_manifest("A", str(model_folder), trust_remote_code=False, commit=None)
        manifest["config"]["max_position_embeddings"] = context
        settings = EvaluatorSettings(folder, protocol.to_dict(), "float32", "cpu", 0, 512, 1)
        return Evaluator(manifest, requests=tmp_path / "requests/A.parquet", settings=settings)

    return make


@ONE_ARCHITECTURE
def test_a_race_answers_a_group_in_proportion(grouped: Callable[[str, int], Evaluator], tmp_path: Path) -> None:
    plan, shared = PLANS[1], grouped("truncate", 512)
    assert plan is not None
    facts = shared.race_facts()
    assert facts["xwinograd"]["strata"] == [[f"xwinograd_{language}", n] for language, n in SIZES.items()]
    store = Store(tmp_path / ".store")
    TaskFacts.write(store, "hash", facts, shared.blank_samples())
    read = TaskFacts.read(store, "hash")
    assert read is not None
    assert [(task.n_documents, task.min_documents) for task in read.race_tasks] == [
        (N_DOCUMENTS, N_DOCUMENTS), (74, 74),
    ]  # fmt: skip
    place = race_order(read.race_tasks[1], 0)[:40]
    some = [*read.documents["piqa"], *(read.documents["xwinograd"][number] for number in place)]
    found = shared.summarise(shared.answer(plan, some, with_perplexity=False))
    group = found.metrics["tasks"]["xwinograd"]
    assert group["n_samples"] == 40
    # lm-eval's accuracy of the group is the mean over its documents, as in the race.
    answers = ExperimentAnswers([found.samples[["task", "doc_id", "choice", "loglikelihood", "is_greedy"]]])
    right = read.correct("x", answers)
    assert {task: len(values) for task, values in right.items()} == {"piqa": N_DOCUMENTS, "xwinograd": 74}
    assert group["metrics"]["acc"]["value"] == right["xwinograd"][place].mean()
    assert found.metrics["tasks"]["piqa"]["metrics"]["acc_norm"]["value"] == right["piqa"].mean()
    of_tasks = found.samples[["task", "task_group"]].drop_duplicates().set_index("task")["task_group"]
    assert of_tasks.dropna().to_dict() == {f"xwinograd_{language}": "xwinograd" for language in SIZES}
    assert list(of_tasks[of_tasks.isna()].index) == ["piqa"]


@ONE_ARCHITECTURE
def test_only_truncated_documents_that_count_are_counted(
    grouped: Callable[[str, int], Evaluator], tmp_path: Path
) -> None:
    """A race that stops an experiment leaves out what it has answered besides, such as in a whole evaluation."""
    grouped("truncate", 512)
    requests = read_requests(tmp_path / "requests/A.parquet").requests
    limit = sorted(len(one.context) + len(one.continuation) for one in requests.values())[len(requests) // 2]
    shared = grouped("truncate", limit)
    too_long = {key[:2] for key, one in requests.items() if len(one.context) + len(one.continuation) > limit + 1}
    some = {key: Score(0.0, is_greedy=False) for key in requests if key.doc_id % 2 or key.task == "xwinograd_pt"}
    tasks = shared.summarise(DocumentAnswers(some, {}, 0, {})).metrics["tasks"]
    for name, found in tasks.items():
        counted = {key[:2] for key in some if key.task.startswith(name)} & too_long
        assert 0 < found["n_truncated"] == len(counted) < len({one for one in too_long if one[0].startswith(name)})


@ONE_ARCHITECTURE
def test_a_race_leaves_out_skipped_documents(grouped: Callable[[str, int], Evaluator], tmp_path: Path) -> None:
    whole = grouped("truncate", 512)
    requests = read_requests(tmp_path / "requests/A.parquet").requests
    lengths = sorted(len(one.context) + len(one.continuation) for key, one in requests.items() if key.task == "piqa")
    shared = grouped("skip", lengths[len(lengths) // 2])
    plan, facts = PLANS[1], shared.race_facts()
    assert plan is not None
    store = Store(tmp_path / ".store")
    TaskFacts.write(store, "hash", facts, shared.blank_samples())
    read = TaskFacts.read(store, "hash")
    assert read is not None
    documents = {document for of_task in read.documents.values() for document in of_task}
    assert documents == shared.documents < whole.documents
    assert {task: len(found) for task, found in read.documents.items()} == {
        task: fact["n_documents"] for task, fact in facts.items()
    }
    found = shared.summarise(shared.answer(plan, documents, with_perplexity=False))
    answers = ExperimentAnswers([found.samples[["task", "doc_id", "choice", "loglikelihood", "is_greedy"]]])
    for task, metric in (("piqa", "acc_norm"), ("xwinograd", "acc")):
        assert read.correct("x", answers)[task].mean() == found.metrics["tasks"][task]["metrics"][metric]["value"]


@pytest.fixture
def xwinograd(tmp_path: Path, world: World) -> Path:
    """Write two documents of each task of the group `xwinograd`; return the folder."""
    rows = pa.Table.from_pylist(make_task_documents(world, "winogrande", "validation", 2, 0))
    for language in SIZES:
        write_parquet(tmp_path / f"tasks/xwinograd_{language}/test.parquet", rows)
    return tmp_path / "tasks"


def test_a_task_beside_its_group_would_count_twice(xwinograd: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'xwinograd_fr' is also a part of 'xwinograd', so it would count twice; name"):
        load_tasks(["xwinograd", "xwinograd_fr"], xwinograd, tmp_path / "scratch")


def test_a_group_that_weights_its_tasks_equally_is_refused(
    xwinograd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = TaskManager.load

    def load_unweighted(self: TaskManager, names: list[str]) -> object:
        found = load(self, names)
        for metric in found["groups"]["xwinograd"].aggregate_metric_list:
            metric.weight_by_size = False
        return found

    monkeypatch.setattr(TaskManager, "load", load_unweighted)
    with pytest.raises(UserError, match=r"group 'xwinograd' gives its tasks the same weight, whatever their number of"):
        load_tasks(["xwinograd"], xwinograd, tmp_path / "scratch")


@ONE_ARCHITECTURE
def test_a_model_that_is_changed_in_place_shares_no_weights(make_evaluator: Callable[[], Evaluator]) -> None:
    """As merging an adapter does."""

    def change(model: PreTrainedModel, _: Plan) -> PreTrainedModel:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        return model

    shared = make_evaluator()
    before = shared.evaluate(None)
    changed_in_place = shared.evaluate(PLANS[1], change)
    assert not changed_in_place.samples.equals(shared.evaluate(PLANS[1]).samples)
    pd.testing.assert_frame_equal(shared.evaluate(None).samples, before.samples)


@ONE_ARCHITECTURE
def test_a_model_whose_modules_refer_to_each_other_is_freed_before_the_next(
    make_evaluator: Callable[[], Evaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a device would hold two pruned models at once."""
    alive: list[bool] = []
    first: list[weakref.ref[PreTrainedModel]] = []

    def refer_to_itself(model: PreTrainedModel, _: Plan) -> PreTrainedModel:
        model.cycle = [model]
        first.append(weakref.ref(model))
        return model

    shared = make_evaluator()
    shared.evaluate(None)
    gc.disable()
    try:
        shared.evaluate(PLANS[1], refer_to_itself)
        assert first[0]() is not None
        monkeypatch.setattr(evaluator, "prune", lambda *_: alive.append(first[0]() is not None))
        shared.evaluate(PLANS[1])
    finally:
        gc.enable()
    assert alive == [False]


@ONE_ARCHITECTURE
def test_widths_are_padded_for_the_evaluation_only(
    make_evaluator: Callable[..., Evaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = make_evaluator().evaluate(PLANS[1])
    widths = []

    def record_widths(model: PreTrainedModel) -> None:  # in place of the compiler, which runs after padding
        widths.append([layer.mlp.up_proj.out_features for layer in model.model.layers])

    monkeypatch.setattr(evaluator, "compile_layers", record_widths)
    one_document = [("piqa", 1)]
    make_evaluator(dtype="bfloat16", compile_layers=True).answer(PLANS[1], one_document, with_perplexity=False)
    monkeypatch.setattr(evaluator, "width_multiple", lambda *_: 8)
    padded = make_evaluator(compile_layers=True).evaluate(PLANS[1])
    assert widths == [[32, 64], [16, 48]]  # of 13 and 43 channels; multiples of 32 in bfloat16 on a CPU
    assert padded.metrics["n_params"] == expected.metrics["n_params"]
    np.testing.assert_allclose(padded.samples.loglikelihood, expected.samples.loglikelihood, rtol=1e-5)


def test_time_is_counted_for_one_part_only(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 1, 3, 6, 10, 15])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    stopwatch = Stopwatch()  # at 0
    with stopwatch.part("requests"):  # from 1
        stopwatch.switch("forward")  # from 3
        stopwatch.switch("metrics")  # from 6
    stopwatch.switch("load")  # from 15; the time from 10 to 15 is not counted
    assert stopwatch.seconds == {"load": 0, "requests": 2, "forward": 3, "metrics": 4}


@ONE_ARCHITECTURE
def test_requests_are_built_once_for_a_tokenizer_and_protocol(
    tmp_path: Path, data: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    def build(name: str, protocol: Protocol) -> bool:
        return build_or_reuse(
            tmp_path / f"{name}.parquet", tokenizer, protocol, data_folder=data,
            data_files=[str(data / "piqa/validation.parquet")], texts=[str(data / "text.parquet")],
            scratch=tmp_path / name, vocab_size=len(tokenizer),
        )[1]  # fmt: skip

    assert [build("A", PROTOCOL), build("B", changed(stride=16)), build("C", changed(add_bos=False))] == [
        False, True, False,
    ]  # fmt: skip
    assert (tmp_path / "A.parquet").samefile(tmp_path / "B.parquet")
    assert read_requests(tmp_path / "A.parquet").recipe["settings"]["protocol"] == PROTOCOL.of_requests()


@ONE_ARCHITECTURE
@pytest.mark.parametrize("damage", ["truncated", "emptied", "of another recipe"])
def test_damaged_shared_requests_are_made_again(
    damage: str, tmp_path: Path, data: Path, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    requests_for(tmp_path, data, tokenizer)
    (shared,) = (tmp_path / "requests/.shared").glob("*.parquet")
    content = shared.read_bytes()
    if damage == "of another recipe":
        requests_for(tmp_path, data, tokenizer, changed(add_bos=False))
        (other,) = set((tmp_path / "requests/.shared").glob("*.parquet")) - {shared}
        shutil.copyfile(other, shared)
    else:
        os.truncate(shared, len(content) // 2 if damage == "truncated" else 0)
    caplog.clear()
    requests_for(tmp_path, data, tokenizer)
    assert shared.read_bytes() == content
    assert (tmp_path / "requests/A.parquet").read_bytes() == content
    (line,) = [record.getMessage() for record in caplog.records if str(shared) in record.getMessage()]
    problem = "has requests of another recipe" if damage == "of another recipe" else "is damaged"
    assert line == f"{shared}: {problem}; it is dropped and made again"


@ONE_ARCHITECTURE
def test_requests_of_another_tokenizer_are_refused(
    tmp_path: Path, data: Path, tokenizer: PreTrainedTokenizerFast, pages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of two models may have been exchanged."""
    requests, path = requests_for(tmp_path, data, tokenizer), tmp_path / "requests/A.parquet"
    check_tokenizer(path, requests, tokenizer, PROTOCOL)
    other = wrap(train_tokenizer("llama", pages, 400), model_max_length=128, chat=True)
    with pytest.raises(UserError, match=rf"^{path}: has requests of a model with another tokenizer; delete it and run"):
        check_tokenizer(path, requests, other, PROTOCOL)
    monkeypatch.setattr("espalier.recipe._library_version", lambda _: "newer")
    check_tokenizer(path, requests, other, PROTOCOL)


def test_chat_template_counts_only_where_it_is_used(tokenizer: PreTrainedTokenizerFast) -> None:
    prints = {}
    for template in (tokenizer.chat_template, "{{ messages[0].content }}"):
        tokenizer.chat_template, before = template, tokenizer.chat_template
        prints[template] = [tokenizer_fingerprint(tokenizer, with_chat_template=used) for used in (False, True)]
        tokenizer.chat_template = before
    (plain_a, chat_a), (plain_b, chat_b) = prints.values()
    assert plain_a == plain_b
    assert chat_a != chat_b


@ONE_ARCHITECTURE
def test_chat_protocol_without_template_is_refused(tmp_path: Path, data: Path, model_folder: Path) -> None:
    from transformers import AutoTokenizer

    (model_folder / "chat_template.jinja").unlink()
    bare = AutoTokenizer.from_pretrained(model_folder)
    refused = r"^evaluation.chat_template: is true, but the tokenizer of .* has no chat template"
    with pytest.raises(UserError, match=rf"{refused}$"):
        requests_for(tmp_path, data, bare, changed(chat_template=True))
    (model_folder / "chat_template.json").write_text('{"chat_template": "{{ messages }}"}', encoding="utf-8")
    bare = AutoTokenizer.from_pretrained(model_folder)
    with pytest.raises(UserError, match=rf"{refused}; put the template of its chat_template.json, which only proc"):
        requests_for(tmp_path, data, bare, changed(chat_template=True))


def test_bos_of_a_text_follows_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    bos = tokenizer.bos_token_id
    assert (encode_text(tokenizer, "red", None)[0] == bos) == (bos is not None)
    assert encode_text(tokenizer, "red", add_bos=False)[0] != bos


def test_a_request_that_was_not_tokenised_is_named() -> None:
    with pytest.raises(
        UserError, match=r"task piqa, document 3: not among the tokenised requests; delete the requests"
    ):
        TokenisedRequests({}, {}, {}).find(RequestKey("piqa", 3, 0))


@ONE_ARCHITECTURE
def test_corrupt_requests_are_refused(tmp_path: Path, data: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    requests_for(tmp_path, data, tokenizer)
    path = tmp_path / "requests" / "A.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"A.parquet: is not a complete Parquet file .*; delete it and run again"):
        read_requests(path)
    write_parquet(path, pa.table({"text": ["x"]}))
    with pytest.raises(UserError, match=r"A.parquet: is not a file of tokenised requests"):
        read_requests(path)


@ONE_ARCHITECTURE
def test_overflow_names_the_document_and_writes_nothing(
    tmp_path: Path, data: Path, tasks: Tasks, tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel
) -> None:
    with torch.no_grad():
        model.lm_head.weight[:] = float("nan")
    lm = EspalierLM(model, tokenizer, add_bos=None, token_budget=512, requests=requests_for(tmp_path, data, tokenizer))
    with pytest.raises(
        UserError, match=r"task boolq, document 0, choice 0: log-likelihood is nan; .* Nothing was written"
    ):
        evaluate_tasks(lm, tasks, PROTOCOL)


def test_missing_documents_are_named(tmp_path: Path, data: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "piqa")
    with pytest.raises(UserError, match=r"evaluation.data: no documents of task 'piqa' in .*; it needs one .parquet"):
        load_tasks(["boolq", "piqa"], tmp_path / "data", tmp_path / "scratch")


def test_a_missing_split_is_named(tmp_path: Path, data: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data/piqa/train.parquet").unlink()
    with pytest.raises(
        UserError, match=r"task 'piqa' needs the split 'train', but .* has only validation; add train.parq"
    ):
        load_tasks(["piqa"], tmp_path / "data", tmp_path / "scratch")


def test_documents_may_be_json(tmp_path: Path, data: Path) -> None:
    (tmp_path / "piqa").mkdir()
    for split in ("train", "validation"):
        documents = read_table(data / f"piqa/{split}.parquet")
        documents.to_json(tmp_path / f"piqa/{split}.jsonl", orient="records", lines=True)
    task = load_tasks(["piqa"], tmp_path, tmp_path / "scratch").leaves["piqa"]
    assert isinstance(task, Task)
    assert [doc["goal"] for doc in task.validation_docs()] == list(documents.goal)


def test_only_multiple_choice_and_generative_tasks_are_evaluated() -> None:
    assert leaf_tasks(["gsm8k"], packaged_entries(["gsm8k"])) == ["gsm8k"]
    entries = {"wiki": Entry("wiki", Kind.TASK, None, {"output_type": "loglikelihood_rolling"})}
    problem = r"'wiki' is a loglikelihood_rolling task; only multiple_choice and generate_until tasks can be evaluated"
    with pytest.raises(UserError, match=problem):
        leaf_tasks(["wiki"], entries)


CHOICE, WRITTEN = {"output_type": "multiple_choice"}, {"output_type": "generate_until"}
STOPPED = {**WRITTEN, "generation_kwargs": {"until": ["\n"]}}
DEFINITIONS = {
    "a": Entry("a", Kind.TASK, None, CHOICE),
    "b": Entry("b", Kind.TASK, None, CHOICE),
    "g": Entry("g", Kind.TASK, None, STOPPED),
    "endless": Entry("endless", Kind.TASK, None, WRITTEN),
    "both": Entry("both", Kind.GROUP, None, {"task": ["a", "b"]}),
    "mixed": Entry("mixed", Kind.GROUP, None, {"task": ["a", {"task": "g"}]}),
    "tag": Entry("tag", Kind.TAG, None, tags={"b", "g"}),
}


def test_bad_tasks_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"tasks of group 'mixed' differ in their output type: 'a' is multiple_choice,"):
        leaf_tasks(["mixed"], DEFINITIONS)
    with pytest.raises(UserError, match=r"'endless' generates text without a stop rule: .*Leave it out$"):
        leaf_tasks(["endless"], DEFINITIONS)
    assert leaf_tasks(["tag", "both"], DEFINITIONS) == ["b", "g", "a"]  # a tag is no group: its tasks are reported


def test_solved_examples_of_groups_and_tasks() -> None:
    assert fewshots_of(["both", "g"], DEFINITIONS, {"both": 5}) == {"a": 5, "b": 5}
    assert fewshots_of(["both", "tag"], DEFINITIONS, {}) == {}
    with pytest.raises(UserError, match=r"'both' and 'tag' both contain 'b', but with different numbers of solved"):
        fewshots_of(["both", "tag"], DEFINITIONS, {"both": 5})


def test_documents_that_are_too_long_are_left_out_as_a_whole() -> None:
    """With a context of 4: the second choice of document 1 has 3 + 2 tokens, of which the last is no input."""
    sizes = {("a", 0): [(2, 1), (2, 2)], ("a", 1): [(4, 1), (4, 2)], ("b", 0): [(4, 1)], ("b", 1): [(5, 1)]}
    requests = {
        RequestKey(task, number, choice): Request([1] * n, [2] * m)
        for (task, number), choices in sizes.items()
        for choice, (n, m) in enumerate(choices)
    }
    found = without_too_long(TokenisedRequests(requests, {}, {}), 4)
    assert {key[:2] for key in found.requests} == {("a", 0), ("b", 0)}
    assert found.n_skipped == {"a": 1, "b": 1}


@ONE_ARCHITECTURE
def test_a_task_of_which_nothing_fits_is_refused_before_any_evaluation(
    tmp_path: Path, data: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    requests = requests_for(tmp_path, data, tokenizer).requests
    lengths = {task: min(_longest(requests, task)) for task in TASKS}
    longest = max(lengths, key=lambda task: lengths[task])
    files = sorted(str(file) for file in data.glob("*/*.parquet"))

    def build(context: int) -> None:
        build_or_reuse(
            tmp_path / "B.parquet", tokenizer, changed(too_long="skip"), data_folder=data, data_files=files,
            texts=[str(data / "text.parquet")], scratch=tmp_path, vocab_size=len(tokenizer), context=context,
        )  # fmt: skip

    build(lengths[longest])  # `is_truncated` allows one token more
    with pytest.raises(UserError, match=rf"too_long: skip leaves no document of task '{longest}', because all of them"):
        build(lengths[longest] - 2)


def _longest(requests: Mapping[RequestKey, Request], task: str) -> list[int]:
    """Return the tokens of the longest request of each document of a task."""
    found: dict[int, int] = {}
    for key, request in requests.items():
        if key.task == task:
            length = len(request.context) + len(request.continuation)
            found[key.doc_id] = max(length, found.get(key.doc_id, 0))
    return list(found.values())


@ONE_ARCHITECTURE
def test_skipped_documents_change_no_other_score(
    tmp_path: Path, data: Path, tasks: Tasks, tokenizer: PreTrainedTokenizerFast, architecture: str
) -> None:
    model = random_model(architecture, len(tokenizer), max_position_embeddings=32)
    all_requests = requests_for(tmp_path, data, tokenizer)
    found = {}
    for too_long, requests in (("truncate", all_requests), ("skip", without_too_long(all_requests, 32))):
        found[too_long] = evaluate_model(
            model, tokenizer, tasks=tasks, requests=requests, protocol=replace(PROTOCOL, too_long=too_long, texts=()),
            token_budget=512, stopwatch=Stopwatch(),
        )  # fmt: skip
    cut, skipped = found["truncate"].metrics["tasks"], found["skip"].metrics["tasks"]
    assert sum(one["n_skipped"] for one in skipped.values()) > 0
    for task in TASKS:
        assert skipped[task]["n_skipped"] == cut[task]["n_truncated"]
        assert skipped[task]["n_samples"] == cut[task]["n_samples"] - cut[task]["n_truncated"]
        assert skipped[task]["n_truncated"] == 0
        rows = found["skip"].samples.query("task == @task")
        assert rows.groupby("doc_id").ngroups == skipped[task]["n_samples"]
        answers = rows.loc[rows.groupby("doc_id")["loglikelihood"].idxmax(), "gold"]
        assert skipped[task]["metrics"]["acc"]["value"] == answers.mean()
    by = ["task", "doc_id", "choice"]
    merged = found["skip"].samples.merge(found["truncate"].samples, on=by, validate="one_to_one")
    np.testing.assert_allclose(merged.loglikelihood_x, merged.loglikelihood_y, atol=1e-4)
    with pytest.raises(
        UserError, match=r"too_long: skip leaves no document of task '\w+', because all of them are longer"
    ):
        evaluate_model(
            model, tokenizer, tasks=tasks, requests=without_too_long(all_requests, 3),
            protocol=replace(PROTOCOL, too_long="skip"), token_budget=512, stopwatch=Stopwatch(),
        )  # fmt: skip


def test_groups_and_tags_expand_to_their_tasks() -> None:
    entries = packaged_entries(["ai2_arc", "mmlu"])
    assert leaf_tasks(["ai2_arc"], entries) == ["arc_challenge", "arc_easy"]
    assert len(leaf_tasks(["mmlu"], entries)) == 57  # a group of four groups; the subjects of Hendrycks et al. (2021)


@pytest.mark.parametrize(("group", "n_tasks"), [("mmlu_continuation", 57), ("mmlusr", 57), ("tmlu", 31)])
def test_groups_within_the_list_of_a_group_expand_to_their_tasks(group: str, n_tasks: int) -> None:
    """The numbers are those of the YAML files of tasks in lm-eval's folder. The inner groups have lm-eval's names."""
    entries = packaged_entries([group])
    leaves = leaf_tasks([group], entries)
    assert len(leaves) == len(set(leaves)) == n_tasks
    inner = {name for name in entries if name.startswith(f"{group}::")}
    assert {f"{group}::{child['group']}" for child in (entries[group].cfg or {})["task"]} == inner


def test_a_task_without_a_definition_of_its_own_is_refused() -> None:
    names = ["flan_held_in"]
    with pytest.raises(
        UserError, match=r"group 'flan_held_in::anli_r1_flan' contains 'anli_r1_prompt-0', which has no d"
    ):
        leaf_tasks(names, packaged_entries(names))


@ONE_ARCHITECTURE
@pytest.mark.long
@pytest.mark.usefixtures("no_report_on_the_machine")
def test_a_group_of_groups_is_evaluated_as_by_lm_eval(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel
) -> None:
    names = ["mmlu_continuation"]
    for number, leaf in enumerate(leaf_tasks(names, packaged_entries(names))):
        rows = [
            {"question": f"Which is {number}?", "choices": ["red", "a blue one", "1", "the town"], "answer": i % 4}
            for i in range(1 + number % 3)
        ]
        for split in ("test", "dev"):
            write_parquet(tmp_path / f"data/{leaf}/{split}.parquet", pa.Table.from_pylist(rows))
    tasks = load_tasks(names, tmp_path / "data", tmp_path / "scratch")
    assert tasks.reported == ("mmlu_continuation",)
    lm = EspalierLM(model, tokenizer, add_bos=None, token_budget=512)
    found = evaluate_tasks(lm, tasks, changed(tasks=tuple(names))).tasks["mmlu_continuation"]
    reference = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, device="cpu")
    manager = TaskManager(include_path=str(tmp_path / "scratch/tasks"))
    expected = simple_evaluate(reference, tasks=names, task_manager=manager, num_fewshot=0, bootstrap_iters=0)[
        "results"
    ]
    assert found["metrics"]["acc"]["value"] == expected["mmlu_continuation"]["acc,none"]
    assert found["n_samples"] == sum(1 + number % 3 for number in range(57))


@ONE_ARCHITECTURE
@pytest.mark.parametrize("names", [("ai2_arc",), ("arc_easy", "ai2_arc")], ids=["tag", "tag-and-member"])
def test_a_tag_is_evaluated_like_its_tasks(
    names: tuple[str, ...], data: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel
) -> None:
    """Results have the names and numbers of the tasks; a task that is listed twice is evaluated once."""
    found = []
    for number, wanted in enumerate([names, ("arc_challenge", "arc_easy")]):
        protocol = changed(tasks=wanted)
        tasks = load_tasks(wanted, data, tmp_path / str(number))
        lm = EspalierLM(model, tokenizer, add_bos=None, token_budget=512)
        found.append(evaluate_tasks(lm, tasks, protocol))
    assert set(found[0].tasks) == {"arc_easy", "arc_challenge"}
    for task in found[1].tasks:
        assert found[0].tasks[task] == found[1].tasks[task]
    by = ["task", "doc_id", "choice"]
    first, second = (result.samples.sort_values(by, ignore_index=True) for result in found)
    pd.testing.assert_frame_equal(first, second)


def test_a_task_without_accuracy_is_refused_before_it_is_evaluated(data: Path, tmp_path: Path) -> None:
    # lm-eval scores it by Matthews' correlation alone.
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"cola/{split}.parquet", pa.table({"sentence": ["a", "b"], "label": [0, 1]}))
    with pytest.raises(
        UserError, match=r"evaluation.tasks: 'cola' has only the metrics mcc; the mean over tasks needs"
    ):
        load_tasks(["cola"], tmp_path, tmp_path / "scratch")


@ONE_ARCHITECTURE
def test_a_token_without_a_row_of_the_embedding_is_named(
    tmp_path: Path, data: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """This holds also if another model with the same tokenizer and a larger embedding built the requests."""
    requests_for(tmp_path, data, tokenizer)
    largest = max(
        int(max([*r.context, *r.continuation]))
        for r in read_requests(tmp_path / "requests/A.parquet").requests.values()
    )
    files = sorted(str(file) for file in data.glob("*/*.parquet"))
    with pytest.raises(
        UserError,
        match=rf"^task \w+, document \d+: has token \d+, but the model's embedding has {largest} rows "
        rf"\(tokens 0 to {largest - 1}\); tokenizer and weights do not belong together",
    ):
        build_or_reuse(
            tmp_path / "requests/B.parquet", tokenizer, PROTOCOL, data_folder=data, data_files=files,
            texts=[str(data / "text.parquet")], scratch=tmp_path, vocab_size=largest,
        )  # fmt: skip
    assert not (tmp_path / "requests/B.parquet").exists()


@pytest.mark.parametrize("add_bos", [None, True, False])
def test_a_text_without_tokens_is_refused_before_any_model_is_loaded(
    without_bos_rule: Path, tmp_path: Path, data: Path, add_bos: bool | None
) -> None:
    """No window could be scored, whatever `evaluation.perplexity` says. One token can be, after BOS."""
    tokenizer = load_tokenizer(without_bos_rule, add_bos=add_bos)
    protocol = changed(tasks=["piqa"], add_bos=add_bos)

    def build(text: str) -> None:
        (tmp_path / "text.txt").write_text(f"{text}\n")
        build_or_reuse(
            tmp_path / "A.parquet", tokenizer, protocol, data_folder=data,
            data_files=[str(data / "piqa/validation.parquet")], texts=[str(tmp_path / "text.txt")],
            scratch=tmp_path / "scratch", vocab_size=len(tokenizer),
        )  # fmt: skip

    with pytest.raises(
        UserError, match=r"^evaluation\.perplexity: text 'plain' has no tokens to score; give a longer text$"
    ):
        build("")
    build("a")


SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture
def without_bos_rule(tmp_path: Path) -> Path:
    """Save a byte-level BPE tokenizer, trained on `hello world`, whose post-processor adds no BOS token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    bpe.train_from_iterator(["hello world"] * 10, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, **SPECIAL)
    fast.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.mark.parametrize("add_bos", [None, True, False])
def test_bos_is_added_as_lm_eval_adds_it(without_bos_rule: Path, add_bos: bool | None) -> None:
    """Texts of tasks, perplexity and calibration get BOS as lm-eval's `hf` adds it with `add_bos_token`."""
    model = random_model("llama", 400)
    reference = HFLM(
        pretrained=model, tokenizer=str(without_bos_rule), batch_size=1, add_bos_token=add_bos, device="cpu"
    )
    tokenizer = load_tokenizer(without_bos_rule, add_bos=add_bos)
    lm = EspalierLM(model, tokenizer, add_bos=add_bos, token_budget=64)
    hello = tokenizer.convert_tokens_to_ids(["hello", "Ġworld"])
    expected = [*([0] if add_bos else []), *hello]
    assert lm.tok_encode("hello world") == reference.tok_encode("hello world") == expected
    assert encode_text(tokenizer, "hello world", add_bos) == expected
    drawn = draw_sequences(["hello world"], tokenizer, n_samples=1, seq_len=len(expected), seed=0, add_bos=add_bos)
    assert drawn.tolist() == [expected]


def test_a_token_that_spans_context_and_continuation_is_scored_and_counted(
    without_bos_rule: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`hello world` is two tokens, `hello wor` more, so cutting after these would leave `ld` without tokens."""
    tokenizer, model = load_tokenizer(without_bos_rule), random_model("llama", 400)
    pair, plain = ("hello wor", "ld"), ("hello", " world")
    instances = [
        Instance("loglikelihood", {}, each, 0, ("piqa", number, 1)) for number, each in enumerate([pair, plain])
    ]
    encoder = RequestEncoder(tokenizer, None)
    encoder.loglikelihood(instances)
    request = encoder.encoded[RequestKey("piqa", 0, 0)]
    assert list(request.context) == tokenizer("hello wor").input_ids
    assert list(request.continuation) == tokenizer("ld").input_ids
    assert encoder.n_encoded_apart == {"piqa": 1}
    lm = EspalierLM(model, tokenizer, add_bos=None, token_budget=64)
    found = lm.loglikelihood(instances)
    assert found[0][0] == pytest.approx(plain_score(model, request)[0], abs=1e-4)
    assert lm.n_encoded_apart == {"piqa": 1}
    assert found[1][0] == pytest.approx(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1).loglikelihood(instances[1:])[0][0], abs=1e-4
    )


def test_counts_of_continuations_encoded_apart_are_stored_with_the_requests(tmp_path: Path) -> None:
    """Without such continuations, the file has no `n_apart`, as before they were counted."""
    plain = TokenisedRequests({RequestKey("piqa", 0, 0): Request([1], [2])}, {}, {"a": 1})
    plain.write(tmp_path / "plain.parquet")
    assert b"n_apart" not in (tmp_path / "plain.parquet").read_bytes()
    assert read_requests(tmp_path / "plain.parquet").n_encoded_apart == {}
    replace(plain, n_encoded_apart={"piqa": 3}).write(tmp_path / "apart.parquet")
    assert read_requests(tmp_path / "apart.parquet").n_encoded_apart == {"piqa": 3}


def test_a_tokenizer_without_bos_and_eos_is_refused(without_bos_rule: Path) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_file=str(without_bos_rule / "tokenizer.json"))
    with pytest.raises(UserError, match=r"its tokenizer has neither a BOS nor an EOS token"):
        RequestEncoder(bare, None)


def test_a_protocol_with_old_defaults_is_stored_as_in_version_0_1_0() -> None:
    """Newer keys are left out at their defaults, so that results of version 0.1.0 stay valid."""
    assert set(PROTOCOL.to_dict()) == {
        "tasks", "num_fewshot", "chat_template", "add_bos", "limit", "window", "stride", "texts",
    }  # fmt: skip
    assert PROTOCOL.to_dict()["texts"] == [{"name": "plain", "text_field": "text", "joiner": "\n\n"}]
    assert changed(too_long="skip").of_requests() != PROTOCOL.of_requests()
    assert changed(task_fewshots={"piqa": 1}).to_dict()["task_fewshots"] == {"piqa": 1}
    newer = changed(fewshot_as_multiturn=True, bos="every", texts=[{**PROTOCOL.to_dict()["texts"][0], "max_tokens": 9}])
    assert Protocol.from_dict(newer.to_dict()) == newer
    assert newer.of_requests() == {**PROTOCOL.of_requests(), "fewshot_as_multiturn": True}


def test_unknown_tasks_are_named_with_close_ones() -> None:
    assert unknown_task_problems(TASKS) == []
    assert unknown_task_problems(["copa", "mmlu", "ai2_arc"]) == []
    assert unknown_task_problems(["bolq"]) == [
        (
            "evaluation.tasks: got 'bolq', which is no task or group of lm-evaluation-harness; did you mean 'boolq' or "
            "'boolqa_bn'? `lm-eval ls tasks` lists all"
        )
    ]
    with pytest.raises(UserError, match=r"lm-evaluation-harness has no task or group 'bolq'"):
        packaged_entries(["bolq"])


def test_a_generative_task_in_a_race_is_known_before_any_job() -> None:
    """The last two have their output type from a file that they include."""
    assert racing_problems([*TASKS, "mmlu", "sciq"]) == []
    for name in ("gsm8k", "gsm8k_cot_self_consistency", "bbh_cot_fewshot_boolean_expressions"):
        assert racing_problems(["piqa", name]) == [not_raced(name)]


def test_the_quick_search_agrees_with_lm_evals_index() -> None:
    """The text search finds each task in the same file as lm-eval's own index."""
    index = TaskManager().task_index
    found = packaged_tasks()
    assert len(found) > 11_000
    wrong = [name for name, path in found.items() if name in index and index[name].yaml_path not in (path, None)]
    assert wrong == []


def test_mean_accuracy_takes_acc_norm_where_there_is_one() -> None:
    both = {"acc": {"value": 0.25}, "acc_norm": {"value": 0.5}}
    tasks = {"a": {"metrics": both}, "b": {"metrics": {"acc": {"value": 1.0}}}}
    assert mean_accuracy(tasks, "acc_norm_else_acc") == 0.75
    assert mean_accuracy(tasks, "acc") == 0.625
    with pytest.raises(UserError, match=r"a task has only the metrics f1; the mean needs one of acc_norm, acc"):
        task_accuracy({"f1": {"value": 1.0}}, "acc_norm_else_acc")


def test_samples_are_validated_where_they_are_written() -> None:
    row = {
        "task": "piqa", "doc_id": 0, "choice": 0, "gold": True, "loglikelihood": -1.0, "is_greedy": False,
        "n_chars": 3, "n_bytes": 3,
    }  # fmt: skip
    Samples.validate(pd.DataFrame([row]))
    for bad in ({"loglikelihood": 0.5}, {"loglikelihood": float("nan")}, {"doc_id": -1}, {"extra": 1}):
        with pytest.raises((SchemaError, SchemaErrors), match=next(iter(bad))):
            Samples.validate(pd.DataFrame([row | bad]))
    with pytest.raises(SchemaError, match=r"duplicate|unique"):
        Samples.validate(pd.DataFrame([row, row]))


def test_of_many_unknown_tasks_ten_are_named_in_short_lines() -> None:
    found = unknown_task_problems(["x" * 5000, *(f"none_such_{number}" for number in range(2000))])
    assert len(found) == 11
    assert found[-1] == "evaluation.tasks: 1991 more names are no task or group either"
    assert max(map(len, found)) < 300


@pytest.mark.parametrize("template", ["<s> $A </s>", "$A </s>"])
def test_a_tokenizer_that_ends_texts_with_eos_is_refused(
    template: str, data: Path, tmp_path: Path, without_bos_rule: Path
) -> None:
    """lm-eval would score EOS and leave out the first token of each choice. With `add_bos`, there is no EOS."""
    tokenizer = load_tokenizer(without_bos_rule)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.save_pretrained(tmp_path / "ends")
    with pytest.raises(
        UserError, match=r"its tokenizer ends each text with '</s>', which would be scored in the place"
    ):
        requests_for(tmp_path / "none", data, load_tokenizer(tmp_path / "ends"))
    for add_bos in (True, False):
        protocol = changed(add_bos=add_bos, tasks=["piqa"])
        chosen = load_tokenizer(tmp_path / "ends", add_bos=add_bos)
        requests = requests_for(tmp_path / str(add_bos), data, chosen, protocol).requests
        assert all(1 not in request.continuation.tolist() for request in requests.values())

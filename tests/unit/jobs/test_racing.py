"""Jobs of a race: nothing is answered twice, a rung is decided once, and failures do not end a race."""

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from espalier import versions
from espalier.errors import UserError
from espalier.evaluation.evaluator import DocumentAnswers, EvaluationResult
from espalier.evaluation.racing import RaceRules
from espalier.evaluation.settings import EvaluatorSettings
from espalier.evaluation.tokenised_requests import RequestKey
from espalier.files import read_json, read_table, sha256_of, write_json, write_table
from espalier.jobs import racing
from espalier.jobs.evaluation import EvaluationJob, evaluate_with_others
from espalier.jobs.racing import RaceJob
from espalier.planning.plan import Plan
from espalier.results.race_store import AnswerStore, RaceSettings, Standing, TaskFacts
from espalier.results.store import Store
from espalier.scoring.requests import Score

N = {"boolq": 100, "piqa": 200}
RULES = RaceRules(rungs=(0.25, 0.5, 1.0))
CHANCE = {"good": 0.9, "fair": 0.6, "poor": 0.2, "worst": 0.1}
"""Share of documents that each experiment answers correctly. Its plan keeps as many MLP channels as its place here."""
Done = list[tuple[str, int, bool]]


class FakeEvaluator:
    """A replacement for `Evaluator`: documents are answered by chance, always in the same way. Records its calls."""

    def __init__(self, done: Done, broken: set[str]) -> None:
        self.done, self.broken = done, broken

    def answer(self, plan: Plan, documents: Iterable[tuple[str, int]], *, with_perplexity: bool) -> DocumentAnswers:
        name = list(CHANCE)[len(plan.kept_mlp_channels[0]) - 1]
        if name in self.broken:
            raise UserError("log-likelihood is nan")
        wanted = sorted(documents)
        self.done.append((name, len(wanted), with_perplexity))
        scores = {}
        for task, number in wanted:
            is_right = np.random.default_rng([number, *task.encode(), *name.encode()]).random() < CHANCE[name]
            for choice in (0, 1):
                scores[RequestKey(task, number, choice)] = Score(-1.0 if (choice == 0) == is_right else -2.0, False)
        perplexity = {"text": {"value": 7.0}} if with_perplexity else {}
        return DocumentAnswers(scores, perplexity, 10, {"forward": 2.0})

    def evaluate(self, plan: Plan, after_pruning: None) -> EvaluationResult:
        assert after_pruning is None
        return self.summarise(self.answer(plan, self.documents, with_perplexity=True))

    @property
    def documents(self) -> frozenset[tuple[str, int]]:
        return frozenset((task, number) for task, n in N.items() for number in range(n))

    def summarise(self, answers: DocumentAnswers) -> EvaluationResult:
        rows = [
            {
                "task": key.task, "doc_id": key.doc_id, "choice": key.choice, "gold": key.choice == 0,
                "loglikelihood": score.loglikelihood, "is_greedy": False, "n_chars": 1, "n_bytes": 1,
            }
            for key, score in sorted(answers.scores.items())
        ]  # fmt: skip
        frame = pd.DataFrame(rows)
        right = frame[frame["choice"] == 0].assign(right=frame["loglikelihood"] == -1.0)
        tasks = {
            task: {"n_samples": len(own), "n_truncated": 0, "metrics": {"acc": {"value": own["right"].mean()}}}
            for task, own in right.groupby("task")
        }
        mean = float(np.mean([task["metrics"]["acc"]["value"] for task in tasks.values()]))
        metrics = {
            "tasks": tasks, "acc_mean": {"value": mean, "rule": "acc"}, "perplexity": dict(answers.perplexity),
            "n_params": answers.n_params,
        }  # fmt: skip
        return EvaluationResult(metrics, frame)

    def race_facts(self) -> dict[str, dict[str, Any]]:
        return {task: {"n_documents": n, "tokens": 10.0, "metric": "acc"} for task, n in N.items()}

    def blank_samples(self) -> pd.DataFrame:
        scores = {RequestKey(*document, choice): Score(0.0, False) for document in self.documents for choice in (0, 1)}
        return self.summarise(DocumentAnswers(scores, {}, 0, {})).samples


@dataclass(frozen=True)
class FakeJob(EvaluationJob):
    """An `EvaluationJob` whose evaluator is a fake."""

    done: Done = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    @cached_property
    def evaluator(self) -> FakeEvaluator:  # type: ignore[override]
        return FakeEvaluator(self.done, self.broken)


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    (tmp_path / "requests.parquet").write_bytes(b"requests")
    protocol = {"texts": [{"name": "text"}]}
    settings = EvaluatorSettings(tmp_path, protocol, dtype="float32", device="cpu", gpus=1, token_budget=100, threads=1)
    return FakeJob({"model": "A", "files": {"a": 1}}, tmp_path / "requests.parquet", settings)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".store")


def plans(tmp_path: Path, *names: str) -> dict[str, Path]:
    paths = {}
    for name in names:
        channels = tuple(range(list(CHANCE).index(name) + 1))
        plan = Plan((3,), (8,), ((0,),), (channels,))
        paths[name] = tmp_path / "experiments" / name / "plan.json"
        recipe = {"version": versions.PLAN, "settings": {}, "weights": "w"}
        write_json(paths[name], {"model": "A", "experiment": name, **plan.to_dict(), "recipe": recipe})
    return paths


def race(
    job: FakeJob, store: Store, tmp_path: Path, own: str, names: Iterable[str] = CHANCE, *,
    settings: RaceSettings | None = None, **options: Any,
) -> Standing:  # fmt: skip
    return RaceJob(job, store, plans(tmp_path, *names), settings or RaceSettings(RULES), **options).run(own)


def n_answered(done: Done) -> dict[str, int]:
    return {name: sum(n for who, n, _ in done if who == name) for name in dict.fromkeys(who for who, _, _ in done)}


def test_one_job_runs_the_race_and_the_others_only_hand_over(job: FakeJob, store: Store, tmp_path: Path) -> None:
    found = race(job, store, tmp_path, "good")
    # The rungs have 75, 150 and 300 documents. All others are far behind after the first.
    assert n_answered(job.done) == {"good": 300, "fair": 75, "poor": 75, "worst": 75}
    assert [name for name, _, with_perplexity in job.done if with_perplexity] == ["good"]
    assert found.fields == {
        "rung": 3, "n_rungs": 3, "n_documents": 300, "stopped_by": None, "keep": "best", "confidence": 0.99
    }  # fmt: skip
    n_done = len(job.done)
    stopped = race(job, store, tmp_path, "poor", only_hands_over=True)
    assert len(job.done) == n_done
    assert stopped.fields["rung"] == 1
    assert stopped.fields["stopped_by"] == "good"
    metrics = read_json(store.folder / stopped.key / "metrics.json")
    assert sum(task["n_samples"] for task in metrics["tasks"].values()) == stopped.fields["n_documents"]
    assert metrics["perplexity"] == {}
    assert metrics["acc_mean"]["value"] == pytest.approx(0.2, abs=0.15)
    assert len(read_table(store.folder / stopped.key / "samples.parquet")) == 2 * stopped.fields["n_documents"]


def test_a_race_over_a_finished_grid_answers_nothing(job: FakeJob, store: Store, tmp_path: Path) -> None:
    for path in plans(tmp_path, *CHANCE).values():
        evaluate_with_others(job, store, path, at_most=1)
    n_done = len(job.done)
    raced = {name: race(job, store, tmp_path, name, only_hands_over=True) for name in CHANCE}
    assert len(job.done) == n_done == 4
    assert [one.fields["rung"] for one in raced.values()] == [3, 1, 1, 1]
    assert len(read_table(store.folder / raced["poor"].key / "samples.parquet")) == 2 * 75


def test_without_the_race_only_the_missing_documents_are_answered(job: FakeJob, store: Store, tmp_path: Path) -> None:
    expected = {}
    whole = Store(tmp_path / "whole")
    for name, path in plans(tmp_path, *CHANCE).items():
        key = evaluate_with_others(job, whole, path, at_most=1)
        expected[name] = read_json(whole.folder / key / "metrics.json")
    job.done.clear()
    race(job, store, tmp_path, "good")
    for name, path in plans(tmp_path, *CHANCE).items():
        key = evaluate_with_others(job, store, path, at_most=1)
        assert read_json(store.folder / key / "metrics.json")["tasks"] == expected[name]["tasks"]
        assert read_json(store.folder / key / "metrics.json")["perplexity"] == expected[name]["perplexity"]
    assert n_answered(job.done) == dict.fromkeys(CHANCE, 300)
    assert [name for name, _, with_perplexity in job.done if with_perplexity] == list(CHANCE)


def test_a_race_decides_by_the_accuracy_that_the_reports_rank_by(
    job: FakeJob, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong choice is so long that it always has the larger log-likelihood per character."""
    summarise, facts = FakeEvaluator.summarise, FakeEvaluator.race_facts

    def with_long_choice(self: FakeEvaluator, answers: DocumentAnswers) -> EvaluationResult:
        result = summarise(self, answers)
        samples = result.samples.assign(n_chars=result.samples["choice"].map({0: 1, 1: 10}))
        return EvaluationResult(result.metrics, samples)

    def with_acc_norm(self: FakeEvaluator) -> dict[str, dict[str, Any]]:
        return {task: {**fact, "metric": "acc_norm"} for task, fact in facts(self).items()}

    monkeypatch.setattr(FakeEvaluator, "summarise", with_long_choice)
    monkeypatch.setattr(FakeEvaluator, "race_facts", with_acc_norm)
    by_acc = RaceSettings(RULES, acc_mean_rule="acc")
    assert race(job, store, tmp_path, "poor", settings=by_acc).fields["stopped_by"] == "good"
    assert n_answered(job.done) == {"good": 75, "fair": 75, "poor": 75, "worst": 75}
    # By acc_norm, all four are equal. This is another race, on the same answers.
    assert race(job, store, tmp_path, "poor").fields["stopped_by"] is None
    assert n_answered(job.done) == dict.fromkeys(CHANCE, 300)
    assert len(list(store.folder.glob("race-*"))) == 2


def test_more_experiments_start_a_new_race_on_the_answers_of_the_old(
    job: FakeJob, store: Store, tmp_path: Path
) -> None:
    assert race(job, store, tmp_path, "poor", ["poor", "worst"]).fields["stopped_by"] is None
    assert n_answered(job.done)["poor"] == 300
    found = race(job, store, tmp_path, "poor")
    assert found.fields["stopped_by"] == "good"
    assert n_answered(job.done)["poor"] == 300
    assert len(list(store.folder.glob("race-*"))) == 2
    # Other rules are another race. Its experiments answer what they lack.
    again = RaceSettings(RaceRules(rungs=(0.3, 1.0)))
    assert race(job, store, tmp_path, "worst", settings=again).fields["n_documents"] == 90
    assert n_answered(job.done)["fair"] == 90


def test_the_race_goes_on_without_an_experiment_that_fails(job: FakeJob, store: Store, tmp_path: Path) -> None:
    job.broken.add("good")
    found = race(job, store, tmp_path, "fair")
    assert found.fields["stopped_by"] is None
    with pytest.raises(UserError, match="log-likelihood is nan"):
        race(job, store, tmp_path, "good")
    assert race(job, store, tmp_path, "poor").fields["stopped_by"] == "fair"
    # Its own job tries again. Nothing has compared it with the others, so it answers everything.
    job.broken.clear()
    assert race(job, store, tmp_path, "good").fields["n_documents"] == 300
    assert n_answered(job.done)["good"] == 300


def test_an_own_failure_is_recorded_for_the_others_and_tried_again(job: FakeJob, store: Store, tmp_path: Path) -> None:
    job.broken.add("good")
    with pytest.raises(UserError, match="log-likelihood is nan"):
        race(job, store, tmp_path, "good")
    assert n_answered(job.done) == {}
    job.broken.clear()
    assert race(job, store, tmp_path, "good").fields["stopped_by"] is None
    assert race(job, store, tmp_path, "fair").fields["stopped_by"] == "good"


def test_controls_are_raced_and_perplexities_of_all_on_request(job: FakeJob, store: Store, tmp_path: Path) -> None:
    settings = RaceSettings(RULES, perplexity="all")
    found = race(job, store, tmp_path, "fair", settings=settings, controls=("good",))
    assert found.fields["stopped_by"] is None
    stopped = race(job, store, tmp_path, "worst", settings=settings, controls=("good",))
    assert stopped.fields["stopped_by"] == "fair"
    assert read_json(store.folder / stopped.key / "metrics.json")["perplexity"] == {"text": {"value": 7.0}}
    assert sorted(name for name, _, with_perplexity in job.done if with_perplexity) == sorted(CHANCE)


def test_two_jobs_share_a_race(job: FakeJob, store: Store, tmp_path: Path) -> None:
    log = tmp_path / "answered"

    def run(own: str) -> None:
        class Recorded(list[Any]):
            def append(self, one: Any) -> None:
                time.sleep(0.2)
                with log.open("a") as file:
                    file.write(f"{own} {one[0]} {one[1]}\n")

        race(replace(job, done=Recorded()), store, tmp_path, own)

    plans(tmp_path, *CHANCE)
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=run, args=(own,)) for own in ("good", "worst")]
    for one in jobs:
        one.start()
    for one in jobs:
        one.join(60)
        assert one.exitcode == 0
    lines = [line.split() for line in log.read_text().splitlines()]
    answered: dict[str, int] = {}
    for _, name, n in lines:
        answered[name] = answered.get(name, 0) + int(n)
    assert answered == {"good": 300, "fair": 75, "poor": 75, "worst": 75}
    assert {own for own, _, _ in lines} == {"good", "worst"}
    assert len(list(store.folder.glob("race-*/rung-*.json"))) == 2


def test_a_stopping_workflow_leaves_a_race_that_goes_on(
    job: FakeJob, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(racing, "is_stopping", lambda: True)
    with pytest.raises(UserError, match="told to stop; what has been answered is stored"):
        race(job, store, tmp_path, "good")
    monkeypatch.undo()
    race(job, store, tmp_path, "good")
    assert n_answered(job.done) == {"good": 300, "fair": 75, "poor": 75, "worst": 75}


def test_bad_records_are_one_line(job: FakeJob, store: Store, tmp_path: Path) -> None:
    race(job, store, tmp_path, "good")
    record = next(store.folder.glob("race-*/rung-1.json"))
    content = read_json(record)
    content["decision"]["race"] = "another"
    write_json(record, content)
    with pytest.raises(UserError, match="after rung 1 was made for another order of documents, other rules or another"):
        race(job, store, tmp_path, "good")


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"by": "good"', b'"by": "fooe"', 1))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, 100),
    "emptied": lambda path: os.truncate(path, 0),
    "changed": flip,
    "null": lambda path: path.write_text("null"),
    "without a decision": lambda path: write_json(path, {"failed": []}),
    "with another kind of decision": lambda path: write_json(path, {"decision": [], "failed": []}),
    "with another field": lambda path: write_json(path, {"decision": {"a": 1}, "failed": []}),
    "that of the next rung": lambda path: path.write_bytes(path.with_name("rung-2.json").read_bytes()),
    "the old form of the next rung": lambda path: write_json(
        path, {key: value for key, value in read_json(path.with_name("rung-2.json")).items() if key != "place"}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_decision_is_named_and_made_again(job: FakeJob, store: Store, tmp_path: Path, damage: str) -> None:
    before = race(job, store, tmp_path, "good")
    path = next(store.folder.glob("race-*/rung-1.json"))
    sound = path.read_bytes()
    DAMAGES[damage](path)
    with pytest.raises(UserError) as refused:
        race(job, store, tmp_path, "good")
    assert str(refused.value).startswith(f"{path}: ")
    assert str(refused.value).endswith("elete it and run again")
    path.unlink()
    n_done = len(job.done)
    assert race(job, store, tmp_path, "good") == before
    assert path.read_bytes() == sound
    assert len(job.done) == n_done


def test_a_decision_of_another_model_is_refused(job: FakeJob, store: Store, tmp_path: Path) -> None:
    """Two races with the same tasks, rules and names of experiments have one fingerprint."""
    other = Store(tmp_path / ".other")
    race(job, store, tmp_path, "good")
    race(replace(job, manifest={"model": "B", "files": {"b": 1}}), other, tmp_path, "good")
    ours, theirs = (next(one.folder.glob("race-*/rung-1.json")) for one in (store, other))
    assert read_json(ours)["decision"] == read_json(theirs)["decision"]
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(
        UserError, match=r"rung-1\.json: is not the file that was written here; delete it and run again"
    ):
        race(job, store, tmp_path, "good")


def test_damaged_records_of_failures_are_named(job: FakeJob, store: Store, tmp_path: Path) -> None:
    job.broken.update({"fair", "poor"})
    race(job, store, tmp_path, "good")
    one, other = (next(store.folder.glob(f"race-*/failed/{name}.json")) for name in ("fair", "poor"))
    one.write_bytes(other.read_bytes())
    for path in store.folder.glob("race-*/rung-*.json"):  # what was decided needs them no more
        path.unlink()
    with pytest.raises(UserError, match=r"fair\.json: is not the file that was written here; delete it and run again"):
        race(job, store, tmp_path, "worst")


def test_answers_of_another_experiment_are_dropped(
    job: FakeJob, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The folders of the answers of two experiments were exchanged, so each part in them is sound."""
    race(job, store, tmp_path, "good", ["good", "poor"])
    folders = sorted(store.folder.glob("*.answers"))
    aside = tmp_path / "aside"
    for old, new in ((folders[0], aside), (folders[1], folders[0]), (aside, folders[1])):
        old.rename(new)
    for path in (*store.folder.glob("race-*"), *store.folder.glob("[0-9a-f]" * 32)):
        shutil.rmtree(path)
    sound = n_answered(job.done)
    job.done.clear()
    race(job, store, tmp_path, "good", ["good", "poor"])
    assert n_answered(job.done) == sound
    assert "has answers of another experiment; it is dropped and made again" in caplog.text


def test_recorded_decisions_are_final(job: FakeJob, store: Store, tmp_path: Path) -> None:
    """By another rule, the first rung stopped fair instead of poor. Fair has no answers to the second rung."""
    race(job, store, tmp_path, "good")
    decided, key = next(store.folder.glob("race-*/rung-1.json")), "stopped"
    content = read_json(decided)
    stopped = content["decision"][key]
    assert set(stopped) == {"fair", "poor", "worst"}
    content["decision"][key] = {name: stopped[name] for name in ("fair", "worst")}
    write_json(decided, content)
    (decided.parent / "rung-2.json").unlink()
    found = race(job, store, tmp_path, "poor")
    second = read_json(decided.parent / "rung-2.json")["decision"]
    assert set(second["accuracy"]) == {"good", "poor"}
    assert (found.fields["rung"], found.fields["stopped_by"]) == (2, "good")
    assert n_answered(job.done) == {"good": 300, "fair": 75, "poor": 150, "worst": 75}


def test_all_tasks_of_a_race_count_equally() -> None:
    facts = {task: {"n_documents": n, "tokens": 10.0, "metric": "acc"} for task, n in N.items()}
    assert [task.weight for task in TaskFacts(facts, Path()).race_tasks] == [0.5, 0.5]


def test_answers_to_a_changed_task_are_refused(job: FakeJob, store: Store, tmp_path: Path) -> None:
    race(job, store, tmp_path, "good", ["good", "poor"])
    facts = TaskFacts.read(store, sha256_of(job.requests))
    assert facts is not None
    write_table(tmp_path / "changed.parquet", facts.samples[facts.samples["doc_id"] != 3])
    changed = TaskFacts(facts.tasks, tmp_path / "changed.parquet")
    answers = AnswerStore(store.folder, job.recipe(read_json(plans(tmp_path, "good")["good"]))).read()
    with pytest.raises(UserError, match="document 3: the task has changed since it was answered"):
        changed.correct("good", answers)


def test_a_job_without_a_device_does_not_answer(job: FakeJob, store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="good: the store lacks answers, and this job has no device"):
        race(job, store, tmp_path, "good", only_hands_over=True)


def test_a_damaged_part_is_answered_again(job: FakeJob, store: Store, tmp_path: Path) -> None:
    race(job, store, tmp_path, "poor")
    part = next(path for path in store.folder.glob("*.answers/*/answers.parquet"))
    part.write_bytes(b"damaged")
    shutil.rmtree(next(store.folder.glob("race-*")))
    n_done = len(job.done)
    race(job, store, tmp_path, "poor")
    assert len(job.done) == n_done + 1

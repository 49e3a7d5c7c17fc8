"""Evaluation jobs and their store: no evaluation runs twice, and damaged entries are not used."""

import errno
import multiprocessing
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pytest

from espalier import versions
from espalier.config import load_study
from espalier.errors import UserError
from espalier.evaluation.evaluator import EvaluationResult
from espalier.evaluation.settings import EvaluatorSettings
from espalier.files import read_json, read_parquet, sha256_of_json, write_json, write_result, write_table
from espalier.jobs.evaluation import EvaluationJob, evaluate_recovered, evaluate_with_others
from espalier.planning.plan import Plan
from espalier.recipe import read_samples
from espalier.results.store import Store, store_key
from espalier.study.planned_experiments import PlannedExperiment, planned_experiments

PROTOCOL = {"window": 8}
ROW = {
    "task": "piqa", "doc_id": 0, "choice": 0, "gold": True, "loglikelihood": -1.0, "is_greedy": False, "n_chars": 3,
    "n_bytes": 3,
}  # fmt: skip


class FakeEvaluator:
    """A replacement for `Evaluator` that records its calls and fails for a plan that keeps no KV group."""

    def __init__(self) -> None:
        self.done: list[Plan | None] = []
        self.merged: list[Path | None] = []

    def evaluate(self, plan: Plan | None, adapter: Path | None = None) -> EvaluationResult:
        self.merged.append(adapter)
        if plan is not None and plan.n_kept_kv_groups == (0,):
            raise UserError("log-likelihood is nan")
        self.done.append(plan)
        return EvaluationResult({"acc_mean": {"value": 0.5, "rule": "acc"}, "n_params": 10}, pd.DataFrame([ROW]))


@dataclass(frozen=True)
class FakeJob(EvaluationJob):
    """An `EvaluationJob` whose evaluators are fakes. `evaluators` lists those of all jobs, `again` is another job."""

    evaluators: list[FakeEvaluator] = field(default_factory=list)

    @cached_property
    def evaluator(self) -> FakeEvaluator:
        self.evaluators.append(FakeEvaluator())
        return self.evaluators[-1]

    def again(self) -> "FakeJob":
        return FakeJob(self.manifest, self.requests, self.settings, self.evaluators)


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    (tmp_path / "requests.parquet").write_bytes(b"requests")
    settings = EvaluatorSettings(tmp_path, PROTOCOL, dtype="float32", device="cpu", gpus=1, token_budget=100, threads=1)
    return FakeJob({"model": "A", "files": {"a": 1}}, tmp_path / "requests.parquet", settings)


SETTINGS = {"pruning_ratio": 0.2}


def add_plan(tmp_path: Path, name: str, kept: tuple[int, ...], **recipe: Any) -> Path:
    path = tmp_path / "experiments" / name / "plan.json"
    plan = Plan((3,), (2,), (kept,), ((0, 1),))
    made = {"version": versions.PLAN, "settings": SETTINGS, "weights": sha256_of_json({"a": 1})} | recipe
    write_json(path, {"model": "A", "experiment": name, **plan.to_dict(), "recipe": made})
    return path


def study_of(*plans: Path) -> Callable[[], list[PlannedExperiment]]:
    """Return a function that returns these plans as the planned experiments of the study."""
    return lambda: [PlannedExperiment(str(plan), SETTINGS, ()) for plan in plans]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "experiments/.store")


def n_evaluations(job: FakeJob) -> int:
    return sum(len(evaluator.done) for evaluator in job.evaluators)


def test_an_experiment_is_evaluated_once(tmp_path: Path, job: FakeJob, store: Store) -> None:
    plan = add_plan(tmp_path, "a", (0,))
    keys = {evaluate_with_others(job.again(), store, plan, at_most=1) for _ in range(3)}
    assert len(keys) == 1
    assert n_evaluations(job) == 1
    assert len(job.evaluators) == 1  # no model was loaded for the stored result


def test_extra_experiments_are_evaluated(tmp_path: Path, job: FakeJob, store: Store) -> None:
    plans = [add_plan(tmp_path, name, kept) for name, kept in (("a", (0,)), ("b", (1,)), ("c", (2,)), ("d", (0, 1)))]
    plans[2].with_name("metrics.json").write_text("{}")  # c has results already
    evaluate_with_others(job.again(), store, plans[1], at_most=2, planned=study_of(*plans))
    assert [plan.kept_kv_groups for plan in job.evaluators[0].done] == [((1,),), ((0,),)]
    evaluate_with_others(job.again(), store, plans[0], at_most=9, planned=study_of(*plans))
    assert n_evaluations(job) == 2
    evaluate_with_others(job.again(), store, plans[3], at_most=9, planned=study_of(*plans))
    assert n_evaluations(job) == 3


def test_only_experiments_that_remove_layers_need_removable_layers(
    tmp_path: Path, job: FakeJob, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check runs once in a job; its refusal fails the experiments that remove layers, and no others."""
    checked = []

    def refuse(folder: str, *, trust_remote_code: bool) -> None:
        checked.append((folder, trust_remote_code))
        if folder == "refused":
            raise UserError("layers cannot be removed")

    monkeypatch.setattr("espalier.jobs.check_architecture.check_layers_removable", refuse)
    depth = [tmp_path / "experiments" / name / "plan.json" for name in ("d", "e")]
    for path, removed in zip(depth, (0, 1), strict=True):
        kept = tuple(() if layer == removed else (0, 1) for layer in range(2))
        plan = Plan((2, 2), (2, 2), kept, kept, (removed,))
        made = {"version": versions.PLAN, "settings": SETTINGS, "weights": sha256_of_json({"a": 1})}
        write_json(path, {"model": "A", "experiment": path.parent.name, **plan.to_dict(), "recipe": made})
    plans = [add_plan(tmp_path, "a", (0,)), *depth]
    job.manifest.update(folder="refused", trust_remote_code=False)
    evaluate_with_others(job.again(), store, plans[0], at_most=1)
    assert not checked
    with pytest.raises(UserError, match="layers cannot be removed"):
        evaluate_with_others(job.again(), store, plans[1], at_most=1)
    assert n_evaluations(job) == 1
    job.manifest.update(folder="fine")
    evaluate_with_others(job.again(), store, plans[1], at_most=9, planned=study_of(*plans))
    assert checked == [("refused", False), ("fine", False)]
    assert n_evaluations(job) == 3


def test_a_stopping_workflow_evaluates_no_extra_experiment(
    tmp_path: Path, job: FakeJob, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [add_plan(tmp_path, name, kept) for name, kept in (("a", (0,)), ("b", (1,)), ("c", (2,)), ("d", (0, 1)))]
    monkeypatch.setenv("ESPALIER_STOP_FILE", str(tmp_path / "stop"))  # the file does not exist yet
    evaluate_with_others(job.again(), store, plans[0], at_most=2, planned=study_of(*plans))
    assert n_evaluations(job) == 2
    (tmp_path / "stop").touch()
    evaluate_with_others(job.again(), store, plans[2], at_most=9, planned=study_of(*plans))
    assert n_evaluations(job) == 3  # only the job's own experiment was evaluated


def test_only_current_plans_of_the_study_are_extra_experiments(tmp_path: Path, job: FakeJob, store: Store) -> None:
    """Plans of an older grid and stale plans, which their own jobs will make again, are skipped."""
    own = add_plan(tmp_path, "a", (0,))
    add_plan(tmp_path, "orphan", (1,))
    others = [
        add_plan(tmp_path, "other-settings", (2,), settings={"pruning_ratio": 0.3}),
        add_plan(tmp_path, "other-version", (0, 1), version=versions.PLAN - 1),
        add_plan(tmp_path, "other-weights", (0, 2), weights="x"),
        tmp_path / "experiments/unplanned/plan.json",
        add_plan(tmp_path, "half", (1, 2)),
    ]
    others[-1].write_text("{", encoding="utf-8")
    evaluate_with_others(job.again(), store, own, at_most=9, planned=study_of(own, *others))
    assert [plan.kept_kv_groups for plan in job.evaluators[0].done] == [((0,),)]


def test_a_plan_with_newer_source_tables_is_no_extra_experiment(tmp_path: Path, job: FakeJob, store: Store) -> None:
    own, table = add_plan(tmp_path, "a", (0,)), tmp_path / "importance.parquet"
    plans = {kept: add_plan(tmp_path, f"b{kept}", (kept,)) for kept in (1, 2)}
    planned = [PlannedExperiment(str(plan), SETTINGS, (str(table),)) for plan in plans.values()]
    evaluate_with_others(job.again(), store, own, at_most=9, planned=lambda: planned)  # the table does not exist
    table.touch()
    made = table.stat().st_mtime_ns
    os.utime(plans[1], ns=(made, made - 1))  # older than its table
    os.utime(plans[2], ns=(made, made + 1))
    evaluate_with_others(job.again(), store, add_plan(tmp_path, "c", (0, 1)), at_most=9, planned=lambda: planned)
    done = [plan.kept_kv_groups for evaluator in job.evaluators for plan in evaluator.done]
    assert done == [((0,),), ((0, 1),), ((2,),)]


def test_the_study_is_read_only_for_extra_experiments(tmp_path: Path, job: FakeJob, store: Store) -> None:
    def planned() -> list[PlannedExperiment]:
        raise AssertionError

    plan = add_plan(tmp_path, "a", (0,))
    evaluate_with_others(job.again(), store, plan, at_most=1, planned=planned)
    evaluate_with_others(job.again(), store, plan, at_most=9, planned=planned)  # it is in the store already


def test_planned_experiments_name_settings_and_source_tables() -> None:
    methods = [{"name": "t", "scope": "layer"}, {"name": "m", "criterion": "magnitude"}]
    models = [{"name": name, "family": "F", "kind": "base", "path": "x"} for name in "AB"]
    grid = {"methods": ["t", "m"], "taylor_seq_len": [16], "taylor_num_samples": [8]}
    study = load_study({"study": "s", "models": models, "methods": methods, "grid": grid})
    found = list(planned_experiments(study, "B"))
    assert [one.plan for one in found] == [
        f"results/s/experiments/B/{name}/plan.json" for name in ("t-seq16-n8-p20", "m-p20")
    ]
    assert [one.sources for one in found] == [
        ("results/s/importance/B/taylor/c4-s0/seq16.parquet", "results/s/priors/B/c4-s0/seq16.parquet"),
        ("results/s/importance/B/magnitude.parquet",),
    ]
    assert [one.settings["method"]["criterion"] for one in found] == ["taylor", "magnitude"]


def test_equal_plans_are_evaluated_once(tmp_path: Path, job: FakeJob, store: Store) -> None:
    keys = [evaluate_with_others(job.again(), store, add_plan(tmp_path, name, (0,)), at_most=1) for name in ("a", "b")]
    assert keys[0] == keys[1]
    assert n_evaluations(job) == 1


def test_the_unpruned_model_is_evaluated_once(tmp_path: Path, job: FakeJob, store: Store) -> None:
    """It is evaluated beside an experiment as long as its file does not exist, and its own job then hands it over."""
    plans, baseline = [add_plan(tmp_path, name, kept) for name, kept in (("a", (0,)), ("b", (1,)))], tmp_path / "m.json"
    evaluate_with_others(job.again(), store, plans[0], at_most=9, planned=tuple, baseline=baseline)
    assert [None if plan is None else plan.kept_kv_groups for plan in job.evaluators[0].done] == [((0,),), None]
    key = evaluate_with_others(job.again(), store, None, at_most=9, planned=study_of(*plans), baseline=baseline)
    assert key == store_key(job.recipe(None))
    assert len(job.evaluators) == 1
    baseline.touch()
    evaluate_with_others(job.again(), store, plans[1], at_most=9, planned=tuple, baseline=baseline)
    assert [len(evaluator.done) for evaluator in job.evaluators] == [2, 1]


def test_everything_that_determines_the_results_changes_the_key(tmp_path: Path, job: FakeJob) -> None:
    plan = read_json(add_plan(tmp_path, "a", (0,)))
    keys = [store_key(job.recipe(plan)), store_key(job.recipe(None))]
    keys += [
        store_key(FakeJob(job.manifest, job.requests, replace(job.settings, **changes)).recipe(plan))
        for changes in ({"protocol": {"window": 9}}, {"dtype": "bfloat16"})
    ]
    keys.append(store_key(FakeJob({"files": {"a": 2}}, job.requests, job.settings).recipe(plan)))
    job.requests.write_bytes(b"other requests")
    keys.append(store_key(FakeJob(job.manifest, job.requests, job.settings).recipe(plan)))
    assert len(set(keys)) == 6


def test_a_recovered_experiment_is_evaluated_once_and_apart_from_the_pruned_one(
    tmp_path: Path, job: FakeJob, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier.jobs.evaluation._merging", lambda adapter: adapter)
    plan, adapter = add_plan(tmp_path, "a", (0,)), tmp_path / "adapter"
    write_json(adapter / "adapter_config.json", {"r": 8})
    (adapter / "adapter_model.safetensors").write_bytes(b"one")
    pruned = evaluate_with_others(job.again(), store, plan, at_most=1)
    keys = [evaluate_recovered(job.again(), store, plan, adapter) for _ in range(2)]
    (adapter / "adapter_model.safetensors").write_bytes(b"another")
    keys.append(evaluate_recovered(job.again(), store, plan, adapter))
    assert [evaluator.merged for evaluator in job.evaluators] == [[None], [adapter], [adapter]]
    assert keys[0] == keys[1]
    assert len({pruned, *keys}) == 3
    assert "adapter" not in read_json(store.folder / pruned / "metrics.json")["recipe"]["settings"]


def test_an_experiment_that_another_process_finished_is_not_evaluated_again(
    tmp_path: Path, job: FakeJob, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another job finishes `b` after this job listed `b` and before this job claims it."""
    plan, other = add_plan(tmp_path, "a", (0,)), add_plan(tmp_path, "b", (1,))
    key = store_key(job.recipe(read_json(other)))
    claim = store.claim

    def claim_late(claimed: str, *, wait: bool) -> Any:
        if claimed == key:
            with store.new_entry(key) as folder:
                write_table(folder / "samples.parquet", pd.DataFrame([ROW]))
                write_result(folder / "metrics.json", {"recipe": job.recipe(read_json(other))})
        return claim(claimed, wait=wait)

    monkeypatch.setattr(store, "claim", claim_late)
    evaluate_with_others(job.again(), store, plan, at_most=2, planned=study_of(plan, other))
    assert n_evaluations(job) == 1


def test_failure_of_the_own_experiment_is_raised_and_nothing_is_stored(
    tmp_path: Path, job: FakeJob, store: Store
) -> None:
    plan = add_plan(tmp_path, "a", ())
    with pytest.raises(UserError, match="log-likelihood is nan"):
        evaluate_with_others(job.again(), store, plan, at_most=1)
    assert not store.has(store_key(job.recipe(read_json(plan))))
    assert not [path for path in store.folder.iterdir() if path.is_dir()]


def test_failure_of_an_extra_experiment_is_not_raised(tmp_path: Path, job: FakeJob, store: Store) -> None:
    plans = [add_plan(tmp_path, name, kept) for name, kept in (("a", ()), ("b", (0,)), ("c", (1,)))]
    _, plan, last = plans
    evaluate_with_others(job.again(), store, plan, at_most=9, planned=study_of(*plans))
    assert store.has(store_key(job.recipe(read_json(last))))


def test_delivered_metrics_have_the_names_of_the_experiment(tmp_path: Path, job: FakeJob, store: Store) -> None:
    key = evaluate_with_others(job.again(), store, add_plan(tmp_path, "a", (0,)), at_most=1)
    metrics, samples = tmp_path / "out/metrics.json", tmp_path / "out/samples.parquet"
    store.deliver_evaluation(key, {"model": "A", "experiment": "a"}, metrics=metrics, samples=samples)
    content = read_json(metrics)
    assert list(content)[:2] == ["model", "experiment"]
    assert content["recipe"]["settings"]["dtype"] == "float32"
    assert read_parquet(samples).num_rows == 1
    store.deliver_evaluation(
        key, {"model": "A", "experiment": "a"}, metrics=metrics, samples=samples
    )  # again, over the files


def finished(tmp_path: Path, job: FakeJob, store: Store) -> tuple[Path, Path, Path]:
    """Evaluate an experiment and write its files; return its plan, its samples, and its entry in the store."""
    plan = add_plan(tmp_path, "a", (0,))
    key = evaluate_with_others(job.again(), store, plan, at_most=1)
    store.deliver_evaluation(
        key, {"model": "A", "experiment": "a"}, metrics=plan.with_name("metrics.json"),
        samples=plan.with_name("samples.parquet"),
    )  # fmt: skip
    return plan, plan.with_name("samples.parquet"), store.folder / key


def _cut(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def _forget_checksums(entry: Path) -> None:
    """Turn an entry into one of version 0.1.0, which has no checksums."""
    (entry / "checksums.json").unlink()


@pytest.mark.parametrize("file", ["samples.parquet", "metrics.json"])
@pytest.mark.parametrize("damage", [_cut, _flip], ids=["cut", "flipped"])
def test_a_damaged_entry_is_made_again(
    tmp_path: Path, job: FakeJob, store: Store, caplog: pytest.LogCaptureFixture, file: str,
    damage: Callable[[Path], None],
) -> None:  # fmt: skip
    plan, _, entry = finished(tmp_path, job, store)
    damage(entry / file)
    with caplog.at_level("WARNING", logger="espalier"):
        evaluate_with_others(job.again(), store, plan, at_most=1)
    assert n_evaluations(job) == 2
    assert rf"{entry}: {file} has" in caplog.text
    assert store.has(entry.name)


@pytest.mark.parametrize("with_checksums", [True, False], ids=["checksums", "version 0.1.0"])
def test_an_entry_that_cannot_be_read_now_is_kept(
    tmp_path: Path, job: FakeJob, store: Store, monkeypatch: pytest.MonkeyPatch, *, with_checksums: bool
) -> None:
    plan, _, entry = finished(tmp_path, job, store)
    if not with_checksums:
        _forget_checksums(entry)
    with monkeypatch.context() as failing:
        for reader in ("size_and_sha256", "sha256_of"):  # the second reads entries of version 0.1.0
            failing.setattr(f"espalier.results.store.{reader}", _fail_to_read)
        with pytest.raises(OSError, match="Input/output error"):
            evaluate_with_others(job.again(), store, plan, at_most=1)
    assert store.has(entry.name)
    assert n_evaluations(job) == 1


def test_an_extra_experiment_that_cannot_be_read_now_is_left_to_its_own_job(
    tmp_path: Path, job: FakeJob, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan, _, entry = finished(tmp_path, job, store)
    plan.with_name("metrics.json").unlink()
    own = add_plan(tmp_path, "b", (1,))
    has = store.has
    monkeypatch.setattr(store, "has", lambda key: _fail_to_read(key) if key == entry.name else has(key))
    evaluate_with_others(job.again(), store, own, at_most=2, planned=study_of(plan, own))
    assert n_evaluations(job) == 2
    assert "cannot be read now and is left to its own job: [Errno 5] Input/output error" in caplog.text


def _fail_to_read(_: object) -> NoReturn:
    raise OSError(errno.EIO, "Input/output error")


def test_truncated_samples_are_evaluated_again_after_they_are_deleted(
    tmp_path: Path, job: FakeJob, store: Store
) -> None:
    """A hard link makes the experiment's file and the store's the same file, so damage affects both."""
    _, samples, _ = finished(tmp_path, job, store)
    _cut(samples)
    with pytest.raises(UserError, match=r"samples.parquet"):
        read_samples(samples)
    samples.unlink()
    _, samples, _ = finished(tmp_path, job, store)
    assert len(read_samples(samples)) == 1
    assert n_evaluations(job) == 2


def test_an_entry_of_another_recipe_is_made_again(tmp_path: Path, job: FakeJob, store: Store) -> None:
    plan, _, entry = finished(tmp_path, job, store)
    other = evaluate_with_others(job.again(), store, add_plan(tmp_path, "b", (1,)), at_most=1)
    shutil.rmtree(entry)
    shutil.copytree(store.folder / other, entry)
    evaluate_with_others(job.again(), store, plan, at_most=1)
    assert n_evaluations(job) == 3


def test_entries_of_version_0_1_0_are_checked_by_reading_them(tmp_path: Path, job: FakeJob, store: Store) -> None:
    plan, _, entry = finished(tmp_path, job, store)
    _forget_checksums(entry)
    evaluate_with_others(job.again(), store, plan, at_most=1)
    assert n_evaluations(job) == 1
    _cut(entry / "samples.parquet")
    evaluate_with_others(job.again(), store, plan, at_most=1)
    assert n_evaluations(job) == 2


def _hold(folder: Path, got: Any, release: Any) -> None:
    with Store(folder).claim("key", wait=True):
        got.set()
        release.wait(30)


def test_a_claim_ends_with_its_process(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    got, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(store.folder, got, release))
    holder.start()
    assert got.wait(30)
    with store.claim("key", wait=False) as free:
        assert not free
    holder.kill()
    holder.join()
    with store.claim("key", wait=True) as free:
        assert free

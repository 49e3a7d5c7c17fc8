"""Work on a model: each piece is done once, others that wait are done beside, and stored results are handed over."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from espalier import versions
from espalier.config import load_study
from espalier.errors import UserError
from espalier.files import read_json, write_json
from espalier.jobs import passes
from espalier.jobs.log import job_log
from espalier.jobs.passes import PassJob, run_pass
from espalier.jobs.pieces import Piece, make_with_others, only_hands_over
from espalier.jobs.resources import JobResources
from espalier.results.store import RECIPE, TIMING, Store, store_key
from espalier.study.passes import GRADIENTS, IMPORTANCE, PRIORS, Pass, planned_passes
from espalier.tables import GradientStatistics, Importance, PriorTable


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".store")


def piece(name: str, done: list[str]) -> Piece:
    def make(folder: Path) -> None:
        if name.startswith("bad"):
            raise UserError(f"{name} cannot be done")
        done.append(name)
        logging.getLogger("espalier.test").info("doing %s", name)
        write_json(folder / RECIPE, {"name": name})

    return Piece(name, store_key({"name": name}), make, job=f"job {name}")


def test_others_are_done_up_to_a_number(store: Store) -> None:
    done: list[str] = []
    own, *others = (piece(name, done) for name in "abcd")
    make_with_others(store, own, lambda: others, at_most=3)
    assert done == ["a", "b", "c"]
    make_with_others(store, others[2], lambda: [own, *others], at_most=3)
    assert done == ["a", "b", "c", "d"]
    assert read_json(store.folder / own.key / TIMING)["seconds"] >= 0


def test_a_failure_of_another_piece_is_only_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    make_with_others(store, piece("a", done), lambda: [piece("bad", done), piece("b", done)], at_most=9)
    assert done == ["a", "b"]
    assert "bad, done beside, failed: bad cannot be done" in caplog.text
    with pytest.raises(UserError, match="bad cannot be done"):
        make_with_others(store, piece("bad", done))


def test_a_job_that_only_hands_over_does_no_work(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not only_hands_over({"model_jobs": 0})  # on one machine it may still do the work
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert only_hands_over({"model_jobs": 0})
    assert not only_hands_over({"model_jobs": 1})
    done: list[str] = []
    with pytest.raises(UserError, match="a: the store has no sound result, and this job has no device to compute it"):
        make_with_others(store, piece("a", done), only_hands_over=True)
    make_with_others(store, piece("a", done))
    make_with_others(store, piece("a", done), only_hands_over=True)
    assert done == ["a"]


def test_each_job_logs_its_own_work(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A job's log holds what was done for it, also if another job did it. The terminal names the piece at work."""
    own, other = piece("a", []), piece("b", [])
    with job_log(tmp_path / "a.log", "job a"):
        make_with_others(store, own, lambda: [other], at_most=2)
    with job_log(tmp_path / "b.log", "job b"):
        make_with_others(store, other)
    logs = {name: (tmp_path / f"{name}.log").read_text() for name in "ab"}
    assert "doing a" in logs["a"]
    assert "also b, which waits for the same model" in logs["a"]
    assert "doing b" not in logs["a"]
    assert "doing b" in logs["b"]
    assert "the result was in the store already" in logs["b"]
    assert all("finished in" in text for text in logs.values())
    terminal = capfd.readouterr().err
    assert "[job a] doing a" in terminal
    assert "[job b] doing b" in terminal
    assert "finished" not in terminal


SCHEMAS = {IMPORTANCE: Importance, GRADIENTS: GradientStatistics, PRIORS: PriorTable}


class FakePasses:
    """A replacement for `ModelPasses` that records its passes."""

    done: list[str] = []  # noqa: RUF012 (reset by the fixture)

    def __init__(self, *_: object) -> None:
        FakePasses.done.append("load")

    def tables(self, one: Pass) -> dict[str, pd.DataFrame]:
        FakePasses.done.append(one.name)
        return {name: SCHEMAS[name].empty() for name in one.outputs}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], PassJob]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FakePasses, "done", [])
    monkeypatch.setattr(PassJob, "model", passes.cached_property(lambda _: FakePasses()))
    PassJob.model.__set_name__(PassJob, "model")
    (tmp_path / "text.parquet").write_bytes(b"text")
    return lambda: PassJob({"model": "A", "files": {"a": 1}}, JobResources("cpu", 0), 1)


def study_passes(**changes: object) -> list[Pass]:
    """The passes of a study with two lengths, `taylor` with priors, `taylor2` and `magnitude`."""
    methods = [
        {"name": "t", "scope": "layer"}, {"name": "t2", "criterion": "taylor2"}, {"name": "m", "criterion": "magnitude"}
    ]  # fmt: skip
    study = load_study(
        {
            "study": "s",
            "models": [{"name": "A", "family": "F", "kind": "base", "path": "x"}],
            "methods": methods,
            "grid": {"methods": ["t", "t2", "m"], "taylor_seq_len": [16, 32], "taylor_num_samples": [8, 12]} | changes,
            "calibration": {"dataset": "text.parquet", "name": "c"},
        }
    )
    return list(planned_passes(study, "A"))


def test_passes_of_a_study_are_listed_once() -> None:
    found = study_passes()
    assert [one.name for one in found] == [
        "collect_gradients taylor of 16 tokens", "measure_priors of 16 tokens",
        "collect_gradients taylor of 32 tokens", "measure_priors of 32 tokens",
        "measure_importance taylor2 of 16 tokens", "measure_importance taylor2 of 32 tokens",
        "measure_weights magnitude",
    ]  # fmt: skip
    gradients, priors, weights = found[0], found[1], found[-1]
    assert gradients.outputs == {
        GRADIENTS: "results/s/gradients/A/c-s0/seq16.parquet",
        IMPORTANCE: "results/s/importance/A/taylor/c-s0/seq16.parquet",
    }
    assert priors.outputs == {PRIORS: "results/s/priors/A/c-s0/seq16.parquet"}
    assert weights.outputs == {IMPORTANCE: "results/s/importance/A/magnitude.parquet"}
    assert gradients.counts == {"largest": 12, "extra": []}
    assert priors.counts == {"largest": 12, "extra": [], "prior_samples": None}
    assert gradients.sequences == {"text_field": "text", "seed": 0, "seq_len": 16}


def test_one_load_serves_all_passes(job: Callable[[], PassJob], store: Store) -> None:
    found = study_passes()
    run_pass(job(), store, found[1], at_most=99, planned=lambda: found)
    assert FakePasses.done == ["load", found[1].name, found[0].name, *(one.name for one in found[2:])]
    assert [Path(path).exists() for one in found[:2] for path in one.outputs.values()] == [False, False, True]
    for one in found:
        run_pass(job(), store, one, at_most=99, planned=lambda: found)
        assert all(Path(path).exists() for path in one.outputs.values())
    assert FakePasses.done.count("load") == 1


def test_passes_with_tables_are_not_run_beside(job: Callable[[], PassJob], store: Store) -> None:
    found = study_passes()
    for path in found[0].outputs.values():
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
    run_pass(job(), store, found[1], at_most=2, planned=lambda: found)
    assert FakePasses.done == ["load", found[1].name, found[2].name]


@pytest.mark.parametrize("change", ["text", "weights", "counts", "version", "dtype"])
def test_what_determines_a_pass_changes_its_key(
    job: Callable[[], PassJob], store: Store, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    one = study_passes()[0]
    run_pass(job(), store, one, at_most=1)
    changed = job()
    if change == "text":
        Path("text.parquet").write_bytes(b"other text")
    elif change == "weights":
        changed.manifest["files"] = {"a": 2}
    elif change == "counts":
        one = study_passes(taylor_num_samples=[8, 13])[0]
    elif change == "version":
        monkeypatch.setitem(passes_versions(), "collect_gradients", versions.COLLECT_GRADIENTS + 1)
    else:
        one = Pass(one.rule, "bfloat16", one.criterion, one.text, one.sequences, one.counts, one.outputs)
    run_pass(changed, store, one, at_most=1)
    assert FakePasses.done.count("load") == 2


@pytest.mark.parametrize("name", ["rule", "criterion", "dtype", "sequences", "counts"])
def test_no_two_passes_share_a_recipe(name: str) -> None:
    """Passes over the same text, such as those of two criteria, have entries of their own in the store."""
    one = study_passes()[0]
    other = {
        "rule": "measure_priors", "criterion": "wanda", "dtype": "bfloat16", "sequences": {"seq_len": 9},
        "counts": {"n": 9},
    }[name]  # fmt: skip
    manifest = {"files": {"a": 1}}
    settings = [each.recipe(manifest, "t")["settings"] for each in (one, replace(one, **{name: other}))]
    assert settings[0][name] == getattr(one, name)
    assert settings[1][name] == other


def passes_versions() -> dict[str, int]:
    from espalier.study import passes as of_study

    return of_study._VERSIONS

"""Look-ups of races: who races with whom, and which results of a race the store has."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from espalier.config import load_study
from espalier.evaluation.racing import Decision
from espalier.files import read_json, sha256_of, write_json
from espalier.recipe import evaluation_recipe
from espalier.results.race_store import AnswerStore, RaceRecord, RaceSettings, TaskFacts
from espalier.results.store import Store
from espalier.study.lookups import Study

FIRST, SECOND, CONTROL = "t-seq16-n8-p20", "t-seq32-n8-p20", "random-p20"
MANIFEST = {"model": "A", "files": {"a": 1}, "n_params": 1000}


def make_study(folder: Path, racing: dict[str, Any] | None, **sections: Any) -> Study:
    config = {
        "study": "s",
        "models": [{"name": "A", "family": "F", "kind": "base", "path": "x"}],
        "methods": [{"name": "t", "scope": "layer"}, {"name": "random", "criterion": "random"}],
        "grid": {
            "methods": ["t", "random"], "taylor_seq_len": [16, 32], "taylor_num_samples": [8],
            "pruning_ratio": [0.2, 0.5],
        },
        "calibration": {"dataset": "text.parquet", "name": "c"},
        "evaluation": {"experiments_per_job": 5, **({} if racing is None else {"racing": racing})},
        **sections,
    }  # fmt: skip
    return Study(load_study(config), folder)


def of(experiment: str) -> SimpleNamespace:
    return SimpleNamespace(model="A", experiment=experiment)


def test_experiments_of_one_ratio_race_with_each_other(tmp_path: Path) -> None:
    races = make_study(tmp_path, {"seed": 3}).races
    assert races.plans(of(FIRST)) == [
        f"results/s/experiments/A/{name}/plan.json" for name in (FIRST, SECOND, CONTROL)
    ]  # fmt: skip
    assert races.params["racing"](of(SECOND)) == {
        "keep": "best", "confidence": 0.99, "rungs": [0.02, 0.05, 0.1, 0.2, 0.4, 1.0], "half_width": None,
        "perplexity": "survivors", "seed": 3, "experiments": [FIRST, SECOND, CONTROL], "controls": [CONTROL],
    }  # fmt: skip
    assert races.baselines_per_job == 1  # the unpruned model's job leaves the race to those of the experiments


def test_a_race_ranks_by_the_accuracy_of_the_reports(tmp_path: Path) -> None:
    params = make_study(tmp_path, {}, report={"acc_mean_rule": "acc"}).races.params["racing"](of(FIRST))
    assert params["acc_mean_rule"] == "acc"
    assert RaceSettings.from_params(params).acc_mean_rule == "acc"
    # Params with the default are those of earlier versions, whose races stay valid.
    default = make_study(tmp_path, {}).races.params["racing"](of(FIRST))
    assert {"acc_mean_rule": "acc", **default} == params
    assert RaceSettings.from_params(default).acc_mean_rule == "acc_norm_else_acc"


def test_without_a_race_evaluations_have_no_further_param_or_input(tmp_path: Path) -> None:
    races = make_study(tmp_path, None).races
    assert races.params == {}
    assert races.plans(of(FIRST)) == []
    assert races.of(of(FIRST)) is None
    assert races.baselines_per_job == 5


def test_jobs_of_stopped_experiments_need_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = make_study(tmp_path, {"rungs": [0.5, 1.0]})
    write_json("results/s/models/A.json", MANIFEST)
    requests = Path("results/s/requests/A.parquet")
    requests.parent.mkdir()
    requests.write_bytes(b"requests")
    names = (FIRST, SECOND, CONTROL)
    for number, name in enumerate(names):
        write_json(
            f"results/s/experiments/A/{name}/plan.json", {"model": "A", "experiment": name, "layers": [[number]]}
        )
    assert not any(study.handover.is_stored("evaluate", of(name)) for name in names)  # nothing is known of the tasks
    store = Store(Path(study.paths.evaluation_store("A")))
    tasks = {"piqa": {"n_documents": 100, "tokens": 10.0, "metric": "acc"}}
    TaskFacts.write(store, sha256_of(requests), tasks, pd.DataFrame({"task": ["piqa"]}))
    assert not any(study.handover.is_stored("evaluate", of(name)) for name in names)  # the race has not begun
    answers = {
        name: AnswerStore(
            store.folder,
            evaluation_recipe(
                MANIFEST, read_json(path), **study.evaluation.settings, requests=sha256_of(requests)
            ),
        )
        for name, path in zip(names, study.races.plans(of(FIRST)), strict=True)
    }  # fmt: skip
    params = study.races.params["racing"](of(FIRST))
    record = RaceRecord(
        store.folder, answers, TaskFacts(tasks, Path()), RaceSettings.from_params(params), params["controls"]
    )
    by_first = {"by": FIRST, "lead": 0.3, "stderr": 0.01}
    accuracy = dict.fromkeys(names, 0.5)
    decision = Decision(record._race.fingerprint, 1, {"piqa": 50}, accuracy, 0.0, {SECOND: by_first, CONTROL: by_first})
    write_json(record.folder / "rung-1.json", {"decision": decision.to_dict(), "failed": []})
    standing = record.standing(SECOND)
    assert standing is not None
    assert standing.fields["n_documents"] == 50
    assert not study.handover.is_stored("evaluate", of(SECOND))
    (store.folder / standing.key).mkdir()
    assert study.handover.is_stored("evaluate", of(SECOND))
    assert study.handover.entry("evaluate", of(FIRST)) == store.folder / answers[FIRST].key
    assert study.handover.gpu("evaluate")(of(SECOND)) == 0
    assert study.handover.gpu("evaluate")(of(FIRST)) == 1

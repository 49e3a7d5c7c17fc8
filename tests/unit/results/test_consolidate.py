"""Consolidation of results into validated tables."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tools.data_dictionary import PAGE, insert_tables

from espalier.config import load_study
from espalier.files import read_table, write_table
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.plan import Plan
from espalier.results.consolidate import (
    ExperimentResults,
    evaluations_table,
    experiments_table,
    gradient_metrics,
    layer_rows,
    layers_table,
    with_entering_metric,
    with_settings,
)
from espalier.study.lookups import Study
from espalier.tables import Evaluations, Experiments, Layers, column_metadata
from tests.conftest import REPOSITORY

STRUCTURE = ModelSizes((LayerSizes(2, 10, 4, 3, 5), LayerSizes(2, 10, 4, 3, 5)), other_params=20)
PROTOCOL = {"window": 8, "tasks": ["piqa"]}


def metrics(acc: float, acc_norm: float, ppl: float, n_params: int) -> dict[str, Any]:
    values = {"acc": {"value": acc, "stderr": 0.1}, "acc_norm": {"value": acc_norm, "stderr": None}}
    task = {"metrics": values, "n_samples": 7, "version": 1.0, "n_shot": 0, "limit": None}
    return {
        "n_params": n_params,
        "tasks": {"piqa": task},
        "perplexity": {"wikitext2": {"value": ppl, "n_tokens": 100}},
        "protocol": PROTOCOL,
        "recipe": {"settings": {"protocol": PROTOCOL, "version": 2}},
    }


@pytest.fixture
def finished() -> list[ExperimentResults]:
    config = {
        "study": "s", "models": [{"name": "A", "family": "Llama", "kind": "base", "path": "a"}],
        "methods": [{"name": "taylor"}, {"name": "random", "criterion": "random"}],
        "grid": {"methods": ["taylor", "random"], "taylor_seq_len": [16], "taylor_num_samples": [4]},
    }  # fmt: skip
    entries = Study(load_study(config), REPOSITORY / "src/espalier").tables.entries()
    kept = Plan((2, 2), (4, 4), ((0,), (0, 1)), ((), (0, 1, 2)))
    plan = {
        "model": "A", "experiment": "taylor-seq16-n4-p20", "removed_param_fraction": 0.25, "extreme_pruning_layers": 1,
        "recipe": {"settings": entries[1]["settings"]}, **kept.to_dict(),
    }  # fmt: skip
    gradients = pd.DataFrame(
        {"layer": [0, 0, 1], "n_params": [1, 3, 4], "grad_mean": [1.0, 3.0, 5.0], "grad_std": [0.0, 0.0, 0.0],
         "grad_norm": [1.0, 5.1961524, 10.0], "grad_max": [1.0, 3.0, 5.0]}
    )  # fmt: skip
    return [
        ExperimentResults(entries[0]["facts"], metrics(0.9, 0.8, 3.0, 94), None, None),
        ExperimentResults(entries[1]["facts"], metrics(0.5, 0.6, 5.0, 69), plan, gradient_metrics(gradients)),
        ExperimentResults(entries[2]["facts"], None, None, None, failure="too hot"),
    ]


def test_experiments_table(finished: list[ExperimentResults]) -> None:
    table = Experiments.validate(experiments_table(finished, "acc_norm_else_acc"))
    assert table.experiment.tolist() == ["baseline", "taylor-seq16-n4-p20", "random-p20"]
    assert table.acc_mean.tolist()[:2] == [0.8, 0.6]
    assert table.status.tolist() == ["ok", "ok", "failed"]
    assert table.note.tolist()[2] == "too hot"
    assert table.pruning_ratio.tolist() == [0.0, 0.2, 0.2]
    assert table.removed_param_fraction.tolist()[:2] == [0.0, 0.25]
    assert table.taylor_seq_len.tolist() == [pd.NA, 16, pd.NA]
    assert table.loc[1, ["ppl_wikitext2", "acc_piqa", "extreme_pruning_layers"]].tolist() == [5.0, 0.6, 1]
    assert experiments_table(finished, "acc").acc_mean.tolist()[:2] == [0.9, 0.5]


def test_raced_experiments_have_columns_at_the_end(finished: list[ExperimentResults]) -> None:
    race = {"rung": 2, "n_rungs": 6, "n_documents": 300, "stopped_by": "x", "keep": "best", "confidence": 0.99}
    raced = finished[1].metrics
    assert raced is not None
    finished[1] = replace(finished[1], metrics={**raced, "perplexity": {}, "race": race})
    table = Experiments.validate(experiments_table(finished, "acc_norm_else_acc"))
    assert table.columns.to_list()[-5:] == [
        "note", "race_keep", "race_rung", "race_n_documents", "race_stopped_by"
    ]  # fmt: skip
    assert table.loc[1, table.columns[-4:]].to_list() == ["best", 2, 300, "x"]
    assert table.loc[[0, 2], table.columns[-4:]].isna().all(axis=None)
    assert pd.isna(table.loc[1, "ppl_wikitext2"])


def test_gradient_metrics_pool_projections_by_their_size(finished: list[ExperimentResults]) -> None:
    """Layer 0: mean (1*1 + 3*3) / 4 = 2.5, norm sqrt(1 + 27) = 5.29; layer 1: mean 5, norm 10."""
    found = finished[1].gradients
    assert found is not None
    assert found["grad_mean_ratio"] == pytest.approx(2.0)
    assert found["grad_mean_range"] == pytest.approx(2.5)
    assert found["grad_norm_ratio"] == pytest.approx(10 / 28**0.5)


def test_evaluations_table(finished: list[ExperimentResults]) -> None:
    table = Evaluations.validate(evaluations_table(finished))
    assert len(table) == 6  # acc, acc_norm and one perplexity of two experiments
    row = table[(table.experiment == "baseline") & (table.metric == "acc")].iloc[0]
    assert (row.value, row.stderr, row.n_samples, row.task_version) == (0.9, 0.1, 7, "1.0")
    assert set(table.protocol) == {table.protocol[0]}


def test_layers_table(finished: list[ExperimentResults]) -> None:
    table = Layers.validate(pd.DataFrame(layer_rows(finished[1].plan, STRUCTURE)))
    assert table.kept_kv_groups.tolist() == [1, 2]
    assert table.kept_mlp_channels.tolist() == [0, 3]
    assert table.params_before.tolist() == [2 * 10 + 4 * 3 + 5] * 2
    assert table.params_after.tolist() == [10 + 0 + 5, 20 + 9 + 5]


def test_a_removed_layer_keeps_nothing() -> None:
    plan = Plan.without_layers(STRUCTURE, np.array([False, True])).to_dict() | {"model": "A", "experiment": "x"}
    table = Layers.validate(pd.DataFrame(layer_rows(plan, STRUCTURE)))
    assert table.kept_kv_groups.tolist() == [2, 0]
    assert table.params_after.tolist() == [2 * 10 + 4 * 3 + 5, 0]


def test_the_data_dictionary_is_fresh() -> None:
    """If this test fails, run `make generated`."""
    page = PAGE.read_text(encoding="utf-8")
    assert page.splitlines() == insert_tables(page).splitlines()


def test_evaluations_and_layers_have_the_setting_and_say_what_enters_the_mean(
    finished: list[ExperimentResults], tmp_path: Path
) -> None:
    experiments = Experiments.validate(experiments_table(finished, "acc_norm_else_acc"))
    evaluations = with_entering_metric(with_settings(evaluations_table(finished), experiments), experiments)
    evaluations = Evaluations.validate(evaluations)
    by_experiment = experiments.set_index("experiment")
    for one in evaluations.to_dict("records"):
        assert one["study"] == by_experiment.study[one["experiment"]]
        assert one["pruning_ratio"] == by_experiment.pruning_ratio[one["experiment"]]
    entering = evaluations[evaluations.enters_mean]
    for (name, task), rows in entering.groupby(["experiment", "task"]):
        assert rows.value.tolist() == [by_experiment.loc[name, f"acc_{task}"]]
    means = entering.groupby("experiment").value.mean()
    assert means.to_dict() == pytest.approx(by_experiment.acc_mean[means.index].to_dict())
    layers = Layers.validate(with_settings(layers_table(layer_rows(finished[1].plan, STRUCTURE)), experiments))
    assert set(layers.method) == {by_experiment.method[finished[1].facts["experiment"]]}
    write_table(tmp_path / "e.parquet", experiments, column_metadata(Experiments, experiments))
    schema = pq.read_schema(tmp_path / "e.parquet")
    assert schema.field("taylor_seq_len").metadata[b"unit"] == b"tokens"
    assert schema.field("acc_mean").metadata[b"description"] == b"Mean accuracy over the tasks."
    assert all(field.metadata[b"description"] for field in schema)
    pd.testing.assert_frame_equal(read_table(tmp_path / "e.parquet"), experiments)


@pytest.mark.parametrize("imported", ["acc", "accuracy"])
def test_the_metric_that_enters_the_mean_is_found_for_each_experiment(
    finished: list[ExperimentResults], imported: str
) -> None:
    """Imported results may have no acc_norm of a task that computed results have it of, or do not name their metric."""
    facts = {**finished[1].facts, "model": "Old"}
    old = {**facts, "acc_mean": 0.7, "acc_mean_rule": "acc_norm_else_acc", "acc_piqa": 0.7, "n_params": 1,
           "removed_param_fraction": 0.2, "extreme_pruning_layers": 0, "status": "ok", "source": "old"}  # fmt: skip
    row = {"model": "Old", "experiment": facts["experiment"], "task": "piqa", "metric": imported, "value": 0.7,
           "stderr": None, "n_samples": None, "protocol": "imported"}  # fmt: skip
    experiments = experiments_table(finished, "acc_norm_else_acc", [old])
    table = with_entering_metric(with_settings(evaluations_table(finished, [row]), experiments), experiments)
    entering = table[table.enters_mean]
    assert entering.value.tolist() == [0.8, 0.6, 0.7]
    assert entering.metric.tolist() == ["acc_norm", "acc_norm", imported]


def test_generative_results_have_columns_of_their_own(finished: list[ExperimentResults]) -> None:
    """They do not change the mean. Results of an older version have no count of truncated documents."""
    content = {"n_samples": 4, "n_truncated": 1, "n_skipped": 2, "version": 3.0, "n_shot": 5, "limit": None}
    values = {"exact_match,strict-match": {"value": 0.25, "stderr": 0.2}, "bleu": {"value": 12.5, "stderr": None}}
    unpruned = finished[0]
    generated = {**(unpruned.metrics or {}), "generation": {"gsm8k": {**content, "metrics": values}}}
    results = [replace(unpruned, metrics=generated), *finished[1:]]
    table = Experiments.validate(experiments_table(results, "acc_norm_else_acc"))
    assert table.acc_mean.tolist()[:2] == [0.8, 0.6]
    assert table["gen_gsm8k_exact_match_strict-match"].tolist()[0] == 0.25
    assert pd.isna(table["gen_gsm8k_bleu"].iloc[1])
    rows = Evaluations.validate(
        with_entering_metric(with_settings(evaluations_table(results), table), table)
    ).set_index(["experiment", "task", "metric"])
    row = rows.loc[("baseline", "gsm8k", "exact_match,strict-match")]
    assert (row.value, row.n_samples, row.n_shot, row.n_truncated, row.n_skipped) == (0.25, 4, 5, 1, 2)
    assert not rows.loc[("baseline", "gsm8k", "bleu")].enters_mean
    older = rows.loc[("baseline", "piqa", "acc")]
    assert pd.isna(older.n_truncated)
    assert older.n_skipped == 0

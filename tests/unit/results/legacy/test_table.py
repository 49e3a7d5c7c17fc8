"""The table of a search folder, made from the experiments read, and the tables of the study, made from that table."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from espalier.config import load_study
from espalier.results.consolidate import ExperimentResults, evaluations_table, experiments_table, layers_table
from espalier.results.legacy.read import read_experiment
from espalier.results.legacy.scan import COMPARISON, EVALUATION, GRADIENTS, FoundExperiment, SearchFacts
from espalier.results.legacy.study_rows import (
    StudyFacts,
    legacy_evaluation_rows,
    legacy_experiment_rows,
    legacy_layer_rows,
    unpruned_sizes,
)
from espalier.results.legacy.table import import_summary, import_table, summary_lines
from espalier.study.legacy import LegacyResults
from espalier.study.paths import Paths
from espalier.tables import Evaluations, Experiments, ImportedValues, Layers
from tests.published import METHODS, edit, experiment_folder, write_model

FACTS = StudyFacts(study="published", family="Qwen", kind="base")


def tables(folders: list[Path]) -> tuple[list[pd.DataFrame], list[dict[str, Any]]]:
    """Import search folders as the jobs do; return the table and the summary of each."""
    entry = {"name": "Qwen", "family": "Qwen", "kind": "base", "legacy": [str(folder) for folder in folders]}
    legacy = LegacyResults(load_study({"study": "published", "models": [entry]}), Paths("results"))
    frames, summaries = [], []
    for folder in folders:
        wildcards = type("Wildcards", (), {"model": "Qwen", "search_folder": folder.name})
        names = legacy.import_params(wildcards)
        keys = {key: names[key] for key in ("methods", "model_names")}
        search = SearchFacts(**names["search"])
        found = [FoundExperiment.from_dict(values) for values in names["experiments"]]
        experiments = [read_experiment(one, search, **keys) for one in found]
        frames.append(ImportedValues.validate(import_table(search, zip(found, experiments, strict=True))))
        summaries.append(import_summary(search, frames[-1], names["not_read"]))
    return frames, summaries


def experiments_of(frames: list[pd.DataFrame], rule: str = "acc_norm_else_acc") -> pd.DataFrame:
    found = [row for frame in frames for row in legacy_experiment_rows(frame, FACTS, rule)]
    return Experiments.validate(experiments_table([], rule, found)).set_index("experiment")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return write_model(tmp_path, "Qwen")


def test_a_whole_study(folders: list[Path]) -> None:
    frames, summaries = tables(folders)
    table = experiments_of(frames)
    assert len(table) == 45
    assert set(table.status) == {"ok"}
    assert table.note.isna().all()
    # Of 1000 documents, 400 + 50 m + 20 + 1 are right in the middle setting of method m.
    means = table.groupby("method", sort=False).acc_mean.mean()
    assert means.to_dict() == pytest.approx({"taylor": 0.421, "layerwise": 0.471, "blockwise": 0.521})
    row = table.loc["blockwise-seq256-n512-p30"]
    assert row.acc_mean == pytest.approx(0.542)
    assert (row.ppl_wikitext2, row.ppl_ptb, row.grad_mean_ratio, row.grad_mean_range) == (16.0, 32.0, 6.0, 1.25)
    assert (row.criterion, row.taylor_seq_len, row.taylor_num_samples) == ("taylor", 256, 512)
    assert row.source == f"{folders[2]}/{experiment_folder(15, 256, 512)}"
    assert (row.pruning_ratio, row.n_params, row.extreme_pruning_layers) == (0.3, 38580, 2)
    assert row.removed_param_fraction == pytest.approx(0.297, abs=1e-3)
    assert summaries[0]["experiments"] == {"total": 15, "ok": 15}
    assert list(summary_lines(summaries[0])) == []


def test_the_other_rule(folders: list[Path]) -> None:
    """By `acc`, piqa has 50 of 1000 documents fewer right, so the mean of two tasks is 0.025 lower."""
    table = experiments_of(tables(folders)[0], "acc")
    assert table.loc["taylor-seq16-n128-p30"].acc_mean == pytest.approx((0.400 + 0.350) / 2)
    assert set(table.acc_mean_rule) == {"acc"}


def test_evaluations_and_layers(folders: list[Path]) -> None:
    frames, _ = tables(folders)
    found = Evaluations.validate(
        evaluations_table([], [row for frame in frames for row in legacy_evaluation_rows(frame)])
    )
    assert len(found) == 45 * (1 + 2 + 2)
    one = found[
        (found.experiment == "layerwise-seq16-n128-p30") & (found.task == "piqa") & (found.metric == "acc_norm")
    ]
    assert one.value.tolist() == [0.45]
    assert one.stderr.tolist() == pytest.approx([(0.45 * 0.55 / 999) ** 0.5])
    assert one.n_samples.tolist() == [1000]
    assert found[["limit", "n_shot", "task_version"]].isna().all(axis=None)
    assert set(found.protocol) == {"imported"}
    layers = Layers.validate(layers_table([row for frame in frames for row in legacy_layer_rows(frame)]))
    assert len(layers) == 45 * 4
    last = layers.iloc[3]
    assert (last.layer, last.kept_mlp_channels, last.attention_after, last.mlp_after) == (3, 35, 3000, 3500)
    assert (last.params_before, last.params_after) == (13620, 6520)
    assert layers.kept_kv_groups.isna().all()
    name, total, widths = next(unpruned_sizes(frames[0]))
    assert (name, total, widths) == ("taylor-seq16-n128-p30", 54880, [(None, 96)] * 4)


def test_faults(folders: list[Path]) -> None:
    at = [folders[0] / experiment_folder(3 * s + 1, length, 128) for s, length in enumerate((16, 32, 64, 128, 256))]
    (at[0] / EVALUATION).unlink()
    edit(at[1] / GRADIENTS, gradient_statistics__norm_ratio=float("nan"), gradient_statistics__norm_range="nan ~ nan")
    edit(at[2] / GRADIENTS, gradient_statistics__norm_ratio=float("nan"))
    edit(at[3] / EVALUATION, model_path="r/search_Qwen_30/exp_1_taylor_seq_len16_taylor_num_samples128/m.bin")
    (at[4] / COMPARISON).unlink()
    (folders[0] / experiment_folder(99, 32, 256)).mkdir()
    (folders[0] / "exp_5").mkdir()
    frames, summaries = tables(folders)
    table = experiments_of(frames)
    # Of 45 + 2 folders one failed, two claim 32 x 256, one is about another experiment, and one has an unclear name.
    assert table.status.value_counts().to_dict() == {"ok": 42, "contradictory": 3, "failed": 1, "unknown": 1}
    aside = table[table.status.isin(["contradictory", "unknown"])]
    assert aside[["acc_mean", "n_params", "ppl_ptb", "grad_mean_ratio"]].isna().all(axis=None)
    assert pd.isna(table.loc["taylor-seq32-n128-p30"].grad_norm_ratio)
    assert pd.isna(table.loc["taylor-seq256-n128-p30"].removed_param_fraction)
    assert table.loc["taylor-seq16-n128-p30"].note == f"{EVALUATION}: is missing"
    assert summaries[0]["experiments"] == {"total": 17, "contradictory": 3, "failed": 1, "ok": 12, "unknown": 1}
    lines = list(summary_lines(summaries[0]))
    assert f"{GRADIENTS}: norm_ratio is not finite: 2 experiments, {at[1].name} to {at[2].name}" in lines
    assert any(line.startswith("exp_5: unknown: its name is not of the form exp_") for line in lines)
    # Contradictory and unknown experiments are in no other table. A failed experiment is in the layers table.
    layers = [row for frame in frames for row in legacy_layer_rows(frame)]
    assert {row["experiment"] for row in layers} == set(table.index) - set(aside.index) - {"taylor-seq256-n128-p30"}
    evaluations = [row for frame in frames for row in legacy_evaluation_rows(frame)]
    assert {row["experiment"] for row in evaluations} == set(table.index[table.status == "ok"])


def test_a_ratio_that_is_not_known_has_no_row(folders: list[Path], tmp_path: Path) -> None:
    strange = folders[0].rename(tmp_path / "search_Qwen_twenty")
    frames, summaries = tables([strange, *folders[1:]])
    assert len(frames[0].folder.unique()) == 15
    assert legacy_experiment_rows(frames[0], FACTS, "acc") == []
    assert len(summaries[0]["not_used"]) == 15


def test_an_empty_folder(tmp_path: Path) -> None:
    empty = tmp_path / "search_Qwen_20"
    empty.mkdir()
    frames, summaries = tables([empty])
    assert len(frames[0]) == 0
    assert summaries[0]["experiments"] == {"total": 0}
    assert len(Layers.validate(layers_table(legacy_layer_rows(frames[0])))) == 0
    assert len(Evaluations.validate(evaluations_table([], legacy_evaluation_rows(frames[0])))) == 0


def test_all_methods_are_told_apart(folders: list[Path]) -> None:
    assert experiments_of(tables(folders)[0]).method.unique().tolist() == list(METHODS)


def test_computed_and_imported_rows_share_a_table(folders: list[Path]) -> None:
    """The joined table has the columns of both; values that one side does not have are null."""
    facts = {
        "study": "published", "model": "A", "family": "Llama", "kind": "base", "experiment": "baseline",
        **dict.fromkeys(("method", "criterion", "taylor_seq_len", "taylor_num_samples", "calibration")),
        "pruning_ratio": 0.0,
    }  # fmt: skip
    task = {"metrics": {"acc": {"value": 0.5, "stderr": 0.1}}, "n_samples": 9, "version": 1.0, "n_shot": 0, "limit": 9}
    metrics = {
        "n_params": 100, "tasks": {"copa": task}, "perplexity": {"c4": {"value": 5.0, "n_tokens": 7}}, "protocol": {},
    }  # fmt: skip
    computed = ExperimentResults(facts, metrics, None, None)
    frames, _ = tables(folders[:1])
    rule = "acc_norm_else_acc"
    table = Experiments.validate(experiments_table([computed], rule, legacy_experiment_rows(frames[0], FACTS, rule)))
    assert table.experiment.tolist()[:2] == ["baseline", "taylor-seq16-n128-p30"]
    assert table.ppl_c4.notna().sum() == table.acc_copa.notna().sum() == 1
    assert table.ppl_ptb.notna().sum() == table.acc_boolq.notna().sum() == 15
    assert table.source.tolist()[0] == "run"
    found = Evaluations.validate(evaluations_table([computed], legacy_evaluation_rows(frames[0])))
    assert found.protocol.nunique() == 2
    assert found.n_shot.tolist()[0] == 0

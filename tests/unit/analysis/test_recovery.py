"""Analysis of recovered experiments: paired differences, ranking, best experiment and missing results."""

import json
from functools import partial
from typing import Any

import pandas as pd
import pytest

from espalier.analysis.evidence import draws_table, gather_evidence, read_draws
from espalier.analysis.model import analyse_model
from espalier.analysis.recovery import analyse_recovery, joint_draws
from espalier.analysis.selection import rows_of
from espalier.errors import UserError
from espalier.reports.chart_rows import experiment_chart_rows
from espalier.reports.formatting import MISSING
from espalier.reports.html import model_html
from espalier.reports.messages import Texts
from espalier.reports.sections.recovery import recovery_sections, with_recovery
from espalier.reports.text import model_text
from espalier.results.recovered import recovered_table
from espalier.tables import RecoveredExperiments
from tests.unit.analysis.test_analysis import row, table
from tests.unit.analysis.test_uncertainty import N, samples

# Correct answers of 40 in each of two tasks, before and after; the mean accuracy is (a + b) / 80.
BEFORE = {"x-1": (36, 36), "x-2": (30, 30), "x-3": (24, 24), "y-1": (18, 18), "y-2": (12, 12), "random-1": (6, 6)}
KEPT = {"x-1": (38, 38), "x-2": (34, 34), "x-3": (30, 30), "y-1": (26, 26), "y-2": (22, 22), "random-1": (20, 20)}
SWAPPED = KEPT | {"x-1": (20, 20), "x-2": (39, 39)}
CLOSE = KEPT | {"x-1": (38, 37), "x-2": (38, 38)}


def experiments() -> pd.DataFrame:
    rows = [
        row(
            name, (a + b) / (2 * N), acc_a=a / N, acc_b=b / N, ppl_text=50.0 - a,
            **({"criterion": "random"} if name == "random-1" else {}),
        )
        for name, (a, b) in BEFORE.items()
    ]  # fmt: skip
    return table(*rows)


def evaluations() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"model": "M", "experiment": name, "task": task, "metric": "acc", "value": n / N, "stderr": 0.01,
             "n_samples": N}
            for name, right in BEFORE.items()
            for task, n in zip(("a", "b"), right, strict=True)
        ]
    )  # fmt: skip


def recovered(after: dict[str, tuple[int, int]], **failed: str) -> pd.DataFrame:
    rows = [
        {
            "model": "M", "experiment": name, "method": name[0], "pruning_ratio": 0.5, "acc_mean_rule": "acc",
            "acc_mean_before": sum(BEFORE[name]) / (2 * N), "acc_mean_after": (a + b) / (2 * N),
            "ppl_before_text": 50.0 - BEFORE[name][0], "ppl_after_text": 45.0 - a, "n_tokens": 5_120_000,
            "n_trainable": 1000, "seconds": 61.4, "peak_memory_bytes": 2**30, "status": "ok", "note": None,
        }
        for name, (a, b) in after.items()
    ]  # fmt: skip
    for name, reason in failed.items():
        name = name.replace("_", "-")  # noqa: PLW2901
        rows.append(
            {**rows[0], "experiment": name, "acc_mean_after": None, "ppl_after_text": None, "n_tokens": None,
             "n_trainable": None, "seconds": None, "peak_memory_bytes": None, "status": "failed", "note": reason}
        )  # fmt: skip
    return RecoveredExperiments.validate(recovered_table(rows, ["text"]))


def analyse(frame: pd.DataFrame, after: dict[str, tuple[int, int]]) -> dict[str, Any]:
    rows = rows_of(experiments(), "M")
    known = {name: partial(samples, right) for name, right in BEFORE.items()}
    # Through a table, as from disk, where draws are float32.
    before = read_draws(draws_table(gather_evidence(rows, evaluations(), known, n_draws=2_000)))
    own = {name: partial(samples, right) for name, right in after.items()}
    found = analyse_recovery(rows, frame, joint_draws(rows, frame, evaluations(), own, before, seed=0))
    return json.loads(json.dumps(found, allow_nan=False))


def codes(found: dict[str, Any]) -> list[str]:
    return [message["code"] for message in found["by_ratio"]["50"]["statements"]]


def test_differences_are_on_the_same_documents() -> None:
    found = analyse(recovered(KEPT), KEPT)
    one = found["by_ratio"]["50"]["experiments"]["x-2"]
    assert one["change"] == pytest.approx(0.1)
    # In each task 4 documents of 40 are won and none is lost: the difference has p = 0.1 in each task, so its standard
    # error is sqrt(2 * 0.09 / 40) / 2 = 0.0335, where two independent samples would have 0.08.
    width = one["change_interval"][1] - one["change_interval"][0]
    assert width == pytest.approx(2 * 1.96 * 0.0335, rel=0.15)
    assert (one["ppl_before"], one["ppl_after"]) == (20.0, 11.0)
    assert found["source"] == "documents"
    assert found["by_ratio"]["50"]["experiments"]["random-1"]["control"] is True


def test_a_kept_ranking_is_stated() -> None:
    found = analyse(recovered(KEPT), KEPT)
    ranking = found["by_ratio"]["50"]["ranking"]
    assert (ranking["n"], ranking["tau"]) == (5, 1.0)  # without the control
    assert ranking["p"] == pytest.approx(2 / 120)
    assert codes(found) == ["ranking_kept", "ranking_interval", "best_stays", "best_stays_alone"]


def test_a_changed_best_is_distinguishable_from_the_new_best() -> None:
    found = analyse(recovered(SWAPPED), SWAPPED)
    best = found["by_ratio"]["50"]["best"]
    assert (best["before"], best["after"], best["told"]) == ("x-1", "x-2", True)
    assert best["difference"] == pytest.approx(19 / 40)
    assert best["interval"][0] > 0.3
    assert codes(found) == ["ranking_open", "ranking_interval", "best_changes_told"]


def test_a_best_that_changes_by_one_document_is_not_distinguishable() -> None:
    found = analyse(recovered(CLOSE), CLOSE)
    best = found["by_ratio"]["50"]["best"]
    assert (best["before"], best["after"], best["told"]) == ("x-1", "x-2", False)
    assert "best_changes_open" in codes(found)


def test_a_partial_ranking_is_stated() -> None:
    few = {name: KEPT[name] for name in ("x-1", "x-3", "y-1")}
    found = analyse(recovered(few), few)
    assert codes(found) == [
        "ranking_open", "ranking_interval", "ranking_few", "ranking_part", "best_stays", "best_stays_alone",
    ]  # fmt: skip
    assert found["by_ratio"]["50"]["statements"][2]["text"] == (
        "3 experiments are too few to show it: even two equal orders have p 0.33."
    )
    one = analyse(recovered({"x-1": KEPT["x-1"]}), KEPT)
    assert (codes(one), one["by_ratio"]["50"]["ranking"]) == (["ranking_none"], None)


def test_without_documents_there_are_values_and_a_reason() -> None:
    rows = rows_of(experiments(), "M")
    joint = joint_draws(rows, recovered(KEPT), evaluations(), {}, None, seed=0)
    assert joint.draws is None
    found = analyse_recovery(rows, recovered(KEPT), joint)
    assert found["reason"] == "there are no results of single documents"
    assert found["by_ratio"]["50"]["ranking"]["interval"] is None
    assert "ranking_interval" not in codes(found)


def test_a_task_of_a_group_with_one_document_leaves_the_interval_of_the_change() -> None:
    """Tasks `g_a` and `g_b` of group `g` have 4 documents and one. Recovery mends one of the 5."""

    def grouped(right: tuple[int, int]) -> pd.DataFrame:
        frame = samples(right)
        frame = frame[frame["doc_id"] < frame["task"].map({"a": 4, "b": 1})].reset_index(drop=True)
        return frame.assign(task="g_" + frame["task"], task_group="g")

    table_of_one = table(row("x-1", 0.6, ppl_text=14.0)).drop(columns="acc_b").rename(columns={"acc_a": "acc_g"})
    rows = rows_of(table_of_one, "M")
    values = {"model": "M", "experiment": "x-1", "task": "g", "metric": "acc", "value": 0.6, "stderr": None}
    of_group = pd.DataFrame([values | {"n_samples": 5}])
    before = gather_evidence(rows, of_group, {"x-1": partial(grouped, (2, 1))}, n_draws=2_000).draws
    after = recovered({"x-1": KEPT["x-1"]}).assign(acc_mean_after=0.8)
    joint = joint_draws(rows, after, of_group, {"x-1": partial(grouped, (3, 1))}, before, seed=0)
    assert joint.draws is not None
    changes = joint.draws.after.draws - joint.draws.before.draws
    assert changes.mean() == pytest.approx(0.2, abs=0.01)
    assert changes.std() == pytest.approx(0.4 / 5**0.5, rel=0.05)  # a document changes by 1 with probability 0.2


def test_documents_that_do_not_give_the_tables_accuracy_are_refused() -> None:
    with pytest.raises(UserError, match=r"experiment x-1: its documents give acc_mean 0\.95"):
        analyse(recovered(KEPT | {"x-1": (20, 20)}), KEPT)


def reported(frame: pd.DataFrame, after: dict[str, tuple[int, int]]) -> dict[str, Any]:
    analysis = analyse_model(experiments(), "M", headline_ratio=None)
    return with_recovery(json.loads(json.dumps(analysis)), [analyse(frame, after)])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_report_shows_before_and_after(language: str) -> None:
    frame = recovered({name: KEPT[name] for name in list(KEPT) if name != "y-2"}, y_2="out of memory")
    content = reported(frame, KEPT)
    texts = Texts(language)
    (section,) = recovery_sections(texts, content["by_ratio"]["50"])
    assert texts("recovery.level") in section.paragraphs  # not among the sentences that hold together
    cells = {cells[0]: cells for cells in section.tables[0].rows}
    assert cells["x-2"][1:4] == ["0.7500", "0.8500", "+0.1000"]
    assert cells["x-2"][5:] == ["20.00", "11.00", "61"]
    assert texts("control", name="random-1") in cells
    assert cells["y-2"][2] == MISSING
    assert any("y-2" in remark and "out of memory" in remark for remark in section.remarks)
    text = model_text(content, language)
    assert texts("s.recovery") in text
    assert "nan" not in text
    rows = {key: experiment_chart_rows(experiments(), content, one) for key, one in content["by_ratio"].items()}
    assert texts("s.recovery") in model_html(content, rows, {}, language)


def test_a_missing_accuracy_comes_after_an_accuracy_of_zero() -> None:
    content = reported(recovered(KEPT), KEPT)["by_ratio"]["50"]
    experiments = content["recovery"]["experiments"]
    experiments["x-1"] |= {"acc_before": 0.0, "acc_after": 0.0}
    experiments["x-2"] |= {"acc_before": 0.9, "acc_after": None}
    experiments["x-3"] |= {"acc_before": None, "acc_after": None}
    (section,) = recovery_sections(Texts(), content)
    assert [row[0] for row in section.tables[0].rows][-3:] == ["x-1", "x-2", "x-3"]


def test_nothing_is_shown_where_nothing_was_recovered() -> None:
    plain = json.loads(json.dumps(analyse_model(experiments(), "M", headline_ratio=None)))
    assert with_recovery(plain, []) == plain
    assert Texts()("s.recovery") not in model_text(plain)
    other_ratio = with_recovery(plain, [{"why": None, "by_ratio": {"20": {}}}])
    assert Texts()("s.recovery") not in model_text(other_ratio)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_report_says_what_was_trained(language: str) -> None:
    texts, said = Texts(language), []
    for trained, distilled in (("lora", False), ("full", False), ("full", True)):
        frame = recovered_table(
            recovered(KEPT).assign(trained=trained, distilled=distilled).to_dict("records"), ["text"]
        )
        (section,) = recovery_sections(texts, reported(frame, KEPT)["by_ratio"]["50"])
        said.append(section.paragraphs[0])
    assert "LoRA" in said[0]
    assert "LoRA" not in said[1]
    assert said[2] == f"{said[1]} {texts('recovery.distilled')}"


def test_what_a_race_stopped_is_not_compared_with_itself_before_recovery() -> None:
    """Its accuracy before rests on 20 of the 40 documents of each task, its accuracy after on all."""
    frame = experiments().assign(race_keep="best", race_stopped_by=None, race_rung=3, race_n_documents=2 * N)
    frame.loc[frame["experiment"] == "x-3", ["acc_mean", "race_stopped_by", "race_rung", "race_n_documents"]] = [
        1.0, "x-1", 1, N
    ]  # fmt: skip
    rows, first = rows_of(frame, "M"), samples(BEFORE["x-3"])
    known = {name: partial(samples, right) for name, right in BEFORE.items()}
    known["x-3"] = partial(first[first["doc_id"] < N // 2].reset_index, drop=True)
    before = read_draws(draws_table(gather_evidence(rows, evaluations(), known, n_draws=500)), all_documents=True)
    table_of_recovered = recovered(KEPT)
    own = {name: partial(samples, right) for name, right in KEPT.items()}
    joint = joint_draws(rows, table_of_recovered, evaluations(), own, before, seed=0)
    found = analyse_recovery(rows, table_of_recovered, joint)["by_ratio"]["50"]
    stopped, survivor = found["experiments"]["x-3"], found["experiments"]["x-2"]
    assert (stopped["acc_before"], stopped["acc_after"], stopped["change"]) == (None, 0.75, None)
    assert stopped["change_interval"] is None
    assert survivor["change"] == pytest.approx(0.1)
    assert survivor["change_interval"][0] < 0.1 < survivor["change_interval"][1]
    assert found["statements"][-1]["text"] == (
        "Before and after are not compared for x-3: the race stopped it before it had answered all documents."
    )
    assert found["n"] == 4

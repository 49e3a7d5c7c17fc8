"""Uncertainty of the analysis: from documents, from counts, and the reason that is given if both are missing."""

import json
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from espalier.analysis.costs import costs_of
from espalier.analysis.cross_model import analyse_study
from espalier.analysis.evidence import Evidence, _groups, draws_table, gather_evidence, read_draws
from espalier.analysis.gradient_profile import calibration_settings, profile_gradients
from espalier.analysis.message_json import english
from espalier.analysis.model import analyse_model
from espalier.analysis.perplexities import ratios_to_unpruned
from espalier.analysis.races import level_after_race
from espalier.analysis.selection import rows_of
from espalier.errors import UserError
from espalier.reports.text import model_text
from espalier.statistics import conclusions
from espalier.statistics.confidence_set import confidence_set
from tests.unit.analysis.test_analysis import row, table

N = 40
# Correct answers of 40 in each of two tasks; the mean accuracy is (a + b) / 80.
RIGHT = {"baseline": (40, 36), "x-1": (30, 30), "x-2": (29, 31), "y-1": (10, 14), "random-1": (20, 20)}


def samples(right: tuple[int, int]) -> pd.DataFrame:
    """Return samples of two tasks: two choices per document, the first `right` documents answered correctly."""
    rows = [
        {
            "task": task, "doc_id": document, "choice": choice, "gold": choice == 0,
            "loglikelihood": -1.0 if (choice == 0) == (document < n) else -2.0, "n_chars": 1,
        }
        for task, n in zip(("a", "b"), right, strict=True)
        for document in range(N)
        for choice in range(2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def experiments(**changes: Any) -> pd.DataFrame:
    rows = []
    for name, (a, b) in RIGHT.items():
        own = {"criterion": "random", "taylor_seq_len": None, "calibration": None} if name == "random-1" else {}
        accuracies = {"acc_a": a / N, "acc_b": b / N}
        rows.append(row(name, (a + b) / (2 * N), **accuracies, **own, **changes))
    rows[2] |= {"taylor_seq_len": 32, "taylor_num_samples": 16}  # 512 tokens, as 16 x 32
    return table(*rows)


def evaluations(model: str = "M") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "model": model, "experiment": name, "task": task, "metric": "acc", "value": n / N,
                "stderr": (n / N * (1 - n / N) / (N - 1)) ** 0.5, "n_samples": N,
            }
            for name, right in RIGHT.items()
            for task, n in zip(("a", "b"), right, strict=True)
        ]
    )  # fmt: skip


def evidence(*, documents: bool = True, model: str = "M") -> Evidence:
    given = {name: partial(samples, right) for name, right in RIGHT.items()} if documents else {}
    return gather_evidence(rows_of(experiments(model=model), model), evaluations(model), given, n_draws=2_000)


def analyse(of: Evidence) -> dict[str, Any]:
    analysis = analyse_model(experiments(), "M", headline_ratio=None, evidence=of)
    json.dumps(analysis, allow_nan=False)
    return analysis


def test_documents_give_intervals_the_set_and_words() -> None:
    found = analyse(evidence())["uncertainty"]
    assert found["source"] == "documents"
    assert (found["n_draws"], found["level"], found["reason"]) == (2_000, 0.95, None)
    # Standard error of the mean of two tasks with p = 3/4: sqrt(2 * (3/16) / 40) / 2 = 0.0484
    one = found["experiments"]["x-1"]
    assert one["stderr"] == pytest.approx(0.0484, abs=0.003)
    assert one["interval"][0] < 0.75 < one["interval"][1]
    assert one["acc_kept"] == pytest.approx(60 / 76)
    assert one["task_stderr"]["a"] == pytest.approx((0.1875 / 39) ** 0.5)
    assert found["set"]["members"] == ["x-1", "x-2"]  # equal; y-1 is far behind
    assert found["experiments"]["y-1"]["in_set"] is False
    assert found["experiments"]["random-1"]["in_set"] is None  # a control is not a candidate
    assert set(found["methods"]) == {"x", "y", "random"}
    # The control has one experiment, so its mean has the interval of that.
    assert found["methods"]["random"]["interval"] == pytest.approx(found["experiments"]["random-1"]["interval"])
    assert found["optimism"]["split_half_at_half_the_documents"]["n_splits"] == 1_000
    assert found["axes"]["parts"]["method"]["share"] > 0.7
    assert found["seeds"]["reason"] == "only 1 calibration seed; at least 2 are needed"
    (group,) = found["tokens"]
    assert (group["tokens"], [one["taylor_seq_len"] for one in group["settings"]]) == (512, [16, 32])
    assert "All experiments of y are worse than the best." in " ".join(
        one["text"] for one in found["statements"]["set"]
    )


def test_counts_are_used_where_documents_are_missing_and_it_says_so() -> None:
    found = analyse(evidence(documents=False))["uncertainty"]
    assert found["source"] == "counts"
    assert found["experiments"]["x-1"]["stderr"] == pytest.approx(0.0484, abs=0.003)
    assert found["optimism"]["split_half_at_half_the_documents"] is None
    assert "no results of single documents" in found["statements"]["intervals"][0]["text"]


def test_without_counts_there_is_nothing_and_it_says_why() -> None:
    nothing = gather_evidence(rows_of(experiments(), "M"), evaluations().iloc[:0], {})
    found = analyse(nothing)["uncertainty"]
    assert found["source"] is None
    assert found["reason"] == "neither results of single documents nor their numbers are known"
    assert found["experiments"]["x-1"]["interval"] is None
    assert found["statements"] == {}
    one_document = dict.fromkeys(RIGHT, lambda: samples((1, 1))[lambda rows: rows["doc_id"] == 0])
    all_right = table(*(row(name, 1.0) for name in RIGHT))
    few = gather_evidence(rows_of(all_right, "M"), evaluations(), one_document)
    assert few.draws is None
    assert few.reason is not None
    assert "has 1 document" in english(few.reason)


def raced(keep: str = "best") -> pd.DataFrame:
    """Experiments of a race that stopped x-1 after 20 of the 40 documents of each task, where it had half of them."""
    frame = experiments().assign(race_keep=keep, race_stopped_by=None, race_rung=3, race_n_documents=2 * N)
    frame.loc[frame["experiment"] == "baseline", ["race_keep", "race_rung", "race_n_documents"]] = None
    columns = ["acc_mean", "race_stopped_by", "race_rung", "race_n_documents"]
    frame.loc[frame["experiment"] == "x-1", columns] = [0.5, "x-2", 1, N]
    return frame


def raced_samples() -> dict[str, partial[pd.DataFrame]]:
    given = {name: partial(samples, right) for name, right in RIGHT.items()}
    last = samples(RIGHT["x-1"])
    return given | {"x-1": partial(last[last["doc_id"] >= N // 2].reset_index, drop=True)}


def analyse_race(keep: str = "best") -> tuple[Evidence, dict[str, Any]]:
    frame = raced(keep)
    drawn = gather_evidence(rows_of(frame, "M"), evaluations(), raced_samples(), n_draws=2_000)
    analysis = analyse_model(frame, "M", headline_ratio=None, evidence=drawn)
    json.dumps(analysis, allow_nan=False)
    return drawn, analysis


def test_without_single_documents_what_a_race_stopped_is_compared_with_nothing() -> None:
    model = rows_of(raced(), "M")
    assert model.experiments.set_index("experiment")["invalid"].to_dict() == {
        "x-1": "reason.stopped_in_race", "x-2": "", "y-1": "", "random-1": ""
    }  # fmt: skip
    given = {name: partial(samples, right) for name, right in RIGHT.items() if name != "x-1"}
    drawn = gather_evidence(model, evaluations(), given, n_draws=500)
    content = analyse_model(raced(), "M", headline_ratio=None, evidence=drawn)
    assert content["best"]["experiment"] == "x-2"
    found = content["uncertainty"]
    assert found["set"] is None
    assert found["reason"] is not None
    assert found["experiments"]["x-2"]["interval"] is None
    text = model_text(content)
    assert "in a race, only the survivors answer all documents" in text
    # Four experiments: three answered 80 documents, one 40: 280 of 320.
    assert "All experiments together answered 87.5% of the documents." in " ".join(text.split())
    race = content["race"]
    assert race["common"] is None
    assert race["experiments"]["x-1"] == {
        "acc_mean": 0.5, "n_documents": 40, "rung": 1, "stopped_by": "x-2", "path": []
    }  # fmt: skip
    assert list(race["experiments"])[-1] == "x-1"


def test_after_a_race_all_experiments_are_compared_on_the_documents_that_all_answered() -> None:
    """On the last 20 documents of both tasks: x-1 10 + 10, x-2 9 + 11, y-1 and random-1 none, unpruned 20 + 16."""
    drawn, content = analyse_race()
    assert content["methods"]["x"] | {"removed_param_fraction": None, "control": None} == {
        "mean": 0.5, "std": 0.0, "min": 0.5, "max": 0.5, "n": 2, "removed_param_fraction": None, "control": None
    }  # fmt: skip
    assert content["methods"]["y"]["mean"] == 0
    assert {value: one["mean"] for value, one in content["taylor_seq_len"].items()} == {"16": 0.25, "32": 0.5}
    compared, common = content["comparisons"], content["race"]["common"]
    assert compared["common_documents"] == content["common_documents"] == {"n_documents": 40, "n_all": 80}
    # The first of three rungs stopped x-1: half of the error of the differences of the only model.
    assert compared["level"] == pytest.approx(1 - 0.05 / 2 / 2)
    assert compared["kept"]["x"]["mean"] == pytest.approx(0.5 / 0.9)
    (difference,) = [one for one in compared["differences"] if (one["first"], one["second"]) == ("x", "y")]
    assert difference["difference"] == pytest.approx(0.5 / 0.9)
    assert common["tasks"] == {"a": 20, "b": 20}
    assert common["baseline"] == pytest.approx(0.9)
    # Standard error of the mean of two tasks with p = 1/2 on 20 documents each: sqrt(2 * (1/4) / 20) / 2 = 0.0791
    low, high = common["experiments"]["x-1"]["interval"]
    assert (high - low) / (2 * 1.96) == pytest.approx(0.0791, abs=0.006)
    assert common["half_width"] == pytest.approx((high - low) / 2, abs=0.006)
    # The best and its interval rest on all documents.
    assert (content["best"]["experiment"], content["best"]["acc_mean"]) == ("x-2", 0.75)
    found = content["uncertainty"]
    assert found["experiments"]["x-2"]["stderr"] == pytest.approx(0.0484, abs=0.003)
    assert found["experiments"]["x-2"]["acc_kept"] == pytest.approx(60 / 76)
    assert set(content["results"]) == set(found["experiments"]) == {"x-2", "y-1", "random-1"}
    assert found["set"] is None
    assert found["optimism"] is None
    assert found["axes"]["n"] == 3
    assert content["race"]["experiments"]["x-2"]["path"] == [[40, 0.5], [80, 0.75]]
    assert content["race"]["experiments"]["x-1"]["path"] == [[40, 0.5]]
    # Differences over models use the draws on the same documents.
    stored = read_draws(draws_table(drawn))
    assert stored is not None
    assert dict(zip(stored.experiments, stored.accuracy, strict=True))["x-1"] == 0.5


@pytest.mark.parametrize(("rung", "share"), [(1, 2), (2, 4), (3, 4)])
def test_levels_after_a_race_depend_on_the_rung_that_stopped_the_first(rung: int, share: int) -> None:
    """Of three rungs, the first has half of the error, and the two others have a quarter each."""
    frame = raced()
    frame.loc[frame["experiment"] == "x-1", "race_rung"] = rung
    if rung == 3:
        frame["race_stopped_by"] = None
    rows = rows_of(frame, "M").experiments
    assert level_after_race(0.95, rows) == pytest.approx(1 - 0.05 / share)
    # Without the survivors (their jobs have not finished), there is at least one more rung than that of the stop.
    if rung < 3:
        alone = rows[rows["experiment"] == "x-1"]
        assert level_after_race(0.95, alone) == pytest.approx(1 - 0.05 / share)
    assert level_after_race(0.95, rows_of(experiments(), "M").experiments) == 0.95
    unknown = rows.assign(invalid="reason.failed")
    assert level_after_race(0.95, unknown) == 0.95


def test_all_levels_on_the_common_documents_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of the axes against calibration seeds, and of the page that compares all models."""
    levels: list[float] = []

    def record(_: Any, level: float) -> list[Any]:
        levels.append(level)
        return []

    monkeypatch.setattr(conclusions, "axes_messages", record)
    drawn, content = analyse_race()
    assert levels == [pytest.approx(1 - 0.05 / 8 / 3 / 2)] * len(levels)  # three axes
    assert levels
    both = pd.concat([raced(), raced().assign(model="I", kind="instruct")], ignore_index=True)
    stored = read_draws(draws_table(drawn))
    study = analyse_study(both, draws={"M": stored, "I": stored}, analyses={"M": content})
    assert study["comparisons"]["level"] == pytest.approx(1 - 0.05 / 2 / 2)
    assert study["comparisons"]["common_documents"] == {"n_documents": 40, "n_all": 80}


def test_the_report_of_a_race_says_on_how_many_documents_experiments_are_compared() -> None:
    text = " ".join(model_text(analyse_race()[1]).split())
    # What each method keeps, then methods, settings, gradients, extreme layers, differences, spread.
    assert text.count("On 40 of 80 documents, which all experiments answered in the race.") == 7
    assert "means over the settings of each method. On 40 of 80 documents" in text
    assert "the 40 of 80 documents that all of them answered (a 20, b 20)" in text
    assert (
        "It is not known which experiments cannot be told from the best, because the race kept only the best." in text
    )
    assert "The best experiment and its comparison with the unpruned model rest on all documents." in text


def test_a_set_after_a_race_has_the_margin_of_the_full_grid() -> None:
    _, content = analyse_race("set")
    found = content["uncertainty"]
    whole = analyse(evidence())["uncertainty"]["set"]
    assert found["set"]["n"] == whole["n"] == 3
    assert found["set"]["simultaneous_members"] == ["x-2"]
    assert found["set"]["deficit"] == {"x-1": None, "x-2": 0.0, "y-1": pytest.approx(36 / 80)}
    # An upper bound of the critical value at 95% on all documents. Half the documents make it about a third larger.
    full = confidence_set(*evidence_of_candidates()).simultaneous_critical
    assert full < found["set"]["simultaneous_critical"] < 2 * full
    assert found["experiments"]["y-1"]["in_simultaneous_set"] is False
    text = " ".join(model_text(content).split())
    assert "may have more. The race adds its own error." in text
    assert "sentences on this set are not counted among these" in text


def evidence_of_candidates() -> tuple[Any, Any]:
    drawn = evidence().draws
    assert drawn is not None
    chosen = drawn.select(["x-1", "x-2", "y-1"])
    return chosen.accuracy, chosen.draws


def test_documents_of_a_race_that_disagree_with_the_table_are_refused() -> None:
    wrong = raced_samples() | {"x-1": partial(samples, (1, 1))}
    with pytest.raises(UserError, match=r"model M: race: experiment x-1: its documents give acc_mean 0\.025000"):
        gather_evidence(rows_of(raced(), "M"), evaluations(), wrong, n_draws=100)


def test_base_and_instruct_that_were_raced_on_other_documents_are_not_compared() -> None:
    frames, draws = [], {}
    for model, kind, first in (("M", "base", 20), ("I", "instruct", 10)):
        frame = raced().assign(model=model, kind=kind)
        last = samples(RIGHT["x-1"])
        right = RIGHT["x-1"]
        frame.loc[frame["experiment"] == "x-1", ["acc_mean", "race_n_documents"]] = [
            sum(n - first for n in right) / (2 * (N - first)), 2 * (N - first)
        ]  # fmt: skip
        given = raced_samples() | {"x-1": partial(last[last["doc_id"] >= first].reset_index, drop=True)}
        drawn = gather_evidence(rows_of(frame, model), evaluations(model), given, n_draws=200)
        frames.append(frame)
        draws[model] = read_draws(draws_table(drawn))
    study = pd.concat(frames, ignore_index=True)
    found = analyse_study(study, draws=draws, protocols={"M": "p", "I": "p"})
    (family,) = found["base_vs_instruct"]
    assert family["common_settings"]["reason"] == "the models answered different documents"
    assert found["comparisons"]["reason"] == "the models answered different documents"
    same = analyse_study(study, draws=dict.fromkeys(("M", "I"), draws["M"]), protocols={"M": "p", "I": "p"})
    (family,) = same["base_vs_instruct"]
    assert (family["common_settings"]["n"], family["common_settings"]["base"]) == (3, pytest.approx((0.5 + 0.5) / 3))


def test_documents_that_disagree_with_the_table_are_refused() -> None:
    wrong = dict.fromkeys(RIGHT, partial(samples, (1, 1)))
    with pytest.raises(UserError, match=r"its documents give acc_mean 0\.025000, the table says 0.95"):
        gather_evidence(rows_of(experiments(), "M"), evaluations(), wrong)


@pytest.mark.parametrize(
    ("names", "reported", "expected"),
    [
        (["a", "b"], ["a", "b"], {}),
        (["a", "g_x", "other"], ["a", "g"], {"g_x": "g", "other": "g"}),  # the one group takes all others
        (["g_x", "g_h_y", "h_z"], ["g", "h", "g_h"], {"g_x": "g", "g_h_y": "g_h", "h_z": "h"}),
        (["x", "y"], ["g", "h"], None),
    ],
)
def test_tasks_of_groups(names: list[str], reported: list[str], expected: dict[str, str] | None) -> None:
    assert _groups(pd.DataFrame({"task": names}), reported) == expected


def test_the_column_of_groups_is_believed_whatever_the_names() -> None:
    frame = pd.DataFrame({"task": ["x", "x", "y", "g_z", "a"], "task_group": ["g", "g", "h", "h", None]})
    assert _groups(frame, ["a", "g", "h"]) == {"x": "g", "y": "h", "g_z": "h"}


def test_a_race_compares_groups_whose_tasks_have_other_names() -> None:
    """Without the column, their documents could not be used, and the reason named the race."""
    named = {name: partial(lambda read: read().assign(task_group=read()["task"].map({"a": "g", "b": "h"})), read)
             for name, read in raced_samples().items()}  # fmt: skip
    frame = raced().rename(columns={"acc_a": "acc_g", "acc_b": "acc_h"})
    evaluated = evaluations().replace({"task": {"a": "g", "b": "h"}})
    found = gather_evidence(rows_of(frame, "M"), evaluated, named, n_draws=200)
    plain = gather_evidence(rows_of(raced(), "M"), evaluations(), raced_samples(), n_draws=200)
    assert found.all_races is not None
    assert plain.all_races is not None
    assert found.all_races.draws.accuracy.tolist() == plain.all_races.draws.accuracy.tolist()
    assert found.all_races.draws.draws.std() == pytest.approx(plain.all_races.draws.draws.std(), rel=0.2)


def test_a_task_of_a_group_with_one_document_leaves_the_intervals() -> None:
    # 4 documents of `g_a`, one of `g_b`, all of group `g`: its accuracy is 4/5, and a document has the spread 0.4.
    both = samples((3, 1))
    frame = both[(both["task"] == "a") & (both["doc_id"] < 4) | (both["task"] == "b") & (both["doc_id"] < 1)]
    frame = frame.assign(task="g_" + frame["task"], task_group="g").reset_index(drop=True)
    rows = table(row("x-1", 0.8)).drop(columns="acc_b").rename(columns={"acc_a": "acc_g"})
    values = {"model": "M", "experiment": "x-1", "task": "g", "metric": "acc", "value": 0.8, "stderr": None}
    found = gather_evidence(
        rows_of(rows, "M"), pd.DataFrame([values | {"n_samples": 5}]), {"x-1": lambda: frame}, n_draws=5_000
    )
    assert found.draws is not None
    assert found.draws.draws.std() == pytest.approx(0.4 / 5**0.5, rel=0.03)


def test_a_group_is_one_task_whose_documents_count_alike() -> None:
    # Of 80 documents 60 are right: the group's accuracy is 0.75, and it is the only task.
    frame = table(row("x-1", 0.75)).drop(columns="acc_b").rename(columns={"acc_a": "acc_g"})
    values = {"model": "M", "experiment": "x-1", "task": "g", "metric": "acc", "value": 0.75, "stderr": 0.05}
    found = gather_evidence(
        rows_of(frame, "M"), pd.DataFrame([values | {"n_samples": 80}]), {"x-1": lambda: samples((40, 20))}, n_draws=100
    )
    assert found.draws is not None
    assert found.draws.source == "documents"
    assert found.draws.accuracy.tolist() == [0.75]


def test_several_calibration_seeds_are_the_error_of_the_axes() -> None:
    rows = []
    given = {}
    for method, right in (("x", 30), ("y", 20)):
        for seed in range(3):
            name = f"{method}-s{seed}"
            rows.append(row(name, (right + seed) / N, method=method, calibration=f"c-s{seed}"))
            given[name] = partial(samples, (right + seed, right + seed))
    frame = table(*rows)
    evaluated = pd.DataFrame(columns=["model", "experiment", "task", "metric", "value", "stderr", "n_samples"])
    found = gather_evidence(rows_of(frame, "M"), evaluated, given, n_draws=500)
    analysis = analyse_model(frame, "M", headline_ratio=None, evidence=found)
    json.dumps(analysis, allow_nan=False)
    seeds = analysis["uncertainty"]["seeds"]
    assert (seeds["n_settings"], seeds["seeds"]) == (2, ["c-s0", "c-s1", "c-s2"])
    # Both methods gain the same with every seed, so the effect of the method has no error at all.
    assert seeds["axes"]["method"]["reason"] == "the effects are the same at every calibration seed"
    assert seeds["axes"]["method"]["effect"] == [pytest.approx(0.125), pytest.approx(-0.125)]
    assert seeds["axes"]["method"]["intervals"] is None
    assert seeds["setting_std"] == pytest.approx(1 / N)
    lines = [line.split() for line in model_text(analysis).splitlines()]
    assert ["the", "method", "x", "0.1250", "\N{EN DASH}"] in lines


def test_draws_survive_their_file() -> None:
    of = evidence()
    assert of.draws is not None
    back = read_draws(draws_table(of))
    assert back is not None
    assert back.experiments == of.draws.experiments
    assert (back.source, back.origin) == (of.draws.source, of.draws.origin)
    np.testing.assert_array_equal(back.accuracy, of.draws.accuracy)
    np.testing.assert_allclose(back.draws, of.draws.draws, atol=1e-7)
    nothing = gather_evidence(rows_of(experiments(), "M"), evaluations().iloc[:0], {})
    assert read_draws(draws_table(nothing)) is None
    assert read_draws(pa.table({})) is None


def test_base_against_instruct_on_common_settings() -> None:
    # The instruct model has the same results on the same documents, so the difference is exactly 0.
    both = pd.concat([experiments(), experiments(model="M-Instruct", kind="instruct")], ignore_index=True)
    draws = {"M": evidence().draws, "M-Instruct": evidence(model="M-Instruct").draws}
    analyses = {"M": analyse(evidence())}
    summary = analyse_study(both, analyses=analyses, draws=draws)
    json.dumps(summary, allow_nan=False)
    common = summary["base_vs_instruct"][0]["common_settings"]
    assert (common["n"], common["difference"], common["interval"]) == (3, 0.0, [0.0, 0.0])
    assert common["statements"][0]["code"] == "kinds_not_told.kept"
    base, instruct = summary["best_configs"]
    assert base["acc_mean_interval"] == analyses["M"]["uncertainty"]["experiments"]["x-1"]["interval"]
    assert base["n_in_set"] == 2
    assert instruct["acc_mean_interval"] is None  # its analysis was not given
    assert analyse_study(both)["base_vs_instruct"][0]["common_settings"]["interval"] is None


def test_costs_by_hand() -> None:
    # Hidden 4, 2 heads of 2, one KV head: a group has q 2x2x4 + k 2x4 + v 2x4 + o 4x4 = 48 weights and 8 biases.
    # An MLP channel has 3 x 4 = 12 weights; other: norms 8, embeddings (tied) 10 x 4 and a final norm 4.
    layer = {
        "n_kv_groups": 1, "kv_group_params": 56, "n_mlp_channels": 5, "mlp_channel_params": 12, "fixed_params": 8,
    }  # fmt: skip
    manifest = {"structure": {"layers": [layer, layer], "other_params": 44}}
    config = {"hidden_size": 4, "num_attention_heads": 2, "vocab_size": 10, "dtype": "bfloat16"}
    names = {"model": "M", "experiment": "x-1"}
    plan = pd.DataFrame(
        [
            names | {"layer": 0, "kept_kv_groups": 1, "kept_mlp_channels": 2, "params_after": 88,
                     "attention_after": 56, "mlp_after": 24},
            names | {"layer": 1, "kept_kv_groups": 0, "kept_mlp_channels": 0, "params_after": 8,
                     "attention_after": 0, "mlp_after": 0},
        ]
    )  # fmt: skip
    found = costs_of(plan, "M", manifest | {"config": config})
    # 2 layers x 2 (keys, values) x 1 group x 2 x 2 bytes; 2 x (2 x (48 + 60) + 40)
    assert found["baseline"] == {"n_params": 292, "kv_cache_bytes_per_token": 16, "flops_per_token": 512}
    one = found["experiments"]["x-1"]
    assert (one["n_params"], one["kv_cache_bytes_per_token"], one["flops_per_token"]) == (140, 8, 2 * (48 + 24 + 40))
    assert one["relative"]["kv_cache_bytes_per_token"] == 0.5
    removed = plan.assign(params_after=[88, 0])  # layer 1 is removed whole, with its norms
    one = costs_of(removed, "M", manifest | {"config": config})["experiments"]["x-1"]
    assert (one["n_params"], one["kv_cache_bytes_per_token"], one["flops_per_token"]) == (132, 8, 2 * (48 + 24 + 40))
    assert costs_of(plan, "M", None)["reason"] == "the sizes of the unpruned model are not known"
    for dtype in (None, "float8"):
        unknown = costs_of(plan, "M", manifest | {"config": config | {"dtype": dtype}})
        assert (unknown["dtype"], unknown["why"]["code"]) == (None, "no_cache_dtype")
        assert unknown["baseline"] == {"n_params": 292, "kv_cache_bytes_per_token": None, "flops_per_token": 512}
        assert unknown["experiments"]["x-1"]["relative"]["kv_cache_bytes_per_token"] is None
        analysis = json.loads(
            json.dumps(analyse_model(table(row("x-1", 0.5)), "M", headline_ratio=None, costs=unknown))
        )
        text = model_text(analysis)
        assert f"the model's config has no known dtype ({dtype or 'none'})" in text
        assert "None" not in text
    wrapper = {"architecture": "Gemma3ForConditionalGeneration", "n_params_left_out": 12_345}
    found = costs_of(plan, "M", manifest | {"config": config, "wrapper": wrapper})
    text = model_text(
        json.loads(json.dumps(analyse_model(table(row("x-1", 0.5)), "M", headline_ratio=None, costs=found)))
    )
    line = " ".join(text.split())
    assert "All numbers are of the text model in Gemma3ForConditionalGeneration. Its other parts (12,345 para" in line


def test_gradient_profile_pools_the_projections_of_a_layer() -> None:
    # Norms 3 and 4 pool to 5; means 1 (of 1 parameter) and 3 (of 3) pool to 10 / 4.
    gradients = pd.DataFrame(
        {
            "n_samples": 32, "layer": 0, "projection": ["q_proj", "k_proj"], "n_params": [1, 3],
            "grad_mean": [1.0, 3.0], "grad_std": 0.0, "grad_norm": [3.0, 4.0], "grad_max": 1.0,
        }
    )  # fmt: skip
    settings = calibration_settings(experiments(), "M")
    assert settings == [("c-s0", 16, 32), ("c-s0", 32, 16)]
    (found,) = profile_gradients((one, gradients) for one in settings)  # 16 samples are not in the table
    assert (found["grad_mean"], found["grad_norm"]) == ([2.5], [5.0])


def test_perplexities_in_different_windows_are_refused() -> None:
    text = {"value": 2.0, "window_losses": [1.0, 2.0], "window_tokens": [10, 10]}
    found = ratios_to_unpruned({"x-1": {"text": text}, "baseline": {"text": text}}, "x-1")
    assert (found["text"]["ratio"], found["text"]["why"]["code"]) == (1.0, "too_few_windows")
    other = text | {"window_tokens": [10, 11]}
    with pytest.raises(UserError, match="measured in different windows"):
        ratios_to_unpruned({"x-1": {"text": text}, "baseline": {"text": other}}, "x-1")

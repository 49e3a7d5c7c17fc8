"""Published figures beside a study's: which are shown, each difference in protocol, and the section of the reports."""

from dataclasses import replace
from typing import Any

import pytest

from espalier.analysis.cross_model import analyse_study
from espalier.analysis.literature import StudySettings, differences, is_same_model, with_literature
from espalier.config.literature import Literature
from espalier.reports.html import cross_model_html
from espalier.reports.messages import Texts
from espalier.reports.sections.literature import literature_sections
from espalier.reports.text import cross_model_text
from tests.unit.reports.test_reports import experiments

TASKS = ["boolq", "piqa"]
SETTINGS = StudySettings({"A": "org/model", "B": "model"}, 0, None, 2048, 512, ["wikitext2"], "c4")
ROW = {
    "model": "A", "method": "blockwise", "pruning_ratio": 0.2, "acc_mean": 0.61, "baseline_acc_mean": 0.7,
    "ppl": 13.0, "baseline_ppl": 8.0, "ppl_text": "wikitext2", "acc_mean_rule": "acc_norm_else_acc", "tasks": TASKS,
    "taylor_num_samples": 128, "taylor_seq_len": 64,
}  # fmt: skip
SAME = {
    "accuracy": "acc_norm_else_acc", "num_fewshot": 0, "ppl_window": 2048, "ppl_stride": 512, "share_of": "model",
    "calibration": {"dataset": "C4", "n_samples": 128, "seq_len": 64},
}  # fmt: skip
FIGURE = {
    "source": "paper", "model": "org/model", "method": "cut", "ratio": 0.2, "accuracy": {"boolq": 0.8, "piqa": 0.7},
    "perplexity": {"wikitext2": 12.0},
}  # fmt: skip


def literature(*figures: dict[str, Any], **protocol: Any) -> Literature:
    source = {"title": "A paper", "url": "https://example.org", "table": "Table 1", "leaves_out": "the dtype."}
    sources = {"paper": source | {"protocol": SAME | protocol}, "other": source | {"title": "Another paper"}}
    return Literature.model_validate({"sources": sources, "figures": tuple(figures)})


def found(row: dict[str, Any] = ROW, settings: StudySettings = SETTINGS, *, figure: Any = None, **protocol: Any) -> Any:
    published = literature(FIGURE | (figure or {}), **protocol)
    one = published.figures[0]
    return list(differences(one, published.protocol_of(one), row, settings))


def test_the_same_protocol_has_no_difference() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("protocol", "figure", "row", "code", "published", "own"),
    [
        ({"accuracy": "acc"}, {}, {}, "accuracy", "acc", "acc_norm_else_acc"),
        ({"accuracy": None}, {}, {}, "accuracy", None, "acc_norm_else_acc"),
        ({"num_fewshot": 5}, {}, {}, "num_fewshot", 5, 0),
        ({"ppl_window": 128}, {}, {}, "ppl_window", 128, 2048),
        ({"ppl_stride": None}, {}, {}, "ppl_stride", None, 512),
        ({"share_of": "decoder"}, {}, {}, "share_of", "decoder", "model"),
        ({"calibration": None}, {}, {}, "calibration", None, ["c4", 128, 64]),
        ({"calibration": {"dataset": "bookcorpus"}}, {}, {}, "calibration", ["bookcorpus", None, None],
         ["c4", 128, 64]),
        ({"calibration": {"dataset": "c4", "n_samples": 10, "seq_len": 64}}, {}, {}, "calibration", ["c4", 10, 64],
         ["c4", 128, 64]),
        ({}, {}, {"taylor_num_samples": None, "taylor_seq_len": None}, "calibration", ["C4", 128, 64], None),
        ({}, {"ratio": 0.1937}, {}, "ratio", 0.1937, 0.2),
        ({}, {"fine_tuned": True}, {}, "fine_tuned", True, False),
        ({}, {"accuracy": {"piqa": 0.7}}, {}, "tasks", ["piqa"], TASKS),
        ({}, {"accuracy": {}, "acc_mean": 0.7}, {}, "tasks", None, TASKS),
        ({}, {"perplexity": {"ptb": 20.0}}, {}, "text", ["ptb"], "wikitext2"),
        ({}, {"perplexity": {"unnamed": 20.0}}, {}, "text", None, "wikitext2"),
        ({}, {}, {"model": "B"}, "model", "org/model", "model"),
    ],
)  # fmt: skip
def test_each_difference_is_named(
    protocol: dict[str, Any], figure: dict[str, Any], row: dict[str, Any], code: str, published: Any, own: Any
) -> None:
    assert found(ROW | row, figure=figure, **protocol) == [{"code": code, "published": published, "own": own}]


def test_a_limit_is_a_difference() -> None:
    limited = StudySettings({"A": "org/model"}, 0, 100, 2048, 512, ["wikitext2"], "c4")
    assert found(settings=limited) == [{"code": "limit", "published": None, "own": 100}]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_settings_of_single_tasks_and_texts_are_differences(language: str) -> None:
    settings = replace(SETTINGS, task_fewshots={"boolq": 5}, chat_template=True, max_tokens={"wikitext2": 5000})
    assert found(settings=settings) == [
        {"code": "num_fewshot", "published": 0, "own": ["0", "boolq: 5"]},
        {"code": "chat_template", "published": False, "own": True},
        {"code": "max_tokens", "published": None, "own": 5000},
    ]
    assert found(settings=replace(SETTINGS, max_tokens={"ptb": 5000})) == []  # the row has the other text
    texts = Texts(language)
    content = with_literature({"by_ratio": {"20": {"best_configs": [ROW]}}}, literature(FIGURE), settings)
    (section,) = literature_sections(texts, content["by_ratio"]["20"])
    assert section.tables[0].rows[-1][-1] == "D1, D2, D3"
    assert texts("list.separator").join(["0", "boolq: 5"]) in section.remarks[0]
    assert texts("x.literature.all_documents") in section.remarks[2]


def test_an_unpruned_model_has_neither_calibration_nor_share() -> None:
    assert found(figure={"ratio": 0}, calibration=None, share_of=None) == []


def test_models_are_the_same_by_repository_or_name_of_the_folder() -> None:
    assert is_same_model("org/Model", "org/model")
    assert is_same_model("org/Model", "model")
    assert not is_same_model("org/Model", "another/model")
    assert not is_same_model("org/Model", "")


def shown(*figures: dict[str, Any], row: dict[str, Any] = ROW) -> dict[str, Any]:
    summary = {"by_ratio": {"20": {"best_configs": [row]}}}
    return with_literature(summary, literature(*figures), SETTINGS)["by_ratio"]["20"]


def test_figures_of_the_same_model_and_ratio_are_shown_in_the_order_of_the_file() -> None:
    """One percentage point is near enough. Unpruned figures are shown beside pruned ones of the same source."""
    content = shown(
        FIGURE | {"method": "worse", "accuracy": {"boolq": 0.2, "piqa": 0.3}},
        FIGURE | {"method": "unpruned", "ratio": 0},
        FIGURE | {"method": "near", "ratio": 0.19},
        FIGURE | {"method": "far", "ratio": 0.22},
        FIGURE | {"method": "of another model", "model": "org/other"},
        FIGURE | {"method": "alone", "source": "other", "ratio": 0},
        FIGURE | {"method": "better", "accuracy": {"boolq": 0.9, "piqa": 0.9}},
    )
    (one,) = content["literature"]
    assert [figure["method"] for figure in one["figures"]] == ["worse", "unpruned", "near", "better"]
    assert one["figures"][0]["acc_mean"] == pytest.approx(0.25)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_section_numbers_sources_and_differences(language: str) -> None:
    texts = Texts(language)
    content = shown(
        FIGURE | {"method": "same"},
        FIGURE | {"method": "near", "ratio": 0.195, "fine_tuned": True},
        FIGURE | {"method": "other", "source": "other", "perplexity": {"unnamed": 9.0}},
    )
    (section,) = literature_sections(texts, content)
    rows = {row[0]: row for row in section.tables[0].rows}
    own, unpruned = (row for row in section.tables[0].rows if row[1] == texts("x.literature.this_study"))
    assert own[3:5] == ["0.6100", "13.00 (wikitext2)"]
    assert unpruned[3:5] == ["0.7000", "8.00 (wikitext2)"]
    assert rows["same"] == ["same", "[1]", "20.0%", "0.7500", "12.00 (wikitext2)", texts("x.literature.no_difference")]
    assert rows["near"][5] == "D1, D2"
    assert rows["other"][1] == "[2]"
    assert rows["other"][4] == f"9.00 ({texts('x.literature.unnamed')})"
    listed = [line.partition(" ")[0] for line in section.remarks]
    assert listed == [*(f"D{number}." for number in range(1, 10)), "[1]", "[2]"]
    assert "19.50%" in section.remarks[0]
    assert not any("None" in line for line in [*section.remarks, *(cell for row in rows.values() for cell in row)])


def test_without_fitting_figures_there_is_no_section() -> None:
    assert shown(FIGURE | {"ratio": 0.5})["literature"] == []
    assert literature_sections(Texts(), shown(FIGURE | {"ratio": 0.5})) == []
    assert literature_sections(Texts(), {}) == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_reports_have_the_section_at_its_ratio(language: str) -> None:
    summary = analyse_study(experiments())
    ratio = summary["headline_ratio"]
    names = {row["model"]: "org/model" for one in summary["by_ratio"].values() for row in one["best_configs"]}
    settings = StudySettings(names, 0, None, 2048, 512, ["wikitext2"], "c4")
    content = with_literature(summary, literature(FIGURE | {"ratio": ratio}), settings)
    title = Texts(language)("x.literature")
    assert title not in cross_model_text(summary, language)
    assert title in cross_model_text(content, language)
    page = cross_model_html(content, language)
    assert title in page
    assert "https://example.org" in page

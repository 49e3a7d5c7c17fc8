"""Reports: their content, escaping of odd names, and identical output for equal input."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from espalier.analysis.cross_model import analyse_study
from espalier.analysis.model import analyse_model
from espalier.analysis.selection import global_best_config
from espalier.errors import UserError
from espalier.files import write_json, write_table
from espalier.reports import summary
from espalier.reports.chart_rows import Row, experiment_chart_rows, layer_chart_rows
from espalier.reports.figures.cross import cross_figures
from espalier.reports.html import cross_model_html, model_html
from espalier.reports.latex import base_vs_instruct_latex, best_configs_latex, costs_latex
from espalier.reports.listing import experiments_listing
from espalier.reports.messages import Texts
from espalier.reports.sections.introduction import counts_line
from espalier.reports.structure import compare_structure, structure_text
from espalier.reports.study_pages import experiments_html
from espalier.reports.summary import summarise_study
from espalier.reports.text import cross_model_text, model_text
from espalier.tables import Layers
from tests.unit.analysis.test_analysis import missing, row, table
from tests.unit.analysis.test_uncertainty import analyse_race, raced

ODD = """<b>&"x" $y$ 50%_#{}\\~^"""


def experiments(model: str = "M", method: str = "x") -> pd.DataFrame:
    return table(
        row("baseline", 0.8, model=model, ppl_text=5.0),
        *(
            row(
                f"{method}-{n}", 0.5 + n / 100, model=model, method=method, taylor_seq_len=16 * n, ppl_text=20.0 - n,
                grad_norm_ratio=n + n % 2, extreme_pruning_layers=n,
            )
            for n in range(1, 5)
        ),
        row("random-1", 0.3, model=model, criterion="random", taylor_seq_len=None, taylor_num_samples=None),
        missing(f"{method}-9", model=model, method=method),
        row(f"{method}-p20", 0.7, model=model, method=method, pruning_ratio=0.2),
        row("y-1", 0.6, model="I", kind="instruct"),
    )  # fmt: skip


def layer(number: int, kept_kv_groups: int, kept_mlp_channels: int, **names: str) -> dict[str, Any]:
    """Return the table row of a layer of Llama-3-8B.

    The layer has 8 KV groups of 5,242,880 parameters, 14,336 channels of 12,288, and norms with 8,192.
    """
    attention, mlp = 5_242_880 * kept_kv_groups, 12_288 * kept_mlp_channels
    return {
        "model": "M", "experiment": "x-4", "layer": number, "kept_kv_groups": kept_kv_groups,
        "kept_mlp_channels": kept_mlp_channels, "params_before": 218_112_000, "params_after": attention + mlp + 8_192,
        "attention_before": 41_943_040, "attention_after": attention, "mlp_before": 176_160_768, "mlp_after": mlp,
    } | names  # fmt: skip


def layers(**names: str) -> pd.DataFrame:
    # Layers 22 and 23 of pruning_comparison_50.txt.
    return Layers.validate(pd.DataFrame([layer(22, 2, 3388, **names), layer(23, 0, 3254, **names)]))


def page(model: str = "M", method: str = "x", language: str = "en") -> str:
    analysis, rows, kept = contents(model, method)
    return model_html(analysis, rows, kept, language)


def contents(model: str, method: str) -> tuple[dict[str, Any], dict[str, list[Row]], dict[str, list[Row]]]:
    frame = experiments(model, method)
    analysis = analyse_model(frame, model, headline_ratio=None)
    rows = {key: experiment_chart_rows(frame, analysis, one) for key, one in analysis["by_ratio"].items()}
    return analysis, rows, layer_chart_rows(layers(model=model, experiment=f"{method}-4"), model)


class _Page(HTMLParser):
    """A parser that collects the tags, the ids, and the text of each table cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.cells: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag in {"td", "th"}:
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


def test_text_has_the_counts_and_six_sections_of_each_ratio() -> None:
    text = model_text(analyse_model(experiments(), "M", headline_ratio=None))
    lines = text.splitlines()
    assert lines[3] == "Experiments: 7 total, 6 valid, 1 invalid (1 missing)"
    titles = [line for line in lines if line[:3] in {f"{n}. " for n in range(1, 7)}]
    assert [title[:2] for title in titles] == ["1.", "2.", "3.", "4.", "5.", "6."] * 2
    assert text.index("\nPruning ratio 50%\n") < text.index("\nPruning ratio 20%\n")  # the headline ratio comes first
    assert "random (control)" in text
    assert "Method of the best experiment: x (accuracy 0.5400)" in text
    assert "67.5%" in text  # 0.54 / 0.8
    assert "only 1 of at least 3 experiments" in text  # at 20%
    assert "nan" not in text
    assert text.endswith("\n")


def test_what_a_race_stopped_is_not_called_invalid() -> None:
    analysis = analyse_race()[1]
    assert analysis["all_ratios"]["experiments"]["codes"] == {"reason.stopped_in_race": 1}
    line = "Experiments: 4 total, 3 valid, 1 stopped in a race, 0 invalid"
    assert model_text(analysis).splitlines()[3] == line
    codes = {"reason.failed": 2, "reason.stopped_in_race": 3}
    counts = {"total": 9, "valid": 4, "invalid": 5, "codes": codes}
    assert counts_line(Texts("en"), counts) == (
        "Experiments: 9 total, 4 valid, 3 stopped in a race, 2 invalid (2 failed)"
    )


def test_tables_of_experiments_say_that_not_all_are_in_them() -> None:
    """Of one with four experiments, a race stopped one; of the other, none is left out."""

    def pages(frame: pd.DataFrame, analysis: dict[str, Any]) -> tuple[str, str]:
        rows = {key: experiment_chart_rows(frame, analysis, one) for key, one in analysis["by_ratio"].items()}
        return experiments_html("s", [analysis], [rows]), experiments_listing(Texts(), analysis, rows).caption

    page, caption = pages(raced(), analyse_race()[1])
    assert "Left out are 1 of 4 experiments, which have no results on all documents" in page
    assert ">All valid experiments" in page
    assert caption == "All valid experiments"
    whole = table(row("x-1", 0.5), row("baseline", 0.8))
    page, caption = pages(whole, analyse_model(whole, "M", headline_ratio=None))
    assert "Left out" not in page
    assert "valid experiments" not in page
    assert caption == "All experiments"


def test_methods_that_removed_different_shares_are_pointed_out() -> None:
    """At one ratio, whole layers remove the nearest share that they can."""
    rows = [
        row("a-1", 0.5, method="a", removed_param_fraction=0.5),
        row("a-2", 0.5, method="a", removed_param_fraction=0.499),
        row("b-1", 0.5, method="b", removed_param_fraction=0.4895),
        missing("b-2", method="b"),
    ]
    words = "Not of one size: the shares of parameters that were removed differ (a 49.9% \N{EN DASH} 50.0%, b 48.9%)."
    assert words in model_text(analyse_model(table(*rows), "M", headline_ratio=None))
    rows[2] = row("b-1", 0.5, method="b", removed_param_fraction=0.4905)
    assert "Not of one size" not in model_text(analyse_model(table(*rows), "M", headline_ratio=None))


def test_the_summary_of_a_study_has_no_model_that_was_renamed_or_refused_since(tmp_path: Path) -> None:
    frame = table(row("x-1", 0.54, model="New"), row("baseline", 0.8, model="New"), row("x-1", 0.5, model="Refused"))
    consolidated = tmp_path / "s/consolidated"
    write_table(consolidated / "experiments.parquet", frame)
    found = global_best_config(analyse_model(frame, "New", headline_ratio=None))
    for name in ("New", "Old", "Refused"):
        write_json(consolidated / name / "global_best_config.json", found | {"model": name})
    refused = {"models_not_checked": [{"model": "Refused", "reason": "not a number"}]}
    write_json(tmp_path / "s/reports/cross_model/analysis_summary.json", refused)
    lines = summarise_study(tmp_path / "s").splitlines()
    assert lines[0] == "Best experiment of each model of study 's' at 50% of the parameters removed"
    assert [line.split()[:4] for line in lines if line.startswith(("New ", "Old ", "Refused "))] == [
        ["New", "x-1", "0.540", "0.800"]
    ]


@pytest.mark.parametrize("arguments", [[], ["results/a", "results/b"]])
def test_the_summary_without_one_folder_says_how_to_call_it(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["summary", *arguments])
    with pytest.raises(SystemExit, match=r"^2$"):
        summary.main()
    assert capsys.readouterr().err == "usage: python -m espalier.reports.summary results/STUDY\n"


def test_text_without_any_result() -> None:
    text = model_text(analyse_model(table(missing("x-1")), "M", headline_ratio=None))
    assert "Experiments: 1 total, 0 valid, 1 invalid (1 missing)" in text
    assert "Pruning ratio 50%: no valid experiment, controls aside." in text
    empty = model_text(analyse_model(table(row("baseline", 0.5)), "M", headline_ratio=None))
    control = model_text(analyse_model(table(row("random-1", 0.5, criterion="random")), "M", headline_ratio=None))
    assert "Experiments: 1 total, 1 valid, 0 invalid" in control
    assert "Pruning ratio 50%: no valid experiment, controls aside." in control
    assert "There is no valid experiment." not in control
    assert "No pruning ratio: no valid experiment, controls aside." in empty


def test_page_is_self_contained() -> None:
    text = page()
    parsed = _Page(text)
    assert {"img", "iframe", "object"}.isdisjoint(parsed.tags)
    assert "default-src 'none'" in text  # with this policy the browser blocks every request
    assert text.count(' src="') == 0
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "0.5400" in parsed.cells


@pytest.mark.parametrize("name", [ODD, "</script><script>alert(1)</script>", "<!--<script>", "{{ 7 * 7 }}", "datum.x'"])
def test_odd_names_stay_in_their_cell(name: str) -> None:
    text = page(model=name, method=name)
    parsed = _Page(text)
    assert name in parsed.cells
    assert parsed.cells.count(f"{name}-4") >= 1
    assert parsed.tags == _Page(page()).tags


def test_equal_input_gives_equal_bytes() -> None:
    assert page() == page()
    summary = analyse_study(experiments())
    first, second = ([cross_model_html(summary), best_configs_latex(summary)] for _ in range(2))
    assert first == second


def test_cross_model_reports() -> None:
    summary = analyse_study(experiments())
    text = cross_model_text(summary)
    assert "Experiments: 8 total, 7 valid, 1 invalid (1 missing)" in text
    assert "+11.11%" in text  # 0.6 / 0.54 - 1
    assert "I with y has the highest accuracy of 2 models (0.6000)" in text
    texts = Texts()
    figures = {key: cross_figures(texts, content) for key, content in summary["by_ratio"].items()}
    assert figures["50"][2].alt == "Change from base to instruct: F +11.1%."
    assert figures["20"][2].alt == "No family has a base and an instruct model with comparable results."
    lone = analyse_study(table(missing("x-1")))
    assert "no valid experiment" in cross_model_text(lone)
    assert cross_figures(texts, lone)[0].alt == "No model has a valid experiment, controls aside."


def test_latex_escapes_names() -> None:
    text = best_configs_latex(analyse_study(experiments(ODD, ODD)))
    assert r"\toprule" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 2 + 3  # two headers, two models at 50%, one at 20%
    assert all(line.replace(r"\&", "").count("&") == 7 for line in rows)
    assert r"\$y\$ 50\%\_\#\{\}\textbackslash" in text
    pairs = base_vs_instruct_latex(analyse_study(experiments()))
    assert r"F & 0.540 & 0.600 & +11.1\% & 0 & -- & -- \\" in pairs  # no setting in common
    assert r"F & 0.700 & -- & -- & 0 & -- & -- \\" in pairs
    assert r"\midrule" in costs_latex(analyse_study(experiments(ODD, ODD)))


def test_structure_of_the_reference() -> None:
    # Two layers of 218,112,000 and 1,000 other parameters. Layer 23 keeps 3,254 x 12,288 + 8,192 = 39,993,344;
    # layer 22 keeps 2 x 5,242,880 + 3,388 x 12,288 + 8,192 = 52,125,696.
    comparison = compare_structure(layers(), 436_225_000, "x-4", "M", widths_before=[(8, 14_336)] * 2)
    last = comparison["layers"][1]
    assert (last["params"]["before"], last["params"]["after"]) == (218_112_000, 39_993_344)
    assert last["emptied"] == ["attention"]
    assert last["mlp"]["removed_fraction"] == pytest.approx(0.7730, abs=5e-5)
    assert comparison["totals"]["model"]["after"] == 39_993_344 + 52_125_696 + 1_000
    text = structure_text(comparison)
    line = next(line for line in text.splitlines() if line.split()[:1] == ["23"])
    assert line.split() == [
        "23", "218,112,000", "39,993,344", "18.34%", "81.66%", "100.00%", "77.30%", "Attention", "empty"
    ]  # fmt: skip
    assert "channels: 14,336 -> 3,254" in text
    assert "KV groups: 8 -> 0" in text
    assert "parameters: 41,943,040 -> 0 (100.00% removed)" in text


@pytest.mark.parametrize(("language", "words"), [("en", "Layer removed"), ("zh", "[整层移除]")])
def test_structure_of_a_removed_layer(language: str, words: str) -> None:
    removed = layer(23, 0, 0) | {"params_after": 0}
    comparison = compare_structure(pd.DataFrame([layer(22, 0, 0), removed]), 436_225_000, "x-4", "M")
    assert [one["removed"] for one in comparison["layers"]] == [False, True]
    assert comparison["layers"][1]["params"] | {"removed_fraction": 1.0} == comparison["layers"][1]["params"]
    lines = structure_text(comparison, language).splitlines()
    in_table, in_details = (line for line in lines if words in line)
    assert in_table.split()[0] == "23"
    assert "23:" in in_details


def test_structure_without_widths_or_rows() -> None:
    comparison = compare_structure(layers(), 436_225_000, "x-4", "M")
    assert comparison["layers"][0]["mlp"]["channels_before"] is None
    assert "channels: \N{EN DASH} -> 3,388" in structure_text(comparison)
    with pytest.raises(UserError, match="M, other: is not in the layers table"):
        compare_structure(layers(), 1, "other", "M")


def test_reports_import_neither_torch_nor_scipy(repository: Path) -> None:
    modules = sorted(
        path.stem for path in (repository / "src/espalier/reports").glob("*.py") if path.stem != "__init__"
    )
    code = (
        f"import sys; import {', '.join(f'espalier.reports.{module}' for module in modules)}, "
        "espalier.analysis.best_configs; "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'scipy', 'transformers', 'matplotlib.pyplot')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(repository / "src")})

"""Figures: text, tooltips, sizes, equal bytes, the table beside each, and the user's style."""

import re
import xml.etree.ElementTree as ET
from math import inf
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest

from espalier.analysis.cross_model import analyse_study
from espalier.analysis.model import analyse_model
from espalier.errors import UserError
from espalier.reports.chart_rows import Row, experiment_chart_rows, layer_chart_rows, prior_profiles
from espalier.reports.figures.cross import study_figures
from espalier.reports.figures.depth import prior_profile
from espalier.reports.figures.drawing import Figure, method_styles
from espalier.reports.figures.files import figure_style, read_style, render_figure, write_figures
from espalier.reports.figures.layers import kept_map
from espalier.reports.figures.model import model_figures
from espalier.reports.figures.perplexity import without_outliers
from espalier.reports.figures.sizes import pareto_front
from espalier.reports.formatting import MISSING
from espalier.reports.messages import Texts
from espalier.reports.sections.introduction import headline
from espalier.reports.study_pages import index_html
from espalier.reports.text import model_text
from tests.unit.analysis.test_analysis import missing, row, table
from tests.unit.analysis.test_uncertainty import analyse_race, evidence, raced
from tests.unit.analysis.test_uncertainty import experiments as with_documents
from tests.unit.reports.test_reports import ODD, experiments, layers

RATIO_FIGURES = [
    "accuracy_by_method", "accuracy_by_setting", "accuracy_perplexity", "intervals", "task_profile", "kept_layers",
    "kept_map",
]  # fmt: skip
ALL_RATIOS = ["accuracy_size", "gradient_profile", "prior_profile"]
SVG = "{http://www.w3.org/2000/svg}"
PROFILE = [
    {"calibration": "c-s0", "taylor_seq_len": 16, "taylor_num_samples": n, "grad_mean": [1.0, 2.0],
     "grad_norm": [0.1 * n, 0.02 * n]}
    for n in (32, 128)
]  # fmt: skip
PRIORS = pd.DataFrame(
    {"n_samples": [1, 2, 2, 2], "layer": [0, 1, 0, 0], "scope": ["layer", "layer", "layer", "mlp"],
     "loss_increase": [9.0, 0.5, 2.0, 7.0], "cosine_distance": [0.9, 0.1, 0.3, 0.8]}
)  # fmt: skip


def figures_of(model: str = "M", method: str = "x", language: str = "en") -> dict[str, Figure]:
    frame = experiments(model, method)
    analysis = analyse_model(frame, model, headline_ratio=None)
    kept = layer_chart_rows(layers(model=model, experiment=f"{method}-4"), model)
    return figures_from(analysis, frame, kept, language)


def figures_from(
    analysis: dict[str, Any], frame: pd.DataFrame, kept: dict[str, list[Row]], language: str = "en"
) -> dict[str, Figure]:
    rows = {key: experiment_chart_rows(frame, analysis, one) for key, one in analysis["by_ratio"].items()}
    priors = prior_profiles([("c-s0", 16, 1, PRIORS)])
    return {figure.name: figure for figure in model_figures(Texts(language), analysis, rows, kept, priors)}


def with_intervals() -> dict[str, Figure]:
    frame = with_documents()
    analysis = analyse_model(frame, "M", headline_ratio=None, evidence=evidence(), gradient_profile=PROFILE)
    return figures_from(analysis, frame, layer_chart_rows(layers(experiment="x-1"), "M"))


def render(figure: Figure) -> tuple[ET.Element, bytes]:
    with figure_style():
        svg, pdf = render_figure(figure)
    return ET.fromstring(svg), pdf  # noqa: S314 (made here)


def tips(root: ET.Element) -> list[str]:
    return [one[0].text or "" for one in root.iter() if one.get("class") == "tip"]


def test_every_ratio_has_its_figures() -> None:
    names = [f"{name}-p20" for name in RATIO_FIGURES]
    assert list(figures_of()) == [*RATIO_FIGURES, *names, *ALL_RATIOS]


def test_figures_are_xml_with_text_as_text_and_a_tooltip_on_each_point() -> None:
    figures = figures_of(ODD, ODD)
    ids: list[str] = []
    for figure in figures.values():
        root, _ = render(figure)
        assert root.get("aria-label") == figure.alt == root[0].text
        assert root[0].tag == f"{SVG}title"
        ids += [value for one in root.iter() if (value := one.get("id"))]
    assert len(ids) == len(set(ids))  # all figures are in one page
    root, _ = render(figures["intervals"])
    assert {tip.splitlines()[0] for tip in tips(root)} >= {f"{ODD}-{n}" for n in range(1, 5)}
    assert "mean accuracy 0.5400" in next(tip for tip in tips(root) if tip.startswith(f"{ODD}-4"))
    assert any(ODD in (one.text or "") for one in render(figures["accuracy_by_method"])[0].iter(f"{SVG}text"))
    assert "empty in layer 23" in figures["kept_layers"].alt


def test_a_tooltip_gives_the_interval() -> None:
    root, _ = render(with_intervals()["intervals"])
    tip = next(tip for tip in tips(root) if tip.startswith("x-1"))
    assert re.fullmatch(r"x-1\nmean accuracy 0\.\d{4} \(0\.\d{4} to 0\.\d{4}\)\ncannot be told from the best", tip)


@pytest.mark.parametrize("name", ["intervals", "kept_map"])
def test_figures_fit_a_paper(name: str) -> None:
    """Widths of one and two columns in points; labels of at least 7 pt; embedded TrueType; no date."""
    root, pdf = render(with_intervals()[name])
    assert float(root.get("width", "").removesuffix("pt")) == pytest.approx(72 * (6.9 if name == "kept_map" else 3.3))
    sizes = [float(size) for one in root.iter() for size in re.findall(r"font-size:([\d.]+)px", one.get("style", ""))]
    assert min(sizes) >= 7
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_figures(list(with_intervals().values())[:2], tmp_path / folder)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert len(first) == 2 * 3
    assert first == second


def test_the_table_beside_a_figure_redraws_it(tmp_path: Path, repository: Path, monkeypatch: Any) -> None:
    """The code in the documentation runs on the table of a figure, and the table has what the figure shows."""
    figures = with_intervals()
    hashes = write_figures([figures["intervals"]], tmp_path)
    assert list(hashes) == ["intervals"]
    written = pd.read_csv(tmp_path / "intervals.csv")
    assert list(written.experiment) == ["baseline", "x-1", "x-2", "random-1", "y-1"]
    assert (written.acc_mean_low <= written.acc_mean)[1:].all()
    page = (repository / "docs/figures.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code) == 1
    assert len(code[0].strip().splitlines()) <= 11
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    exec(compile(code[0], "docs/figures.md", "exec"), {})  # noqa: S102 (our own page)
    assert (tmp_path / "redrawn.pdf").read_bytes().startswith(b"%PDF")


def test_figures_say_why_they_are_empty() -> None:
    analysis = analyse_model(table(missing("x-1")), "M", headline_ratio=None)
    for figure in model_figures(Texts(), analysis, {}, {}, []):
        assert figure.draw is None
        assert figure.alt == figure.reason
        root, _ = render(figure)
        assert "".join(root.itertext()).count(figure.alt) >= 1
    frame = table(row("x-1", 0.5, taylor_seq_len=None))
    figures = figures_from(analyse_model(frame, "M", headline_ratio=None), frame, {})
    assert figures["accuracy_by_setting"].alt == "No valid experiment has a sequence length and a number of samples."
    assert figures["kept_layers"].alt == "The plan of the best experiment is not in the layers table."
    assert figures["accuracy_size"].alt == "No experiment was compared with its unpruned model."


def test_a_method_has_one_style_in_all_figures() -> None:
    methods = {name: {"control": name == "random"} for name in ("x", "y", "random", "z")}
    everywhere = method_styles(methods, methods)
    assert len({style.colour for style in everywhere.values()}) == 4
    assert len({style.marker for style in everywhere.values()}) == 4
    assert method_styles(methods, {"z"}) == {"z": everywhere["z"]}  # y and the control are not shown, and still count


def test_a_large_map_is_an_image() -> None:
    """45 experiments of 32 layers: as cells, 2,880 paths of 95 bytes or more."""
    names = [f"x-{n}" for n in range(45)]
    rows: list[Row] = [{"experiment": name} for name in names]
    kept: dict[str, list[Row]] = {
        name: [
            {"layer": layer, "block": block, "kept": (layer * number % 32) / 31, "width": 1}
            for layer in range(32)
            for block in ("attention", "mlp")
        ]
        for number, name in enumerate(names)
    }
    figure = kept_map(Texts(), rows, kept)
    root, _ = render(figure)
    assert len(list(root.iter(f"{SVG}image"))) == 3  # attention, MLP, and the scale
    assert len(ET.tostring(root)) < 100_000
    assert len(tips(root)) == 2 * 45


def test_outliers_do_not_rule_the_axis() -> None:
    assert without_outliers([4, 5, 6, 7, 34]) == [4, 5, 6, 7]  # beyond 3 x 7 = 21
    assert without_outliers([4, 5, 6, 7, 12]) == [4, 5, 6, 7, 12]
    assert without_outliers([4, 400, 4000]) == [4, 400, 4000]  # too few to call one an outlier
    assert without_outliers([100, 101, 102, 103, 2]) == [100, 101, 102, 103]


def test_an_outlier_is_an_arrow_with_its_value() -> None:
    frame = table(
        row("baseline", 0.8, ppl_text=5.0), *(row(f"x-{n}", 0.5, ppl_text=20.0 + n) for n in range(4)),
        row("random-1", 0.2, criterion="random", ppl_text=4321.0),
    )  # fmt: skip
    figure = figures_from(analyse_model(frame, "M", headline_ratio=None), frame, {})["accuracy_perplexity"]
    assert "Arrows at the edge" in figure.caption
    texts = [one.text for one in render(figure)[0].iter(f"{SVG}text")]
    assert "4.32e+03" in texts
    ticks = [float(text) for text in texts if re.fullmatch(r"\d+", text or "")]
    assert max(ticks, default=inf) < 100


def test_the_pareto_front() -> None:
    points = [(0.8, 0.9), (0.8, 0.8), (0.5, 0.7), (0.6, 0.6), (0.5002, 0.71)]
    rows = [{"experiment": str(n), "params_kept": x, "acc_kept": y} for n, (x, y) in enumerate(points)]
    # 4 beats 2: its size differs by less than a thousandth of the model.
    assert [one["experiment"] for one in pareto_front(rows)] == ["0", "4"]


def test_priors_of_whole_layers_at_the_largest_count() -> None:
    (profile,) = prior_profiles([("c-s0", 16, 1, PRIORS)])
    assert (profile.loss_increase, profile.cosine_distance) == ([2.0, 0.5], [0.3, 0.1])
    assert {row["prior_samples"] for row in prior_profile(Texts(), [profile]).rows} == {1}


def test_figures_of_a_study() -> None:
    frame = experiments()
    analyses = [analyse_model(frame, model, headline_ratio=None) for model in ("M", "I")]
    figures = {figure.name: figure for figure in study_figures(Texts(), analyse_study(frame), analyses)}
    of_ratio = ["best_vs_baseline", "kept_by_method", "base_vs_instruct"]
    assert list(figures) == [*of_ratio, *(f"{name}-p20" for name in of_ratio), "accuracy_size"]
    kept = {one["method"]: one["acc_kept"] for one in figures["kept_by_method"].rows}
    assert kept == {"x": pytest.approx(0.525 / 0.8), "random": pytest.approx(0.3 / 0.8)}  # I has no unpruned model
    root, _ = render(figures["best_vs_baseline"])
    assert any(tip == "M, x-4\nmean accuracy 0.5400\nKept 67.5%" for tip in tips(root))
    for figure in figures.values():
        render(figure)


def test_models_are_ordered_by_what_they_keep() -> None:
    """A has the higher accuracy, but keeps 0.80 / 1.00; B keeps 0.70 / 0.80 = 87.5%."""
    rows = [row("x-1", 0.8, model="A"), row("baseline", 1.0, model="A"),
            row("x-1", 0.7, model="B"), row("baseline", 0.8, model="B")]  # fmt: skip
    frame = table(*rows)
    analyses = [analyse_model(frame, model, headline_ratio=None) for model in ("A", "B")]
    summary = analyse_study(frame)
    (figure,) = (one for one in study_figures(Texts(), summary, analyses) if one.name == "best_vs_baseline")
    assert [one["model"] for one in figure.rows] == ["B", "A"]
    page = index_html(summary, analyses)
    assert page.index(">B</a></th>") < page.index(">A</a></th>")
    assert "Models are ordered by what their best experiment keeps at 50% removed." in page


def test_the_index_names_the_ratio_of_each_model_if_their_grids_end_at_different_ones() -> None:
    """A keeps 0.9 / 1.0 at 20%, its largest ratio; B keeps 0.5 / 1.0 at 50%."""
    rows = [row("x-1", 0.9, model="A", pruning_ratio=0.2), row("baseline", 1.0, model="A"),
            row("x-1", 0.5, model="B"), row("baseline", 1.0, model="B")]  # fmt: skip
    frame = table(*rows)
    analyses = [analyse_model(frame, model, headline_ratio=None) for model in ("A", "B")]
    summary = analyse_study(frame)
    described = study_figures(Texts(), summary, analyses)[-1].alt
    assert described == "Accuracy kept by the best experiments at the headline ratio: B 50.0%."
    page = index_html(summary, analyses)
    assert "Each model is at the largest ratio of its grid, and ratios do not compare." in page
    assert "removed. This is the order" not in page
    lines = [line for line in page.splitlines() if line.startswith('<tr><th scope="row">')]
    assert [(line[line.index("</a>") - 1], line.split("<td")[2]) for line in lines] == [
        ("B", ' class="number">50%</td>'), ("A", ' class="number">20%</td>'),
    ]  # fmt: skip
    same = index_html(analyse_study(frame), [analyse_model(frame, name, headline_ratio=0.5) for name in ("A", "B")])
    assert "Models are ordered by what their best experiment keeps at 50% removed." in same
    assert "50%</td>" not in same


def test_the_index_of_one_model_has_the_headline_of_its_page() -> None:
    frame = table(row("x-1", 0.7, model="B"), row("baseline", 0.8, model="B"))
    analysis = analyse_model(frame, "B", headline_ratio=None)
    page = index_html(analyse_study(frame), [analysis])
    assert f'<p class="headline">{headline(Texts(), analysis)}</p>' in page
    assert "x-1 keeps most: 87.5% of the accuracy of the unpruned model" in page


def test_a_user_changes_the_style(tmp_path: Path) -> None:
    style = tmp_path / "paper.mplstyle"
    style.write_text("figure.figsize: 2.5, 2\nxtick.labelsize: 9\n", encoding="utf-8")
    write_figures([with_intervals()["accuracy_by_method"]], tmp_path, str(style))
    svg = (tmp_path / "accuracy_by_method.svg").read_text(encoding="utf-8")
    assert 'width="180pt"' in svg
    assert "font-size:9px" in svg
    assert mpl.rcParams["xtick.labelsize"] != 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("font.sice: 7\n", r"bad.mplstyle: Bad key font\.sice in file .*, line 1 \('font.sice: 7'\)$"),
        ("xtick.labelsize: huge\n", "bad.mplstyle: .*huge"),
    ],
)
def test_an_invalid_style_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    style = tmp_path / "bad.mplstyle"
    style.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as refused:
        read_style(str(style))
    assert "\n" not in str(refused.value)


def test_a_missing_style_is_named() -> None:
    with pytest.raises(UserError, match=r"report\.style: got 'none\.mplstyle', but there is no such file"):
        read_style("none.mplstyle")


def raced_figures(keep: str = "best") -> tuple[dict[str, Any], dict[str, Figure]]:
    _, analysis = analyse_race(keep)
    return analysis, figures_from(analysis, raced(keep), {})


def test_the_figure_of_a_race_shows_where_each_experiment_stopped() -> None:
    """x-1 stopped after 40 documents, where x-2 was equally good and the others had no right answer."""
    _, figures = raced_figures()
    figure = figures["race"]
    assert [(one["experiment"], one["n_documents"], one["acc_mean"], one["stopped_by"]) for one in figure.rows] == [
        ("x-2", 40, 0.5, None), ("x-2", 80, 0.75, None), ("random-1", 40, 0.0, None), ("random-1", 80, 0.5, None),
        ("y-1", 40, 0.0, None), ("y-1", 80, 0.3, None), ("x-1", 40, 0.5, "x-2"),
    ]  # fmt: skip
    assert "of 4 experiments, of which 1 stopped early. To the end: x-2, random-1, y-1." in figure.alt
    root, _ = render(figure)
    assert sorted(tips(root)) == [
        "random-1\n0.5000\n80 Documents", "x-1\n0.5000\n40 Documents", "x-2\n0.7500\n80 Documents",
        "y-1\n0.3000\n80 Documents",
    ]  # fmt: skip
    drawn = " ".join(root.itertext())
    assert "documents answered (logarithmic)" in drawn
    assert "stopped" in drawn


def test_a_page_speaks_of_the_set_only_if_there_is_one() -> None:
    of_set = Texts()("certainty.about")
    assert of_set not in model_text(analyse_race("best")[1])
    assert of_set in model_text(analyse_race("set")[1])


def test_one_experiment_has_no_standard_deviation() -> None:
    text = model_text(analyse_model(table(row("x-1", 0.5), row("y-1", 0.7), row("y-2", 0.6)), "M", headline_ratio=None))
    (of_x,) = re.findall(r"^x +0\.5000 +(\S+) +0\.5000", text, re.MULTILINE)
    (of_y,) = re.findall(r"^y +0\.6500 +(\S+) +0\.6000", text, re.MULTILINE)
    assert (of_x, of_y) == (MISSING, "0.0500")


def test_after_a_race_figures_of_all_experiments_show_the_documents_that_all_answered() -> None:
    _, figures = raced_figures()
    label = "On 40 of 80 documents, which all experiments answered in the race."
    by_method = figures["accuracy_by_method"]
    assert by_method.caption.endswith(label)
    assert figures["accuracy_by_setting"].caption.endswith(label)
    shown = {one["experiment"]: one["acc_mean"] for one in by_method.rows}
    assert shown == {"baseline": pytest.approx(0.9), "x-1": 0.5, "x-2": 0.5, "y-1": 0.0, "random-1": 0.0}
    # Single experiments are ranked on all documents, so the stopped one is not there, and nothing is in a set.
    intervals = figures["intervals"]
    assert intervals.caption == intervals.alt == "All experiments by accuracy, with 95% intervals."
    assert {one["experiment"] for one in intervals.rows} == {"baseline", "x-2", "y-1", "random-1"}
    drawn = " ".join(render(intervals)[0].itertext())
    assert "answered all documents" in drawn
    assert "cannot be told from the best" not in drawn.split("answered all documents")[-1]


def test_without_single_documents_the_figure_of_a_race_says_why_it_is_empty() -> None:
    analysis = analyse_model(raced(), "M", headline_ratio=None)
    figure = figures_from(analysis, raced(), {})["race"]
    assert figure.reason == "in a race, only the survivors answer all documents"
    assert "race" not in with_intervals()

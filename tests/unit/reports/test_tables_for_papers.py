"""Tables for papers: LaTeX fits its column, names are escaped, Markdown is as in the guide of the reference."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.ft2font import FT2Font

from espalier.analysis.cross_model import analyse_study
from espalier.reports.formatting import MISSING
from espalier.reports.latex import TABLES
from espalier.reports.listing import best_listing
from espalier.reports.markdown import best_configs_markdown
from espalier.reports.messages import Texts
from tests.unit.analysis.test_analysis import row, table

ARTICLE_PT = 345.0  # \textwidth of the class article at 10 pt
COLUMN_SEPARATION_PT = 6.0  # 2 \tabcolsep of 3 pt
DOCUMENT = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}%s\end{document}"


def summary(name: str = "Mistral-Instruct") -> dict[str, Any]:
    """Results of two models with names as long as those of the reference, at two ratios."""
    rows = [
        row(f"layerwise-{ratio}", 0.84, model=model, family="Mistral", kind=kind, pruning_ratio=ratio,
            taylor_seq_len=1024, taylor_num_samples=1024)
        for model, kind in (("Mistral", "base"), (name, "instruct"))
        for ratio in (0.35, 0.5)
    ]  # fmt: skip
    rows += [row("baseline", 0.96, model=model, family="Mistral", kind=kind)
             for model, kind in (("Mistral", "base"), (name, "instruct"))]  # fmt: skip
    found = analyse_study(table(*rows))
    for content in found["by_ratio"].values():
        for one in content["best_configs"]:
            one["acc_kept_interval"] = [0.8123, 0.8765]
            one["costs_relative"] = dict.fromkeys(("n_params", "kv_cache_bytes_per_token", "flops_per_token"), 1.0)
        for one in content["base_vs_instruct"]:
            one["common_settings"]["interval"] = [-0.1234, -0.0567]
    return found


def width_pt(text: str, size_pt: float = 9.0) -> float:
    """Return the width of a text in Computer Modern Roman, the font of LaTeX."""
    font = FT2Font(str(Path(mpl.get_data_path()) / "fonts/ttf/cmr10.ttf"))
    font.set_size(size_pt, 72)
    font.set_text(text)
    return font.get_width_height()[0] / 64


def test_the_measure_knows_the_font() -> None:
    """A lower-case alphabet of Computer Modern Roman at 10 pt is 127.6 pt wide in LaTeX."""
    assert width_pt("abcdefghijklmnopqrstuvwxyz", 10) == pytest.approx(127.6, abs=2)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits_the_text_width(name: str) -> None:
    text = TABLES[name](summary())
    tables = re.findall(r"\\begin\{tabular\}\{\w+\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(tables) == 2  # one for each ratio
    for one in tables:
        rows = [line.removesuffix(r"\\").split(" & ") for line in one.splitlines() if " & " in line]
        shown = [[re.sub(r"\\(.)", r"\1", cell).replace("$-$", "-").strip() for cell in cells] for cells in rows]
        columns = [max(width_pt(cell) for cell in column) for column in zip(*shown, strict=True)]
        width = sum(columns) + COLUMN_SEPARATION_PT * len(columns)
        assert 200 < width < ARTICLE_PT, f"{name}: {width:.0f} pt"
    assert text.count(r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}") == 2  # for narrower columns
    assert len(set(re.findall(r"\\label\{(.*?)\}", text))) == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
@pytest.mark.parametrize("name", ["Mistral-Instruct", r"$y$ 50%_#{}\&~^", "a" * 80])
def test_tables_compile_without_overfull_boxes(name: str, tmp_path: Path) -> None:
    tables = "\n".join(make(summary(name)) for make in TABLES.values())
    (tmp_path / "tables.tex").write_text(DOCUMENT % tables, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"], cwd=tmp_path, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_no_results_give_no_table() -> None:
    nothing = analyse_study(table(row("baseline", 0.5)))
    assert {make(nothing) for make in TABLES.values()} == {"% There are no results.\n"}
    assert best_configs_markdown(nothing) == "There is no valid experiment, controls aside.\n"


def test_markdown_table() -> None:
    lines = best_configs_markdown(summary("a|b_*c")).splitlines()
    assert lines[0] == "Pruning ratio 50%"
    assert (
        lines[2]
        == "| Model | Kind | Method | Accuracy | Kept | Kept, 95% interval | Perplexity | Seq. length | Samples |"
    )
    assert lines[3] == "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    # Nothing is bold: that the first model keeps most is not shown.
    assert lines[4] == "| Mistral | base | layerwise | 0.8400 | 87.5% | 81.2% to 87.6% | 10.00 | 1024 | 1024 |"
    assert lines[5].startswith(r"| a\|b\_\*c | instruct | layerwise | 0.8400 |")
    assert best_configs_markdown(summary(), "zh").startswith("剪枝比例 50%\n\n| 模型 | 类型 | 最佳方法 |")


def test_the_listing_of_the_best_experiments_is_ordered_by_what_they_keep() -> None:
    """A has the higher accuracy, but keeps 0.80 / 1.00; B keeps 0.70 / 0.80 = 87.5%."""
    rows = [row("x-1", 0.8, model="A"), row("baseline", 1.0, model="A"),
            row("x-1", 0.7, model="B"), row("baseline", 0.8, model="B")]  # fmt: skip
    found = analyse_study(table(*rows))
    found["by_ratio"]["50"]["best_configs"][0]["acc_kept_interval"] = [0.75, 0.85]
    listing = best_listing(Texts(), found)
    assert [line[0].shown for line in listing.rows] == ["B", "A"]
    assert list(listing.header[4:6]) == ["Kept", "Kept, 95% interval"]
    assert [[cell.shown for cell in line[4:6]] for line in listing.rows] == [
        ["87.5%", MISSING],
        ["80.0%", "75.0% to 85.0%"],
    ]

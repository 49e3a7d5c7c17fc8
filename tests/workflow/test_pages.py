"""The pages in a real browser: they render, sort, filter, link and print; no request, no complaint."""

import base64
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from espalier.analysis.cross_model import analyse_study
from espalier.analysis.model import analyse_model
from espalier.files import write_text
from espalier.reports.chart_rows import experiment_chart_rows, layer_chart_rows
from espalier.reports.figures.files import figure_style, render_figure
from espalier.reports.html import cross_model_html, model_html
from espalier.reports.messages import Texts
from espalier.reports.provenance import Provenance
from espalier.reports.site import Site
from espalier.reports.structure import compare_structure
from espalier.reports.structure_page import structure_html
from espalier.reports.study_pages import experiments_html, index_html
from tests.unit.analysis.test_uncertainty import evidence
from tests.unit.analysis.test_uncertainty import experiments as with_documents
from tests.unit.reports.test_figures import PROFILE, with_intervals
from tests.unit.reports.test_reports import ODD, experiments, layers, page
from tests.workflow.browser import Browser, browser, needs_chromium
from tests.workflow.pdf import page_sizes, text_sizes

pytestmark = [pytest.mark.browser, needs_chromium]

PROVENANCE = Provenance("2026-11-27", "1.0.0", None, {"torch": "2.13.0"}, {"dtype": "float32"}, "study: s\n")
DEAD_PLACES = (
    "() => [...document.querySelectorAll('a[href^=\"#\"]')].map(one => one.getAttribute('href'))"
    ".filter(place => document.getElementById(place.slice(1)) === null)"
)
VISIBLE = "[...document.querySelectorAll('#experiments tbody tr')].filter(row => !row.hidden)"
NAMES = f"{VISIBLE}.map(row => row.cells[0].textContent)"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def model_page(folder: Path, language: str = "en") -> Path:
    """Write the page of a model whose intervals come from documents, with its figures."""
    frame = with_documents()
    analysis: dict[str, Any] = analyse_model(
        frame, "M", headline_ratio=None, evidence=evidence(), gradient_profile=PROFILE
    )
    rows = {key: experiment_chart_rows(frame, analysis, one) for key, one in analysis["by_ratio"].items()}
    kept = layer_chart_rows(layers(experiment="x-1"), "M") | layer_chart_rows(layers(experiment="y-1"), "M")
    path = folder / "M/report.html"
    site = Site(["M", "N"], ["M"], current="M/report.html")
    write_text(path, model_html(analysis, rows, kept, language, drawn=drawn(), site=site, provenance=PROVENANCE))
    return path


@cache
def drawn() -> dict[str, str]:
    """Draw the figures of the model; the labels are English on every page."""
    with figure_style():
        return {name: render_figure(figure)[0] for name, figure in with_intervals().items()}


def check_nothing_is_wrong(of: Browser, path: Path) -> None:
    assert of.messages == []
    outside = [address for address in of.requests if not address.startswith("data:")]
    assert outside == [path.as_uri()]
    assert of.run("[...document.querySelectorAll('.card')].every(one => one.querySelector('svg path') !== null)")
    assert of.run("document.documentElement.scrollWidth <= window.innerWidth"), "the page is wider than its window"
    assert of.run(f"({DEAD_PLACES})()") == [], "links into the page lead nowhere"


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_of_a_model_renders(chromium: Browser, tmp_path: Path, width: int, language: str) -> None:
    path = model_page(tmp_path, language)
    chromium.open(path, width=width)
    check_nothing_is_wrong(chromium, path)
    assert chromium.run("document.querySelectorAll('.card').length") == 9
    assert chromium.run("[...document.querySelectorAll('.card svg')].every(one => one.getAttribute('aria-label'))")
    assert chromium.run("[...document.querySelectorAll('.card svg')].every(one => one.clientWidth > 250)")
    top = chromium.run("document.querySelector('.card').getBoundingClientRect().top")
    assert top < 600, "no figure on the first screen"
    assert chromium.run("document.querySelectorAll('.card svg .tip > title').length") == 40


def test_pages_link_each_other(chromium: Browser, tmp_path: Path) -> None:
    path = model_page(tmp_path)
    chromium.open(path)
    linked = chromium.run("[...document.querySelectorAll('a[href]')].map(one => one.getAttribute('href'))")
    assert {"../index.html", "../cross_model/report.html", "../experiments.html", "../N/report.html"} <= set(linked)
    assert "../M/structures/x-1.html" in linked
    assert {"figures/intervals.svg", "figures/intervals.pdf", "figures/intervals.csv", "report.txt"} <= set(linked)
    assert chromium.run("document.querySelector('[aria-current]').textContent") == "M"
    sections = chromium.run("[...document.querySelectorAll('main section')].map(one => one.id)")
    assert all(sections)
    assert all(f"#{name}" in linked for name in sections)
    assert "torch 2.13.0" in chromium.run("document.querySelector('footer').textContent")


def test_an_address_holds_the_filters(chromium: Browser, tmp_path: Path) -> None:
    path = model_page(tmp_path)
    chromium.open(path, query="?Method=x&search=x-2&sort=-0")
    assert chromium.run(NAMES) == ["x-2"]
    assert chromium.run("document.querySelector('#experiments select').value") == "=x"
    choose = "(() => { const one = document.querySelector('#experiments input'); one.value = '';"
    chromium.run(choose + " one.dispatchEvent(new Event('input')); })()")
    assert chromium.run(NAMES) == ["x-2", "x-1"]  # still sorted downwards by name
    assert chromium.run("location.search") == "?Method=x&sort=-0"
    assert chromium.messages == []


def test_a_table_is_offered_as_csv(chromium: Browser, tmp_path: Path) -> None:
    chromium.open(model_page(tmp_path))
    catch = (
        "(async () => { let text = null; URL.createObjectURL = (blob) => { text = blob.text(); return 'data:,'; };"
        " HTMLAnchorElement.prototype.click = () => {};"
        " document.querySelector('#experiments .csv').click(); return await text; })()"
    )
    lines = chromium.run(catch).splitlines()
    assert lines[0].startswith("Experiment,Method,Ratio,")
    assert len(lines) == 1 + 4
    assert lines[1].startswith("x-1,x,0.5,16,")


def test_table_sorts(chromium: Browser, tmp_path: Path) -> None:
    chromium.open(model_page(tmp_path))
    assert chromium.run(NAMES) == ["x-1", "x-2", "random-1", "y-1"]  # best first
    click = "document.querySelectorAll('#experiments thead button')[{}].click()"
    order = "document.querySelectorAll('#experiments thead th')[{}].getAttribute('aria-sort')"
    chromium.run(click.format(0))
    assert chromium.run(NAMES) == ["random-1", "x-1", "x-2", "y-1"]
    assert chromium.run(order.format(0)) == "ascending"
    chromium.run(click.format(0))
    assert chromium.run(NAMES) == ["y-1", "x-2", "x-1", "random-1"]
    chromium.run(click.format(3))  # sequence length, largest first; the control has none and stays last
    assert chromium.run(f"{VISIBLE}.map(row => row.cells[3].textContent)") == ["32", "16", "16", "\N{EN DASH}"]
    chromium.run(click.format(3))
    assert chromium.run(f"{VISIBLE}.map(row => row.cells[3].textContent)") == ["16", "16", "32", "\N{EN DASH}"]
    assert chromium.run(order.format(0)) == "none"
    assert chromium.messages == []


def test_table_filters(chromium: Browser, tmp_path: Path) -> None:
    chromium.open(model_page(tmp_path))
    choose = "(() => {{ const one = {}; one.value = {!r}; one.dispatchEvent(new Event({!r})); }})()"
    method = "document.querySelector('#experiments select')"
    chromium.run(choose.format(method, "=x", "change"))
    assert chromium.run(NAMES) == ["x-1", "x-2"]
    search = "document.querySelector('#experiments input')"
    chromium.run(choose.format(search, "X-2", "input"))
    assert chromium.run(NAMES) == ["x-2"]
    assert chromium.run("document.querySelector('[role=status]').textContent") == "Shown: 1 / 4"
    chromium.run(choose.format(method, "", "change"))
    chromium.run(choose.format(search, "", "input"))
    assert len(chromium.run(NAMES)) == 4


@pytest.mark.parametrize("name", [ODD, "</script><script>document.title='broken'</script>"])
def test_odd_names_do_no_harm(chromium: Browser, tmp_path: Path, name: str) -> None:
    path = tmp_path / "report.html"
    write_text(path, page(model=name, method=name))
    chromium.open(path)
    check_nothing_is_wrong(chromium, path)
    assert chromium.run("document.querySelector('h1').textContent") == f"{name}: pruning report"
    assert f"{name}-4" in chromium.run(NAMES)


def test_page_of_all_models(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_text(path, cross_model_html(analyse_study(experiments())))
    chromium.open(path)
    check_nothing_is_wrong(chromium, path)
    assert chromium.run(NAMES) == ["M", "I", "M"]
    chromium.run("document.querySelectorAll('#experiments thead button')[5].click()")
    assert chromium.run(NAMES) == ["M", "I", "M"]  # 0.7 at 20%, 0.6 and 0.54 at 50%


def test_pages_of_a_study(chromium: Browser, tmp_path: Path) -> None:
    frame = with_documents()
    analysis: dict[str, Any] = analyse_model(frame, "M", headline_ratio=None, evidence=evidence())
    rows = {key: experiment_chart_rows(frame, analysis, one) for key, one in analysis["by_ratio"].items()}
    site = Site(["M"], ["M"], "", "experiments.html")
    path = tmp_path / "experiments.html"
    write_text(path, experiments_html("s", [analysis], [rows], site=site, provenance=PROVENANCE))
    chromium.open(path)
    check_nothing_is_wrong(chromium, path)
    assert chromium.run(f"{VISIBLE}.map(row => row.cells[1].textContent)") == ["x-1", "x-2", "random-1", "y-1"]
    last = chromium.run(f"{VISIBLE}[0].cells[{VISIBLE}[0].cells.length - 1].textContent")
    assert re.fullmatch(r"\d\.\d{3} ± \d\.\d{3}", last)
    path = tmp_path / "index.html"
    write_text(path, index_html(analyse_study(frame), [analysis], site=Site(["M"], ["M"], "", "index.html")))
    chromium.open(path, width=390)
    check_nothing_is_wrong(chromium, path)
    linked = chromium.run("[...document.querySelectorAll('main a[href]')].map(one => one.getAttribute('href'))")
    assert {"M/report.html", "M/structures/x-1.html", "../consolidated/experiments.parquet"} <= set(linked)


def test_page_of_a_structure(chromium: Browser, tmp_path: Path) -> None:
    comparison = compare_structure(layers(), 436_225_000, "x-4", "M", widths_before=[(8, 14_336)] * 2)
    path = tmp_path / "x-4.html"
    site = Site(["M"], root="../../")
    write_text(path, structure_html(comparison, before="x-3", site=site, provenance=PROVENANCE))
    chromium.open(path, width=390)
    check_nothing_is_wrong(chromium, path)
    linked = chromium.run("[...document.querySelectorAll('a[href]')].map(one => one.getAttribute('href'))")
    assert {"../../M/report.html", "x-3.html", "x-4.txt", "x-4.json"} <= set(linked)
    assert chromium.run("document.querySelector('main').textContent.includes('14,336 → 3,254')")
    assert {"../../index.html", "../../cross_model/report.html", "../../experiments.html"} <= set(linked)
    assert "torch 2.13.0" in chromium.run("document.querySelector('footer').textContent")


def print_page(of: Browser) -> bytes:
    return base64.b64decode(of.call("Page.printToPDF", preferCSSPageSize=True)["data"])


def test_page_prints(chromium: Browser, tmp_path: Path) -> None:
    chromium.open(model_page(tmp_path))
    pdf = print_page(chromium)
    assert page_sizes(pdf) == {(595, 842), (842, 595)}  # the table of experiments is across
    assert min(text_sizes(pdf)) >= 6.95, "smaller than 7 pt"
    assert chromium.run("[...document.querySelectorAll('main details')].every(one => one.open)")


@pytest.mark.parametrize("n_tasks", [7, 20])
def test_wide_tables_print_legibly(chromium: Browser, tmp_path: Path, n_tasks: int) -> None:
    """All experiments with seven tasks and names as long as those of the default study; more tasks are left out."""
    frame = with_documents()
    analysis: dict[str, Any] = analyse_model(frame, "M", headline_ratio=None, evidence=evidence())
    tasks = ["winogrande", "arc_challenge", "openbookqa", *(f"a_long_task_{number}" for number in range(n_tasks - 3))]
    rows = {key: experiment_chart_rows(frame, analysis, one) for key, one in analysis["by_ratio"].items()}
    for row in (row for of_ratio in rows.values() for row in of_ratio):
        values = dict.fromkeys(tasks, 0.75)
        row |= {"experiment": f"blockwise-seq1024-n1024-{row['experiment']}", "tasks": values, "task_stderr": values}
    named = analysis | {"tasks": tasks, "model": "Mistral-Instruct"}
    path = tmp_path / "experiments.html"
    write_text(path, experiments_html("s", [named], [rows], site=Site(["M"], [], "", "experiments.html")))
    chromium.open(path)
    assert min(text_sizes(print_page(chromium))) >= 6.95, "smaller than 7 pt"
    chromium.call("Emulation.setEmulatedMedia", media="print")
    shown = chromium.run("[...document.querySelectorAll('.listing th')].filter(one => one.offsetParent).length")
    headings = chromium.run("getComputedStyle(document.querySelector('.listing button')).display")
    assert headings == "contents", "Chromium leaves a button out of a heading that is repeated on the next page"
    notes = chromium.run("document.querySelector('.print').textContent")
    chromium.call("Emulation.setEmulatedMedia", media="")
    assert notes == Texts()("p.no_stderr" if n_tasks == 7 else "p.no_tasks")
    assert shown == 13 + (7 if n_tasks == 7 else 0) + len(next(iter(rows.values())))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(chromium: Browser, tmp_path: Path, scheme: str) -> None:
    """The contrast of text with the page is at least 7 to 1, and figures stand on white."""
    chromium.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    chromium.open(model_page(tmp_path))
    style = "getComputedStyle(document.{})['{}'].match(/\\d+/g).map(Number)"
    ink, paper = (chromium.run(style.format("body", name)) for name in ("color", "background-color"))
    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 7
    assert (luminance(paper) < 0.5) is (scheme == "dark")
    assert chromium.run(style.format("querySelector('.card')", "background-color")) == [255, 255, 255]
    chromium.call("Emulation.setEmulatedMedia", features=[])


def luminance(colour: list[int]) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in (value / 255 for value in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

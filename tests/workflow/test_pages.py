"""The pages in a real browser: they render, sort, filter and compare; no request, no complaint."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from espalier.analysis.cross_model import analyse_study
from espalier.analysis.model import analyse_model
from espalier.reports.chart_rows import experiment_chart_rows, layer_chart_rows
from espalier.reports.html import cross_model_html, model_html
from espalier.reports.layout import write_text
from tests.unit.analysis.test_uncertainty import evidence
from tests.unit.analysis.test_uncertainty import experiments as with_documents
from tests.unit.reports.test_reports import ODD, experiments, layers, page
from tests.workflow.browser import Browser, browser, needs_chromium

pytestmark = [pytest.mark.browser, needs_chromium]

PROFILE = [
    {"calibration": "c-s0", "taylor_seq_len": 16, "taylor_num_samples": n, "grad_mean": [1.0, 2.0],
     "grad_norm": [0.1 * n, 0.02 * n]}
    for n in (32, 128)
]  # fmt: skip
VISIBLE = "[...document.querySelectorAll('#experiments tbody tr')].filter(row => !row.hidden)"
NAMES = f"{VISIBLE}.map(row => row.cells[0].textContent)"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def model_page(folder: Path, language: str = "en") -> Path:
    """Write the page of a model whose intervals come from documents."""
    frame = with_documents()
    analysis: dict[str, Any] = analyse_model(
        frame, "M", headline_ratio=None, evidence=evidence(), gradient_profile=PROFILE
    )
    rows = {key: experiment_chart_rows(frame, analysis, one) for key, one in analysis["by_ratio"].items()}
    kept = layer_chart_rows(layers(experiment="x-1"), "M") | layer_chart_rows(layers(experiment="y-1"), "M")
    path = folder / "report.html"
    write_text(path, model_html(analysis, rows, kept, language))
    return path


def check_nothing_is_wrong(of: Browser, path: Path) -> None:
    assert of.messages == []
    outside = [address for address in of.requests if not address.startswith("data:")]
    assert outside == [path.as_uri()]
    assert of.run("[...document.querySelectorAll('.chart')].every(one => one.querySelector('svg path') !== null)")
    assert of.run("document.documentElement.scrollWidth <= window.innerWidth"), "the page is wider than its window"


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_of_a_model_renders(chromium: Browser, tmp_path: Path, width: int, language: str) -> None:
    path = model_page(tmp_path, language)
    chromium.open(path, width=width)
    check_nothing_is_wrong(chromium, path)
    assert chromium.run("document.querySelectorAll('.chart').length") == 9
    assert chromium.run("[...document.querySelectorAll('.chart')].every(one => one.getAttribute('aria-label'))")
    assert chromium.run("[...document.querySelectorAll('.chart svg')].every(one => one.clientWidth > 100)")


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


def test_two_experiments_are_compared(chromium: Browser, tmp_path: Path) -> None:
    chromium.open(model_page(tmp_path))
    bars = "document.querySelectorAll('[data-chart^=kept-]')[0].querySelectorAll('.mark-rect path').length"
    assert chromium.run("document.querySelectorAll('select[data-compare]').length") == 2
    before = chromium.run(bars)
    assert before >= 4  # two layers, two blocks
    chromium.run(
        "(() => { const one = document.querySelector('select[data-compare]'); one.value = 'y-1';"
        " one.dispatchEvent(new Event('change')); })()"
    )
    assert chromium.run(bars) == before
    label = "document.querySelector('[data-chart^=kept-]').getAttribute('aria-label')"
    assert chromium.run(label) == "y-1"
    assert chromium.messages == []


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


def test_page_prints(chromium: Browser, tmp_path: Path) -> None:
    chromium.open(model_page(tmp_path))
    assert len(chromium.call("Page.printToPDF")["data"]) > 20_000

"""The documentation as a site: it builds with every link and anchor checked, and asks no other server for anything."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.documents import PAGES, copy_repository
from tests.workflow.browser import browser, needs_chromium

# What a browser fetches by itself; a link that a reader may click is something else.
FETCHED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"([^\"]+)|<link\b[^>]*\bhref=\"([^\"]+)")


def build(repository: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(REPOSITORY, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_on_the_site_under_its_path(site: Path) -> None:
    names = {"README.md": "index.html", "config/README.md": "config/index.html"}
    # results/README.md only says that the folder is kept.
    paths = [str(page.relative_to(REPOSITORY)) for page in PAGES if page.parent.name != "results"]
    assert [path for path in paths if not (site / names.get(path, path.replace(".md", ".html"))).is_file()] == []
    assert "Structured-pruning sweeps" in (site / "index.html").read_text(encoding="utf-8")


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        fetched = [a or b for a, b in FETCHED.findall(page.read_text(encoding="utf-8"))]
        assert fetched
        assert [address for address in fetched if re.match(r"(?:https?:)?//", address)] == []
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\"']+", text) == [], sheet


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not report each request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the standard library
        pass


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


FOUND = """new Promise(done => {
    const look = () => {
        const found = [...document.querySelectorAll('.md-search-result__link')].map(link => link.pathname)
        found.length ? done(found) : setTimeout(look, 100)
    }
    look()
})"""


@pytest.mark.browser
@needs_chromium
def test_search_finds_a_page_and_asks_nobody_else(address: str, site: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as chromium:
        chromium.open(site / "docs/method.html")
        assert {request.split(":")[0] for request in chromium.requests} <= {"file", "data", "blob"}
        chromium.requests.clear()
        chromium.call("Page.navigate", url=f"{address}/index.html?q=wanda")
        chromium.run("new Promise(done => setTimeout(done, 1000))")
        assert "/docs/method.html" in chromium.run(FOUND)
        assert {request.split("/")[2] for request in chromium.requests if request.startswith("http")} == {address[7:]}


@pytest.mark.parametrize(
    ("page", "link", "said"),
    [
        ("README.md", "[x](docs/nowhere.md)", "'docs/nowhere.md', but the target is not found"),
        ("config/README.md", "[x](../docs/method.md#nowhere)", "does not contain an anchor '#nowhere'"),
        ("CONTRIBUTING.md", "[x](#nowhere)", "there is no such anchor on this page"),
    ],
)
def test_a_broken_link_stops_the_build(page: str, link: str, said: str, tmp_path: Path) -> None:
    clone = copy_repository(tmp_path / "clone")
    with (clone / page).open("a", encoding="utf-8") as file:
        file.write(f"\n{link}\n")
    done = build(clone, tmp_path / "site")
    assert done.returncode != 0
    assert said in done.stderr + done.stdout


def test_a_page_without_a_place_stops_the_build(tmp_path: Path) -> None:
    clone = copy_repository(tmp_path / "clone")
    (clone / "docs/forgotten.md").write_text("# Forgotten\n", encoding="utf-8")
    done = build(clone, tmp_path / "site")
    assert done.returncode != 0
    assert "docs/forgotten.md" in done.stderr + done.stdout

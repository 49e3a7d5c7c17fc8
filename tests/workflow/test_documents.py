"""Links of the documents: files and anchors exist, as a git host resolves them."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.documents import PAGES

FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Name the headings as git hosts do: in lower case, without punctuation, with hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    names = [re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings]
    return {name if not names[:place].count(name) else f"{name}-{names[:place].count(name)}"
            for place, name in enumerate(names)}  # fmt: skip


def broken_links(page: Path, text: str) -> list[str]:
    broken = []
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert broken_links(page, prose(page)) == []


def test_a_broken_link_is_found() -> None:
    text = "[a](docs/nowhere.md) [b](docs/method.md#nowhere) [c](#nowhere) [d](docs/method.md)"
    assert broken_links(REPOSITORY / "README.md", text) == [
        "docs/nowhere.md", "docs/method.md#nowhere", "#nowhere"
    ]  # fmt: skip


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_is() -> None:
    pages = {page.resolve() for page in PAGES}
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            targets = [(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(prose(page))]
            waiting += [target for target in targets if target in pages]
    assert {page.name for page in pages - reached if page.parent.name != "results"} == set()

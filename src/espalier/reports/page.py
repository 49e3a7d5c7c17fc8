"""Rendering of pages from templates: what all pages of a study share."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from espalier.reports.messages import Texts
from espalier.reports.provenance import Provenance
from espalier.reports.site import Site

LONG_TABLE = 14
"""Tables with more rows are folded."""


def render_page(texts: Texts, template: str, *, site: Site, provenance: Provenance | None, **values: Any) -> str:
    """Render a page.

    Args:
        texts: Texts in the language of the page.
        template: File name of its template.
        site: The pages of the study.
        provenance: Where the numbers of the page come from.
        values: Further values of the template.
    """
    shared = {"pages": site.pages(texts), "long_table": LONG_TABLE, "script": _source("page.js")}
    return _environment().get_template(template).render(texts=texts, provenance=provenance, **shared, **values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("espalier.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _source(name: str) -> Markup:
    """Read a script of this package."""
    return Markup(files("espalier.reports").joinpath("templates", name).read_text(encoding="utf-8"))  # noqa: S704 (our own)

"""Pages on what each experiment removed, linked with the page of the model and with each other."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from espalier.reports.messages import Texts
from espalier.reports.page import render_page
from espalier.reports.provenance import Provenance
from espalier.reports.site import Link, Site
from espalier.reports.structure import structure_sections


def structure_html(
    comparison: dict[str, Any],
    language: str = "en",
    *,
    before: str | None = None,
    after: str | None = None,
    site: Site | None = None,
    provenance: Provenance | None = None,
) -> str:
    """Return the page of a comparison of a pruned and an unpruned model (`espalier.reports.structure`).

    Args:
        comparison: The comparison.
        language: Language code, `en` or `zh`.
        before: Experiment of the page before this one.
        after: Experiment of the page after this one.
        site: The pages of the study.
        provenance: Where the numbers come from.
    """
    texts = Texts(language)
    site = site or Site(root="../../")
    model, experiment = comparison["model"], comparison["experiment"]
    return render_page(
        texts, "structure.html", site=site, provenance=provenance, title=f"{texts('t.title')}: {experiment}",
        model=model, experiment=experiment, model_page=site.model(model), file=quote(experiment), before=_link(before),
        after=_link(after), sections=structure_sections(texts, comparison),
    )  # fmt: skip


def _link(experiment: str | None) -> Link | None:
    return None if experiment is None else Link(experiment, f"{quote(experiment)}.html")

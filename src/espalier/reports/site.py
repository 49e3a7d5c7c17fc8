"""Links between the pages of a study."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from espalier.naming import BASELINE
from espalier.reports.messages import Texts


@dataclass(frozen=True)
class Link:
    """A link of a page. `is_current` marks the page itself."""

    title: str
    address: str
    is_current: bool = False


@dataclass(frozen=True)
class Site:
    """The pages of a study, seen from one of them.

    Attributes:
        models: Names of the models with reports.
        with_structures: Names of the models with structure pages.
        root: Relative address of the folder `reports/` from the page, empty or with a slash at its end.
        current: Address of the page, relative to `reports/`.
    """

    models: Sequence[str] = ()
    with_structures: Collection[str] = ()
    root: str = "../"
    current: str = ""

    def pages(self, texts: Texts) -> list[Link]:
        """Return the links to all pages: index, comparison of the models, all experiments, and each model."""
        pages = [
            (texts("n.index"), "index.html"),
            (texts("x.all_models"), "cross_model/report.html"),
            (texts("p.experiments"), "experiments.html"),
            *((model, f"{quote(model)}/report.html") for model in self.models),
        ]
        return [Link(title, self.root + address, address == self.current) for title, address in pages]

    def model(self, model: str) -> str | None:
        """Return the address of the page of a model; None if it has none."""
        return f"{self.root}{quote(model)}/report.html" if model in self.models else None

    def structure(self, model: str, experiment: str) -> str | None:
        """Return the address of the structure page of an experiment; None if its model has none."""
        if model not in self.with_structures or experiment == BASELINE:
            return None
        return f"{self.root}{quote(model)}/structures/{quote(experiment)}.html"

"""Where the numbers of a page come from: date, versions, protocol, seeds and config. The page shows it at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from espalier import __version__


@dataclass(frozen=True)
class Provenance:
    """Where the numbers of a page come from.

    Attributes:
        date: Day of the newest result (ISO 8601, UTC); None if no result file exists.
        version: Version of Espalier that wrote the page.
        commit: Commit of Espalier; None outside a git checkout.
        versions: Versions of the libraries that the results were computed with, by name.
        settings: Dtypes, hardware and protocol of the results, as far as their files record them, by name.
        config: Config of the study as YAML; empty if it is not known.
    """

    date: str | None = None
    version: str = __version__
    commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    config: str = ""

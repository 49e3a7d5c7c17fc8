"""Texts of the reports in one language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.analysis.message_json import from_json
from espalier.errors import UserError
from espalier.messages.catalogue import LANGUAGES, catalogue, render_message


class Texts:
    """Texts of the reports in one language, looked up by code.

    Args:
        language: Language code; one of `espalier.messages.LANGUAGES`.

    Raises:
        UserError: If the language is unknown.
    """

    def __init__(self, language: str = "en") -> None:
        if language not in LANGUAGES:
            raise UserError(f"report.language: {language!r} is unknown; known are {', '.join(LANGUAGES)}")
        self.language = language
        self._texts = catalogue(language)

    def __call__(self, code: str, **values: object) -> str:
        """Return the text of a code, with `values` filled into its template."""
        return self._texts[code].format(**values)

    def message(self, content: Mapping[str, Any]) -> str:
        """Return the text of a message of an analysis."""
        return render_message(from_json(content), self._texts)

    def reason(self, result: Mapping[str, Any]) -> str:
        """Return the text of the reason why a result is missing (`why`)."""
        return self.message(result["why"])

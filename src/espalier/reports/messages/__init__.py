"""Texts of the reports by language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from espalier.analysis.message_json import from_json
from espalier.errors import UserError
from espalier.reports.messages import en, en_deployment, zh, zh_deployment
from espalier.statistics.messages import render_message

CATALOGUES: Mapping[str, Mapping[str, str]] = {
    "en": en.TEXT | en_deployment.DEPLOYMENT,
    "zh": zh.TEXT | zh_deployment.DEPLOYMENT,
}


class Words:
    """Texts of the reports in one language, looked up by code.

    Args:
        language: Language code; a key of `CATALOGUES`.

    Raises:
        UserError: If the language is unknown.
    """

    def __init__(self, language: str = "en") -> None:
        if language not in CATALOGUES:
            raise UserError(f"report.language: {language!r} is unknown; known are {', '.join(CATALOGUES)}")
        self.language = language
        self._texts = CATALOGUES[language]

    def __call__(self, code: str, **values: object) -> str:
        """Return the text of a code, with `values` filled into its template."""
        return self._texts[code].format(**values)

    def say(self, message: Mapping[str, Any]) -> str:
        """Return the text of a message of an analysis."""
        return render_message(from_json(message), self._texts)

    def reason(self, of: Mapping[str, Any] | str) -> str:
        """Return the text of a reason.

        Args:
            of: A result with `reason` and possibly `why`, or a reason in English.

        Returns:
            The reason in the language of the report. A reason that is not in the catalogue stays in English.
        """
        if not isinstance(of, str):
            if of.get("why"):
                return self.say(of["why"])
            of = str(of["reason"])
        for code, pattern in _REASONS:
            if found := pattern.fullmatch(of):
                return self(code, **found.groupdict())
        return of


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(template)))


_REASONS = [(code, _pattern(text)) for code, text in en.TEXT.items() if code.startswith("reason.")]

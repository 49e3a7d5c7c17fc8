"""Texts of the reports by language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from espalier.analysis.message_json import from_json
from espalier.errors import UserError
from espalier.reports.messages import en, en_serving, zh, zh_serving
from espalier.statistics.messages import render_message

CATALOGUES: Mapping[str, Mapping[str, str]] = {
    "en": en.REPORT_TEXTS | en_serving.SERVING,
    "zh": zh.REPORT_TEXTS | zh_serving.SERVING,
}


class Texts:
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

    def message(self, content: Mapping[str, Any]) -> str:
        """Return the text of a message of an analysis."""
        return render_message(from_json(content), self._texts)

    def reason(self, result: Mapping[str, Any] | str) -> str:
        """Return the text of a reason.

        Args:
            result: A result with `reason` and possibly `why`, or a reason in English.

        Returns:
            The reason in the language of the report. A reason that is not in the catalogue stays in English.
        """
        if not isinstance(result, str):
            if result.get("why"):
                return self.message(result["why"])
            result = str(result["reason"])
        for code, pattern in _REASONS:
            if match := pattern.fullmatch(result):
                return self(code, **match.groupdict())
        return result


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(template)))


_REASONS = [(code, _pattern(text)) for code, text in en.REPORT_TEXTS.items() if code.startswith("reason.")]

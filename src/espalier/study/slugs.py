"""Names under `cache/` of what is staged from a hub."""

from __future__ import annotations

import re

from espalier.config.data import TextSource
from espalier.config.models import ModelEntry


def model_slug(model: ModelEntry) -> str:
    """Name the folder of a model under `cache/models/`."""
    return _slug(model.hub, model.revision)


def text_slug(text: TextSource) -> str:
    """Name the file of a text under `cache/texts/`, without suffix."""
    return _slug(text.dataset, text.config, text.data_files, text.split, text.revision)


def _slug(*parts: str | None) -> str:
    """Join what names something on the hub to one folder name."""
    return "@".join(re.sub(r"[^A-Za-z0-9._-]+", "--", part) for part in parts if part)

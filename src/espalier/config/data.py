"""The section `calibration`, and sources of texts: the sandbox, a local file, or a dataset on the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from espalier.config.base import (
    REPOSITORY_PATTERN,
    REVISION_PATTERN,
    Name,
    PositiveInt,
    Section,
    check_length,
    check_path,
    duplicates,
)
from espalier.data_formats import TEXT_FORMATS, TEXT_SUFFIXES, UNSUPPORTED_SUFFIXES

SANDBOX = "sandbox"
HUB = "hub"


class TextSource(Section):
    """A text: one split of a dataset, and the column that holds the text."""

    dataset: Annotated[str, Field(min_length=1)]
    """`sandbox`, a local file (.parquet, .json, .jsonl, .txt, .json.gz ...), or a hub repository `owner/name`."""
    config: Annotated[str, Field(min_length=1)] | None = None
    """Configuration of the hub dataset."""
    data_files: Annotated[str, Field(min_length=1)] | None = None
    """One file of the hub dataset, instead of a configuration."""
    split: Annotated[str, Field(min_length=1)] = "train"
    """Split of the dataset."""
    text_field: Annotated[str, Field(min_length=1)] = "text"
    """Column that holds the text."""
    revision: Annotated[str, Field(pattern=REVISION_PATTERN)] = "main"
    """Branch, tag or commit of the hub dataset."""

    @field_validator("dataset")
    @classmethod
    def _known_form(cls, value: str) -> str:
        if value.endswith(TEXT_SUFFIXES):
            return check_path(value)
        if value == SANDBOX:
            return value
        check_length(value)
        # A local folder at the path owner/name may hold a dataset in the layout of a hub repository. A file cannot.
        is_file = value.lower().endswith(UNSUPPORTED_SUFFIXES) or Path(value).is_file()
        if re.match(REPOSITORY_PATTERN, value) and not is_file:
            return value
        raise ValueError(f"got {value!r}; give 'sandbox', a file ({TEXT_FORMATS}), or a hub repository 'owner/name'")

    @property
    def is_local(self) -> bool:
        """Whether the text is a local file."""
        return self.dataset.endswith(TEXT_SUFFIXES)

    @property
    def is_hub(self) -> bool:
        """Whether the text must be staged from the hub."""
        return self.dataset != SANDBOX and not self.is_local

    def same_dataset(self, other: TextSource) -> bool:
        """Return whether both sources name the same dataset and configuration; the splits may differ."""
        return (self.dataset, self.config, self.data_files) == (other.dataset, other.config, other.data_files)

    def same_text(self, other: TextSource) -> bool:
        """Return whether both sources name the same split of a dataset, or the same local file.

        A local file has no splits. Two sandbox texts are never the same.
        """
        if self.is_local and other.is_local:
            return Path(self.dataset).resolve() == Path(other.dataset).resolve()
        return self.dataset != SANDBOX and self.same_dataset(other) and self.split == other.split


C4 = "allenai/c4"
C4_SHARD = "en/c4-train.00000-of-01024.json.gz"


def _name_of_dataset(validated: dict[str, str]) -> str:
    return validated.get("dataset", C4).rsplit("/", 1)[-1].split(".", 1)[0]


def _files_of_dataset(validated: dict[str, str]) -> str | None:
    return C4_SHARD if validated.get("dataset", C4) == C4 else None


class Calibration(TextSource):
    """The text on which importance and priors are measured."""

    dataset: Annotated[str, Field(min_length=1)] = C4
    """`sandbox`, a local file (.parquet, .json, .jsonl, .txt, .json.gz ...), or a hub repository `owner/name`."""
    data_files: Annotated[str, Field(min_length=1)] | None = Field(default_factory=_files_of_dataset)
    """One file of the hub dataset, instead of a configuration. For allenai/c4, unless given: one shard of `en`."""
    name: Name = Field(default_factory=_name_of_dataset)
    """Name in paths: `{name}-s{seed}`. Unless given: the last part of `dataset`, without suffix."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """Seeds of the order in which documents are drawn; each is a calibration set of its own."""

    prior_samples: PositiveInt | None = None
    """Sequences that priors are measured on (at most the sample count); none means a fifth of the sample count."""

    @field_validator("seeds")
    @classmethod
    def _unique(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if repeated := duplicates(values):
            raise ValueError(f"seed {repeated[0]} is listed twice; list each seed once")
        return values


class PerplexityText(TextSource):
    """A text on which perplexity is measured."""

    name: Name
    """Name in tables: the column is `ppl_{name}`."""
    joiner: str = "\n\n"
    """What the rows are joined with."""
    max_tokens: Annotated[int, Field(ge=2)] | None = None
    """First tokens of the text that are read; none means all. Stored with the number."""

"""Code that all sections of the config share: their base class, the types of values, and checks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from espalier.naming import NAME_PATTERN

REPOSITORY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"
REVISION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"

_PERIODIC = re.compile(r"(.+)\1{19}$")


def _not_periodic(name: str) -> str:
    if match := _PERIODIC.search(name):
        raise ValueError(
            f"got {name!r}, which ends with {match[1]!r} 20 times; Snakemake takes such a name for an endless loop: "
            "choose another"
        )
    return name


Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100), AfterValidator(_not_periodic)]
"""A name that becomes part of a path: no slash, no space, no leading dot."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[int, Field(ge=1)]

BEST = "best"
"""Stands for the best experiment of each model, where a section lists names of experiments."""


class Section(BaseModel):
    """Base class of all config sections. Unknown keys are errors; values are not coerced and cannot be changed."""

    model_config = ConfigDict(
        validate_default=True,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


MAX_PATH, MAX_FILE_NAME = 4000, 255
"""Longest path and longest name in it, in characters. File systems count bytes, but these limits are Linux's."""


def check_length(path: str) -> str:
    """Return a path if it is not too long for a file system.

    Raises:
        ValueError: If it is.
    """
    if len(path) > MAX_PATH or max(map(len, path.split("/"))) > MAX_FILE_NAME:
        raise ValueError(
            f"got {path!r}; allowed: at most {MAX_PATH} characters, with {MAX_FILE_NAME} for each folder or file"
        )
    return path


def check_path(path: str) -> str:
    """Return a path if it is not too long, and has no braces or angle brackets.

    Snakemake reads `{...}` as a wildcard and `<...>` as a path variable.

    Raises:
        ValueError: If the path is too long or has such a character.
    """
    if set(path) & set("{}<>"):
        raise ValueError(f"got {path!r}; a path may have no braces or angle brackets, which Snakemake reads; rename it")
    return check_length(path)


def duplicates(values: Iterable[object]) -> list[object]:
    """Return the values that occur more than once, in order of their second appearance."""
    seen: set[object] = set()
    found: list[object] = []
    for value in values:
        if value in seen and value not in found:
            found.append(value)
        seen.add(value)
    return found

"""Validate a config and convert it to a `StudyConfig`."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from espalier.config.problems import NON_TEXT_ERRORS, describe_problems, format_path
from espalier.config.study import StudyConfig
from espalier.errors import UserError

# Access tokens of hubs and clouds. The config is copied to logs and reports, so it must not contain any.
_SECRET = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{16})\b")


LARGEST = 2**63 - 1
DEEPEST = 50
"""Most levels of a config: mappings and lists within each other."""
MAX_VALUES = 100_000
"""Most keys and values of a config. A study of 10,000 experiments has a few hundred."""


def load_study(config: Mapping[str, Any]) -> StudyConfig:
    """Validate a config mapping, as Snakemake loaded it, and return an immutable `StudyConfig`.

    Raises:
        UserError: If the config is invalid. The message has one line per problem.
    """
    if not config:
        raise UserError("config: is empty; give a study name and models (see config/README.md)")
    if problem := _structure_problem(config, (), {}):
        raise UserError(problem)
    if (size := _expanded_size(config, {})) > MAX_VALUES:
        raise UserError(
            f"config: has {size:,} values after its aliases are expanded; allowed: {MAX_VALUES:,}. Aliases (`*name`) "
            "of lists that hold aliases multiply"
        )
    if secrets := [format_path(path) for path, text in _strings_with_paths(config) if _SECRET.search(text)]:
        raise UserError(
            "\n".join(f"{path}: looks like an access token; remove it and set HF_TOKEN instead" for path in secrets)
        )
    if problems := [*_unprintable(config), *_too_large(config)]:
        raise UserError("\n".join(problems))
    content = json.loads(json.dumps(config, default=str))
    try:
        return _validate(content)
    except ValidationError as error:
        _parse_texts(content, error)
    try:
        return _validate(content)
    except ValidationError as error:
        raise UserError("\n".join(describe_problems(error, StudyConfig))) from None


def _structure_problem(
    value: Any, path: tuple[int | str, ...], heights: dict[int, int], holders: frozenset[int] = frozenset()
) -> str | None:
    """Return a line on a part of a config that holds itself or is too deep, or on a key that is no text; else None.

    Args:
        value: The config or a part of it.
        path: Its path.
        heights: Levels in each part that was checked already, by its id; parts are added. Aliases share one object.
        holders: Ids of the parts that hold it.
    """
    if not isinstance(value, Mapping | list | tuple):
        return None
    if id(value) in holders:
        return (
            f"{format_path(path)}: is an alias (`*name`) of a mapping or list that holds it; write the values instead"
        )
    if len(path) + heights.get(id(value), 0) > DEEPEST:
        return f"{format_path(path[:3])}: has over {DEEPEST} levels of mappings and lists; see config/README.md"
    items: list[tuple[Any, Any]] = list(value.items() if isinstance(value, Mapping) else enumerate(value))
    items = [] if id(value) in heights else items
    for key, inner in items:
        # YAML reads 2024-01-01 as a date. A number, true and null are refused later, as unknown keys.
        if key is not None and not isinstance(key, str | int | float):
            return (
                f"{format_path(path) or 'config'}: has the key {str(key)[:60]!r}, which YAML reads as no text; quote it"
            )
        part: int | str = str(key) if isinstance(value, Mapping) else int(str(key))
        if problem := _structure_problem(inner, (*path, part), heights, holders | {id(value)}):
            return problem
    heights.setdefault(id(value), 1 + max((heights.get(id(inner), 0) for _, inner in items), default=0))
    return None


_IN_NO_FILE = {"[\ud800-\udfff]": "half of a surrogate pair (\\ud800 to \\udfff)", "\0": "a zero character (\\0)"}
"""What no file or no path can hold, as regular expressions."""


def _unprintable(config: Mapping[str, Any]) -> list[str]:
    """Return a line for each text with half of a surrogate pair or a zero character."""
    return [
        f"{format_path(path)}: got {text[:60]!a}, which has {what}; remove it"
        for path, text in _strings_with_paths(config)
        for pattern, what in _IN_NO_FILE.items()
        if re.search(pattern, text)
    ]


def _too_large(value: Any, path: tuple[int | str, ...] = ()) -> Iterator[str]:
    """Yield a line for each whole number of more than 63 bits, which tensors and tables cannot hold."""
    if isinstance(value, int) and abs(value) > LARGEST:
        yield f"{format_path(path)}: got a whole number of over 18 digits; allowed: at most {LARGEST}"
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        yield from _too_large(inner, (*path, key if isinstance(value, list | tuple) else str(key)))


def _expanded_size(value: Any, known: dict[int, int]) -> int:
    """Count the keys and values of a config without expanding aliases, which share one object in memory.

    Args:
        value: The config or a part of it.
        known: Size of each mapping and list that was counted already, by its id.
    """
    if not isinstance(value, Mapping | list | tuple):
        return 1
    if id(value) not in known:
        inner = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + len(value) + sum(_expanded_size(item, known) for item in inner)
    return known[id(value)]


def _validate(content: dict[str, Any]) -> StudyConfig:
    return StudyConfig.model_validate_json(json.dumps(content))


def _parse_texts(content: dict[str, Any], error: ValidationError) -> None:
    """Parse, in place, each text that was given for a number or a boolean.

    Snakemake passes every value inside `--config 'section={key: value}'` as a text.
    """
    for detail in error.errors(include_url=False):
        text = detail["input"]
        if detail["type"] not in NON_TEXT_ERRORS or not isinstance(text, str):
            continue
        holder: Any = content
        for part in detail["loc"][:-1]:
            holder = holder[part]
        with contextlib.suppress(json.JSONDecodeError):
            holder[detail["loc"][-1]] = json.loads(text.lower())


def _strings_with_paths(value: Any, path: tuple[int | str, ...] = ()) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Yield every text in a config with its path, and every key with the path of its mapping."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield path, str(key)
            yield from _strings_with_paths(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _strings_with_paths(inner, (*path, index))

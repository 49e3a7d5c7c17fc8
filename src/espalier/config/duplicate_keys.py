"""Find keys that a config file gives twice: of two, YAML and JSON keep the last without a word."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from espalier.config.problems import format_path

Location = tuple[int | str, ...]
_MERGE = "tag:yaml.org,2002:merge"  # `<<`: what it brings may be overridden, and it may be there twice


def keys_given_twice(files: Iterable[str | Path]) -> list[str]:
    """Describe each key that a mapping of a file has more than once, at any depth, in one line.

    Args:
        files: Config files as Snakemake loaded them; what cannot be read or parsed is left to Snakemake to report.
    """
    return [line for file in files for line in _keys_given_twice(Path(file))]


def _keys_given_twice(file: Path) -> list[str]:
    name = os.path.relpath(file)
    try:
        text = file.read_text(encoding="utf-8")
        found = dict(_in_json(text) or _in_yaml(yaml.compose(text, Loader=yaml.SafeLoader), (), set()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []
    return [
        f"{file if name.startswith('..') else name}: {format_path(key)} is given {_times(places)}; keep one"
        for key, places in found.items()
    ]


def _times(places: list[int]) -> str:
    """Say how often, and where lines are known, in which."""
    often = "twice" if len(places) == 2 else f"{len(places)} times"
    if not all(places):
        return often
    *some, last = sorted(set(places))
    return f"{often}, in lines {', '.join(map(str, some))} and {last}" if some else f"{often}, in line {last}"


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its keys."""


def _in_json(text: str) -> list[tuple[Location, list[int]]] | None:
    """Return the keys and, as their lines are not known, zeros; None if the file is not JSON, but YAML."""
    try:
        content = json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError:
        return None
    return list(_in_value(content, ()))


def _in_value(value: Any, path: Location) -> Iterator[tuple[Location, list[int]]]:
    if isinstance(value, _Pairs):
        places: Mapping[str, list[int]] = defaultdict(list)
        for key, inner in value:
            places[key].append(0)
            yield from _in_value(inner, (*path, key))
        yield from (((*path, key), many) for key, many in places.items() if len(many) > 1)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _in_value(inner, (*path, number))


def _in_yaml(node: yaml.Node | None, path: Location, seen: set[int]) -> Iterator[tuple[Location, list[int]]]:
    """Yield keys with their lines. Nodes that aliases lead to are looked at once."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, inner in enumerate(node.value):
            yield from _in_yaml(inner, (*path, number), seen)
    elif isinstance(node, yaml.MappingNode):
        places: Mapping[tuple[str, str], list[int]] = defaultdict(list)
        for key, inner in node.value:
            merged = key.tag == _MERGE
            if isinstance(key, yaml.ScalarNode) and not merged:
                places[key.tag, key.value].append(key.start_mark.line + 1)
            yield from _in_yaml(inner, path if merged else (*path, str(key.value)), seen)
        yield from (((*path, key), many) for (_, key), many in places.items() if len(many) > 1)

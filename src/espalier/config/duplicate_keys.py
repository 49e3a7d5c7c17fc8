"""Find keys that occur twice in a mapping of a config file; YAML and JSON silently keep the last value."""

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
_MERGE = "tag:yaml.org,2002:merge"  # `<<`: it may occur twice, and its keys may be overridden


def find_duplicate_keys(files: Iterable[str | Path]) -> list[str]:
    """Return one line for each key that occurs more than once in a mapping of a file, at any depth.

    Args:
        files: Config files. Files that cannot be read or parsed are skipped, because Snakemake reports them.
    """
    return [line for file in files for line in _duplicate_keys_in(Path(file))]


def _duplicate_keys_in(file: Path) -> list[str]:
    name = os.path.relpath(file)
    try:
        text = file.read_text(encoding="utf-8")
        found = dict(_in_json(text) or _in_yaml(yaml.compose(text, Loader=yaml.SafeLoader), (), set()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):  # `load_study` refuses many levels
        return []
    return [
        f"{file if name.startswith('..') else name}: {format_path(key)} is given {_times(places)}; keep one"
        for key, places in found.items()
    ]


def _times(places: list[int]) -> str:
    """Describe how often a key occurs and, if they are known, in which lines."""
    often = "twice" if len(places) == 2 else f"{len(places)} times"
    if not all(places):
        return often
    *some, last = sorted(set(places))
    return f"{often}, in lines {', '.join(map(str, some))} and {last}" if some else f"{often}, in line {last}"


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as a list of pairs, which can hold a key twice."""


def _in_json(text: str) -> list[tuple[Location, list[int]]] | None:
    """Return the repeated keys of a JSON text, with 0 for each unknown line; None if the text is not JSON."""
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
    """Yield the repeated keys of a YAML node with their lines; visit a node once, even if aliases repeat it."""
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

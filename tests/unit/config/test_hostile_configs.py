"""Whatever a config holds, it is accepted, or refused with short lines, in no time."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from espalier.config import load_study
from espalier.errors import UserError
from tests.conftest import REPOSITORY

VALUES = (
    None, [], {}, "", " ", "many", "x" * 5000, "../x", "a/b", "ä ö", "{model}", "a\nb", "\x00", "<b>", -1, 0, 3, 1e-7,
    1e30, 2**70, float("nan"), True, [1], [None], {"a": 1},
)  # fmt: skip
MODEL = {"name": "A", "path": "m", "family": "Llama", "kind": "base"}


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value in a config, the whole config included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def replace(config: Any, path: tuple[str | int, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(config)
    holder = changed
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    return changed


@pytest.mark.parametrize("file", ["config.yaml", "smollm2.yaml"])
def test_every_value_of_a_config_may_be_anything(file: str) -> None:
    config = yaml.safe_load((REPOSITORY / "config" / file).read_text(encoding="utf-8"))
    n_accepted = n_refused = 0
    for path in paths(config):
        for value in VALUES:
            try:
                load_study(replace(config, path, value))
                n_accepted += 1
            except UserError as error:
                n_refused += 1
                lines = str(error).splitlines()
                assert lines, f"{path}: {value!r}"
                assert max(map(len, lines)) < 500, f"{path}: {value!r}"
    assert n_refused > 500
    assert n_accepted > 20


@pytest.mark.parametrize("dataset", ["texts/ä ö.parquet", "texts/.jsonl", "texts/-a.jsonl", "x" * 120 + ".jsonl"])
def test_a_name_that_is_derived_from_a_file_is_checked_like_a_given_one(dataset: str) -> None:
    with pytest.raises(UserError, match=r"calibration\.name: got '.*; allowed"):
        load_study({"study": "s", "models": [MODEL], "calibration": {"dataset": dataset}})
    load_study({"study": "s", "models": [MODEL], "calibration": {"dataset": dataset, "name": "mine"}})

"""Whatever a config holds, it is accepted, or refused with short lines, in no time."""

import datetime as dt

import pytest
import yaml
from benchmarks.torture.values import VALUES, value_paths, with_value

from espalier.config import load_study
from espalier.errors import UserError
from tests.conftest import REPOSITORY

MODEL = {"name": "A", "path": "m", "family": "Llama", "kind": "base"}


@pytest.mark.parametrize("file", ["config.yaml", "smollm2.yaml"])
def test_every_value_of_a_config_may_be_anything(file: str) -> None:
    config = yaml.safe_load((REPOSITORY / "config" / file).read_text(encoding="utf-8"))
    n_accepted = n_refused = 0
    for path in value_paths(config):
        for value in VALUES:
            try:
                load_study(with_value(config, path, value))
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


def _holds_itself() -> dict[str, object]:
    config: dict[str, object] = {"study": "s"}
    config["x"] = [{"y": config}]
    return config


def _deep() -> dict[str, object]:
    value: object = 1
    for _ in range(3000):
        value = [value]
    return {"study": "s", "x": value}


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (_holds_itself(), r"x\[0\]\.y: is an alias \(`\*name`\) of a mapping or list that holds it"),
        (_deep(), r"x\[0\]\[0\]: has over 50 levels"),
        ({dt.date(2024, 1, 1): 1}, "config: has the key '2024-01-01', which YAML reads as no text; quote it"),
        ({"grid": {b"a": 1}}, "grid: has the key \"b'a'\""),
        ({"models": [{(1, 2): 1}]}, r"models\[0\]: has the key '\(1, 2\)'"),
        ({"study": "\ud800"}, r"study: got '\\ud800', which has half of a surrogate pair"),
        ({"study": "s", "models": [MODEL | {"path": "a\0b"}]}, r"models\[0\]\.path: got 'a\\x00b', which has a zero"),
        ({"study": "s", "evaluation": {"data": "\0"}}, r"evaluation\.data: got '\\x00', which has a zero character"),
        ({"study": "s", "x\ud800": 1}, r"study: got|config|: got 'x\\ud800', which has half"),
        ({"calibration": {"seeds": [1, 10**400]}}, r"calibration\.seeds\[1\]: got a whole number of over 18 digits"),
        ({"study": "s", "models": [MODEL | {"name": "ab" * 20}]}, r"models\[0\]\.name: got .* ends with 'ab' 20 times"),
        (
            {"study": "s", "models": [MODEL], "calibration": {"dataset": f"{'a' * 30}.txt"}},
            r"calibration\.name: got .* ends with 'a+' 20 times",
        ),
    ],
)  # fmt: skip
def test_what_a_config_cannot_hold_is_refused_in_one_line(config: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        load_study(config)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 300


def test_an_alias_may_be_used_twice() -> None:
    shared = {"temperature": 0.5}
    methods = [{"name": "a", **shared}, {"name": "b", **shared}]
    content = {"study": "s", "models": [MODEL], "methods": methods, "grid": {"methods": ["a"]}}
    grid = {"pruning_ratio": [0.2]}
    load_study(content | {"models": [MODEL | {"grid": grid}, MODEL | {"name": "B", "grid": grid}]})


def test_names_of_19_equal_letters_are_no_endless_loop() -> None:
    """Snakemake looks for 20 and more."""
    load_study({"study": "s", "models": [MODEL | {"name": "a" * 19}, MODEL | {"name": "a" * 20 + "b"}]})

"""Whatever a config holds, it is accepted, or refused with short lines, in no time."""

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

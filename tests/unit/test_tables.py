"""Schemas of the tables: every column has a description and a unit, in the module and in the files."""

import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow.parquet as pq
import pytest
from tools.data_dictionary import DOCUMENTED

from espalier import tables
from espalier.analysis.evidence import Evidence, draws_table
from espalier.statistics.bootstrap import Bootstrap
from tests.parquet import without_description

SCHEMAS = [
    one
    for name, one in inspect.getmembers(tables, inspect.isclass)
    if issubclass(one, pa.DataFrameModel) and one.__module__ == tables.__name__ and not name.startswith("_")
]
EXAMPLES = {
    "^ppl_before_": "ppl_before_a", "^ppl_after_": "ppl_after_a", "^ppl_": "ppl_a", "^acc_": "acc_a",
    "^gen_": "gen_gsm8k_exact_match", "^grad_": "grad_mean_ratio", "^.+": "taylor-seq16-n32-p50",
}  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda one: one.__name__)
def test_every_column_has_a_description_and_a_unit(schema: type[pa.DataFrameModel]) -> None:
    assert schema in [documented for _, _, documented in DOCUMENTED]
    columns = schema.to_schema().columns
    names = [
        next(example for start, example in EXAMPLES.items() if name.startswith(start)) if column.regex else name
        for name, column in columns.items()
    ]
    found = tables.column_metadata(schema, names)
    assert list(found) == names
    assert all(one["description"].endswith(".") and one["unit"] for one in found.values())


def test_same_names_have_the_unit_of_their_table() -> None:
    assert tables.unit_of(tables.Importance, "n_samples") == "sequences"
    assert tables.unit_of(tables.Evaluations, "n_samples") == "documents; of a perplexity: tokens"
    assert tables.unit_of(tables.Experiments, "acc_mean_rule") == "none"
    assert tables.unit_of(tables.Experiments, "acc_mean") == "fraction (0 to 1)"
    assert tables.unit_of(tables.Experiments, "grad_norm_range") == "nats per unit of weight"
    assert tables.unit_of(tables.Experiments, "grad_norm_ratio") == "1"
    assert tables.unit_of(tables.Draws, "layer") == "fraction (0 to 1)"  # an experiment may have any name
    with pytest.raises(LookupError, match=r"PriorTable\.speed: has no unit"):
        tables.unit_of(tables.PriorTable, "speed")


def test_written_tables_have_them_in_their_schema(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"n_samples": [1], "layer": [0], "scope": ["mlp"], "loss_increase": [0.5], "cosine_distance": [0.1]}
    )
    tables.write_with_schema(tmp_path / "priors.parquet", frame, tables.PriorTable)
    assert pq.read_schema(tmp_path / "priors.parquet").field("loss_increase").metadata == {
        b"description": b"Mean token loss without it minus with it (nats).",
        b"unit": b"nats",
    }
    pd.testing.assert_frame_equal(pq.read_table(tmp_path / "priors.parquet").to_pandas(), frame, check_dtype=False)
    frame["scope"] = ["head"]
    with pytest.raises(pa.errors.SchemaError, match="head"):
        tables.write_with_schema(tmp_path / "priors.parquet", frame, tables.PriorTable)
    frame.to_parquet(tmp_path / "plain.parquet")
    assert without_description(tmp_path) == [f"plain.parquet: {name}" for name in frame]


def test_draws_are_described() -> None:
    draws = Bootstrap(("baseline", "a<b"), np.array([0.9, 0.5]), np.full((3, 2), 0.5), "documents", "3 documents")
    table = draws_table(Evidence(draws, None, {}, None))
    assert table.schema.metadata[b"source"] == b"documents"
    assert [field.metadata[b"unit"] for field in table.schema] == [b"fraction (0 to 1)"] * 2
    assert all(b"of the experiment of this name" in field.metadata[b"description"] for field in table.schema)
    tables.Draws.validate(table.to_pandas())

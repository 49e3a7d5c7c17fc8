"""Every column of every table that a finished study writes has a description and a unit in its Parquet schema."""

from pathlib import Path

import pytest

from tests.parquet import without_description

pytestmark = pytest.mark.long


def test_all_tables_of_a_study_are_described(tiny_run: Path) -> None:
    results = tiny_run / "results/tiny"
    kinds = {path.relative_to(results).parts[0] for path in results.rglob("*.parquet")}
    assert {"baseline", "consolidated", "experiments", "gradients", "importance", "priors", "reports"} <= kinds
    assert without_description(results) == []

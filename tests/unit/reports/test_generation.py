"""Generative results and documents that are too long, from the tables to the report."""

import pandas as pd

from espalier.analysis.generation import too_long_json
from espalier.analysis.model import analyse_model
from espalier.reports.messages import Texts
from espalier.reports.sections.generation import generation_sections
from tests.unit.analysis.test_analysis import analyse, row, table

COLUMN = "gen_gsm8k_exact_match_strict-match"


def test_the_report_shows_what_generative_tasks_keep() -> None:
    """The pruned model keeps 0.6 / 0.8 = 75% of the mean accuracy and 0.1 / 0.5 = 20% of the generative task."""
    rows = [row("baseline", 0.8), row("taylor-a", 0.5), row("taylor-b", 0.6)]
    assert "generation" not in analyse(*rows)
    values = dict(zip(("baseline", "taylor-a", "taylor-b"), (0.5, 0.3, 0.1), strict=True))
    frame = table(*rows).assign(**{COLUMN: lambda frame: frame.experiment.map(values).astype("float64")})
    analysis = analyse_model(frame, "M", headline_ratio=None)
    found = analysis["generation"]
    name = COLUMN.removeprefix("gen_")
    assert found["metrics"] == [name]
    assert found["unpruned"] == {"acc_mean": 0.8, name: 0.5}
    assert list(found["experiments"]) == ["taylor-b", "taylor-a"]
    (section,) = generation_sections(Texts(), analysis, analysis)
    assert section.title == "Generative tasks"
    assert [one[0] for one in section.tables[0].rows] == ["Unpruned", "taylor-b", "taylor-a"]
    kept = "taylor-b keeps 75.0% of the mean accuracy of the unpruned model, and of the generative tasks:"
    assert section.remarks == [f"{kept} {name} 20.0%."]


def test_documents_that_are_too_long_are_counted_where_there_are_any() -> None:
    evaluations = pd.DataFrame(
        {
            "model": ["A", "A", "A", "B"],
            "task": ["boolq", "boolq", "piqa", "piqa"],
            "n_truncated": pd.array([3, 3, 0, 9], dtype="Int64"),
            "n_skipped": pd.array([0, 0, None, 0], dtype="Int64"),
            "n_samples": pd.array([50, 50, 40, 40], dtype="Int64"),
        }
    )
    found = too_long_json(evaluations, "A")
    assert found == {"boolq": {"n_truncated": 3, "n_skipped": 0, "n_samples": 50}}
    (section,) = generation_sections(Texts(), {"too_long": found}, {"best": None})
    assert section.tables[0].rows == [["boolq", "3", "0", "50"]]
    assert generation_sections(Texts(), {"too_long": {}}, {"best": None}) == []

"""The tables that the comparison of two runs of a study reads."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from tools.plan_differences import PlanDifference
from tools.repeatability import compare_studies

from espalier.files import write_json, write_parquet
from espalier.models.sizes import LayerStructure, ModelStructure
from espalier.planning.plan import Plan

PLAN = Plan((3,), (2,), ((0,),), ((0, 1),))
STRUCTURE = ModelStructure((LayerStructure(3, 100, 2, 30, 8),), other_params=1000)


def write_run(results: Path, experiments: dict[str, tuple[str, str, str | None]]) -> None:
    """Write a run. Each experiment has a criterion, a scope and a calibration set."""
    write_json(results / "models/A.json", {"structure": STRUCTURE.to_dict()})
    for name in ("a-s0", "c4-s0", "z-s0"):  # three calibration texts, each with seed 0
        for folder in ("importance/A/taylor", "priors/A"):
            path = results / folder / name / "seq16.parquet"
            write_parquet(path, pa.table({"file": [str(path.relative_to(results))]}))
    weights = results / "importance/A/magnitude.parquet"
    write_parquet(weights, pa.table({"file": [str(weights.relative_to(results))]}))
    for name, (criterion, scope, _) in experiments.items():
        settings = {"method": {"criterion": criterion, "scope": scope}, "seed": 0, "seq_len": 16}
        content = {"recipe": {"settings": settings}, **PLAN.to_dict()}
        write_json(results / f"experiments/A/{name}/plan.json", content)
    frame = pd.DataFrame(
        {
            "model": "A", "experiment": ["baseline", *experiments],
            "calibration": [None, *(calibration for _, _, calibration in experiments.values())],
            "acc_mean": 0.5, "ppl_t": 2.0,
        }
    )  # fmt: skip
    (results / "consolidated").mkdir()
    frame.to_parquet(results / "consolidated/experiments.parquet")


def test_plans_are_scored_with_the_tables_that_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores come from the tables of the plan's own calibration set; a plan left over from an older grid is skipped."""
    scored: list[Any] = []

    def score(_: Any, settings: Any, importance: pa.Table | None, priors: pa.Table | None) -> tuple[Any, Any, int]:
        scored.append([table and table["file"][0].as_py() for table in (importance, priors)])
        return None, None, 0

    monkeypatch.setattr("tools.repeatability.scored_groups", score)
    monkeypatch.setattr("tools.repeatability.compare_plans", lambda *_: PlanDifference(1, 0, 0.0))
    experiments = {
        "t-p10": ("taylor", "none", "c4-s0"), "b-p10": ("taylor", "block", "z-s0"),
        "m-p10": ("magnitude", "none", None), "ml-p10": ("magnitude", "layer", "c4-s0"),
        "r-p10": ("random", "none", None),
    }  # fmt: skip
    for name in ("one", "other"):
        write_run(tmp_path / name, experiments)
    write_json(tmp_path / "one/experiments/A/orphan-p10/plan.json", {})
    assert compare_studies(tmp_path / "one", tmp_path / "other").n_compared == 6
    assert scored == [
        ["importance/A/taylor/c4-s0/seq16.parquet", None],
        ["importance/A/taylor/z-s0/seq16.parquet", "priors/A/z-s0/seq16.parquet"],
        ["importance/A/magnitude.parquet", None],
        ["importance/A/magnitude.parquet", "priors/A/c4-s0/seq16.parquet"],
        [None, None],
    ]

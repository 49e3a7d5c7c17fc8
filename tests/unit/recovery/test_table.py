"""The table of recovered experiments takes only what the configured settings made."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from espalier.errors import UserError
from espalier.files import write_json
from espalier.recovery.table import recovered_rows, recovered_table
from espalier.tables import Recovered

PROTOCOL = {"window": 8}
CONFIGURED = {"settings": {"rank": 8}, "version": 1, "protocol": PROTOCOL, "evaluation_version": 3}
EXPERIMENTS = pd.DataFrame(
    [
        {
            "model": "A", "experiment": name, "method": "taylor", "pruning_ratio": 0.2, "acc_mean": 0.5,
            "acc_mean_rule": "acc", "ppl_plain": 20.0,
        }
        for name in ("x-p20", "y-p20")
    ]
)  # fmt: skip


def result(folder: Path, name: str, **changes: Any) -> dict[str, str]:
    """Write the files of a recovered experiment; return its entry."""
    made = {"recovery": {"rank": 8}, "version": 1} | changes.get("training", {})
    evaluated = {"protocol": PROTOCOL, "version": 3, "adapter": "abc"} | changes.get("metrics", {})
    write_json(
        folder / name / "training.json",
        {
            "adapter": "abc", "n_tokens": 1024, "n_trainable": 64, "seconds": 1.5, "peak_memory_bytes": 2**20,
            "recipe": {"settings": made},
        },
    )  # fmt: skip
    write_json(
        folder / name / "metrics.json",
        {
            "tasks": {"piqa": {"metrics": {"acc": {"value": 0.75, "stderr": 0.1}}}},
            "perplexity": {"plain": {"value": 12.0}}, "recipe": {"settings": evaluated},
        },
    )  # fmt: skip
    files = {key: str(folder / name / f"{key}.json") for key in ("metrics", "training")}
    return {"model": "A", "experiment": name, **files}


def table(entries: list[dict[str, str]], missing: dict[str, str | None] | None = None) -> pd.DataFrame:
    rows = recovered_rows(entries, EXPERIMENTS, ["plain"], configured=CONFIGURED, missing=missing or {})
    return Recovered.validate(recovered_table(rows, ["plain"]))


def test_before_and_after_stand_side_by_side(tmp_path: Path) -> None:
    (found,) = table([result(tmp_path, "x-p20")]).to_dict("records")
    assert (found["acc_mean_before"], found["acc_mean_after"]) == (0.5, 0.75)
    assert (found["ppl_before_plain"], found["ppl_after_plain"]) == (20.0, 12.0)
    assert (found["n_tokens"], found["seconds"], found["status"]) == (1024, 1.5, "ok")


def test_what_is_missing_stays_missing_with_its_reason(tmp_path: Path) -> None:
    entries = [result(tmp_path, name) for name in ("x-p20", "y-p20")]
    reasons = ["recovery: out of memory", None]
    frame = table(entries, missing=dict(zip((entry["metrics"] for entry in entries), reasons, strict=True)))
    assert frame["status"].tolist() == ["failed", "missing"]
    assert frame["note"].iloc[0] == "recovery: out of memory"
    assert frame[["acc_mean_after", "ppl_after_plain", "n_tokens", "seconds"]].isna().all(axis=None)
    assert table([]).empty


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"recovery": {"rank": 4}}}, "A, x-p20: was recovered with other settings than configured; run"),
        ({"training": {"version": 2}}, "A, x-p20: was recovered with other settings than configured; run"),
        ({"metrics": {"protocol": {"window": 9}}}, "A, x-p20: was evaluated after recovery with another protocol than"),
        ({"metrics": {"version": 2}}, "A, x-p20: was evaluated after recovery with another version than configured"),
        ({"metrics": {"adapter": "xyz"}}, "A, x-p20: another adapter was evaluated than is there; run"),
    ],
)
def test_results_of_other_settings_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        table([result(tmp_path, "x-p20", **changes)])

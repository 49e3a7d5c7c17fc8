"""The table of recovered experiments accepts only results that were made with the configured settings."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from espalier.errors import UserError
from espalier.files import write_json
from espalier.recipe import evaluation_settings, recovery_settings
from espalier.results.recovered import RecoveredEntry, recovered_rows, recovered_table
from espalier.tables import RecoveredExperiments

PROTOCOL = {"window": 8}
CONFIGURED = {"settings": {"rank": 8}, "protocol": PROTOCOL, "dtype": "auto"}
MANIFEST, PLAN = {"files": {"model.safetensors": 1}}, {"layers": [1, 2]}
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
    made = recovery_settings(MANIFEST, PLAN, recovery={"rank": 8}, text="t") | changes.get("training", {})
    evaluated = evaluation_settings(MANIFEST, PLAN, protocol=PROTOCOL, requests="r", dtype="auto", adapter="abc")
    evaluated |= changes.get("metrics", {})
    names = {"model": "A", "experiment": name} | changes.get("names", {})
    write_json(folder / "models/A.json", MANIFEST)
    write_json(folder / name / "plan.json", PLAN)
    write_json(
        folder / name / "training.json",
        {
            **names, "adapter": "abc", "n_tokens": 1024, "n_trainable": 64, "seconds": 1.5, "peak_memory_bytes": 2**20,
            "recipe": {"settings": made},
        }
        | changes.get("trained", {}),
    )  # fmt: skip
    write_json(
        folder / name / "metrics.json",
        {
            **names, "tasks": {"piqa": {"metrics": {"acc": {"value": 0.75, "stderr": 0.1}}}},
            "perplexity": {"plain": {"value": 12.0}}, "recipe": {"settings": evaluated},
        },
    )  # fmt: skip
    files = {key: str(folder / name / f"{key}.json") for key in ("metrics", "training")}
    made_from = {"manifest": "models/A.json", "plan": f"{name}/plan.json", "requests": "requests/A.parquet"}
    made_from = {key: str(folder / file) for key, file in made_from.items()}
    return {"model": "A", "experiment": name, **files, **made_from}


def table(
    entries: list[dict[str, str]], missing: dict[str, str | None] | None = None,
    experiments: pd.DataFrame = EXPERIMENTS,
) -> pd.DataFrame:  # fmt: skip
    read = [RecoveredEntry(**entry, samples="") for entry in entries]
    rows = recovered_rows(read, experiments, ["plain"], configured=CONFIGURED, missing=missing or {})
    return RecoveredExperiments.validate(recovered_table(rows, ["plain"]))


def test_before_and_after_stand_side_by_side(tmp_path: Path) -> None:
    (found,) = table([result(tmp_path, "x-p20")]).to_dict("records")
    assert (found["acc_mean_before"], found["acc_mean_after"]) == (0.5, 0.75)
    assert (found["ppl_before_plain"], found["ppl_after_plain"]) == (20.0, 12.0)
    assert (found["n_tokens"], found["seconds"], found["status"]) == (1024, 1.5, "ok")


def test_an_accuracy_on_a_part_of_the_documents_is_not_set_beside_one_on_all(tmp_path: Path) -> None:
    raced = EXPERIMENTS.assign(race_stopped_by=pd.Series(["y-p20", None], dtype="str"))
    found = table([result(tmp_path, name) for name in ("x-p20", "y-p20")], experiments=raced)
    assert found["acc_mean_before"].isna().tolist() == [True, False]
    assert found["acc_mean_after"].tolist() == [0.75, 0.75]


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
        (
            {"training": {"recovery": {"rank": 4}}},
            r"another recovery.rank \(4\) than configured \(8\)",
        ),
        ({"training": {"version": 2}}, r"training.json: was made with another version \(2\) than configured \(1\)"),
        ({"training": {"weights": "w"}}, r"training.json: was made with another weights \(w\) than configured"),
        (
            {"metrics": {"protocol": {"window": 9}}},
            r"another protocol.window \(9\) than configured \(8",
        ),
        ({"metrics": {"version": 2}}, r"metrics.json: was made with another version \(2\) than configured \(3\)"),
        ({"metrics": {"adapter": "xyz"}}, r"metrics.json: was made with another adapter \(xyz\) than configured \(abc"),
        ({"metrics": {"plan": "p"}}, r"metrics.json: was made with another plan \(p\) than configured"),
        ({"metrics": {"dtype": "float16"}}, r"metrics.json: was made with another dtype \(float16\) than configured"),
        (
            {"names": {"experiment": "y-p20"}},
            r"another experiment \(y-p20\) than configured",
        ),
    ],
)
def test_results_of_other_settings_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        table([result(tmp_path, "x-p20", **changes)])


def test_the_fingerprint_of_trained_weights_is_that_of_the_training(tmp_path: Path) -> None:
    """The evaluated weights must be those that the recovery wrote, whether it wrote an adapter or all weights."""

    def trained(weights: str, evaluated: str) -> dict[str, str]:
        return result(
            tmp_path, "x-p20",
            trained={"adapter": None, "trained_weights": weights},
            metrics={"adapter": None, "trained_weights": evaluated},
        )  # fmt: skip

    assert table([trained("w1", "w1")])["status"].tolist() == ["ok"]
    message = r"metrics.json: was made with another trained_weights \(w2\) than configured \(w1\)"
    with pytest.raises(UserError, match=message):
        table([trained("w1", "w2")])

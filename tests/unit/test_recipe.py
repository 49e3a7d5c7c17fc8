"""The recipe of a result is compared with the configured one; a difference is reported with both values."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from espalier import versions
from espalier.errors import UserError
from espalier.files import sha256_of, sha256_of_json, write_json, write_result, write_table
from espalier.recipe import (
    SAMPLES_SHA256,
    check_settings,
    evaluation_recipe,
    evaluation_settings,
    first_difference,
    inference_settings,
    plan_settings,
    read_samples,
    recovery_settings,
    requests_sha256,
)

MANIFEST = {"model": "A", "files": {"model.safetensors": {"bytes": 1, "sha256": "a"}}}
PLAN = {"layers": [{"kv": [0]}]}
PROTOCOL = {"tasks": ["piqa"], "window": 64, "stride": 32, "texts": [{"name": "plain", "text_field": "text"}]}
MADE: dict[str, Any] = {"protocol": PROTOCOL, "requests": "r", "dtype": "auto"}
NAMES = {"model": "A", "experiment": "x-p20"}


def result(**changes: Any) -> dict[str, Any]:
    recipe = evaluation_recipe(MANIFEST, PLAN, **MADE)
    names = {key: changes.pop(key) for key in list(changes) if key in NAMES}
    recipe["settings"] |= changes
    return {**NAMES, **names, "recipe": recipe}


def test_what_is_configured_passes() -> None:
    settings = evaluation_settings(MANIFEST, PLAN, **MADE)
    assert first_difference(result(), **NAMES, settings=settings) is None
    # JSON has lists where a config has tuples.
    tuples = MADE | {"protocol": PROTOCOL | {"tasks": ("piqa",)}}
    assert first_difference(result(), **NAMES, settings=evaluation_settings(MANIFEST, PLAN, **tuples)) is None
    # Deleted requests and versions of libraries are not compared.
    content = result()
    content["recipe"]["versions"] = {"torch": "1.0"}
    assert (
        first_difference(content, **NAMES, settings=evaluation_settings(MANIFEST, PLAN, **(MADE | {"requests": None})))
        is None
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "B"}, r"another model \(B\) than configured \(A\)"),
        ({"experiment": "y-p20"}, r"another experiment \(y-p20\) than configured \(x-p20\)"),
        ({"weights": "0" * 64}, r"another weights \(0{12}\) than configured \(\w{12}\)"),
        ({"plan": "1" * 64}, r"another plan \(1{12}\) than configured \(\w{12}\)"),
        ({"plan": None}, r"another plan \(none\) than configured"),
        ({"requests": "s"}, r"another requests \(s\) than configured \(r\)"),
        ({"dtype": "float16"}, r"another dtype \(float16\) than configured \(auto\)"),
        ({"version": 1}, rf"another version \(1\) than configured \({versions.EVALUATE}\)"),
        ({"protocol": PROTOCOL | {"stride": 16}}, r"another protocol.stride \(16\) than configured \(32\)"),
        ({"protocol": PROTOCOL | {"bos": "every"}}, r"another protocol.bos \(every\) than configured \(none\)"),
        ({"adapter": "abc"}, r"another adapter \(abc\) than configured \(none\)"),
        ({"trained_weights": "abc"}, r"another trained_weights \(abc\) than configured \(none\)"),
    ],
)
def test_each_difference_is_named_with_both_values(changes: dict[str, Any], message: str) -> None:
    settings = evaluation_settings(MANIFEST, PLAN, **MADE)
    with pytest.raises(UserError, match=rf"^m.json: was made with {message}.*; run it again, or restore the file$"):
        check_settings("m.json", result(**changes), **NAMES, settings=settings, remedy="run it again")


def test_a_plan_is_compared_too() -> None:
    plan = {**NAMES, "recipe": plan_settings(MANIFEST, {"pruning_ratio": 0.2})}
    assert first_difference(plan, **NAMES, settings=plan_settings(MANIFEST, {"pruning_ratio": 0.2})) is None
    found = first_difference(plan, **NAMES, settings=plan_settings(MANIFEST, {"pruning_ratio": 0.5}))
    assert found == ("settings.pruning_ratio", 0.2, 0.5)


def test_a_recipe_of_version_0_1_0_is_as_it_was() -> None:
    """Keys of the store are hashes of recipes, so a new field would make all stored evaluations unusable."""
    assert list(evaluation_recipe(MANIFEST, None, **MADE)["settings"]) == [
        "version", "weights", "plan", "protocol", "requests", "dtype",
    ]  # fmt: skip


def test_settings_of_every_result_by_hand() -> None:
    """A setting that is missing here would let a stale result pass."""
    weights, plan = sha256_of_json(MANIFEST["files"]), sha256_of_json(PLAN["layers"])
    assert plan_settings(MANIFEST, {"pruning_ratio": 0.2}) == {
        "version": versions.PLAN, "settings": {"pruning_ratio": 0.2}, "weights": weights,
    }  # fmt: skip
    evaluated = {"version": versions.EVALUATE, "weights": weights, "plan": plan, "protocol": PROTOCOL, "dtype": "auto"}
    for recovered in ({}, {"adapter": "a"}, {"trained_weights": "t"}):
        expected = evaluated | {"requests": "r"} | recovered
        assert evaluation_settings(MANIFEST, PLAN, **MADE, **recovered) == expected
        assert evaluation_recipe(MANIFEST, PLAN, **MADE, **recovered)["settings"] == expected
    assert evaluation_settings(MANIFEST, None, **(MADE | {"requests": None})) == evaluated | {"plan": None}
    for method, version in (({}, versions.RECOVER), ({"method": "full"}, versions.RECOVER_FULL)):
        trained = {"version": version, "recovery": {"lr": 0.1, **method}, "weights": weights, "plan": plan}
        assert recovery_settings(MANIFEST, PLAN, recovery={"lr": 0.1, **method}, text=None) == trained
        assert recovery_settings(MANIFEST, PLAN, recovery={"lr": 0.1, **method}, text="x") == trained | {"text": "x"}
    assert inference_settings(MANIFEST, PLAN, dtype="float16") == {
        "version": versions.MEASURE_INFERENCE, "weights": weights, "plan": plan, "dtype": "float16",
    }  # fmt: skip


def test_whole_models_are_trained_with_a_version_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two numbers are equal today, so a mix-up would show only when one of them is raised."""
    monkeypatch.setattr(versions, "RECOVER", 7)
    monkeypatch.setattr(versions, "RECOVER_FULL", 8)
    for method, version in (("lora", 7), ("full", 8)):
        found = recovery_settings(MANIFEST, PLAN, recovery={"method": method}, text=None)
        assert found["version"] == version


def test_requests_that_are_gone_are_not_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="espalier"):
        assert requests_sha256(tmp_path / "A.parquet") is None
    assert "A.parquet: is gone, so results were not compared with it" in caplog.text
    (tmp_path / "A.parquet").write_bytes(b"x")
    assert requests_sha256(tmp_path / "A.parquet") == sha256_of(tmp_path / "A.parquet")


def test_exchanged_samples_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, values in (("a", [1.0]), ("b", [2.0])):
        write_table(tmp_path / name / "samples.parquet", pd.DataFrame({"x": values}))
        write_result(tmp_path / name / "metrics.json", {SAMPLES_SHA256: sha256_of(tmp_path / name / "samples.parquet")})
    assert read_samples(tmp_path / "a/samples.parquet")["x"].tolist() == [1.0]
    (tmp_path / "a/samples.parquet").write_bytes((tmp_path / "b/samples.parquet").read_bytes())
    with pytest.raises(
        UserError, match=r"a/samples.parquet: has checksum \w{12}, but .*a/metrics.json was computed with"
    ):
        read_samples(tmp_path / "a/samples.parquet")
    write_json(tmp_path / "a/metrics.json", {})  # as version 0.1.0 wrote it
    with caplog.at_level("INFO", logger="espalier"):
        assert read_samples(tmp_path / "a/samples.parquet")["x"].tolist() == [2.0]
    assert "metrics.json has no checksum of it, so the two were not compared" in caplog.text

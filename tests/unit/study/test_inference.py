"""Reports use only inference measurements that were made with the current weights and plans."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from espalier.config import load_study
from espalier.files import read_json, write_json
from espalier.recipe import inference_settings
from espalier.study.inference import InferenceTimings
from espalier.study.paths import Paths
from espalier.study.sweep import Sweep

STUDY: dict[str, Any] = {
    "study": "s",
    "models": [
        {"name": "A", "family": "F", "kind": "base", "path": "a"},
        {"name": "B", "family": "F", "kind": "base", "path": "b", "grid": {"pruning_ratio": [0.5]}},
    ],
    "methods": [{"name": "magnitude", "criterion": "magnitude"}],
    "grid": {"methods": ["magnitude"], "pruning_ratio": [0.2]},
}
A = SimpleNamespace(model="A")


def timings(results: Path, **inference: Any) -> InferenceTimings:
    config = load_study(STUDY | {"inference": inference})
    return InferenceTimings(config, Paths(str(results)), Sweep(config, Paths(str(results))))


def write(results: Path) -> Path:
    """Write a measurement with the manifest and the plan that it was made from; return its path."""
    manifest, plan = {"files": {"model.safetensors": 1}}, {"layers": [1, 2]}
    write_json(results / "models/A.json", manifest)
    write_json(results / "experiments/A/magnitude-p20/plan.json", plan)
    settings = inference_settings(manifest, plan, dtype="auto")
    path = results / "inference/A/best.json"
    write_json(path, {"model": "A", "experiment": "magnitude-p20", "recipe": {"settings": settings}})
    return path


def test_a_measurement_of_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert list(timings(tmp_path).current(A)) == [str(path)]
    assert timings(tmp_path).current(SimpleNamespace(model="B")) == {}
    assert timings(tmp_path, experiments=["magnitude-p20"]).current(A) == {}  # no longer configured


@pytest.mark.parametrize(
    ("file", "content"),
    [("models/A.json", {"files": {}}), ("experiments/A/magnitude-p20/plan.json", {"layers": [1]})],
    ids=["weights", "plan"],
)
def test_a_measurement_of_what_was_there(tmp_path: Path, file: str, content: dict[str, Any]) -> None:
    write(tmp_path)
    write_json(tmp_path / file, content)
    assert timings(tmp_path).current(A) == {}
    (tmp_path / file).unlink()
    assert timings(tmp_path).current(A) == {}


@pytest.mark.parametrize("change", [{"model": "B"}, {"experiment": "x"}], ids=["model", "experiment"])
def test_a_measurement_copied_from_elsewhere(tmp_path: Path, change: dict[str, str]) -> None:
    path = write(tmp_path)
    write_json(path, read_json(path) | change)
    assert timings(tmp_path).current(A) == {}


@pytest.mark.parametrize(("key", "value"), [("dtype", "float16"), ("version", 99)])
def test_a_measurement_by_other_settings(tmp_path: Path, key: str, value: object) -> None:
    path = write(tmp_path)
    content = read_json(path)
    content["recipe"]["settings"][key] = value
    write_json(path, content)
    assert timings(tmp_path).current(A) == {}


def test_a_model_without_a_named_experiment_is_passed_over() -> None:
    files = timings(Path("r"), experiments=["best", "magnitude-p50"]).files
    assert files == ["r/inference/A/best.json", "r/inference/B/best.json", "r/inference/B/magnitude-p50.json"]


def test_no_section_measures_nothing() -> None:
    config = load_study(STUDY)
    none = InferenceTimings(config, Paths("r"), Sweep(config, Paths("r")))
    assert (none.files, none.settings, none.current(A), none.problems(is_target=False)) == ([], {}, {}, [])
    assert none.problems(is_target=True) != []

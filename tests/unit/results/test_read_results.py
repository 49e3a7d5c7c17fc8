"""Only results that were made with the configured settings enter the tables."""

from pathlib import Path
from typing import Any

import pytest

from espalier.errors import UserError
from espalier.files import read_json, sha256_of, write_json, write_result
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.plan import Plan
from espalier.recipe import evaluation_recipe, plan_settings
from espalier.results.read_results import ExperimentEntry, read_results

STRUCTURE = ModelSizes((LayerSizes(2, 10, 4, 3, 5), LayerSizes(2, 10, 4, 3, 5)), other_params=20)
MANIFEST = {"model": "A", "files": {"w": {"bytes": 1, "sha256": "a"}}, "structure": STRUCTURE.to_dict()}
EVALUATION = {"protocol": {"window": 8, "tasks": ["piqa"]}, "dtype": "auto"}
FIGURES = {"pruning_ratio": 0.2, "removed_param_fraction": 0.25, "extreme_pruning_layers": 1}
KEPT = {"x-p20": ((0,), (0, 1)), "y-p20": ((1,), (0, 1))}


@pytest.fixture
def entries(tmp_path: Path) -> list[dict[str, Any]]:
    """Write the results of a model with two experiments; return the entries that `gather` reads."""
    write_result(tmp_path / "models/A.json", MANIFEST)
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests/A.parquet").write_bytes(b"requests")
    requests = sha256_of(tmp_path / "requests/A.parquet")
    shared = {
        "manifest": str(tmp_path / "models/A.json"),
        "requests": str(tmp_path / "requests/A.parquet"),
        "gradients": None,
    }
    found = []
    for name in ("baseline", *KEPT):
        plan, folder = None, tmp_path / name
        facts = {"model": "A", "experiment": name}
        settings = None if name == "baseline" else {"pruning_ratio": 0.2, "name": name}
        if name != "baseline":
            kept = Plan((2, 2), (4, 4), KEPT[name], ((), (0, 1, 2))).to_dict()
            plan = {**facts, **FIGURES, "recipe": plan_settings(MANIFEST, settings), **kept}
            write_result(folder / "plan.json", plan)
        recipe = evaluation_recipe(MANIFEST, plan, **EVALUATION, requests=requests)
        write_result(folder / "metrics.json", {**facts, **FIGURES, "n_params": 7, "recipe": recipe})
        found.append(
            {
                "facts": facts, "metrics": str(folder / "metrics.json"), "settings": settings,
                "plan": None if plan is None else str(folder / "plan.json"), **shared,
            }
        )  # fmt: skip
    return found


def read(entries: list[dict[str, Any]], **evaluation: Any) -> list[str]:
    results, _ = read_results(
        [ExperimentEntry(**entry) for entry in entries], evaluation=EVALUATION | evaluation, missing={}
    )
    return [experiment.facts["experiment"] for experiment in results]


def test_what_is_configured_is_read(entries: list[dict[str, Any]]) -> None:
    assert read(entries) == ["baseline", "x-p20", "y-p20"]


def test_results_outlive_the_requests(entries: list[dict[str, Any]], tmp_path: Path) -> None:
    """Results are read without comparison of the requests if the requests file was deleted."""
    (tmp_path / "requests/A.parquet").unlink()
    assert len(read(entries)) == 3


@pytest.mark.parametrize(
    ("file", "place", "value", "message"),
    [
        ("x-p20/metrics.json", ("model",), "B", r"another model \(B\) than configured \(A\)"),
        ("x-p20/metrics.json", ("experiment",), "z", r"another experiment \(z\) than configured \(x-p20\)"),
        ("x-p20/metrics.json", ("weights",), "w", r"another weights \(w\) than configured"),
        ("x-p20/metrics.json", ("plan",), "p", r"another plan \(p\) than configured"),
        ("x-p20/metrics.json", ("requests",), "r", r"another requests \(r\) than configured"),
        ("x-p20/metrics.json", ("dtype",), "float16", r"another dtype \(float16\) than configured \(auto\)"),
        ("x-p20/metrics.json", ("version",), 2, r"another version \(2\) than configured \(3\)"),
        ("baseline/metrics.json", ("weights",), "w", r"another weights \(w\) than configured"),
        ("baseline/metrics.json", ("plan",), "p", r"another plan \(p\) than configured \(none\)"),
    ],
)
def test_metrics_of_something_else_are_refused(
    entries: list[dict[str, Any]], tmp_path: Path, file: str, place: tuple[str], value: Any, message: str
) -> None:
    content = read_json(tmp_path / file)
    (content if place[0] in content else content["recipe"]["settings"])[place[0]] = value
    write_result(tmp_path / file, content)
    with pytest.raises(UserError, match=rf"{file}: was made with {message}.*; delete it and run again, or rest"):
        read(entries)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("version", 99, r"another version \(99\) than configured"),
        ("weights", "w", r"another weights \(w\) than configured"),
        (
            "settings",
            {"pruning_ratio": 0.5, "name": "x-p20"},
            r"another settings.pruning_ratio \(0.5\) than configured \(0.2",
        ),
    ],
)
def test_plans_of_something_else_are_refused(
    entries: list[dict[str, Any]], tmp_path: Path, place: str, value: Any, message: str
) -> None:
    content = read_json(tmp_path / "x-p20/plan.json")
    content["recipe"][place] = value
    write_result(tmp_path / "x-p20/plan.json", content)
    with pytest.raises(UserError, match=rf"x-p20/plan.json: was made with {message}.*; delete it and run again"):
        read(entries)


@pytest.mark.parametrize("file", ["metrics.json", "plan.json"])
def test_exchanged_files_are_found(entries: list[dict[str, Any]], tmp_path: Path, file: str) -> None:
    first, second = tmp_path / "x-p20" / file, tmp_path / "y-p20" / file
    first.rename(tmp_path / "other")
    second.rename(first)
    (tmp_path / "other").rename(second)
    with pytest.raises(UserError, match=rf"x-p20/{file}: was made with another experiment \(y-p20\) than configured"):
        read(entries)


def test_a_changed_protocol_names_the_key(entries: list[dict[str, Any]]) -> None:
    with pytest.raises(
        UserError, match=r"baseline/metrics.json: was made with another protocol.window \(8\) than conf"
    ):
        read(entries, protocol={"window": 9, "tasks": ["piqa"]})


def test_figures_of_a_plan_that_its_metrics_do_not_have_are_refused(
    entries: list[dict[str, Any]], tmp_path: Path
) -> None:
    """A plan file has no checksum, so its figures are compared with those in the metrics."""
    content = read_json(tmp_path / "x-p20/plan.json") | {"removed_param_fraction": 0.35}
    write_json(tmp_path / "x-p20/plan.json", content)
    with pytest.raises(
        UserError, match=r"plan.json: removed_param_fraction is 0.35, but .*metrics.json was made with 0.2"
    ):
        read(entries)


def test_a_damaged_file_is_named(entries: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "x-p20/metrics.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"n_params": 7', '"n_params": 8'), encoding="utf-8")
    with pytest.raises(UserError, match=r"x-p20/metrics.json: its content has checksum .* Restore it, or delete it"):
        read(entries)

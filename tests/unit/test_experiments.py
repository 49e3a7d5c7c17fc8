"""The table of experiments: names, axes that a method depends on, and the passes they share."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from espalier.config import load_study
from espalier.errors import UserError
from espalier.naming import experiment_name
from espalier.study.catalogue import Catalogue
from espalier.study.experiments import experiments_of
from espalier.study.sweep import Sweep
from tests.conftest import REPOSITORY

MODEL = {"name": "A", "family": "Llama", "kind": "base", "path": "a"}


def study(**changes: Any) -> Catalogue:
    return Catalogue(load_study({"study": "s", "models": [MODEL], **changes}), REPOSITORY / "src/espalier")


def sweep(**changes: Any) -> Sweep:
    return study(**changes).sweep


def names(**changes: Any) -> list[str]:
    return [experiment.name for experiment in sweep(**changes).experiments]


@pytest.mark.parametrize(
    ("ratio", "written"), [(0.5, "p50"), (0.125, "p12_5"), (0.2, "p20"), (0.35, "p35"), (0.29, "p29"), (0.001, "p0_1")]
)
def test_a_ratio_is_written_in_percent(ratio: float, written: str) -> None:
    assert experiment_name("taylor", ratio, seq_len=64, n_samples=128, seed=None) == f"taylor-seq64-n128-{written}"


def prior_tables(found: Sweep) -> set[str]:
    """Return the priors tables that plans of model A read."""
    plans = (SimpleNamespace(model="A", experiment=experiment.name) for experiment in found.experiments)
    return {table for plan in plans for table in found.prior_table(plan)}


def test_the_published_grid_has_45_experiments_and_5_passes() -> None:
    """Three methods x five lengths x three counts; gradients and priors once per length."""
    found = sweep()
    assert len(found.experiments) == 45
    assert found.gradient_tables == [f"results/s/gradients/A/c4-s0/seq{n}.parquet" for n in (16, 32, 64, 128, 256)]
    assert len(prior_tables(found)) == 5
    counts = found.gradient_counts(SimpleNamespace(model="A", calibration="c4-s0", seq_len="64"))
    assert counts == {"largest": 512, "extra": []}


def test_methods_use_only_the_axes_they_depend_on() -> None:
    methods = [{"name": "magnitude", "criterion": "magnitude"}, {"name": "random", "criterion": "random"}]
    grid = {"methods": ["magnitude", "random"], "pruning_ratio": [0.5]}
    assert names(methods=methods, grid=grid) == ["magnitude-p50", "random-p50"]
    seeded = {"dataset": "a/b", "seeds": [0, 3]}
    assert names(methods=methods, grid=grid, calibration=seeded) == ["magnitude-p50", "random-p50-s0", "random-p50-s3"]


def test_a_random_criterion_with_priors_depends_on_calibration() -> None:
    methods = [{"name": "r", "criterion": "random", "scope": "layer"}]
    grid = {"methods": ["r"], "taylor_seq_len": [16], "taylor_num_samples": [8]}
    found = sweep(methods=methods, grid=grid)
    assert [experiment.name for experiment in found.experiments] == ["r-seq16-n8-p20"]
    assert (len(found.gradient_tables), len(prior_tables(found))) == (0, 1)


def test_a_models_own_grid_overrides_the_studys() -> None:
    models = [MODEL, {**MODEL, "name": "B", "grid": {"taylor_seq_len": [8], "taylor_num_samples": [3, 4]}}]
    found = sweep(models=models)
    assert [e.name for e in found.experiments if e.model == "B" and e.method.name == "taylor"] == [
        "taylor-seq8-n3-p20",
        "taylor-seq8-n4-p20",
    ]
    counts = found.gradient_counts(SimpleNamespace(model="B", calibration="c4-s0", seq_len="8"))
    assert counts == {"largest": 4, "extra": [3]}


def test_imported_models_have_no_experiments() -> None:
    imported = {"name": "B", "family": "Llama", "kind": "base", "legacy": ["x"]}
    found = study(models=[MODEL, imported])
    assert found.models == ["A"]
    assert {experiment.model for experiment in found.sweep.experiments} == {"A"}


def test_partial_reports_leave_out_models_that_no_job_could_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kinds = {"A": {"path": "a"}, "B": {"path": "b"}, "C": {"legacy": ["c"]}}
    models = [{"name": name, "family": "Llama", "kind": "base"} | source for name, source in kinds.items()]
    assert study(models=models).reported_models == ["A", "B", "C"]
    partial = study(models=models, report={"allow_missing": True})
    assert (partial.reported_models, partial.model_names) == (["C"], ["A", "B", "C"])
    (tmp_path / "results/s/models").mkdir(parents=True)
    (tmp_path / "results/s/models/B.json").touch()
    assert partial.reported_models == ["B", "C"]
    nothing = study(models=models[:1], report={"allow_missing": True})
    assert nothing.reported_models == ["A"]  # so that a run says what is wrong


def test_two_experiments_of_one_name_are_refused() -> None:
    methods = [{"name": "a"}, {"name": "a-seq16-n8-p20", "criterion": "magnitude"}]
    config = load_study(
        {
            "study": "s", "models": [MODEL], "methods": [*methods, {"name": "a-seq16-n8", "criterion": "magnitude"}],
            "grid": {"methods": ["a", "a-seq16-n8"], "taylor_seq_len": [16], "taylor_num_samples": [8]},
        }
    )  # fmt: skip
    with pytest.raises(
        UserError, match=r"two experiments of model 'A' would be named 'a-seq16-n8-p20'; rename a method"
    ):
        experiments_of(config, config.models[0])


def test_settings_that_a_method_does_not_use_do_not_enter_its_plan() -> None:
    wildcards = SimpleNamespace(model="A", experiment="taylor-seq16-n128-p20")
    plain, changed = (
        sweep(methods=[{"name": "taylor", "temperature": t}], grid={"methods": ["taylor"]}).plan_params(wildcards)
        for t in (1.0, 2.0)
    )
    assert plain == changed
    layer = [
        sweep(methods=[{"name": "taylor", "scope": "layer", "temperature": t}], grid={"methods": ["taylor"]})
        for t in (1.0, 2.0)
    ]
    assert layer[0].plan_params(wildcards) != layer[1].plan_params(wildcards)


def test_inputs_of_a_plan() -> None:
    found = sweep()
    of = SimpleNamespace
    taylor, blockwise = "taylor-seq64-n128-p20", "blockwise-seq64-n256-p20"
    importance = ["results/s/importance/A/taylor/c4-s0/seq64.parquet"]
    assert found.importance_table(of(model="A", experiment=taylor)) == importance
    assert found.prior_table(of(model="A", experiment=taylor)) == []
    assert found.prior_table(of(model="A", experiment=blockwise)) == ["results/s/priors/A/c4-s0/seq64.parquet"]

"""The experiments of a study: their names, the axes of their methods, and the passes that they share."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.cli import get_argument_parser

from espalier.config import load_study
from espalier.errors import UserError
from espalier.naming import experiment_name
from espalier.study.driver import open_study, requested_targets, requests_only_files
from espalier.study.experiments import experiments_of
from espalier.study.lookups import Study
from espalier.study.sweep import ALLOW_MISSING, Sweep
from tests.conftest import REPOSITORY

SANDBOX = {"name": "A", "family": "Llama", "kind": "base", "sandbox": {"architecture": "llama"}}
MODEL = {"name": "A", "family": "Llama", "kind": "base", "path": "a"}


def study(**changes: Any) -> Study:
    return Study(load_study({"study": "s", "models": [MODEL], **changes}), REPOSITORY / "src/espalier")


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
    whole = study()
    found = whole.sweep
    assert len(found.experiments) == 45
    assert found.gradient_tables == [f"results/s/gradients/A/c4-s0/seq{n}.parquet" for n in (16, 32, 64, 128, 256)]
    assert len(prior_tables(found)) == 5
    counts = whole.calibration.gradient_counts(SimpleNamespace(model="A", calibration="c4-s0", seq_len="64"))
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


def test_keys_at_the_meaning_they_had_before_are_no_params() -> None:
    """Otherwise results of older versions would be stale."""
    method = {"name": "t", "scope": "block", "units": ["mlp_channel", "kv_group"], "contiguous": False}
    found = sweep(methods=[method], grid={"methods": ["t"]}, selection={"stock_shape": False})
    settings = found.plan_settings(found.experiments[0])
    assert list(settings["method"]) == [
        "criterion", "prior", "scope", "temperature", "tau", "prior_floor", "normalise", "allocation",
    ]  # fmt: skip
    assert list(settings["selection"]) == [
        "freeze_first_layers", "freeze_last_layers", "max_layer_ratio", "collapse_below", "mlp_multiple_of",
    ]  # fmt: skip


def test_methods_that_remove_layers_depend_on_what_they_use() -> None:
    methods = [
        {"name": "shortgpt", "units": ["layer"], "criterion": "constant", "scope": "layer", "prior": "cosine_distance"},
        {"name": "depth", "units": ["layer"], "criterion": "magnitude", "contiguous": True},
        {"name": "same", "allocation": "same_shape"},
    ]
    grid = {"methods": ["shortgpt", "depth"], "taylor_seq_len": [16], "taylor_num_samples": [8]}
    found = sweep(methods=methods, grid=grid)
    assert [experiment.name for experiment in found.experiments] == ["shortgpt-seq16-n8-p20", "depth-p20"]
    assert found.importance_tables == ["results/s/importance/A/magnitude.parquet"]
    assert prior_tables(found) == {"results/s/priors/A/c4-s0/seq16.parquet"}
    settings = found.plan_settings(found.experiments[1])
    assert settings["method"]["units"] == ("layer",)
    assert settings["method"]["contiguous"] is True
    # A width that only other methods use makes no plan of layers stale.
    mixed = sweep(methods=methods, grid=grid | {"methods": ["depth", "same"]}, selection={"mlp_multiple_of": 8})
    assert mixed.plan_settings(mixed.experiments[0]) == settings
    assert mixed.plan_settings(mixed.experiments[1])["selection"]["mlp_multiple_of"] == 8


def test_a_models_own_grid_overrides_the_studys() -> None:
    models = [MODEL, {**MODEL, "name": "B", "grid": {"taylor_seq_len": [8], "taylor_num_samples": [3, 4]}}]
    whole = study(models=models)
    assert [e.name for e in whole.sweep.experiments if e.model == "B" and e.method.name == "taylor"] == [
        "taylor-seq8-n3-p20",
        "taylor-seq8-n4-p20",
    ]
    counts = whole.calibration.gradient_counts(SimpleNamespace(model="B", calibration="c4-s0", seq_len="8"))
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
    assert nothing.reported_models == ["A"]  # not empty, so that a run reports what is wrong


def test_partial_reports_show_the_structures_of_experiments_that_have_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One experiment without a plan must not cost the structures of the others, nor one model those of the others."""
    monkeypatch.chdir(tmp_path)
    models = [MODEL | {"name": name} for name in ("A", "B")]
    first, second = names()[:2]
    plan = tmp_path / f"results/s/experiments/A/{second}/plan.json"
    manifest = tmp_path / "results/s/models/A.json"
    for file in (plan, manifest):
        file.parent.mkdir(parents=True)
        file.touch()
    whole, partial = study(models=models), study(models=models, report={"allow_missing": True})
    a = SimpleNamespace(model="A")
    assert whole.sweep.planned_names_of_model(a)[:2] == [first, second]
    assert partial.sweep.planned_names_of_model(a) == [second]
    assert (whole.models_with_structures, partial.models_with_structures) == (["A", "B"], ["A"])


def test_the_target_of_one_study_lets_no_other_lack_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workflow may import several studies."""
    config = {"models": [SANDBOX], "evaluation": {"perplexity": {"window": 128, "stride": 64}}}
    monkeypatch.setenv(ALLOW_MISSING, "")  # restored after the test

    def allowed() -> list[str]:
        return [name for name in ("one", "other") if study(**config, study=name).sweep.allows_missing]

    open_study(config | {"study": "one"}, is_driver=True)
    assert allowed() == []
    open_study(config | {"study": "other"}, is_driver=True, targets={"partial_reports"})
    assert allowed() == ["other"]
    open_study(config | {"study": "one"}, is_driver=True, targets={"partial_reports"})
    assert allowed() == ["one", "other"]


COMMANDS = [
    (["partial_reports"], ["partial_reports"]),
    (["-n", "--cores", "1", "inference", "partial_reports"], ["inference", "partial_reports"]),
    (["recovered", "reports"], ["recovered"]),
    (["--configfile", "x.yaml", "--", "partial_reports"], ["partial_reports"]),
    (["--directory", "partial_reports"], []),
    (["all", "--until", "inference"], []),
    (["--config", "report=partial_reports", "partial_reports"], []),  # Snakemake reads both as config values
    (["results/partial_reports"], []),
    (["espalier_partial_reports"], []),
    (["--no-such-option-of-snakemake", "partial_reports"], []),
]


@pytest.mark.parametrize(("arguments", "targets"), COMMANDS, ids=" ".join)
def test_a_target_is_what_snakemake_takes_for_one(arguments: list[str], targets: list[str]) -> None:
    assert sorted(requested_targets(get_argument_parser(), arguments, lambda rule: rule)) == targets


@pytest.mark.parametrize(
    ("arguments", "only_files"),
    [
        (["results/s/models/A.json"], True),
        (["-n", "--cores", "1", "results/a.json", "results/b.json"], True),
        (["all", "results/a.json"], False),
        (["--directory", "results/s"], False),
        ([], False),
    ],
    ids=str,
)
def test_a_job_does_only_its_own_work_if_files_are_requested(arguments: list[str], only_files: bool) -> None:
    assert requests_only_files(get_argument_parser(), arguments) == only_files


def test_a_target_has_the_name_that_a_module_import_gives_it() -> None:
    arguments = ["-n", "x_partial_reports", "inference"]
    assert requested_targets(get_argument_parser(), arguments, lambda rule: f"x_{rule}") == {"partial_reports"}
    assert requested_targets(get_argument_parser(), arguments, lambda _: None) == set()


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


NASTY = [
    "v1.5", "a+b", "best", "all", "baseline", "x-vllm", "x-recovered", "x-p50", "x-s1", "seq16", "n8-p20", "F16",
    "x.F16.gguf", "x.gguf.json", "plan.json", "metrics", "a_b", "A", "0", "x.", "x..y", "x-", "cross_model",
]  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("criterion", ["taylor", "random"])
def test_experiments_of_any_method_name_are_found_by_their_paths(name: str, criterion: str) -> None:
    """The patterns of the rules match each experiment, its exports and its GGUF file, each under one name only."""
    methods = [{"name": name, "criterion": criterion}, {"name": "x"}, {"name": "x-p50-p20"}]
    grid = {"methods": [name, "x"], "taylor_seq_len": [16], "taylor_num_samples": [8], "pruning_ratio": [0.2, 0.125]}
    found = study(methods=methods, grid=grid, recovery={}, calibration={"dataset": "a/b", "seeds": [0, 1]})
    every = found.sweep.names
    assert len(every) == 8
    patterns = {
        found.sweep.name_pattern: every,
        found.exports.name_pattern: ["best", *every, *(f"{one}-recovered" for one in every)],
    }
    patterns[found.exports.checkpoint_pattern] = [
        folder for one in patterns[found.exports.name_pattern] for folder in (one, f"{one}-vllm")
    ]
    for pattern, names in patterns.items():
        assert len(names) == len(set(names))
        for one in names:
            assert re.fullmatch(pattern, one)
            for form in ("F32", "F16", "Q8_0"):
                path = re.fullmatch(rf"(?P<name>{pattern})\.(?P<type>F32|F16|Q8_0)\.gguf", f"{one}.{form}.gguf")
                assert path is not None
                assert (path["name"], path["type"]) == (one, form)
    for one in patterns[found.exports.name_pattern]:
        for folder, stubs in ((one, False), (f"{one}-vllm", True)):
            wildcards = SimpleNamespace(model="A", checkpoint=folder)
            assert found.exports.description(wildcards) == f"results/s/exports/A/{one}.json"
            assert found.exports.has_stubs(wildcards) == stubs


@pytest.mark.parametrize(
    "name",
    ["cross_model", "index.html", *(f"{t}.parquet" for t in ("experiments", "evaluations", "layers", "recovery"))],
)
def test_a_model_cannot_have_the_name_of_a_file(name: str) -> None:
    with pytest.raises(UserError, match=rf"models\[0\]: name '{re.escape(name)}' is .*; choose another name"):
        study(models=[{**MODEL, "name": name}])


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"calibration": {"dataset": "c{4}.parquet"}}, "calibration.dataset"),
        ({"evaluation": {"data": "tasks<1>"}}, "evaluation.data"),
        ({"evaluation": {"perplexity": {"texts": [{"name": "x", "dataset": "<x>.txt"}]}}},
         "evaluation.perplexity.texts[0].dataset"),
        ({"recovery": {"text": {"dataset": "r}.txt"}}}, "recovery.text.dataset"),
    ],
)  # fmt: skip
def test_paths_that_snakemake_takes_for_patterns_are_refused(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(UserError, match=rf"{re.escape(path)}: got .*; a path may have no braces or angle brackets"):
        study(**changes)


def test_a_tiny_ratio_has_a_name_without_exponent() -> None:
    (name,) = names(methods=[{"name": "m", "criterion": "magnitude"}], grid={"methods": ["m"], "pruning_ratio": [1e-7]})
    assert name == "m-p0_00001"
    found = sweep(methods=[{"name": "m", "criterion": "magnitude"}], grid={"methods": ["m"], "pruning_ratio": [1e-7]})
    assert re.fullmatch(found.name_pattern, name)


@pytest.mark.parametrize("ratio", [1e-300, 5e-324])
def test_a_name_that_no_file_system_holds_is_refused(ratio: float) -> None:
    with pytest.raises(
        UserError, match=r"would be named taylor-seq16-n128-p0_0+\.\.\., of 3\d\d characters; allowed: 200"
    ):
        study(grid={"pruning_ratio": [ratio]})


def test_sources_that_would_be_staged_under_one_name_are_refused() -> None:
    texts = [{"name": name, "dataset": "o/d", "config": config} for name, config in (("x", "a b"), ("y", "a--b"))]
    evaluation = {"perplexity": {"texts": texts}}
    with pytest.raises(UserError, match=r"under one name, cache/\.\.\./o--d@a--b@train@main; use only one"):
        study(evaluation=evaluation)
    texts[1]["config"] = "a b"
    study(evaluation=evaluation)
    texts[1] = {"name": "y", "dataset": "o/d", "data_files": "a b"}
    with pytest.raises(UserError, match="would be staged under one name"):
        study(evaluation=evaluation)

"""The checkpoints of a study, and the files that each is made from."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from espalier.config import load_study
from espalier.errors import UserError
from espalier.study.exports import Exports
from espalier.study.lookups import Study
from espalier.study.paths import Paths
from espalier.study.sweep import Sweep

CONFIG = """
study: s
models:
  - {name: A, family: F, kind: base, path: a}
  - {name: B, family: F, kind: base, path: b, grid: {pruning_ratio: [0.4]}}
methods: [{name: random, criterion: random}, {name: taylor}]
grid: {methods: [random, taylor], taylor_seq_len: [16], taylor_num_samples: [4], pruning_ratio: [0.2]}
calibration: {dataset: c.txt}
"""


def exports(*, recovery: dict[str, Any] | None = None, **export: Any) -> Exports:
    section = {} if recovery is None else {"recovery": recovery}
    config = load_study(yaml.safe_load(CONFIG) | {"export": export} | section)
    return Exports(config, Paths("results/s"), Sweep(config, Paths("results/s")))


def wildcards(**values: str) -> SimpleNamespace:
    return SimpleNamespace(**values)


def test_the_best_of_each_model_and_those_named_where_they_exist() -> None:
    assert exports().files == ["results/s/checkpoints/A/best", "results/s/checkpoints/B/best"]
    found = exports(experiments=["random-p40"], formats=["transformers", "vllm"]).files
    assert [path.removeprefix("results/s/checkpoints/") for path in found] == [
        "A/best", "A/best-vllm", "B/best", "B/best-vllm", "B/random-p40", "B/random-p40-vllm",
    ]  # fmt: skip


def test_a_model_without_the_headline_ratio_has_no_best_experiment() -> None:
    """Recovery, inference and exports leave it out, and go on with the others."""
    more = {"report": {"ratio": 0.2}, "recovery": {}, "inference": {}, "export": {"experiments": ["random-p40"]}}
    study = Study(load_study(yaml.safe_load(CONFIG) | more), Path("src/espalier"))
    assert study.exports.exported == [("A", "best"), ("B", "random-p40")]
    assert study.inference.files == ["results/s/inference/A/best.json"]
    assert [study.recovered.planned_names(model) for model in "AB"] == [["best"], []]


def test_gguf_files_lie_beside_the_folders() -> None:
    found = exports(formats=["gguf"], gguf_type="Q8_0").files
    assert found == [f"results/s/checkpoints/{model}/best.Q8_0.gguf" for model in "AB"]


def test_all_formats_of_an_experiment_share_a_description() -> None:
    for checkpoint, stubs in (("random-p20", False), ("random-p20-vllm", True)):
        found = wildcards(model="A", checkpoint=checkpoint)
        assert exports().description(found) == "results/s/exports/A/random-p20.json"
        assert exports().has_stubs(found) is stubs


def test_the_best_may_be_any_of_the_models_experiments() -> None:
    best = wildcards(model="A", exported="best")
    assert exports().best(best) == ["results/s/consolidated/A/global_best_config.json"]
    names = ["random-p20", "taylor-seq16-n4-p20"]
    assert exports().plans(best) == [f"results/s/experiments/A/{name}/plan.json" for name in names]
    named = wildcards(model="A", exported="random-p20")
    assert exports().best(named) == []
    assert exports().metrics(named) == ["results/s/experiments/A/random-p20/metrics.json"]


def test_a_recovered_experiment_is_its_plan_with_the_metrics_and_files_of_its_adapter() -> None:
    study = exports(recovery={}, experiments=["random-p20-recovered"])
    assert list(study.problems()) == []
    assert study.files[1:2] == ["results/s/checkpoints/A/random-p20-recovered"]
    named = wildcards(model="A", exported="random-p20-recovered")
    assert study.plans(named) == ["results/s/experiments/A/random-p20/plan.json"]
    assert study.metrics(named) == ["results/s/recovered/A/random-p20/metrics.json"]
    folder = "results/s/recovered/A/random-p20/adapter"
    for checkpoint in ("random-p20-recovered", "random-p20-recovered-vllm"):
        files = study.recovered(wildcards(model="A", checkpoint=checkpoint))
        assert files == [f"{folder}/adapter_config.json", f"{folder}/adapter_model.safetensors"]
    assert study.recovered(wildcards(model="A", checkpoint="random-p20")) == []
    (problem,) = exports(experiments=["random-p20-recovered"]).problems()
    assert problem.endswith("; recovered ones need the section `recovery`")


@pytest.mark.parametrize("name", ["random-p40", "best-vllm-vllm", "random-p20-gguf"])
def test_a_folder_that_no_experiment_has_is_refused(name: str) -> None:
    message = rf"model 'A' has no experiment '{name}' to export; allowed: random-p20, taylor-seq16-n4-p20"
    with pytest.raises(UserError, match=message):
        exports().description(wildcards(model="A", checkpoint=name))


def test_patterns_match_names_and_nothing_else() -> None:
    pattern = exports().checkpoint_pattern
    for name in ("best", "best-vllm", "random-p20", "taylor-seq16-n4-p20-vllm", "random-p12_5"):
        assert re.fullmatch(pattern, name), name
    for name in ("best-gguf", "wanda-p20", "A/best", "random-p20-vllm-vllm"):
        assert not re.fullmatch(pattern, name), name


def test_unknown_names_are_problems_with_what_is_allowed() -> None:
    assert list(exports(experiments=["random-p20", "random-p40"]).problems()) == []
    (problem,) = exports(experiments=["random-p20", "taylor-p20"]).problems()
    allowed = "random-p20, taylor-seq16-n4-p20, random-p40, taylor-seq16-n4-p40"
    assert problem == f"export.experiments[1]: got 'taylor-p20'; allowed: {allowed}"


def test_the_rule_of_the_mean_is_a_setting_unless_it_is_the_default() -> None:
    """Descriptions of earlier versions have no rule, and must not change."""
    best = wildcards(model="A", exported="best")
    assert "acc_mean_rule" not in exports().settings(best)
    config = load_study(yaml.safe_load(CONFIG) | {"report": {"acc_mean_rule": "acc"}})
    by_acc = Exports(config, Paths("results/s"), Sweep(config, Paths("results/s")))
    assert by_acc.settings(best) == {**exports().settings(best), "acc_mean_rule": "acc"}


def test_of_many_names_those_alike_are_listed() -> None:
    config = yaml.safe_load(CONFIG)
    config["grid"]["pruning_ratio"] = [ratio / 100 for ratio in range(10, 40)]
    study = load_study(config | {"export": {"experiments": ["random-p99"]}})
    (problem,) = Exports(study, Paths("results/s"), Sweep(study, Paths("results/s"))).problems()
    assert re.search(r"allowed: random-p\d9, .* and 59 more \(the folders under experiments/\)$", problem), problem

"""Why experiments have no results: the first failed job among those that they depend on."""

from pathlib import Path
from typing import Any

import pytest

from espalier.config import load_study
from espalier.files import write_json
from espalier.results.read_results import ExperimentEntry, read_results
from espalier.study.lookups import Study

TAYLOR, BLOCK, WEIGHTS, WANDA = "t-seq16-n8-p20", "v1.5-seq16-n8-p20", "m-p20", "w-seq16-n8-p20"
NAMES = ["baseline", TAYLOR, BLOCK, WEIGHTS, WANDA]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_study(model: dict[str, Any] | None = None, **changes: Any) -> Study:
    config: dict[str, Any] = {
        "study": "s",
        "models": [{"name": "A", "family": "Llama", "kind": "base", **(model or {"path": "a"})}],
        "methods": [
            {"name": "t"}, {"name": "v1.5", "scope": "block"}, {"name": "m", "criterion": "magnitude"},
            {"name": "w", "criterion": "wanda"},
        ],
        "grid": {"methods": ["t", "v1.5", "m", "w"], "taylor_seq_len": [16], "taylor_num_samples": [8]},
        "calibration": {"dataset": "c.parquet"},
        "evaluation": {"perplexity": {"texts": [{"name": "x", "dataset": "o/x"}]}},
        "report": {"allow_missing": True},
    }  # fmt: skip
    return Study(load_study(config | changes), Path("src/espalier"))


def record_failure(job: str, reason: str, folder: str = "results/s") -> None:
    write_json(
        f"{folder}/failures/{job}.json", {"rule": job.split("/", maxsplit=1)[0], "reason": reason, "log": "x.log"}
    )


def reasons(study: Study) -> dict[str, str | None]:
    """Return the reasons of model A by experiment; experiments without a reason are left out."""
    found = {tuple(path.split("/")[2:-1]): reason for path, reason in study.failures.missing_experiments().items()}
    of_a = {"baseline" if kind == "baseline" else rest[-1]: found[kind, *rest] for kind, *rest in found if "A" in rest}
    return {name: reason for name, reason in of_a.items() if reason}


SHARED = [
    ("stage_model/o--m@main", "cache", NAMES, "staging"),
    ("check_model/A", "results/s", NAMES, "model"),
    ("stage_dataset/piqa", "cache", NAMES, "staging"),
    ("stage_text/o--x@train@main", "cache", NAMES, "staging"),
    ("tokenize_requests/A", "results/s", NAMES, "requests"),
    ("stage_text/o--c@train@main", "cache", [TAYLOR, BLOCK, WANDA], "staging"),
    ("collect_gradients/A/c-s0/16", "results/s", [TAYLOR, BLOCK], "gradients"),
    ("measure_importance/A/wanda/c-s0/16", "results/s", [WANDA], "importance"),
    ("measure_weights/A/magnitude", "results/s", [WEIGHTS], "importance"),
    ("measure_priors/A/c-s0/16", "results/s", [BLOCK], "priors"),
    (f"plan/A/{BLOCK}", "results/s", [BLOCK], "plan"),
    (f"evaluate/A/{BLOCK}", "results/s", [BLOCK], None),
    ("evaluate_baseline/A", "results/s", ["baseline"], None),
    ("check_calibration/A/c-s0", "results/s", [], None),
]


@pytest.mark.parametrize(("job", "folder", "experiments", "stage"), SHARED, ids=[job[0] for job in SHARED])
def test_every_experiment_behind_a_failed_job_has_its_reason(
    job: str, folder: str, experiments: list[str], stage: str | None
) -> None:
    study = make_study({"hub": "o/m"}, calibration={"dataset": "o/c"})
    assert reasons(study) == {}
    record_failure(job, "disk on fire", folder)
    expected = f"{stage}: disk on fire" if stage else "disk on fire"
    assert reasons(study) == dict.fromkeys(experiments, expected)


def test_a_plan_that_is_missing_is_the_reason_of_all_that_race_with_it() -> None:
    grid = {"methods": ["t", "m"], "taylor_seq_len": [16], "taylor_num_samples": [8], "pruning_ratio": [0.2, 0.5]}
    texts = {"perplexity": {"texts": []}}
    record_failure("plan/A/m-p20", "infeasible")
    assert reasons(make_study(grid=grid, evaluation=texts)) == {"m-p20": "plan: infeasible"}
    raced = make_study(grid=grid, evaluation={**texts, "racing": {}})
    race = "race: experiment m-p20 has no plan: plan: infeasible"
    assert reasons(raced) == {"m-p20": "plan: infeasible", TAYLOR: race}  # nobody at the other ratio
    record_failure(f"evaluate/A/{TAYLOR}", "too hot")
    assert reasons(raced)[TAYLOR] == "too hot"
    write_json("results/s/experiments/A/m-p20/plan.json", {})
    assert reasons(raced) == {TAYLOR: "too hot"}


def test_failures_of_sandbox_jobs_are_reasons() -> None:
    sandbox = {"sandbox": {"architecture": "llama", "continue_from": "B"}}
    models = [{"name": "B", "family": "Llama", "kind": "base", "sandbox": {"architecture": "llama"}}]
    models.append({"name": "A", "family": "Llama", "kind": "instruct", **sandbox})
    study = make_study(models=models)
    record_failure("train_sandbox_model/A", "nan")
    assert reasons(study) == dict.fromkeys(NAMES, "training: nan")
    record_failure("train_sandbox_model/B", "of the parent")
    record_failure("make_world", "no world")
    assert set(reasons(study).values()) == {"sandbox: no world"}
    write_json("results/s/sandbox/texts/training.parquet", {})
    assert set(reasons(study).values()) == {"training: of the parent"}


def test_the_first_failed_job_of_the_chain_is_the_reason_unless_its_output_was_made_since() -> None:
    study = make_study()
    record_failure(f"evaluate/A/{BLOCK}", "of the evaluation")
    record_failure(f"plan/A/{BLOCK}", "of the plan")
    record_failure("measure_priors/A/c-s0/16", "of the priors")
    assert reasons(study) == {BLOCK: "priors: of the priors"}
    write_json("results/s/priors/A/c-s0/seq16.parquet", {})  # copied from another machine, for example
    assert reasons(study) == {BLOCK: "plan: of the plan"}
    write_json(f"results/s/experiments/A/{BLOCK}/plan.json", {})
    assert reasons(study) == {BLOCK: "of the evaluation"}
    write_json(f"results/s/experiments/A/{BLOCK}/metrics.json", {})
    assert reasons(study) == {}


def test_reasons_of_version_0_1_0_are_read_where_there_is_no_newer_one() -> None:
    study = make_study()
    for name in ("baseline", BLOCK):
        write_json(f"results/s/failures/A/{name}.json", {"reason": "older", "log": "x.log"})
    assert reasons(study) == {"baseline": "older", BLOCK: "older"}
    record_failure(f"evaluate/A/{BLOCK}", "newer")
    assert reasons(study) == {"baseline": "older", BLOCK: "newer"}


def test_failures_outside_the_study_are_ignored() -> None:
    study = make_study()
    record_failure("collect_gradients/A/c-s0/32", "of another length")
    record_failure("plan/A/t-seq32-n8-p20", "of another experiment")
    record_failure("check_model/B", "of another model")
    assert reasons(study) == {}
    assert study.failures.failed_jobs() == []


def test_failures_are_not_read_without_allow_missing() -> None:
    study = make_study(report={"allow_missing": False})
    record_failure("check_model/A", "refused")
    assert study.failures.missing_experiments() == {}
    assert study.failures.unchecked_models() == []
    assert study.failures.failed_jobs() == []


def test_reasons_reach_the_table() -> None:
    study = make_study()
    record_failure("collect_gradients/A/c-s0/16", "out of memory")
    missing = study.failures.missing_experiments()
    entries = [ExperimentEntry(**entry) for entry in study.tables.entries()]
    results, layers = read_results(entries, evaluation=study.evaluation.settings, missing=missing)
    assert {one.facts["experiment"]: one.failure for one in results} == {
        "baseline": None, TAYLOR: "gradients: out of memory", BLOCK: "gradients: out of memory", WEIGHTS: None,
        WANDA: None,
    }  # fmt: skip
    assert layers == []


def test_a_plan_of_a_model_that_is_refused_by_now_stops_no_table() -> None:
    """The manifest was deleted so that the model would be checked again, and this check failed."""
    study = make_study()
    settings = study.tables.entries()[3]["settings"]
    write_json(f"results/s/experiments/A/{WEIGHTS}/plan.json", {"recipe": {"settings": settings}, "layers": []})
    record_failure("check_model/A", "weights are not finite")
    missing = study.failures.missing_experiments()
    entries = [ExperimentEntry(**entry) for entry in study.tables.entries()]
    results, layers = read_results(entries, evaluation=study.evaluation.settings, missing=missing)
    assert {one.failure for one in results} == {"model: weights are not finite"}
    assert layers == []


def test_models_that_could_not_be_checked_are_listed_with_the_reason(tmp_path: Path) -> None:
    models = [
        {"name": "A", "family": "Llama", "kind": "base", "hub": "o/a"},
        {"name": "B", "family": "Llama", "kind": "base", "hub": "o/b"},
        {"name": "C", "family": "Llama", "kind": "base", "path": "absent"},
        {"name": "D", "family": "Llama", "kind": "base", "hub": "o/d"},
        {"name": "E", "family": "Llama", "kind": "base", "hub": "o/e"},
    ]
    study = make_study(models=models)
    record_failure("stage_model/o--a@main", "no such repository", "cache")
    record_failure("check_model/B", "up_proj is not finite")
    write_json("results/s/models/E.json", {})
    assert study.failures.unchecked_models() == [
        {"model": "A", "reason": "staging: no such repository"},
        {"model": "B", "reason": "up_proj is not finite"},
        {
            "model": "C",
            "reason": "absent: no such model folder; give one written by save_pretrained, or a hub repository",
        },
        {"model": "D", "reason": "no job has checked it yet; run `snakemake evaluations`"},
    ]
    assert study.reported_models == ["E"]


def test_other_failed_jobs_are_listed_once() -> None:
    """Failures of single experiments are not listed here, but in the table of experiments."""
    study = make_study(
        recovery={}, inference={"experiments": [TAYLOR]},
        export={"experiments": [BLOCK], "formats": ["transformers", "vllm", "gguf"]},
    )  # fmt: skip
    write_json("results/s/models/A.json", {})
    jobs = [
        "tokenize_requests/A", "evaluate_baseline/A", "collect_gradients/A/c-s0/16", "measure_priors/A/c-s0/16",
        "measure_weights/A/magnitude", "measure_importance/A/wanda/c-s0/16", "check_calibration/A/c-s0",
        "check_recovery/A", "choose_recovered/A", f"describe_export/A/{BLOCK}", f"export_checkpoint/A/{BLOCK}-vllm",
        f"export_gguf/A/{BLOCK}/F16", f"measure_inference/A/{TAYLOR}",
    ]  # fmt: skip
    for job in jobs:
        record_failure(job, f"of {job}")
    record_failure(f"plan/A/{BLOCK}", "of one experiment")
    listed = study.failures.failed_jobs()
    assert sorted(one["job"].replace(" ", "/") for one in listed) == sorted(jobs)
    assert all(one["reason"] == f"of {one['job'].replace(' ', '/')}" for one in listed)

"""Resources of jobs that may find their result in the store: no GPU and little memory if they do."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from espalier.config import load_study
from espalier.evaluation.protocol import Protocol
from espalier.evaluation.settings import EvaluatorSettings
from espalier.files import write_json
from espalier.jobs.evaluation import EvaluationJob
from espalier.jobs.passes import PassJob
from espalier.jobs.resources import JobResources
from espalier.study.handover import HANDOVER_MB
from espalier.study.host_memory import GPU_PROCESS_MB, PROCESS_MB
from espalier.study.lookups import Study
from espalier.study.passes import planned_passes

EXPERIMENT = "t-seq16-n8-p20"
MANIFEST = {"model": "A", "files": {"a": 1}, "n_params": 1000}
PLAN = {"model": "A", "experiment": EXPERIMENT, "layers": [[1, 2]]}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    monkeypatch.chdir(tmp_path)
    config = {
        "study": "s",
        "models": [{"name": "A", "family": "F", "kind": "base", "path": "x", "gpus": 2}],
        "methods": [{"name": "t", "scope": "layer"}],
        "grid": {"methods": ["t"], "taylor_seq_len": [16], "taylor_num_samples": [8]},
        "calibration": {"dataset": "text.parquet", "name": "c"},
    }
    return Study(load_study(config), tmp_path)


def write_inputs() -> None:
    write_json("results/s/models/A.json", MANIFEST)
    write_json(f"results/s/experiments/A/{EXPERIMENT}/plan.json", PLAN)
    Path("results/s/requests").mkdir()
    Path("results/s/requests/A.parquet").write_bytes(b"requests")
    Path("text.parquet").write_bytes(b"text")


def keys(study: Study) -> dict[str, str]:
    """Return the key under which a job stores its result, by rule."""
    passes = PassJob(dict(MANIFEST), JobResources("cpu", 0), 1)
    found = {one.rule: passes.piece(one).key for one in planned_passes(study.config, "A")}
    settings = EvaluatorSettings(Path(), study.evaluation.protocol, study.config.evaluation.dtype, "cpu", 0, 1, 1)
    job = EvaluationJob(dict(MANIFEST), Path("results/s/requests/A.parquet"), settings)
    return {**found, "evaluate": job.piece(PLAN).key, "evaluate_baseline": job.piece(None).key}


WILDCARDS = {
    "collect_gradients": {"calibration": "c-s0", "seq_len": "16"},
    "measure_priors": {"calibration": "c-s0", "seq_len": "16"},
    "evaluate": {"experiment": EXPERIMENT},
    "evaluate_baseline": {},
}


def resources(study: Study, rule: str) -> dict[str, int]:
    wildcards = SimpleNamespace(model="A", **WILDCARDS[rule])
    manifest = SimpleNamespace(manifest="results/s/models/A.json")
    return {
        "gpu": study.handover.gpu(rule)(wildcards),
        "mem_mb": study.handover.mem_mb(rule)(wildcards, input=manifest, attempt=2),
        "model_jobs": study.handover.model_jobs(rule)(wildcards),
    }


@pytest.mark.parametrize("rule", list(WILDCARDS))
def test_a_stored_result_needs_no_gpu(study: Study, rule: str) -> None:
    """The look-up of the driver and the job agree about the key."""
    working = {"gpu": 2, "mem_mb": 2 * GPU_PROCESS_MB, "model_jobs": 1}
    assert resources(study, rule) == working  # its inputs do not exist yet
    write_inputs()
    assert resources(study, rule) == working
    folder = "experiments" if rule.startswith("evaluate") else "gradients"
    Path(f"results/s/{folder}/A/.store/{keys(study)[rule]}").mkdir(parents=True)
    assert resources(study, rule) == {"gpu": 0, "mem_mb": 2 * HANDOVER_MB, "model_jobs": 0}


def test_a_changed_input_is_seen(study: Study) -> None:
    write_inputs()
    Path(f"results/s/experiments/A/.store/{keys(study)['evaluate']}").mkdir(parents=True)
    assert resources(study, "evaluate")["gpu"] == 0
    write_json(f"results/s/experiments/A/{EXPERIMENT}/plan.json", {**PLAN, "layers": [[1]]})
    assert resources(study, "evaluate")["gpu"] == 2


def test_the_protocol_of_the_driver_is_that_of_the_job(study: Study) -> None:
    assert Protocol.from_dict(study.evaluation.protocol).to_dict() == study.evaluation.protocol


@pytest.mark.parametrize(
    ("criterion", "scope", "only_files", "n_bytes"),
    [
        ("magnitude", "none", False, 4 + 4),
        ("magnitude", "layer", False, 4 + 4),  # weights and float32 importances need more than priors
        ("taylor", "layer", False, 2 * 4 + 8),
        ("taylor", "layer", True, 4),
    ],
)
def test_a_job_of_a_pass_gets_the_memory_of_the_largest_pass_that_it_may_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, criterion: str, scope: str, only_files: bool, n_bytes: int
) -> None:
    monkeypatch.chdir(tmp_path)
    if only_files:
        monkeypatch.setenv("ESPALIER_ONLY_FILES", "1")
    config = {
        "study": "s",
        "models": [{"name": "A", "family": "F", "kind": "base", "path": "x"}],
        "methods": [{"name": "t", "criterion": criterion, "scope": scope}],
        "grid": {"methods": ["t"], "taylor_seq_len": [16], "taylor_num_samples": [8]},
        "evaluation": {"device": "cpu", "dtype": "float32"},
    }
    study = Study(load_study(config), tmp_path)
    write_json("results/s/models/A.json", {**MANIFEST, "n_params": 10**9})
    rule = "measure_weights" if criterion == "magnitude" else "measure_priors"
    wildcards = SimpleNamespace(model="A", calibration="c4-s0", seq_len="16", weight_criterion=criterion)
    given = SimpleNamespace(manifest="results/s/models/A.json")
    assert study.handover.mem_mb(rule)(wildcards, input=given, attempt=1) == PROCESS_MB + 1000 * n_bytes

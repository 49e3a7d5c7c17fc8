"""Forecasts from benchmark files, worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from espalier.config import load_study
from espalier.files import write_json, write_parquet
from espalier.study.forecast import PlannedJob, estimate_disk_bytes, forecast, format_forecast
from espalier.study.lookups import Study
from espalier.study.planned_jobs import planned_jobs
from tests.conftest import REPOSITORY


def planned_job(
    folder: Path, rule: str, model: str, number: int, amount: int, *, seconds: float | None = None
) -> PlannedJob:
    job = PlannedJob(
        rule, model, amount, 1, str(folder / f"{rule}-{model}-{number}"), str(folder / f"{rule}-{model}-{number}.tsv")
    )
    if seconds is not None:
        Path(job.output).touch()
        Path(job.benchmark).write_text(f"s\th:m:s\n{seconds}\t0:00:00\n", encoding="utf-8")
    return job


def test_times_grow_with_tokens_and_parameters(tmp_path: Path) -> None:
    """Model A (100 parameters): 8 s for 4 tokens, so 2 s per token, and 0.02 s per token and parameter.

    A: 6 tokens left are 12 s. B (300 parameters): 5 tokens are 5 * 300 * 0.02 = 30 s. C: size unknown.
    """
    jobs = [
        planned_job(tmp_path, "collect_gradients", "A", 0, 4, seconds=8.0),
        planned_job(tmp_path, "collect_gradients", "A", 1, 6),
        planned_job(tmp_path, "collect_gradients", "B", 0, 5),
        planned_job(tmp_path, "collect_gradients", "C", 0, 5),
        planned_job(tmp_path, "plan", "A", 0, 1),
    ]
    lines = forecast(jobs, {"A": 100, "B": 300, "C": None})
    assert [(line.n_done, line.n_left, line.seconds_left) for line in lines] == [
        (1, 1, pytest.approx(12.0)),
        (0, 1, pytest.approx(30.0)),
        (0, 1, None),
        (0, 1, None),
    ]
    sources = ["1 finished job", "by size, from A", "unknown: no such job has finished"]
    assert [line.source for line in lines[:3]] == sources
    text = format_forecast(lines)
    assert "jobs left: 4 of 5" in text
    assert "of unknown time: 2 jobs" in text
    assert "GPU time of the rest: 42 s" in text
    assert "1: 42 s, 2: 21 s" in text


def test_races_make_evaluations_a_range(tmp_path: Path) -> None:
    """Ten evaluations of 10 s. At best nine stop after 2%: 100 s * (0.02 + 0.98 / 10) = 11.8 s."""
    jobs = [planned_job(tmp_path, "evaluate", "A", 0, 1, seconds=10.0)]
    jobs += [planned_job(tmp_path, "evaluate", "A", number, 1) for number in range(1, 11)]
    lines = forecast(jobs, {"A": 100})
    assert "evaluations take between 12 s and 2 min, because races" in format_forecast(lines, first_rung=0.02)
    assert "races" not in format_forecast(lines)


def test_what_is_done_is_left_out(tmp_path: Path) -> None:
    done = planned_job(tmp_path, "evaluate", "A", 0, 1, seconds=8.0)
    text = format_forecast(forecast([done, planned_job(tmp_path, "evaluate", "B", 1, 1)], {"A": 100, "B": 100}))
    assert "evaluate                B" in text
    assert "evaluate                A" not in text
    assert format_forecast(forecast([done], {"A": 100})).startswith("nothing is left: all 1 jobs have results")


def test_a_pass_for_another_sample_count_runs_again(tmp_path: Path) -> None:
    """The finished pass took 16 s for 4 sequences (64 tokens), so 8 sequences (128 tokens) take 32 s."""
    table, benchmark = tmp_path / "seq16.parquet", tmp_path / "seq16.tsv"
    write_parquet(table, pa.table({"n_samples": [1, 2, 4], "importance": [0.1, 0.2, 0.3]}))
    benchmark.write_text("s\th:m:s\n16.0\t0:00:16\n", encoding="utf-8")
    for n_samples, left in ((4, 0.0), (8, 32.0), (2, 8.0)):
        job = PlannedJob("collect_gradients", "A", 16 * n_samples, 1, str(table), str(benchmark), n_samples=n_samples)
        (line,) = forecast([job], {"A": 100})
        assert (line.n_left, line.seconds_left) == (int(left > 0), pytest.approx(left))


def test_the_time_that_the_store_recorded_counts(tmp_path: Path) -> None:
    """Pass 0 took 8 s for 4 tokens within a job of 100 s. Pass 1 is stored but not handed over: 12 s for 6 tokens.

    So a token takes 2 s, and the 5 tokens of pass 2 take 10 s.
    """
    first = planned_job(tmp_path, "collect_gradients", "A", 0, 4, seconds=100.0)
    jobs = [first, *(planned_job(tmp_path, "collect_gradients", "A", number, 7 - number) for number in (1, 2))]
    jobs = [replace(job, timing=str(tmp_path / f"timing{number}.json")) for number, job in enumerate(jobs)]
    for job, seconds in zip(jobs[:2], (8.0, 12.0), strict=True):
        write_json(job.timing, {"seconds": seconds})
    (line,) = forecast(jobs, {"A": 100})
    assert (line.n_done, line.n_left, line.seconds_left) == (2, 1, pytest.approx(10.0))


def test_disk_is_that_of_finished_experiments(tmp_path: Path) -> None:
    jobs = []
    for number in range(3):
        folder = tmp_path / f"e{number}"
        jobs.append(PlannedJob("evaluate", "A", 1, 0, str(folder / "metrics.json"), "none.tsv"))
        if number < 2:
            folder.mkdir()
            (folder / "metrics.json").write_bytes(b"x" * (100 + 100 * number))
    assert estimate_disk_bytes(jobs) == 150  # one is left, as large as the mean of 100 and 200
    assert estimate_disk_bytes(jobs[2:]) is None


def test_planned_jobs_of_the_paper_study() -> None:
    """3 models have 3 x 5 x 3 experiments and 3 have 3 x 4 x 5; each length has one pass, at its largest count."""
    config = yaml.safe_load((REPOSITORY / "config/paper.yaml").read_text(encoding="utf-8"))
    jobs = planned_jobs(Study(load_study(config), REPOSITORY / "src/espalier"))["jobs"]
    counts = {rule: sum(job["rule"] == rule for job in jobs) for rule in ("evaluate", "collect_gradients", "plan")}
    assert counts == {"evaluate": 3 * 45 + 3 * 60, "collect_gradients": 3 * 5 + 3 * 4, "plan": 315}
    longest = max(job["amount"] for job in jobs if job["rule"] == "collect_gradients")
    assert longest == 256 * 512
    assert {job["gpus"] for job in jobs if job["rule"] == "evaluate"} == {1}


def test_every_kind_of_pass_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lengths and one count of 8: 16 * 8 and 32 * 8 tokens; priors read ceil(8 / 5) = 2 sequences.

    Magnitude reads only the weights, so it has one pass, whatever the lengths.
    """
    monkeypatch.chdir(tmp_path)
    methods = [
        {"name": "blockwise", "scope": "block"}, {"name": "wanda", "criterion": "wanda"},
        {"name": "magnitude", "criterion": "magnitude"}, {"name": "random", "criterion": "random"},
    ]  # fmt: skip
    study = load_study({
        "study": "s",
        "models": [{"name": "A", "family": "Llama", "kind": "base", "path": "models/a"}],
        "methods": methods,
        "grid": {"methods": [one["name"] for one in methods], "taylor_seq_len": [16, 32], "taylor_num_samples": [8],
                 "pruning_ratio": [0.2]},
        "calibration": {"dataset": "c.parquet", "name": "c"},
    })  # fmt: skip
    jobs = planned_jobs(Study(study, REPOSITORY / "src/espalier"))["jobs"]
    passes = {job["output"].removeprefix("results/s/"): (job["rule"], job["amount"], job["n_samples"])
              for job in jobs if job["rule"].startswith(("collect", "measure"))}  # fmt: skip
    assert passes == {
        "gradients/A/c-s0/seq16.parquet": ("collect_gradients", 128, 8),
        "gradients/A/c-s0/seq32.parquet": ("collect_gradients", 256, 8),
        "priors/A/c-s0/seq16.parquet": ("measure_priors", 32, 8),
        "priors/A/c-s0/seq32.parquet": ("measure_priors", 64, 8),
        "importance/A/wanda/c-s0/seq16.parquet": ("measure_importance", 128, 8),
        "importance/A/wanda/c-s0/seq32.parquet": ("measure_importance", 256, 8),
        "importance/A/magnitude.parquet": ("measure_weights", 1, None),
    }

"""Forecast of the remaining cost of a study: jobs, GPU time, wall time and disk, from the benchmark files of jobs.

The time of a job is assumed to be proportional to its amount of work (tokens of a pass, 1 for an evaluation) times the
parameters of its model. It is the mean of finished jobs of the same rule and model, or else of the same rule on other
models. If there are neither, the time is unknown, and the forecast reports it as unknown.

One job does several passes or evaluations of a model, and the others only hand over its results. So the time of a pass
or evaluation is the one that the store recorded for it, without the start of the job and the loading of the model. Its
benchmark file is used only if an older version made it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from espalier.files import read_json, read_parquet

GPU_COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class PlannedJob:
    """One job of the study.

    Attributes:
        rule: Name of its rule.
        model: Name of its model.
        amount: Amount of work: tokens of a pass over calibration text or of a recovery, 1 for other jobs.
        gpus: GPUs that it requests.
        output: An output file, which exists when the job is done.
        benchmark: Its benchmark file.
        n_samples: Sample count that a pass over calibration text must cover to be done; None for other jobs.
        timing: File in which the store recorded the time of the work; empty if there is none. If it exists, the work is
            done, whether or not the output exists.
    """

    rule: str
    model: str
    amount: int
    gpus: int
    output: str
    benchmark: str
    n_samples: int | None = None
    timing: str = ""


@dataclass(frozen=True)
class ForecastLine:
    """Forecast for the jobs of one rule and model.

    Attributes:
        rule: Name of the rule.
        model: Name of the model.
        n_done: Jobs that have finished.
        n_left: Jobs still to run.
        seconds_left: Total time of the jobs still to run, in seconds; None if unknown.
        gpu_seconds_left: The same, with the time of each job multiplied by its GPUs.
        source: Where the time comes from.
    """

    rule: str
    model: str
    n_done: int
    n_left: int
    seconds_left: float | None
    gpu_seconds_left: float | None
    source: str


def forecast(jobs: Sequence[PlannedJob], n_params: dict[str, int | None]) -> list[ForecastLine]:
    """Forecast every rule and model.

    Args:
        jobs: All jobs of the study.
        n_params: Number of parameters of each model; None if it is not known yet.

    Returns:
        One line for each rule and model, in the order of the jobs.
    """
    fractions = {job.output: done_fraction(job) for job in jobs}
    rates: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        if fractions[job.output] and (seconds := _seconds(job)) is not None:
            rates.setdefault((job.rule, job.model), []).append(seconds / (job.amount * fractions[job.output]))
    finished = {output for output, fraction in fractions.items() if fraction == 1}
    groups: dict[tuple[str, str], list[PlannedJob]] = {}
    for job in jobs:
        groups.setdefault((job.rule, job.model), []).append(job)
    return [_forecast_line(key, members, finished, rates, n_params) for key, members in groups.items()]


def done_fraction(job: PlannedJob) -> float:
    """Return the fraction of a job's work that is done.

    It is 1 if the store has the result, and 0 if the output does not exist. It is below or above 1 for a pass that was
    made for another sample count; such a pass is stale.
    """
    if job.timing and Path(job.timing).exists():
        return 1.0
    path = Path(job.output)
    if not path.exists():
        return 0.0
    if job.n_samples is None:
        return 1.0
    largest = pc.max(read_parquet(path, columns=["n_samples"])["n_samples"]).as_py()
    return (largest or 0) / job.n_samples


def format_forecast(
    lines: Sequence[ForecastLine],
    *,
    disk_bytes: int | None = None,
    first_rung: float | None = None,
) -> str:
    """Format a forecast as text, without what is done.

    Args:
        lines: Result of `forecast`.
        disk_bytes: Result of `estimate_disk_bytes`; None leaves the disk out.
        first_rung: Share of an evaluation before a race can stop an experiment; None without races.
    """
    left = [line for line in lines if line.n_left]
    if not left:
        n_done = sum(line.n_done for line in lines)
        return f"nothing is left: all {n_done} jobs have results (`snakemake -n` also lists stale ones)"
    unknown = [line for line in left if line.seconds_left is None]
    gpu_seconds = sum(line.gpu_seconds_left or 0 for line in left)
    cpu_seconds = sum(line.seconds_left or 0 for line in left if not line.gpu_seconds_left)
    rows = [f"{'rule':24}{'model':24}{'done':>7}{'left':>7}{'time':>10}  how it is known"]
    rows += [
        f"{line.rule:24}{line.model:24}{line.n_done:7}{line.n_left:7}{_duration(line.seconds_left):>10}  {line.source}"
        for line in left
    ]
    rows += [
        "",
        f"jobs left: {sum(line.n_left for line in left)} of {sum(line.n_left + line.n_done for line in lines)}",
    ]
    if any(line.n_done for line in lines):
        rows.append(
            "done means that the file is there, and a pass made for the largest sample count; what else is stale, "
            "`snakemake -n` says"
        )
    if unknown:
        rows.append(f"of unknown time: {sum(line.n_left for line in unknown)} jobs; run one of each kind to know more")
    if len(unknown) < len(left):
        rows.append(f"GPU time of the rest: {_duration(gpu_seconds)}; other: {_duration(cpu_seconds)}")
        at_once = ", ".join(f"{n}: {_duration((gpu_seconds + cpu_seconds) / n)}" for n in GPU_COUNTS)
        rows.append(f"wall time at best, by jobs at once: {at_once}")
    raced = [line for line in left if line.rule == "evaluate" and line.seconds_left is not None]
    if first_rung is not None and raced:
        # At least one experiment of each model answers everything.
        low = sum((line.seconds_left or 0) * (first_rung + (1 - first_rung) / line.n_left) for line in raced)
        high = sum(line.seconds_left or 0 for line in raced)
        rows.append(
            f"evaluations take between {_duration(low)} and {_duration(high)}, because races stop experiments; the "
            "sums above have the longer time"
        )
    if disk_bytes is not None:
        rows.append(f"disk for the experiments left: {disk_bytes / 1e6:.0f} MB")
    return "\n".join(rows)


def estimate_disk_bytes(jobs: Iterable[PlannedJob]) -> int | None:
    """Estimate the disk space in bytes of the experiments still to run; None if none has finished yet."""
    folders = [Path(job.output).parent for job in jobs if job.rule == "evaluate"]
    sizes = [_folder_bytes(folder) for folder in folders if (folder / "metrics.json").exists()]
    return round((len(folders) - len(sizes)) * sum(sizes) / len(sizes)) if sizes else None


def _seconds(job: PlannedJob) -> float | None:
    """Return the time of finished work in seconds; None if it is not known."""
    if job.timing and Path(job.timing).exists():
        return float(read_json(job.timing)["seconds"])
    return read_seconds(job.benchmark)


def read_seconds(benchmark: str | Path) -> float | None:
    """Read the mean wall time, in seconds, from a Snakemake benchmark file; None if it cannot be read."""
    try:
        with Path(benchmark).open(encoding="utf-8", newline="") as file:
            times = [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
    except (OSError, ValueError, KeyError):
        return None
    return sum(times) / len(times) if times else None


def _forecast_line(
    key: tuple[str, str],
    members: Sequence[PlannedJob],
    finished: set[str],
    rates: dict[tuple[str, str], list[float]],
    n_params: dict[str, int | None],
) -> ForecastLine:
    rule, model = key
    left = [job for job in members if job.output not in finished]
    rate, source = _rate(rule, model, rates, n_params)
    seconds = None if rate is None else rate * sum(job.amount for job in left)
    gpu_seconds = None if rate is None else rate * sum(job.amount * job.gpus for job in left)
    return ForecastLine(rule, model, len(members) - len(left), len(left), seconds, gpu_seconds, source)


def _rate(
    rule: str, model: str, rates: dict[tuple[str, str], list[float]], n_params: dict[str, int | None]
) -> tuple[float | None, str]:
    """Return the seconds per unit of work (None if unknown), and their source."""
    if own := rates.get((rule, model)):
        return sum(own) / len(own), f"{len(own)} finished {'job' if len(own) == 1 else 'jobs'}"
    size = n_params.get(model)
    others = {
        other: [rate / known for rate in found]
        for (of, other), found in rates.items()
        if of == rule and (known := n_params.get(other))
    }
    if size and others:
        per_param = [rate for found in others.values() for rate in found]
        return size * sum(per_param) / len(per_param), f"by size, from {', '.join(sorted(others))}"
    return None, "unknown: no such job has finished"


def _folder_bytes(folder: Path) -> int:
    """Return the bytes of the files in a folder; files that are hard links of each other count once."""
    sizes = {file.stat().st_ino: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    return sum(sizes.values())


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"

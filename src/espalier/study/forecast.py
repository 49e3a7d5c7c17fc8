"""What a study will still cost: jobs, GPU-hours, wall time and disk, from the benchmark files of finished jobs.

The time of a job is taken to grow with its work (tokens of a pass, one for an evaluation) times the parameters of its
model. Where jobs of the same rule and model have finished, their mean is used; else that of the same rule on other
models; else the time is unknown, and the forecast says so rather than guess.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from espalier.files import read_parquet

GPU_COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class PlannedJob:
    """One job of the study.

    Attributes:
        rule: Name of its rule.
        model: Name of its model.
        amount: PlannedJob: tokens of a pass, 1 for what has no size of its own.
        gpus: GPUs that it asks for.
        output: A file that is there when it is done.
        benchmark: Its benchmark file.
        n_samples: Sequences that a pass must have been made for; None for other jobs.
    """

    rule: str
    model: str
    amount: int
    gpus: int
    output: str
    benchmark: str
    n_samples: int | None = None


@dataclass(frozen=True)
class Line:
    """The jobs of one rule and model.

    Attributes:
        rule: Name of the rule.
        model: Name of the model.
        n_done: Jobs that have finished.
        n_left: Jobs still to run.
        seconds_left: Time of those that are left; None where nothing is known.
        gpu_seconds_left: The same times their GPUs.
        source: How the time is known.
    """

    rule: str
    model: str
    n_done: int
    n_left: int
    seconds_left: float | None
    gpu_seconds_left: float | None
    source: str


def forecast(work: Iterable[PlannedJob], n_params: dict[str, int | None]) -> list[Line]:
    """Forecast every rule and model.

    Args:
        work: All jobs of the study.
        n_params: Parameters of each model; None where they are not known yet.
    """
    jobs = list(work)
    shares = {job.output: made_share(job) for job in jobs}
    rates: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        if shares[job.output] and (seconds := read_seconds(job.benchmark)) is not None:
            rates.setdefault((job.rule, job.model), []).append(seconds / (job.amount * shares[job.output]))
    finished = {output for output, share in shares.items() if share == 1}
    groups: dict[tuple[str, str], list[PlannedJob]] = {}
    for job in jobs:
        groups.setdefault((job.rule, job.model), []).append(job)
    return [_line(key, members, finished, rates, n_params) for key, members in groups.items()]


def made_share(job: PlannedJob) -> float:
    """Return the fraction of a job that is done.

    0 if its output is missing; below or above 1 if a pass was made for another sample count, so that it is stale.
    """
    path = Path(job.output)
    if not path.exists():
        return 0.0
    if job.n_samples is None:
        return 1.0
    largest = pc.max(read_parquet(path, columns=["n_samples"])["n_samples"]).as_py()
    return (largest or 0) / job.n_samples


def render(lines: Sequence[Line], *, n_processes: Sequence[int] = GPU_COUNTS, disk_bytes: int | None = None) -> str:
    """Write a forecast as text."""
    left = [line for line in lines if line.n_left]
    unknown = [line for line in left if line.seconds_left is None]
    gpu_seconds = sum(line.gpu_seconds_left or 0 for line in left)
    cpu_seconds = sum(line.seconds_left or 0 for line in left if not line.gpu_seconds_left)
    rows = [f"{'rule':24}{'model':24}{'done':>7}{'left':>7}{'time':>10}  how it is known"]
    rows += [
        f"{line.rule:24}{line.model:24}{line.n_done:7}{line.n_left:7}{_duration(line.seconds_left):>10}  {line.source}"
        for line in lines
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
    if len(unknown) < len(left) or not left:
        rows.append(f"GPU time of the rest: {_duration(gpu_seconds)}; other: {_duration(cpu_seconds)}")
        at_once = ", ".join(f"{n}: {_duration((gpu_seconds + cpu_seconds) / n)}" for n in n_processes)
        rows.append(f"wall time at best, by jobs at once: {at_once}")
    if disk_bytes is not None:
        rows.append(f"disk for the experiments left: {disk_bytes / 1e6:.0f} MB")
    return "\n".join(rows)


def disk_of(work: Iterable[PlannedJob]) -> int | None:
    """Estimate the bytes that experiments still to run will take, from the finished ones; None when none has."""
    folders = [Path(job.output).parent for job in work if job.rule == "evaluate"]
    sizes = [_size(folder) for folder in folders if (folder / "metrics.json").exists()]
    return round((len(folders) - len(sizes)) * sum(sizes) / len(sizes)) if sizes else None


def read_seconds(benchmark: str | Path) -> float | None:
    """Read the mean wall time of a Snakemake benchmark file; None where there is none."""
    try:
        with Path(benchmark).open(encoding="utf-8", newline="") as file:
            times = [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
    except (OSError, ValueError, KeyError):
        return None
    return sum(times) / len(times) if times else None


def _line(
    key: tuple[str, str],
    members: Sequence[PlannedJob],
    finished: set[str],
    rates: dict[tuple[str, str], list[float]],
    n_params: dict[str, int | None],
) -> Line:
    rule, model = key
    left = [job for job in members if job.output not in finished]
    rate, source = _rate(rule, model, rates, n_params)
    seconds = None if rate is None else rate * sum(job.amount for job in left)
    gpu_seconds = None if rate is None else rate * sum(job.amount * job.gpus for job in left)
    return Line(rule, model, len(members) - len(left), len(left), seconds, gpu_seconds, source)


def _rate(
    rule: str, model: str, rates: dict[tuple[str, str], list[float]], n_params: dict[str, int | None]
) -> tuple[float | None, str]:
    """Return seconds per unit of work, and where they come from."""
    if own := rates.get((rule, model)):
        return sum(own) / len(own), f"{len(own)} finished jobs"
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


def _size(folder: Path) -> int:
    """Return the bytes of a folder, hard links counted once."""
    sizes = {file.stat().st_ino: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    return sum(sizes.values())


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"

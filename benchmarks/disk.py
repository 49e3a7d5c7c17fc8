"""Size on disk of the results of 45 experiments of an 8B model, besides the model.

    PYTHONPATH=src .venv/bin/python benchmarks/disk.py --requests results/smollm2/requests/SmolLM2.parquet

The files are written by the workflow's own code for Llama-3-8B's shape: importance and gradient statistics of five
sequence lengths (ten sample counts each), priors, 45 plans, and the samples tables of 46 evaluations of the documents
in `--requests`. The numbers in them are random. Importances are sums of three float32 numbers, as of gate, up and down
projections (`--worst`: of random float64 numbers, which compress least). The store adds nothing, because it shares its
files with the results. Metrics, logs and records are left out; they take a few kB for each experiment.
Budget: 200 MB.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from espalier.calibration.importance import importance_rows
from espalier.calibration.sample_counts import snapshot_counts
from espalier.evaluation.tokenised_requests import read_requests
from espalier.files import write_json
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.groups import GroupTable
from espalier.planning.plan import Plan
from espalier.planning.scores import PriorColumns, ScoreSettings, score_groups
from espalier.planning.select import SelectionOptions, select_groups
from espalier.statistics.validation import FloatArray
from espalier.tables import GradientStatistics, Importance, PriorTable, Samples, write_with_schema

N_LAYERS, N_KV_GROUPS, N_CHANNELS = 32, 8, 14_336
MODEL = ModelSizes((LayerSizes(8, 5_242_880, N_CHANNELS, 12_288, 8_192),) * N_LAYERS, 2 * 128_256 * 4_096 + 4_096)
LENGTHS, N_EXPERIMENTS, RATIO = 5, 45, 0.2
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
COUNTS = snapshot_counts(512)
RANDOM = np.random.default_rng(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=Path, required=True, help="tokenised requests of the tasks")
    parser.add_argument("--worst", action="store_true", help="importances that compress least")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = {
            f"importance and gradient statistics of {LENGTHS} lengths": LENGTHS * _pass(Path(folder), options.worst),
            f"{N_EXPERIMENTS} plans": sum(_plan(Path(folder)) for _ in range(N_EXPERIMENTS)),
            f"samples of {N_EXPERIMENTS + 1} evaluations": (N_EXPERIMENTS + 1)
            * _samples(options.requests, Path(folder)),
            "requests": options.requests.stat().st_size,
        }
    print("| what | MB |\n|---|---|")
    for name, size in {**sizes, "all": sum(sizes.values())}.items():
        print(f"| {name} | {size / 1e6:.1f} |")


def _pass(folder: Path, worst: bool) -> int:
    """Write the tables of the passes over one sequence length; return their size in bytes."""
    found = [
        importance_rows(
            {(layer, block): _importance(n, worst) for layer in range(N_LAYERS)
             for block, n in (("attention", N_KV_GROUPS), ("mlp", N_CHANNELS))},
            count,
        )
        for count in COUNTS
    ]  # fmt: skip
    importance = pd.DataFrame({key: np.concatenate([one[key] for one in found]) for key in found[0]})
    statistics = pd.DataFrame(
        [(count, layer, name, 1 << 24, *RANDOM.lognormal(size=4))
         for count in COUNTS for layer in range(N_LAYERS) for name in PROJECTIONS],
        columns=["n_samples", "layer", "projection", "n_params", "grad_mean", "grad_std", "grad_norm", "grad_max"],
    )  # fmt: skip
    priors = pd.DataFrame(
        [(count, layer, scope, *RANDOM.random(size=2))
         for count in COUNTS for layer in range(N_LAYERS) for scope in ("layer", "attention", "mlp")],
        columns=["n_samples", "layer", "scope", "loss_increase", "cosine_distance"],
    )  # fmt: skip
    write_with_schema(folder / "importance.parquet", importance, Importance)
    write_with_schema(folder / "gradients.parquet", statistics, GradientStatistics)
    write_with_schema(folder / "priors.parquet", priors, PriorTable)
    return sum((folder / f"{name}.parquet").stat().st_size for name in ("importance", "gradients", "priors"))


def _importance(n: int, worst: bool) -> FloatArray:
    if worst:
        return RANDOM.lognormal(size=n)
    found: FloatArray = RANDOM.lognormal(size=(3, n)).astype(np.float32).astype(np.float64).sum(axis=0)
    return found


def _plan(folder: Path) -> int:
    groups = GroupTable.of(MODEL)
    priors = PriorColumns(*RANDOM.lognormal(size=(3, N_LAYERS)))
    scores, _ = score_groups(groups, RANDOM.lognormal(size=len(groups)), ScoreSettings("block"), priors)
    removed = select_groups(groups, MODEL, scores, RATIO, SelectionOptions(), "global")
    write_json(folder / "plan.json", Plan.from_mask(groups, MODEL, removed).to_dict())
    return (folder / "plan.json").stat().st_size


def _samples(requests: Path, folder: Path) -> int:
    keys = [(key.task, key.doc_id, key.choice) for key in read_requests(requests).requests]
    frame = pd.DataFrame(keys, columns=["task", "doc_id", "choice"])
    n = len(frame)
    lengths = RANDOM.integers(1, 120, size=n)
    frame = frame.assign(
        gold=frame["choice"] == 0, loglikelihood=-RANDOM.lognormal(size=n).astype(np.float32).astype(np.float64),
        is_greedy=RANDOM.random(n) < 0.1, n_chars=lengths, n_bytes=lengths,
    )  # fmt: skip
    write_with_schema(folder / "samples.parquet", frame, Samples)
    return (folder / "samples.parquet").stat().st_size


if __name__ == "__main__":
    main()

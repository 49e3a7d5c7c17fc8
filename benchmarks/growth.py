"""Time and memory of the workflow itself: dry run and consolidation of studies with up to 10,000 experiments.

    PYTHONPATH=src .venv/bin/python benchmarks/growth.py --study build/default-run/results/sandbox [--sizes 300 10200]

The script writes plans of Llama-3-8B's shape (32 layers, 14,336 channels) and results copied from a finished study, one
file per experiment. It reports time and memory of the whole `snakemake` command with all its jobs, and of the job that
makes the tables, from Snakemake's benchmark file. Budgets: 40 s for the dry run; 60 s and 4 GB for the consolidation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import yaml

from espalier.config.load import load_study
from espalier.files import read_json, sha256_of, write_json, write_result
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.groups import GroupTable
from espalier.planning.plan import Plan
from espalier.recipe import evaluation_settings, plan_settings
from espalier.sandbox.splits import sandbox_task_files
from espalier.study.lookups import Study

REPOSITORY = Path(__file__).resolve().parents[1]
LAYER = LayerSizes(8, 5_242_880, 14_336, 12_288, 8_192)
STRUCTURE = ModelSizes((LAYER,) * 32, other_params=2 * 128_256 * 4_096 + 4_096)
GROUPS = GroupTable.of(STRUCTURE)
PLAN = Plan.from_mask(GROUPS, STRUCTURE, np.random.default_rng(0).random(len(GROUPS)) < 0.2).to_dict()
INPUTS = ("calibration.parquet", "perplexity.parquet", *(f"tasks/{file}" for file in sandbox_task_files()))
UNITS = ("(s)", "(GiB)")
N_RATIOS, N_COUNTS = 20, 10  # with 3 methods: 600 experiments for each sequence length


def config(n_experiments: int) -> dict[str, Any]:
    """Return the config of a study of one model with about `n_experiments` experiments."""
    n_lengths = max(1, round(n_experiments / (3 * N_RATIOS * N_COUNTS)))
    n_ratios = min(N_RATIOS, round(n_experiments / (3 * N_COUNTS * n_lengths)))
    methods = [{"name": "taylor"}, {"name": "layerwise", "scope": "layer"}, {"name": "blockwise", "scope": "block"}]
    return {
        "study": "growth",
        "models": [{"name": "M", "family": "Llama", "kind": "base", "path": "model"}],
        "methods": methods,
        "grid": {
            "methods": [method["name"] for method in methods],
            "taylor_seq_len": [16 * (index + 1) for index in range(n_lengths)],
            "taylor_num_samples": [8 * (index + 1) for index in range(N_COUNTS)],
            "pruning_ratio": [round(0.02 * (index + 1), 2) for index in range(n_ratios)],
        },
        "calibration": {"dataset": INPUTS[0]},
        "evaluation": {"data": "tasks", "perplexity": {"texts": [{"name": "wikitext2", "dataset": INPUTS[1]}]}},
    }


def fabricate(folder: Path, settings: dict[str, Any], finished: Path) -> int:
    """Write the files that consolidation reads, and empty files for earlier outputs; return the number of rows."""
    study = Study(load_study(settings), REPOSITORY / "src/espalier")
    sweep = study.sweep
    model = next((finished / "models").glob("*.json")).stem
    before = [f"{study.results}/requests/M.parquet", *sweep.importance_tables]
    before += [table.replace("importance/M/taylor", "priors/M") for table in sweep.importance_tables]
    for path in before:
        place(folder / path, b"")
    statistics = gradients(next((finished / f"gradients/{model}").glob("*/*.parquet")), settings)
    for path in sweep.gradient_tables:
        place(folder / path, statistics)
    for path in study.tables.calibration_checks(None):
        place(folder / path, b"{}")
    metrics = read_json(finished / f"baseline/{model}/metrics.json")
    manifest = read_json(folder / f"{study.results}/models/M.json")
    for entry in study.tables.entries():
        write_results(folder, entry, metrics, manifest, study.evaluation.settings)
    return len(study.tables.entries())


def write_manifest(folder: Path, finished: Path) -> None:
    """Write the manifest of a model that does not exist, so that the workflow does not check the model."""
    found = read_json(next((finished / "models").glob("*.json")))
    manifest = found | {"model": "M", "structure": STRUCTURE.to_dict()}
    write_json(folder / "results/growth/models/M.json", manifest)


def place(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def gradients(path: Path, settings: dict[str, Any]) -> bytes:
    """Return gradient statistics as Parquet: those of one layer and count, repeated for each count and layer."""
    table = pd.read_parquet(path)
    layer = table[(table.n_samples == table.n_samples.max()) & (table.layer == 0)]
    counts = settings["grid"]["taylor_num_samples"]
    rows = [layer.assign(n_samples=count, layer=number) for count in counts for number in range(STRUCTURE.n_layers)]
    return bytes(pd.concat(rows, ignore_index=True).to_parquet())


def write_results(
    folder: Path, entry: dict[str, Any], metrics: dict[str, Any], manifest: dict[str, Any], evaluation: dict[str, Any]
) -> None:
    """Write the plan and the metrics of one row, with recipes that match the config."""
    row = {"model": "M", "experiment": entry["facts"]["experiment"]}
    plan = None
    if entry["plan"]:
        row |= {
            "pruning_ratio": entry["facts"]["pruning_ratio"],
            "removed_param_fraction": 0.2,
            "extreme_pruning_layers": 0,
        }
        plan = row | {"recipe": plan_settings(manifest, entry["settings"])} | PLAN
        place(folder / entry["plan"], json.dumps(plan).encode())
    made = evaluation_settings(manifest, plan, **evaluation, requests=sha256_of(folder / entry["requests"]))
    content = metrics | row | {"protocol": evaluation["protocol"], "recipe": {"settings": made}}
    (folder / entry["metrics"]).parent.mkdir(parents=True, exist_ok=True)
    write_result(folder / entry["metrics"], content)
    place((folder / entry["metrics"]).with_name("samples.parquet"), b"")


def measure(folder: Path, *arguments: str) -> tuple[float, float, str]:
    """Run snakemake; return its time in seconds, the peak memory of all processes together in GiB, and its output."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as printed:
        process = psutil.Popen([*command, *arguments], cwd=folder, stdout=printed, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, resident(process))
            time.sleep(0.1)
        printed.seek(0)
        text = printed.read()
    if process.returncode:
        raise SystemExit(text[-3000:])
    return time.perf_counter() - start, peak / 2**30, text


def resident(process: psutil.Process) -> int:
    """Return the resident bytes of a process and its children, skipping processes that ended in the meantime."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, required=True, help="results folder of a finished study")
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 1200, 3000, 10200])
    arguments = parser.parse_args()
    columns = (
        "experiments",
        *(f"{what} {unit}" for what in ("dry run", "consolidated", "its main job") for unit in UNITS),
    )
    print(f"| {' | '.join(columns)} |\n|{'---:|' * len(columns)}")
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            settings = config(size)
            for path in INPUTS:
                place(folder / path, b"")
            (folder / "study.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
            write_manifest(folder, arguments.study)
            dry_s, dry_gib, _ = measure(folder, "evaluations", "-n", "--configfile", "study.yaml", "--quiet")
            n_rows = fabricate(folder, settings, arguments.study)
            real_s, real_gib, text = measure(folder, "consolidated", "--configfile", "study.yaml", "--quiet")
            table = pd.read_parquet(folder / "results/growth/consolidated/experiments.parquet")
            if len(table) != n_rows or not (table.status == "ok").all():
                raise SystemExit(text)
            job = pd.read_csv(folder / "results/growth/benchmarks/consolidate_study.tsv", sep="\t").iloc[0]
            cells = (dry_s, dry_gib, real_s, real_gib, float(job.s), float(job.max_rss) / 1024)
            print(f"| {n_rows - 1:,} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()

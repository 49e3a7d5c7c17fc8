"""Flip single bits in the files of a finished study, and count how many are noticed.

    PYTHONPATH=src python benchmarks/bit_flips.py results/sandbox

One bit of a file is flipped at a time, in a copy. A flip is *refused* if reading the file raises an error of one line,
*harmless* if the content is the same, and *silent* if reading gives another content. Tables are read as the jobs that
use them do: with their schema. The files of a study are drawn with equal probability.
"""

import argparse
import json
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd
from pandera.errors import SchemaError, SchemaErrors

from espalier.errors import UserError
from espalier.files import read_json, read_table
from espalier.results.verify import BEST_EXPERIMENT, RECORDS, read_best_experiment
from espalier.tables import Evaluations, Experiments, GradientStatistics, Importance, Layers, PriorTable, Samples

KINDS = {
    "manifests": ("models/*.json", None),
    "calibration checks": ("calibration/*/*.json", None),
    "requests": ("requests/*.parquet", None),
    "gradient statistics": ("gradients/*/*/*.parquet", GradientStatistics),
    "importance": ("importance/*/*/*/*.parquet", Importance),
    "priors": ("priors/*/*/*.parquet", PriorTable),
    "plans": ("experiments/*/*/plan.json", None),
    "metrics": ("experiments/*/*/metrics.json", None),
    "samples": ("experiments/*/*/samples.parquet", Samples),
    "experiments table": ("consolidated/experiments.parquet", Experiments),
    "evaluations table": ("consolidated/evaluations.parquet", Evaluations),
    "layers table": ("consolidated/layers.parquet", Layers),
    "best experiment": ("consolidated/*/global_best_config.json", None),
    "statistics": ("reports/*/analysis.json", None),
    "statistics of all models": ("reports/cross_model/analysis_summary.json", None),
}
"""Files of a study by kind, and the schema of tables."""


def content(path: Path, schema: type | None) -> str:
    """Read a file as the jobs that use it do, and return its content as text.

    Raises:
        UserError: If the file is refused.
    """
    if path.name == BEST_EXPERIMENT:
        return json.dumps(read_best_experiment(path), sort_keys=True)
    if path.suffix == ".json":
        return json.dumps(read_json(path), sort_keys=True)
    table = read_table(path)
    if schema is not None:
        try:
            schema.validate(table)  # type: ignore[attr-defined]
        except (SchemaError, SchemaErrors, KeyError) as error:
            raise UserError(str(error)) from error
    return str(table.to_csv())


def flip_bits(results: Path, n: int, seed: int) -> pd.DataFrame:
    """Flip one bit at a time, and count what happens by the kind of the file.

    Args:
        results: Folder of a finished study.
        n: Number of flips.
        seed: Seed of the files and bits.

    Returns:
        A row for each kind, and columns `flips`, `refused`, `harmless` and `silent`.
    """
    drawn, choices = random.Random(seed), files_of(results)
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        if (results / RECORDS).is_dir():  # jobs recorded the checksum of the file that names the best experiment
            shutil.copytree(results / RECORDS / "consolidate", Path(folder) / RECORDS / "consolidate")
        for _ in range(n):
            kind, path, schema = drawn.choice(choices)
            data = bytearray(path.read_bytes())
            bit = drawn.randrange(8 * len(data))
            data[bit // 8] ^= 1 << (bit % 8)
            damaged = Path(folder) / path.relative_to(results)
            damaged.parent.mkdir(parents=True, exist_ok=True)
            damaged.write_bytes(data)
            try:
                found = "harmless" if content(damaged, schema) == content(path, schema) else "silent"
            except UserError:
                found = "refused"
            counts.setdefault(kind, Counter())[found] += 1
    table = pd.DataFrame(counts).T.reindex(columns=["refused", "harmless", "silent"]).fillna(0).astype(int)
    table.insert(0, "flips", table.sum(axis=1))
    return table


def files_of(results: Path) -> list[tuple[str, Path, type | None]]:
    """Return kind, path and schema of every file of a study that later jobs or users read."""
    return [(kind, path, schema) for kind, (pattern, schema) in KINDS.items() for path in sorted(results.glob(pattern))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of a finished study, such as results/sandbox")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = flip_bits(options.results, options.flips, options.seed)
    table.loc["all"] = table.sum()
    print(table.to_markdown())


if __name__ == "__main__":
    main()

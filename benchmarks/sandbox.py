"""Summary of a finished run of the default study, as Markdown.

    PYTHONPATH=src python benchmarks/sandbox.py results/sandbox

Prints training times, the accuracy of the unpruned models, the mean accuracy of each method at each ratio, and the
times of the jobs.
"""

import sys
from pathlib import Path

import pandas as pd

from espalier.files import read_json, read_parquet


def seconds(results: Path, rule: str) -> list[float]:
    """Return the wall time of each job of a rule."""
    files = (results / "benchmarks" / rule).rglob("*.tsv")
    return [float(pd.read_csv(path, sep="\t").s.iloc[0]) for path in files]


def unpruned(results: Path) -> str:
    rows = []
    for path in sorted(results.glob("baseline/*/metrics.json")):
        metrics = read_json(path)
        trained = results / f"benchmarks/train_sandbox_model/{metrics['model']}.tsv"
        accuracies = {name: task["metrics"]["acc"]["value"] for name, task in metrics["tasks"].items()}
        rows.append(
            {
                "model": metrics["model"], "parameters": metrics["n_params"],
                "training (s)": pd.read_csv(trained, sep="\t").s.iloc[0], "mean": metrics["acc_mean"]["value"],
                "lowest task": f"{min(accuracies, key=accuracies.__getitem__)} {min(accuracies.values()):.3f}",
            }
        )  # fmt: skip
    return pd.DataFrame(rows).to_markdown(index=False, floatfmt=".3f")


def pruned(experiments: pd.DataFrame) -> str:
    """Return a table of the mean accuracy over settings, for each model, ratio and method."""
    rows = experiments[experiments.experiment != "baseline"]
    means = rows.pivot_table(index=["model", "pruning_ratio"], columns="method", values="acc_mean", aggfunc="mean")
    return means.reset_index().to_markdown(index=False, floatfmt=".3f")


def main() -> None:
    results = Path(sys.argv[1])
    print(unpruned(results))
    print()
    print(pruned(read_parquet(results / "consolidated/experiments.parquet").to_pandas()))
    print()
    rules = ("train_sandbox_model", "collect_gradients", "measure_priors", "plan", "evaluate", "evaluate_baseline")
    for rule in rules:
        times = seconds(results, rule)
        print(f"- `{rule}`: {len(times)} jobs, {sum(times):.0f} s in all, longest {max(times):.1f} s")


if __name__ == "__main__":
    main()

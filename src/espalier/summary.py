"""Print what a run found: `python -m espalier.summary results/{study}`."""

from __future__ import annotations

import sys
from pathlib import Path

from tabulate import tabulate

from espalier.errors import UserError
from espalier.evaluation.metrics import task_accuracy
from espalier.files import read_json


def summarise(results: Path) -> str:
    """Return a table of the unpruned models of a study: accuracy of each task, their mean, and perplexities.

    Raises:
        UserError: If the study has no results yet.
    """
    files = sorted(results.glob("baseline/*/metrics.json"))
    if not files:
        raise UserError(f"{results}: no results yet; run snakemake first")
    rows = []
    for file in files:
        metrics = read_json(file)
        rule = metrics["acc_mean"]["rule"]
        row: dict[str, object] = {"model": metrics["model"], "parameters": metrics["n_params"]}
        row["acc_mean"] = metrics["acc_mean"]["value"]
        row |= {name: task_accuracy(task["metrics"], rule) for name, task in metrics["tasks"].items()}
        row |= {f"ppl {name}": round(text["value"], 2) for name, text in metrics["perplexity"].items()}
        rows.append(row)
    title = f"Unpruned models of study {results.name!r} (accuracy; ppl: perplexity)"
    table = tabulate(rows, headers="keys", floatfmt=".3f", intfmt=",")
    return f"{title}\n\n{table}\n\nEverything is under {results}/: baseline/, logs/, benchmarks/."


def main() -> None:
    """Print the summary of the study whose folder is the first argument."""
    try:
        text = summarise(Path(sys.argv[1]))
    except UserError as error:
        raise SystemExit(str(error)) from None
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()

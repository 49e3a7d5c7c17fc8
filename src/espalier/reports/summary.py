"""Print a summary of the results of a study: `python -m espalier.reports.summary results/{study}`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from espalier.errors import UserError
from espalier.files import read_json

HEADERS = ("model", "best experiment", "accuracy", "unpruned", "lost", "ppl", "unpruned ppl", "parameters kept")


def summarise_study(results: Path) -> str:
    """Return a text table with the best experiment of each model at the headline ratio and its accuracy loss.

    Raises:
        UserError: If the study has no results yet.
    """
    files = sorted(results.glob("consolidated/*/global_best_config.json"))
    if not files:
        raise UserError(f"{results}: no results yet; run snakemake first")
    best_configs = [read_json(file) for file in files]
    ratios = sorted({f"{100 * best['pruning_ratio']:.10g}%" for best in best_configs if best["pruning_ratio"]})
    rows = [_model_row(best) for best in best_configs]
    lines = [
        f"Best experiment of each model of study {results.name!r} at {' and '.join(ratios)} of the parameters removed",
        "(accuracy: mean over the tasks; one run each, differences of a point or two are noise)",
        "",
        tabulate(rows, headers=HEADERS, floatfmt=(*[".3f"] * 7, ".1%"), missingval="-"),
        *_not_finished(results),
        "",
        f"Reports:  {results}/reports/index.html, and a page for all models and each model that it links",
        f"Tables:   {results}/consolidated/experiments.parquet, evaluations.parquet, layers.parquet",
    ]
    return "\n".join(lines)


def _not_finished(results: Path) -> list[str]:
    """Return lines on unchecked models and failed jobs, from the cross-model analysis; none if there are none."""
    path = results / "reports/cross_model/analysis_summary.json"
    summary = read_json(path) if path.exists() else {}
    unchecked = [
        f"{one['model']}: could not be checked: {one['reason']}" for one in summary.get("models_not_checked", [])
    ]
    failed = [f"failed: {one['job']}: {one['reason']}" for one in summary.get("failed_jobs", [])]
    return ["", *unchecked, *failed] if unchecked or failed else []


def _model_row(best: dict[str, Any]) -> list[Any]:
    chosen, baseline = best["best"] or {}, best["baseline"] or {}
    lost = best["best_vs_baseline"]["acc_mean_difference"]
    kept = chosen.get("removed_param_fraction")
    return [
        best["model"],
        chosen.get("experiment", "none is valid"),
        chosen.get("acc_mean"),
        baseline.get("acc_mean"),
        None if lost is None else -lost,
        chosen.get("ppl"),
        baseline.get("ppl"),
        None if kept is None else 1 - kept,
    ]


def main() -> None:
    """Print the summary of the study whose folder is the first argument."""
    try:
        text = summarise_study(Path(sys.argv[1]))
    except UserError as error:
        raise SystemExit(str(error)) from None
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()

"""Print a summary of the results of a study: `python -m espalier.reports.summary results/{study}`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from espalier.errors import UserError
from espalier.files import read_json, read_table
from espalier.results.verify import read_best_experiment

HEADERS = ("model", "best experiment", "accuracy", "unpruned", "kept", "ppl", "unpruned ppl", "parameters kept")


def summarise_study(results: Path) -> str:
    """Return a table with the best experiment of each model at the headline ratio, and what each method keeps.

    Raises:
        UserError: If the study has no results yet.
    """
    cross_model = _cross_model(results)
    files = _best_config_files(results, cross_model)
    if not files:
        raise UserError(f"{results}: no results yet; run snakemake first")
    best_configs = [read_best_experiment(file) for file in files]
    ratios = sorted({f"{100 * best['pruning_ratio']:.10g}%" for best in best_configs if best["pruning_ratio"]})
    rows = [_model_row(best) for best in best_configs]
    lines = [
        f"Best experiment of each model of study {results.name!r} at {' and '.join(ratios)} of the parameters removed",
        "(accuracy: mean over the tasks; kept: divided by the accuracy of the unpruned model)",
        "",
        tabulate(rows, headers=HEADERS, floatfmt=(*[".3f"] * 4, ".1%", ".3f", ".3f", ".1%"), missingval="-"),
        *_kept_by_method(cross_model),
        *_not_finished(cross_model),
        "",
        f"Reports:  {results}/reports/index.html, which links all pages",
        f"Tables:   {results}/reports/experiments.parquet, {results}/consolidated/",
    ]
    return "\n".join(lines)


def _best_config_files(results: Path, cross_model: dict[str, Any]) -> list[Path]:
    """Return the files of the models of the study, whose experiments the table has.

    Folders of other models may be left from an earlier config, and those of models that could not be checked from an
    earlier run.
    """
    table = results / "consolidated/experiments.parquet"
    models = set(read_table(table)["model"]) if table.exists() else set()
    models -= {one["model"] for one in cross_model.get("models_not_checked", [])}
    found = sorted(results.glob("consolidated/*/global_best_config.json"))
    return [file for file in found if file.parent.name in models]


def _cross_model(results: Path) -> dict[str, Any]:
    """Return the cross-model analysis; nothing if it has not been made."""
    path = results / "reports/cross_model/analysis_summary.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found


def _kept_by_method(summary: dict[str, Any]) -> list[str]:
    """Return a line with the accuracy that each method keeps, mean over the models; none if that is not known."""
    compared = summary.get("comparisons") or {"measure": None}
    if compared["measure"] != "kept":
        return []
    means = ", ".join(f"{name} {one['mean']:.1%}" for name, one in compared["kept"].items())
    return ["", f"Accuracy kept, mean over {len(compared['models'])} models: {means}"] if means else []


def _not_finished(summary: dict[str, Any]) -> list[str]:
    """Return lines on unchecked models and failed jobs, from the cross-model analysis; none if there are none."""
    unchecked = [
        f"{one['model']}: could not be checked: {one['reason']}" for one in summary.get("models_not_checked", [])
    ]
    failed = [f"failed: {one['job']}: {one['reason']}" for one in summary.get("failed_jobs", [])]
    return ["", *unchecked, *failed] if unchecked or failed else []


def _model_row(best: dict[str, Any]) -> list[Any]:
    chosen, baseline = best["best"] or {}, best["baseline"] or {}
    removed = chosen.get("removed_param_fraction")
    return [
        best["model"],
        chosen.get("experiment", "none is valid"),
        chosen.get("acc_mean"),
        baseline.get("acc_mean"),
        best["best_vs_baseline"]["acc_kept"],
        chosen.get("ppl"),
        baseline.get("ppl"),
        None if removed is None else 1 - removed,
    ]


def main() -> None:
    """Print the summary of the study whose folder is the first argument."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m espalier.reports.summary results/STUDY\n")
        raise SystemExit(2)
    try:
        text = summarise_study(Path(sys.argv[1]))
    except UserError as error:
        raise SystemExit(str(error)) from None
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()

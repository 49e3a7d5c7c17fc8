"""Generate the data dictionary, `docs/results.md`, from the table schemas.

`python -m tools.data_dictionary` writes it. A test fails and shows the difference when it is stale.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from espalier import tables

PAGE = Path(__file__).resolve().parents[1] / "docs/results.md"
BEGIN, END = "<!-- tables: generated, do not edit -->", "<!-- end of tables -->"
# Title of the section, path under results/{study}/, and schema.
DOCUMENTED = (
    ("Importance of groups", "importance/{model}/{criterion}/{calibration}/seq{L}.parquet", tables.Importance),
    ("Gradient statistics", "gradients/{model}/{calibration}/seq{L}.parquet", tables.GradientStatistics),
    ("Priors", "priors/{model}/{calibration}/seq{L}.parquet", tables.PriorTable),
    ("Imported results", "legacy/{model}/{search_folder}.parquet", tables.ImportedValues),
    ("Samples", "baseline/{model}/samples.parquet, experiments/{model}/{experiment}/samples.parquet", tables.Samples),
    (
        "Answers to generative tasks",
        "baseline/{model}/generations.parquet, experiments/{model}/{experiment}/generations.parquet",
        tables.Generations,
    ),
    (
        "Experiments",
        "consolidated/experiments.parquet; one model: consolidated/{model}/all_methods_results.parquet, .csv",
        tables.Experiments,
    ),
    ("Analysed experiments", "reports/experiments.parquet", tables.AnalysedExperiments),
    ("Draws of the bootstrap", "reports/{model}/draws.parquet", tables.Draws),
    ("Evaluations", "consolidated/evaluations.parquet", tables.Evaluations),
    ("Layers", "consolidated/layers.parquet", tables.Layers),
    ("Recovered experiments", "consolidated/recovery.parquet", tables.RecoveredExperiments),
)


def insert_tables(page: str) -> str:
    """Return a page with the generated part inserted between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    parts = "\n\n".join(_table(title, path, schema) for title, path, schema in DOCUMENTED)
    return f"{before}{BEGIN}\n\n{parts}\n\n{END}{after}"


def _table(title: str, path: str, model: Any) -> str:
    rows = [
        f"| `{_name(name)}` | {column.dtype} | {_cell(_unit(model, _name(name)))} "
        f"| {'yes' if column.nullable else 'no'} | {_cell(column.description)} |"
        for name, column in model.to_schema().columns.items()
    ]
    head = ["| column | type | unit | may be null | meaning |", "|---|---|---|---|---|"]
    return "\n".join([f"## {title}", "", f"`{path}`", "", inspect.cleandoc(model.__doc__ or ""), "", *head, *rows])


def _unit(model: Any, name: str) -> str:
    return "ratios: 1; ranges: nats per unit of weight" if name == "grad_*" else tables.unit_of(model, name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _name(column: str) -> str:
    """Return a readable name for a column pattern: `ppl_*` for `^ppl_.+`."""
    return re.sub(r"\(\?!.*?\)", "", column).removeprefix("^").replace(".+", "*")


def main() -> None:
    """Write the generated part of `docs/results.md`."""
    PAGE.write_text(insert_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Print what a race would have cost on a finished study: `python -m espalier.analysis.race_replay results/{study}`.

Races are run on the answers of the full grid, with many document orders. For each model and pruning ratio, the table
has the number of races that kept what they promise, and their token cost as a share of the full grid's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from espalier.analysis.evidence import correctness_of
from espalier.analysis.selection import ModelRows, is_raced, rows_of, valid_rows
from espalier.errors import UserError
from espalier.evaluation.document_cost import tokens_per_document
from espalier.evaluation.racing import RaceRules
from espalier.evaluation.replay import Replay, promised_experiments, race_tasks, replay
from espalier.evaluation.tokenised_requests import read_requests
from espalier.files import read_table
from espalier.recipe import read_samples
from espalier.statistics.correctness import Correctness
from espalier.statistics.rungs import RUNGS

HEADERS = (
    "model", "ratio", "experiments", "races", "promise kept", "cost (mean)", "cost (5% to 95%)", "live at the end",
)  # fmt: skip


def replay_study(
    results: Path, rules: RaceRules, *, n_orders: int, models: Sequence[str] = ()
) -> Iterator[tuple[str, float, Replay]]:
    """Replay the races of a finished study.

    Args:
        results: Folder of the results of the study.
        rules: Rules of the races.
        n_orders: Number of document orders of each race.
        models: Models to replay; all if empty.

    Yields:
        Model, pruning ratio and replay. A ratio with fewer than two valid experiments is left out.

    Raises:
        UserError: If there are no results, if no model or one of `models` has results of single documents, or if a
            model was raced.
    """
    tables = [results / "consolidated" / name for name in ("experiments.parquet", "evaluations.parquet")]
    if not all(table.is_file() for table in tables):
        raise UserError(f"{results}: has no consolidated tables; run snakemake first")
    experiments, evaluations = map(read_table, tables)
    known = list(dict.fromkeys(experiments["model"]))
    if unknown := [name for name in models if name not in known]:
        raise UserError(f"{results}: has no model {unknown[0]!r}; its models are {', '.join(known)}")
    imported = [name for name in known if _is_imported(results, experiments, name)]
    computed = [name for name in known if name not in imported]
    for name in imported if computed and not models else ():
        sys.stderr.write(f"model {name}: imported results have no single documents, so they are left out\n")
    for name in models or computed or imported:
        if name in imported:
            raise UserError(f"model {name}: a race is impossible, because imported results have no single documents")
        model = rows_of(experiments, name)
        if is_raced(model.experiments):
            raise UserError(
                f"model {name}: it was raced, so some experiments have not answered all documents; remove "
                "evaluation.racing and run snakemake, which answers the others"
            )
        evaluated = evaluations[evaluations["model"] == name]
        tokens = tokens_per_document(read_requests(results / "requests" / f"{name}.parquet").requests)
        for ratio in model.ratios:
            rows = valid_rows(model.at(ratio), controls=True)
            if len(valid_rows(model.at(ratio))) < 2:
                continue
            documents = _documents(results, model, evaluated, [str(one) for one in rows["experiment"]])
            candidates = [str(one) for one in valid_rows(model.at(ratio))["experiment"]]
            controls = sorted(set(documents.experiments) - set(candidates))
            yield name, float(ratio), replay(
                documents, race_tasks(documents, tokens), rules, n_orders=n_orders, controls=controls,
                promised=promised_experiments(documents, rules, candidates),
            )  # fmt: skip


def table_of(replays: Iterator[tuple[str, float, Replay]]) -> str:
    """Return the text table of replays, with a last line for all of them."""
    rows: list[list[Any]] = []
    costs, kept, n_races = [], 0, 0
    for model, ratio, found in replays:
        low, high = np.quantile(found.cost, [0.05, 0.95])
        kept_here = f"{found.kept} ({found.kept / found.n_orders:.1%})"
        spread, live = f"{low:.2f} to {high:.2f}", f"{found.live[:, -1].mean():.1f}"
        n_experiments, mean = len(found.experiments), f"{found.cost.mean():.2f}"
        rows.append([model, f"{ratio:g}", n_experiments, found.n_orders, kept_here, mean, spread, live])
        costs.append(found.cost.mean())
        kept, n_races = kept + found.kept, n_races + found.n_orders
    if not rows:
        raise UserError("no ratio has two valid experiments, so there is nothing to race")
    rows.append(["all", "", "", n_races, f"{kept} ({kept / n_races:.1%})", f"{np.mean(costs):.2f}", "", ""])
    return tabulate(rows, headers=HEADERS, disable_numparse=True)


def _is_imported(results: Path, experiments: pd.DataFrame, model: str) -> bool:
    sources = experiments.loc[experiments["model"] == model, "source"]
    return bool((sources != "run").any()) or not (results / "requests" / f"{model}.parquet").is_file()


def _documents(results: Path, model: ModelRows, evaluated: Any, names: Sequence[str]) -> Correctness:
    files = {name: results / "experiments" / model.model / name / "samples.parquet" for name in names}
    documents = correctness_of(model, evaluated, {name: partial(read_samples, file) for name, file in files.items()})
    if documents is None:
        raise UserError(f"model {model.model}: the groups of its tasks cannot be determined, so it cannot be raced")
    return documents.with_whole_groups()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m espalier.analysis.race_replay",
        description="Replay races on the answers of a finished study with random document orders.",
    )
    parser.add_argument("results", type=Path, help="folder of the results, such as results/sandbox")
    parser.add_argument("--keep", choices=("best", "set", "comparisons"), default="best", help="what races promise")
    parser.add_argument("--confidence", type=float, default=0.99, help="probability of the promise")
    parser.add_argument("--rungs", type=float, nargs="+", default=RUNGS, help="shares of the token cost; the last is 1")
    parser.add_argument("--half-width", type=float, help="for comparisons: half-width of 95%% intervals after rung 1")
    parser.add_argument("--orders", type=_positive, default=1_000, help="document orders for each model and ratio")
    parser.add_argument("--models", nargs="+", default=(), help="models to replay; default: all")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> None:
    """Print the table of the study that the arguments name."""
    given = _arguments(words)
    try:
        rules = RaceRules(given.keep, given.confidence, tuple(given.rungs), given.half_width)
        text = table_of(replay_study(given.results, rules, n_orders=given.orders, models=given.models))
    except UserError as error:
        raise SystemExit(str(error)) from None
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

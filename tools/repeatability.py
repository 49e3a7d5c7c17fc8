"""Compare two runs of one study, for example with other cores or batch sizes, or on another machine.

    PYTHONPATH=src python -m tools.repeatability results/sandbox elsewhere/results/sandbox

Plans are compared group by group (`tools.plan_differences`). For experiments whose plans are equal, the largest
difference of the results is reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from espalier.errors import UserError
from espalier.files import read_json, read_parquet, read_table
from espalier.models.sizes import ModelStructure
from espalier.planning.criteria import CRITERIA
from espalier.planning.make import scored_groups
from espalier.planning.plan import Plan
from tools.plan_differences import PlanDifference, compare_plans

KEYS = ["model", "experiment"]


@dataclass(frozen=True)
class StudyDifference:
    """Result of the comparison of two runs of a study.

    Attributes:
        plans: Difference of each pair of plans, by (model, experiment).
        results: Largest difference over the experiments with equal plans: `acc` (accuracies, absolute) and `ppl`
            (perplexities, relative).
        n_compared: Number of experiments with equal plans, including baselines and imported experiments.
    """

    plans: dict[tuple[str, str], PlanDifference]
    results: dict[str, float]
    n_compared: int


def compare_studies(first: Path, second: Path) -> StudyDifference:
    """Compare the results folders of two runs of one study.

    Raises:
        UserError: If the folders do not have the same experiments, or a plan is missing in the second.
    """
    tables = [_results(folder) for folder in (first, second)]
    if set(tables[0].index) != set(tables[1].index):
        raise UserError(f"{first} and {second} hold different experiments; give two runs of one study")
    plans = dict(_plan_differences(first, second, tables[0]))
    equal = [key for key in tables[0].index if key not in plans or not plans[key].n_differing]
    one, other = (table.loc[equal].select_dtypes("number") for table in tables)
    accuracies, perplexities = (list(one.filter(regex=f"^{kind}_")) for kind in ("acc", "ppl"))
    results = {
        "acc": _largest(one[accuracies] - other[accuracies]),
        "ppl": _largest(one[perplexities] / other[perplexities] - 1),
    }
    return StudyDifference(plans, results, len(equal))


def _plan_differences(
    first: Path, second: Path, experiments: pd.DataFrame
) -> Iterator[tuple[tuple[str, str], PlanDifference]]:
    """Compare the plans of the experiments in the table. The folders may also have plans of an earlier grid."""
    for model, name, calibration in experiments.reset_index()[[*KEYS, "calibration"]].itertuples(index=False):
        path, twin = (folder / f"experiments/{model}/{name}/plan.json" for folder in (first, second))
        if not path.exists():
            continue  # unpruned models and imported experiments have no plan
        if not twin.exists():
            raise UserError(f"{twin} is missing; give two runs of one study, both finished")
        plan = read_json(path)
        structure = ModelStructure.from_dict(read_json(first / f"models/{model}.json")["structure"])
        settings = plan["recipe"]["settings"]
        calibration_set = f"{calibration}/seq{settings['seq_len']}.parquet"
        importance = _importance(first / "importance" / model, settings["method"]["criterion"], calibration_set)
        has_priors = settings["method"]["scope"] != "none"
        priors = read_parquet(first / "priors" / model / calibration_set) if has_priors else None
        groups, scores, _ = scored_groups(structure, settings, importance, priors)
        yield (
            (model, name),
            compare_plans(Plan.from_dict(plan), Plan.from_dict(read_json(twin)), groups, scores),
        )


def _importance(folder: Path, criterion: str, calibration_set: str) -> pa.Table | None:
    """Read the importances that a plan was made from; return None for a criterion that does not read the model."""
    if not CRITERIA[criterion].reads_model:
        return None
    reads_text = CRITERIA[criterion].reads_text
    return read_parquet(folder / criterion / calibration_set if reads_text else folder / f"{criterion}.parquet")


def _largest(differences: pd.DataFrame) -> float:
    return float(np.nanmax(np.abs(differences.to_numpy(dtype=float)), initial=0.0))


def _results(results: Path) -> pd.DataFrame:
    return read_table(results / "consolidated/experiments.parquet").set_index(KEYS)


def describe(difference: StudyDifference) -> str:
    """Return a summary of the differences, a few lines of text."""
    plans = difference.plans.values()
    differing = [plan for plan in plans if plan.n_differing]
    n_differing, n_groups = sum(plan.n_differing for plan in differing), sum(plan.n_groups for plan in plans)
    largest = f"an accuracy {difference.results['acc']:.2g}, of a perplexity {difference.results['ppl']:.2g} relative"
    lines = [
        f"{len(plans)} plans, {len(differing)} of which differ: {n_differing} of {n_groups} groups",
        f"experiments of equal plans: {difference.n_compared}; largest difference of {largest}",
    ]
    if differing:
        lines.insert(1, f"farthest from the threshold: {max(plan.farthest for plan in differing):.2g} relative")
    return "\n".join(lines)


def main() -> None:
    """Compare the two folders named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("first", type=Path, help="results of a study, results/{study}")
    parser.add_argument("second", type=Path, help="results of another run of it")
    arguments = parser.parse_args()
    print(describe(compare_studies(arguments.first, arguments.second)))  # noqa: T201 (a command-line tool)


if __name__ == "__main__":
    main()

"""Share of simulated studies that print a false sentence: `python benchmarks/false_sentences.py [studies]`.

The truth of a study is the population of documents; its grid and its models are fixed. A document is answered correctly
if  level + shared + own > 0,  where `shared` is the same for all experiments and models, `own` is independent, and both
are standard normal. The true accuracy is then Phi(level / sqrt(2)), exactly.

A study is wrong if any sentence of any page is: an interval that misses its true difference, a difference of the wrong
sign, an experiment outside the set that is as good as the best, or a relation of accuracy with a metric, because the
metrics are drawn at random.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from espalier.analysis.base_vs_instruct import pair_on_settings
from espalier.analysis.comparisons import compare_within_model
from espalier.analysis.cross_model import analyse_study
from espalier.analysis.evidence import Evidence
from espalier.analysis.model import analyse_model
from espalier.analysis.selection import rows_of
from espalier.analysis.study_comparisons import compare_over_models
from espalier.naming import ratio_key
from espalier.statistics.bootstrap import Bootstrap, bootstrap
from espalier.statistics.correctness import Correctness, TaskDocuments

MODELS = {"A": ("F", "base"), "AI": ("F", "instruct"), "B": ("G", "base"), "BI": ("G", "instruct")}
METHODS = ("x", "y", "z")
RATIOS = (0.2, 0.5)
SCENARIOS = ("all experiments equal", "one method better, the others equal", "all experiments different")


def grid() -> pd.DataFrame:
    """Return the experiments of one model: three methods, two lengths and sample counts, a control, two ratios."""
    settings = [(length, count) for length in (16, 64) for count in (32, 128)]
    rows: list[dict[str, Any]] = [{"experiment": "baseline", "method": None, "criterion": None, "pruning_ratio": 0.0}]
    for ratio in RATIOS:
        rows += [
            {
                "experiment": f"{method}-{length}-{count}-{ratio}", "method": method, "criterion": "taylor",
                "pruning_ratio": ratio, "taylor_seq_len": length, "taylor_num_samples": count, "calibration": "c-s0",
            }
            for method in METHODS
            for length, count in settings
        ]  # fmt: skip
        rows.append(
            {"experiment": f"random-{ratio}", "method": "random", "criterion": "random", "pruning_ratio": ratio}
        )
    return pd.DataFrame(rows)


def true_accuracies(scenario: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the true accuracy of each experiment, in the order of `grid`, by model."""
    frame, found = grid(), {}
    for model in MODELS:
        level = np.full(len(frame), 0.6)
        if scenario == SCENARIOS[1]:
            level[frame["method"] == "x"] += 0.4
        elif scenario == SCENARIOS[2]:
            level += rng.normal(0, 0.1, len(frame))
        found[model] = level
    return found


def simulate(scenario: str, n_documents: int, n_draws: int, seed: int) -> list[str]:
    """Analyse one simulated study; return what is false on its pages."""
    rng = np.random.default_rng(seed)
    levels = true_accuracies(scenario, rng)
    names = tuple(grid()["experiment"])
    shared = rng.normal(size=(2, n_documents))
    tables, draws, truth = [], {}, {}
    for model, (family, kind) in MODELS.items():
        level = levels[model][:, None]
        right = [level + shared[task] + rng.normal(size=(len(names), n_documents)) > 0 for task in range(2)]
        parts = tuple(TaskDocuments(task, 0.5, matrix) for task, matrix in zip("ab", right, strict=True))
        draws[model] = bootstrap(Correctness(names, parts, "simulated"), seed=seed, n_draws=n_draws)
        accuracy = np.asarray(stats.norm.cdf(levels[model] / np.sqrt(2)))
        truth[model] = Bootstrap(names, accuracy, np.tile(accuracy, (2, 1)), "documents", "truth")
        metrics = {"ppl_text": rng.normal(10, 1, len(names)), "extreme_pruning_layers": rng.integers(0, 9, len(names))}
        tables.append(
            grid().assign(
                study="s", model=model, family=family, kind=kind, status="ok", acc_mean=draws[model].accuracy,
                acc_mean_rule="acc", acc_a=right[0].mean(axis=1), acc_b=right[1].mean(axis=1), n_params=100,
                removed_param_fraction=0.5, source="run", grad_norm_ratio=rng.normal(size=len(names)), **metrics,
            )
        )  # fmt: skip
    experiments = pd.concat(tables, ignore_index=True)
    return list(_false_sentences(experiments, draws, truth))


def _false_sentences(
    experiments: pd.DataFrame, draws: Mapping[str, Bootstrap], truth: Mapping[str, Bootstrap]
) -> Iterator[str]:
    analyses = {}
    for model in MODELS:
        found = analyse_model(
            experiments, model, headline_ratio=None, evidence=Evidence(draws[model], None, {}, None),
            n_models=len(MODELS),
        )  # fmt: skip
        analyses[model] = found
        rows = rows_of(experiments, model)
        true = compare_within_model(rows, Evidence(truth[model], None, {}, None), level=0.95)
        accuracy = dict(zip(truth[model].experiments, truth[model].accuracy, strict=True))
        for key, one in found["by_ratio"].items():
            yield from _wrong_differences(f"{model} {key}", one["comparisons"], true[key])
            chosen = one["uncertainty"]["set"]
            outside = set(one["results"]) - set(chosen["simultaneous_members"]) - {f"random-{one['pruning_ratio']}"}
            worse = [accuracy[name] < accuracy[chosen["best"]] for name in outside]
            yield from [] if all(worse) else [f"{model} {key}: outside the set, but as good as the best"]
            metrics = [*one["gradient_correlations"].values(), one["ppl_accuracy"], one["extreme_layers"]]
            yield from [f"{model} {key}: relation shown" for metric in metrics if metric["statements"]]
    summary = analyse_study(experiments, analyses=analyses, draws=draws)
    models = [rows_of(experiments, model) for model in MODELS]
    pairs = {}
    for ratio in RATIOS:
        ends = [pair_on_settings(models[0], models[1], ratio), pair_on_settings(models[2], models[3], ratio)]
        pairs[ratio_key(ratio)] = [pair for pair in ends if pair is not None]
    true = compare_over_models(models, truth, pairs, level=0.95)
    for key, one in summary["by_ratio"].items():
        found, right = one["comparisons"], true[key]
        yield from _wrong_differences(f"all {key}", found, right)
        for group, true_group in zip(found["groups"], right["groups"], strict=True):
            yield from _wrong_differences(f"{group['by']} {group['value']} {key}", group, true_group)
        right_pairs = {(one["first"], one["second"]): one["difference"] for one in right["ranking"]["differences"]}
        for between in found["ranking"]["differences"]:
            pair = between["first"], between["second"]
            true_difference = right_pairs[pair] if pair in right_pairs else -right_pairs[pair[::-1]]
            yield from _wrong(f"models {key}: {pair[0]} - {pair[1]}", between, {"difference": true_difference})
        for family, kinds in found["base_vs_instruct"].items():
            yield from _wrong(f"kinds of {family} {key}", kinds, right["base_vs_instruct"][family])


def _wrong_differences(where: str, found: Mapping[str, Any], true: Mapping[str, Any]) -> Iterator[str]:
    for one, right in zip(found["differences"], true["differences"], strict=True):
        yield from _wrong(f"{where}: {one['first']} - {one['second']}", one, right)


def _wrong(where: str, one: Mapping[str, Any], true: Mapping[str, Any]) -> Iterator[str]:
    low, high = one["interval"]
    if not low - 1e-12 <= true["difference"] <= high + 1e-12:
        yield f"{where}: true {true['difference']:.4f} outside {low:.4f} to {high:.4f}"
    elif one["differs"] and one["difference"] * true["difference"] <= 0:
        yield f"{where}: wrong sign"


def main() -> None:
    """Print the share of studies with a false sentence, by scenario and number of documents."""
    n_studies = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for scenario in SCENARIOS:
        for n_documents in (40, 200):
            wrong = [bool(simulate(scenario, n_documents, 2_000, seed)) for seed in range(n_studies)]
            print(f"{scenario}, {n_documents} documents a task: {np.mean(wrong):.1%} of {n_studies} studies")


if __name__ == "__main__":
    main()

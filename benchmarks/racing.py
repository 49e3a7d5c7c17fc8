"""Simulated races: how often a race keeps its promise, and what share of the full grid's token cost it takes.

    PYTHONPATH=src .venv/bin/python benchmarks/racing.py [--studies 400] [--scenarios equal Llama] [--rungs 0.05 0.2 1]

A simulated study has 45 experiments and the seven tasks with their real numbers of documents and the tokens of a
document of Llama-3-8B's tokenizer. The answers of two experiments to a document are correlated (`--correlations`).
Scenarios:

    equal                   all experiments are equally good
    winner                  one is better than the others, which are equally good, by 3 points
    Llama, Qwen, Mistral    accuracies as in the published runs: three methods of 15 experiments with the published
                            mean, standard deviation, smallest and largest accuracy, and the best experiment's tasks

`--critical` computes how much a bound without Bonferroni's correction could gain: the exact critical value of normal
errors, for 45 experiments with equal correlations.
"""

from __future__ import annotations

import argparse
import time
from statistics import NormalDist

import numpy as np

from espalier.evaluation.racing import Keep, Race, RaceRules, RaceTask
from espalier.evaluation.replay import replay
from espalier.statistics.correctness import Correctness, TaskDocuments
from espalier.statistics.rungs import RUNGS
from espalier.statistics.set_margin import SET_LEVEL
from espalier.statistics.validation import FloatArray

SEVEN = {
    "boolq": (3270, 140.0), "piqa": (1838, 54.0), "hellaswag": (10042, 174.0), "winogrande": (1267, 38.0),
    "arc_easy": (2376, 44.0), "arc_challenge": (1172, 51.0), "openbookqa": (500, 23.0),
}  # fmt: skip
"""Documents of each task, and tokens per document."""
TASKS = [RaceTask(name, n, 1 / len(SEVEN), tokens) for name, (n, tokens) in SEVEN.items()]
NAMES = tuple(f"e{index:02d}" for index in range(45))
BEST = {
    "Llama": (0.7324, 0.7301, 0.6476, 0.6953, 0.5981, 0.3968, 0.3860),
    "Qwen": (0.7618, 0.7465, 0.6579, 0.6259, 0.6940, 0.4505, 0.3760),
    "Mistral": (0.6875, 0.7693, 0.6377, 0.6440, 0.6503, 0.3959, 0.3780),
}
"""Accuracies of the best experiment of each published model, by task."""
METHODS = {
    "Llama": ((0.5821, 0.0172, 0.5493, 0.5980), (0.5323, 0.0345, 0.4783, 0.5713), (0.5412, 0.0515, 0.4342, 0.5803)),
    "Qwen": ((0.5098, 0.0471, 0.4321, 0.5689), (0.5849, 0.0213, 0.5444, 0.6161), (0.5903, 0.0126, 0.5615, 0.6096)),
    "Mistral": ((0.5060, 0.0469, 0.4358, 0.5947), (0.4968, 0.0141, 0.4708, 0.5167), (0.4686, 0.0401, 0.4174, 0.5444)),
}
"""Mean, standard deviation, smallest and largest mean accuracy of each method's 15 experiments."""
SCENARIOS = ("equal", "winner", *METHODS)


def spread(mean: float, std: float, low: float, high: float, generator: np.random.Generator) -> FloatArray:
    """Draw 15 accuracies with this mean and deviation: both ends, and 13 between them from a beta distribution."""
    inner_mean = (15 * mean - low - high) / 13
    squares = (14 * std**2 - (low - mean) ** 2 - (high - mean) ** 2) / 13
    width = high - low
    centre = (inner_mean - low) / width
    variance = float(np.clip((squares - (inner_mean - mean) ** 2) / width**2, 1e-4, 0.98 * centre * (1 - centre)))
    size = centre * (1 - centre) / variance - 1
    return np.r_[low, high, low + width * generator.beta(centre * size, (1 - centre) * size, 13)]


def accuracies(scenario: str, generator: np.random.Generator) -> FloatArray:
    """Return the true accuracy of each experiment on each task, (45, 7)."""
    if scenario not in METHODS:
        lost = np.full(45, 0.03 if scenario == "winner" else 0.0)
        lost[0] = 0.0
        return np.array(BEST["Llama"])[None] - lost[:, None]
    means = np.concatenate([spread(*method, generator) for method in METHODS[scenario]])
    own = generator.normal(0, 0.01, (45, 7))  # experiments do not lose the same on every task
    own -= own.mean(axis=1, keepdims=True)
    return np.clip(np.array(BEST[scenario])[None] + (means - means.max())[:, None] + own, 0.02, 0.98)


def answers(accuracy: FloatArray, correlation: float, generator: np.random.Generator) -> Correctness:
    """Draw all answers of a study. Two normal variables with correlation sin(pi r / 2) give answers with about r."""
    common = float(np.sin(np.pi / 2 * correlation))
    threshold = np.vectorize(NormalDist().inv_cdf)(accuracy).astype(np.float32)
    drawn = []
    for index, task in enumerate(TASKS):
        own = generator.standard_normal((len(NAMES), task.n_documents), dtype=np.float32)
        shared = generator.standard_normal(task.n_documents, dtype=np.float32)
        right = np.sqrt(common) * shared + np.sqrt(1 - common) * own < threshold[:, index : index + 1]
        drawn.append(TaskDocuments(task.name, task.weight, right))
    return Correctness(NAMES, tuple(drawn), "simulated")


def simultaneous_set(study: Correctness) -> list[str]:
    """Return the simultaneous set of a full grid, with a normal approximation of its bootstrap, which takes seconds."""
    joint = sum(
        task.weight**2 / task.n_documents * np.cov(task.correct.astype(np.float32)) for task in study.tasks
    )  # fmt: skip
    errors = np.random.default_rng(1).multivariate_normal(np.zeros(len(NAMES)), joint, 10_000, method="cholesky")
    critical = np.quantile(errors.max(axis=1) - errors.min(axis=1), SET_LEVEL)
    accuracy = study.acc_mean
    return [NAMES[index] for index in np.flatnonzero(accuracy.max() - accuracy <= critical)]


def simulate(scenario: str, correlation: float, rules: RaceRules, n_studies: int) -> str:
    """Race simulated studies and return a row of a Markdown table."""
    generator = np.random.default_rng([SCENARIOS.index(scenario), round(100 * correlation)])
    kept, costs, live, n_promised = 0, [], [], []
    for number in range(n_studies):
        study = answers(accuracies(scenario, generator), correlation, generator)
        best = NAMES[int(study.acc_mean.argmax())]
        promised = simultaneous_set(study) if rules.keep == "set" else [best]
        found = replay(study, TASKS, rules, promised=promised, n_orders=1, first_seed=number)
        kept += found.kept
        costs.append(float(found.cost[0]))
        live.append(int(found.live[0, -1]))
        n_promised.append(len(promised))
    low, high = np.quantile(costs, [0.05, 0.95])
    return (
        f"| {scenario} | {correlation} | {rules.keep} | {kept} of {n_studies} | {np.mean(costs):.3f} | "
        f"{low:.3f} to {high:.3f} | {np.mean(n_promised):.1f} | {np.mean(live):.1f} |"
    )


def critical_values(n_draws: int = 40_000) -> None:
    """Print the critical values of the rule beside the exact ones of normal errors with equal correlations."""
    sizes = Race(NAMES, TASKS, RaceRules()).sizes[:-1]
    n = np.array([task.n_documents for task in TASKS])
    generator = np.random.default_rng(0)
    # The error after a rung is the error after the next one, plus an independent part.
    after = np.vstack([sizes[1:], n])
    parts = np.sqrt(1 / sizes - 1 / after)[:, :, None, None]
    errors = np.zeros((len(TASKS), n_draws, len(NAMES)), dtype=np.float32)
    one, pair = np.zeros(n_draws), np.zeros(n_draws)
    for rung in reversed(range(len(sizes))):
        errors += parts[rung] * generator.standard_normal(errors.shape, dtype=np.float32)
        scale = np.sqrt(2 * (1 / sizes[rung] - 1 / n).sum())
        total = errors.sum(axis=0)
        one = np.maximum(one, (total[:, 1:].max(axis=1) - total[:, 0]) / scale)
        pair = np.maximum(pair, (total.max(axis=1) - total.min(axis=1)) / scale)
    keeps: dict[Keep, FloatArray] = {"best": one, "set": pair}
    for keep, largest in keeps.items():
        used = Race(NAMES, TASKS, RaceRules(keep=keep)).z
        print(f"keep: {keep}: critical value {used:.2f}, exact {np.quantile(largest, 0.99):.2f}")


def main() -> None:
    """Run the simulations and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--correlations", nargs="+", type=float, default=(0.2, 0.5, 0.8))
    parser.add_argument("--keep", nargs="+", choices=("best", "set"), default=("best", "set"))
    parser.add_argument("--rungs", nargs="+", type=float, default=RUNGS)
    parser.add_argument("--critical", action="store_true", help="only compare critical values")
    given = parser.parse_args()
    if given.critical:
        critical_values()
        return
    start = time.monotonic()
    print("| scenario | correlation | keep | promise kept | cost | 5% to 95% | promised | live at the end |")
    print("|---|---|---|---|---|---|---|---|")
    for scenario in given.scenarios:
        for correlation in given.correlations:
            for keep in given.keep:
                rules = RaceRules(keep=keep, rungs=tuple(given.rungs))
                print(simulate(scenario, correlation, rules, given.studies), flush=True)
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()

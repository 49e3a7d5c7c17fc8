"""Comparisons after a race stopped its first experiment: how often are differences between methods false?

    PYTHONPATH=src .venv/bin/python benchmarks/race_stops.py [--studies 2000]

All experiments are equally good, with a correlation of 0.5 between two answers to a document. One task has 4,000
documents. Methods are compared on the documents of the rung that stopped the first experiment, or on all, with
simultaneous intervals at 97.5% (Tukey's studentised range), before and after the division of the error among rungs.
The last columns are the shares of 95% intervals of single accuracies that miss: of all, and of those stopped.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.stats import norm, studentized_range

from espalier.evaluation.racing import Race, RaceRules, RaceTask
from espalier.statistics.levels import after_stopping
from espalier.statistics.rungs import RUNGS
from espalier.statistics.validation import BoolArray

N, CHANCE, CORRELATION, LEVEL = 4_000, 0.6, 0.5, 0.975
MANY = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def first_stop(right: BoolArray, rules: RaceRules) -> tuple[int, int, list[int]]:
    """Return the rung that stops the first experiment (or the last rung), its documents, and who is stopped there."""
    race = Race([str(number) for number in range(len(right))], [RaceTask("task", N, 1.0, 1.0)], rules)
    for rung in range(1, race.n_rungs):
        stopped = race.advance([right[:, race.documents(0, rung)]]).stopped
        if stopped:
            return rung, int(race.sizes[rung - 1, 0]), [int(name) for name in stopped]
    return race.n_rungs, N, []


def simulate(n_methods: int, per_method: int, rungs: tuple[float, ...], n_studies: int) -> str:
    """Simulate studies and return a row of a Markdown table."""
    generator, common = np.random.default_rng(1), np.sin(np.pi / 2 * CORRELATION)
    n, threshold, rules = n_methods * per_method, norm.ppf(CHANCE), RaceRules(rungs=rungs)
    before, after, missed, missed_stopped, n_stopped = 0, 0, 0, 0, 0
    for _ in range(n_studies):
        shared, own = generator.standard_normal(N), generator.standard_normal((n, N))
        right = np.sqrt(common) * shared + np.sqrt(1 - common) * own < threshold
        rung, seen, stopped = first_stop(right, rules)
        means = right[:, :seen].reshape(n_methods, per_method, seen).mean(axis=1)
        largest = max(
            abs(difference.mean()) / difference.std(ddof=1) * np.sqrt(seen)
            for index, one in enumerate(means)
            for difference in (one - other for other in means[:index])
        )
        levels = (LEVEL, after_stopping(LEVEL, rung, len(rungs)))
        critical = [studentized_range.ppf(level, n_methods, 1e6) / np.sqrt(2) for level in levels]
        before, after = before + int(largest > critical[0]), after + int(largest > critical[1])
        accuracy = right[:, :seen].mean(axis=1)
        is_missed = abs(accuracy - CHANCE) > 1.96 * np.sqrt(accuracy * (1 - accuracy) / seen)
        missed += int(is_missed.sum())
        missed_stopped, n_stopped = missed_stopped + int(is_missed[stopped].sum()), n_stopped + len(stopped)
    shares = [before / n_studies, after / n_studies, missed / n_studies / n, missed_stopped / max(1, n_stopped)]
    return f"| {n} | {n_methods} | {len(rungs)} | {n_studies} | " + " | ".join(f"{one:.1%}" for one in shares) + " |"


def main() -> None:
    """Run the simulations and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--studies", type=int, default=2_000)
    n_studies, start = parser.parse_args().studies, time.process_time()
    print("| experiments | methods | rungs | studies | false, 2.5% | false, divided | 95% missed | of stopped |")
    print("|---|---|---|---|---|---|---|---|")
    for n_methods, per_method, share in ((2, 1, 1), (3, 1, 1), (3, 4, 2), (3, 15, 8)):
        for rungs in (RUNGS, MANY):
            print(simulate(n_methods, per_method, rungs, n_studies // share), flush=True)
    print(f"\n{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()

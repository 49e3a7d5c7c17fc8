"""Races on answers for which their assumptions hold least: how often is the promise broken?

    PYTHONPATH=src .venv/bin/python benchmarks/hard_races.py [--orders 2000] [--cases rare left]

The answers of each case are fixed, and only the order of the documents is random. `keep: best`, confidence 0.99:

    equal     100 equal experiments, seven tasks of 300 documents
    near      100 experiments, each with other answers to 1 document in 200 than a common one
    tiny      30 equal experiments, 20 tasks of 5 documents and one of 400
    rare      the best answers 1.6% of a large task alone; 20 others are ahead by one document of a small one
    left      the same on a small scale: 1 document of 400, and rungs that leave a few documents
    clusters  two experiments, of which each answers one half of the documents of a large task
    strata    a group of 57 tasks with 10 to 200 documents; the best is ahead on the smallest of them only
    set       two experiments that differ on 1% of the documents, the second just in the set; `keep: set`
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from espalier.evaluation.racing import RaceRules, RaceTask
from espalier.evaluation.replay import replay
from espalier.statistics.correctness import Correctness, TaskDocuments
from espalier.statistics.rungs import RUNGS
from espalier.statistics.validation import BoolArray

LATE = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0)
Case = tuple[list[RaceTask], list[BoolArray], RaceRules, list[int]]
"""Tasks, answers to each task (n_experiments, n_documents), rules, and the numbers of the promised experiments."""


def _of_best(tasks: list[RaceTask], right: list[BoolArray], rungs: tuple[float, ...] = RUNGS) -> Case:
    accuracy = sum(task.weight * one.mean(axis=1) for task, one in zip(tasks, right, strict=True))
    return tasks, right, RaceRules(rungs=rungs), [int(np.argmax(accuracy))]


def equal(generator: np.random.Generator) -> Case:
    """All answers are right with the same probability."""
    tasks = [RaceTask(f"t{number}", 300, 1 / 7, 30.0) for number in range(7)]
    return _of_best(tasks, [generator.random((100, 300)) < 0.6 for _ in tasks])


def near(generator: np.random.Generator) -> Case:
    """Differences are rare, and go in both directions."""
    tasks = [RaceTask(f"t{number}", 600, 1 / 7, 30.0) for number in range(7)]
    common = [generator.random(600) < 0.6 for _ in tasks]
    return _of_best(tasks, [one ^ (generator.random((100, 600)) < 0.005) for one in common], LATE)


def tiny(generator: np.random.Generator) -> Case:
    """Tiny tasks are complete after the first rung, with a weight as large as that of the other task."""
    tasks = [RaceTask(f"t{number}", 5, 1 / 21, 30.0) for number in range(20)] + [RaceTask("large", 400, 1 / 21, 30.0)]
    return _of_best(tasks, [generator.random((30, task.n_documents)) < 0.6 for task in tasks], LATE)


def rare(_: np.random.Generator) -> Case:
    """The lead of the best shows on few documents, the same ones against all others."""
    tasks = [RaceTask("small", 66, 0.5, 1.0), RaceTask("large", 4000, 0.5, 1.0)]
    small, large = np.zeros((21, 66), dtype=bool), np.zeros((21, 4000), dtype=bool)
    small[1:, 0], large[0, :65] = True, True
    return _of_best(tasks, [small, large], (0.08, 0.2, 0.5, 1.0))


def left(_: np.random.Generator) -> Case:
    """The last documents decide."""
    tasks = [RaceTask("small", 450, 0.5, 0.1), RaceTask("large", 400, 0.5, 1.0)]
    small, large = np.zeros((2, 450), dtype=bool), np.zeros((2, 400), dtype=bool)
    small[1, 0], large[0, 0] = True, True
    return _of_best(tasks, [small, large], (0.5, 0.8, 0.9, 0.95, 0.98, 1.0))


def clusters(_: np.random.Generator) -> Case:
    """Neighbouring documents have the same answers, so only the random order protects the best."""
    tasks = [RaceTask("small", 100, 0.5, 30.0), RaceTask("large", 4000, 0.5, 30.0)]
    large = np.zeros((2, 4000), dtype=bool)
    large[0, :2001], large[1, 2001:] = True, True
    return _of_best(tasks, [np.zeros((2, 100), dtype=bool), large], LATE)


def strata(generator: np.random.Generator) -> Case:
    """The lead of the best shows in small strata only; elsewhere the others are ahead."""
    sizes = np.linspace(10, 200, 57).astype(int)
    members = tuple((f"s{number}", int(n)) for number, n in enumerate(sizes))
    n = int(sizes.sum())
    member = np.repeat(np.arange(57), sizes)
    right = np.repeat(generator.random(n)[None] < 0.5, 10, axis=0)
    small = np.flatnonzero(member < 12)
    ahead = generator.choice(np.flatnonzero(member >= 12), len(small) - 1, replace=False)
    right[0, small], right[1:, small] = True, False
    right[0, ahead], right[1:, ahead] = False, True
    return _of_best([RaceTask("group", n, 1.0, 30.0, members)], [right], LATE)


def just_in_set(_: np.random.Generator) -> Case:
    """No document of the first rung may show that the two differ."""
    right = np.zeros((2, 10_000), dtype=bool)
    right[0, :60], right[1, 60:101] = True, True  # behind by 19 documents; the margin is 1.96 * sqrt(101) = 19.7
    return [RaceTask("large", 10_000, 1.0, 1.0)], [right], RaceRules("set", rungs=(0.02, *LATE[1:])), [0, 1]


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "equal": equal, "near": near, "tiny": tiny, "rare": rare, "left": left, "clusters": clusters, "strata": strata,
    "set": just_in_set,
}  # fmt: skip


def main() -> None:
    """Run the cases and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--orders", type=int, default=2_000)
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    given = parser.parse_args()
    start = time.process_time()
    print("| case | experiments | orders | promise broken | cost |\n|---|---|---|---|---|")
    for name in given.cases:
        tasks, right, rules, promised = CASES[name](np.random.default_rng(0))
        names = tuple(f"e{number}" for number in range(len(right[0])))
        answers = tuple(
            TaskDocuments(task.name, task.weight, one, strata=task.strata)
            for task, one in zip(tasks, right, strict=True)
        )
        found = replay(
            Correctness(names, answers, "hard"), tasks, rules, promised=[names[number] for number in promised],
            n_orders=given.orders,
        )  # fmt: skip
        broken = 1 - found.kept / given.orders
        print(f"| {name} | {len(names)} | {given.orders} | {broken:.2%} | {found.cost.mean():.2f} |", flush=True)
    print(f"\n{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()

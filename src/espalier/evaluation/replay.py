"""Replay of races on a finished full grid: how often the promise of a race held, and what share of the cost it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from espalier.evaluation.racing import Race, RaceRules, RaceTask, race_order
from espalier.statistics.bootstrap import bootstrap
from espalier.statistics.confidence_set import confidence_set
from espalier.statistics.correctness import Correctness, TaskDocuments
from espalier.statistics.validation import FloatArray, IntArray


@dataclass(frozen=True)
class Replay:
    """Races on the same answers with different document orders.

    Attributes:
        experiments: Experiments of the race.
        promised: Experiments that the promise is about: the best of the full grid, or also each member of its
            simultaneous set.
        rungs: Documents of all tasks after each rung, (n_rungs,).
        live: Experiments that took part in each rung, (n_orders, n_rungs).
        cost: Token cost of each race as a share of the full grid's, (n_orders,).
        kept: Number of races that stopped none of the promised experiments.
    """

    experiments: tuple[str, ...]
    promised: tuple[str, ...]
    rungs: IntArray
    live: IntArray
    cost: FloatArray
    kept: int

    @property
    def n_orders(self) -> int:
        """Number of races."""
        return len(self.cost)


def race_tasks(documents: Correctness, tokens: Mapping[str, float]) -> list[RaceTask]:
    """Return the tasks of a race on the documents of a full grid.

    Args:
        documents: Answers of the experiments, with whole groups (`Correctness.with_whole_groups`).
        tokens: Mean number of tokens of a document, by task. That of a group is computed from its tasks.
    """
    return [
        RaceTask(task.task, task.n_documents, task.weight, _mean_tokens(task, tokens), task.strata)
        for task in documents.tasks
    ]


def _mean_tokens(task: TaskDocuments, tokens: Mapping[str, float]) -> float:
    if not task.strata:
        return tokens[task.task]
    return sum(n * tokens[name] for name, n in task.strata) / task.n_documents


def promised_experiments(documents: Correctness, rules: RaceRules, candidates: Sequence[str]) -> tuple[str, ...]:
    """Return the experiments that a race must not stop.

    Args:
        documents: Answers of the experiments.
        rules: Rules of the race.
        candidates: Experiments that may be the best.
    """
    chosen = documents.select(candidates)
    if rules.keep != "set":
        return (candidates[int(np.argmax(chosen.acc_mean))],)
    found = confidence_set(chosen.acc_mean, bootstrap(chosen, seed=0).draws)
    return tuple(name for name, member in zip(candidates, found.simultaneous_members, strict=True) if member)


def replay(
    documents: Correctness, tasks: Sequence[RaceTask], rules: RaceRules, *, promised: Sequence[str],
    controls: Sequence[str] = (), n_orders: int = 1_000, first_seed: int = 0,
) -> Replay:  # fmt: skip
    """Run a race once for each of several document orders.

    Args:
        documents: Answers of the experiments to all documents.
        tasks: Tasks of the race, in the order of `documents`.
        rules: Rules of the race.
        promised: Experiments that must not be stopped.
        controls: As for `Race`.
        n_orders: Number of document orders.
        first_seed: Seed of the first order. The next orders have the next seeds.

    Raises:
        UserError: As `Race`.
    """
    row = {name: index for index, name in enumerate(documents.experiments)}
    costs, live, kept = [], [], 0
    tokens = np.array([task.tokens for task in tasks])
    sizes = np.empty((0, len(tasks)), dtype=np.int64)
    for seed in range(first_seed, first_seed + n_orders):
        race = Race(documents.experiments, tasks, rules, seed=seed, controls=controls)
        sizes = race.sizes
        orders = [race_order(task, seed) for task in tasks]
        took_part = []
        for rung in range(1, race.n_rungs + 1):
            took_part.append(len(race.live))
            if rung == race.n_rungs:
                break
            rows = np.array([row[name] for name in race.live])
            race.advance([
                one.correct[np.ix_(rows, order[race.documents(index, rung)])]
                for index, (one, order) in enumerate(zip(documents.tasks, orders, strict=True))
            ])  # fmt: skip
        steps = np.diff(sizes @ tokens, prepend=0.0)
        costs.append(float(np.array(took_part) @ steps) / (float(steps.sum()) * len(documents.experiments)))
        live.append(took_part)
        kept += set(promised) <= set(race.live)
    return Replay(
        documents.experiments, tuple(promised), sizes.sum(axis=1), np.array(live), np.array(costs), kept
    )  # fmt: skip

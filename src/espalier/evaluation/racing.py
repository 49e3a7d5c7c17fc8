"""The rule of a race: which experiments of a (model, ratio) stop before they have answered every document.

The documents of every task are taken in one random order, in rungs of growing cost. After each rung but the last, an
experiment i is stopped if another experiment j of the race leads it by more than chance explains:

    lead_ij   = sum over tasks t of w_t * (accuracy of j - accuracy of i on the n_t documents of t so far)
    stderr_ij = sqrt(sum over t of w_t^2 * (1 / n_t - 1 / N_t) * (S_ijt^2 + 1 / n_t))
    step      = max over incomplete tasks t of w_t / n_t
    stop i if lead_ij - z * stderr_ij - z^2 / 3 * step > margin for any j

    w_t       weight of the task in the mean accuracy
    N_t       documents of the task on the full grid
    S_ijt^2   sample variance of the paired difference of both experiments on the documents of t so far
    z         normal quantile at alpha / (rungs with a decision * comparisons), alpha = 1 - confidence
    step      largest change of a lead by one document. z^2 / 3 * step corrects the normal quantile for skewness: if i
              answers a few documents correctly that j does not, and never the other way round, a sample without these
              documents shows neither the lead of i nor its variance (Johnson 1978)
    margin    0 (`keep: best`), or an upper bound of the critical value of the full grid's simultaneous set at 95%

A group of tasks counts as one task. Its documents are taken from all of its tasks in proportion to their sizes. The
variance is that of a simple random sample, which is at least as large as that of such a stratified one (Cochran 1977,
section 5.6, for strata of many documents).

docs/statistics.md derives this rule, states its assumptions and reports how it does on simulated studies. The module
needs only numpy. It knows neither files nor models.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from espalier.errors import UserError
from espalier.files import sha256_of_json
from espalier.statistics.rungs import RUNGS, rungs_problem
from espalier.statistics.set_margin import set_margin
from espalier.statistics.validation import BoolArray, FloatArray, IntArray

Keep = Literal["best", "set", "comparisons"]
MIN_DOCUMENTS = 30
"""Fewest documents of a task in the first rung, unless the task has fewer. A group may need more."""
_INTERVAL_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class RaceRules:
    """What a race promises, and when it decides.

    Attributes:
        keep: What is never stopped: `best`, the experiment with the highest mean accuracy; `set`, also each member of
            the full grid's simultaneous set at 95%; `comparisons`, the best, after a first rung that bounds the
            interval of each accuracy.
        confidence: Probability of the promise over document orders.
        rungs: Share of the full grid's token cost that an experiment has after each rung.
        half_width: Largest half-width of the 95% interval of each mean accuracy after the first rung, as in the
            reports. Only for `comparisons`. If all documents do not make it so narrow, the first rung has all.

    Raises:
        UserError: If a value is not allowed.
    """

    keep: Keep = "best"
    confidence: float = 0.99
    rungs: tuple[float, ...] = RUNGS
    half_width: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence {self.confidence} of a race: give a number between 0 and 1, such as 0.99")
        if problem := rungs_problem(self.rungs):
            raise UserError(f"rungs of a race: {problem}")
        if (self.keep == "comparisons") != (self.half_width is not None):
            raise UserError("a race needs a half-width for its first rung if it keeps comparisons, and only then")
        if self.half_width is not None and not 0 < self.half_width < 1:
            raise UserError(f"half-width {self.half_width} of a race: give a number between 0 and 1, such as 0.02")


@dataclass(frozen=True)
class RaceTask:
    """A task of a race.

    Attributes:
        name: Name of the task.
        n_documents: Documents of the task on the full grid.
        weight: Weight of the task in the mean accuracy. The weights of all tasks sum to 1.
        tokens: Mean number of tokens of a document after sharing (`espalier.scoring.tree`).
        strata: For a group, the name and number of documents of each of its tasks; empty otherwise. Every rung has
            about the same share of each.
    """

    name: str
    n_documents: int
    weight: float
    tokens: float
    strata: tuple[tuple[str, int], ...] = ()

    @property
    def min_documents(self) -> int:
        """Fewest documents in the first rung: enough for a variance, and at least one of each stratum.

        In the order of `race_order`, the first document of a stratum of n_s documents comes at the latest after
        N / n_s documents and one for each stratum.
        """
        least = MIN_DOCUMENTS
        if self.strata and all(n for _, n in self.strata):
            smallest = min(n for _, n in self.strata)
            least = max(least, math.ceil(self.n_documents / smallest) + len(self.strata))
        return min(least, self.n_documents)


@dataclass(frozen=True)
class Decision:
    """Outcome of one rung.

    Attributes:
        race: Hash of everything that fixes the race (`Race.fingerprint`).
        rung: Number of the rung, from 1.
        n_documents: Documents of each task that the experiments have answered.
        accuracy: Mean accuracy of each experiment that took part in the rung, on these documents.
        margin: Lead that an experiment may be behind without being stopped.
        stopped: For each stopped experiment the one that leads it, the lead and its standard error.
    """

    race: str
    rung: int
    n_documents: dict[str, int]
    accuracy: dict[str, float]
    margin: float
    stopped: dict[str, dict[str, Any]]

    @property
    def live(self) -> tuple[str, ...]:
        """Experiments that go on to the next rung."""
        return tuple(name for name in self.accuracy if name not in self.stopped)

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as JSON content."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], race: Race) -> Decision:
        """Read a decision of a race.

        Raises:
            UserError: If the decision was made for another order of documents, other rules or another set of
                experiments.
        """
        decision = cls(**content)
        if decision.race != race.fingerprint:
            raise UserError(
                f"the decision after rung {decision.rung} was made for another order of documents, other rules or "
                "another set of experiments; delete it and run again"
            )
        return decision


def race_order(task: RaceTask, seed: int) -> IntArray:
    """Return the order in which a race takes the documents of a task: a random permutation, (n_documents,).

    Documents are sorted by a hash of the seed, the task and their number. So the order depends on no library, and the
    first documents stay in order if a task gets more.

    The documents of a group are those of its first task, then those of the second, and so on. Each task has its own
    order, and the group takes from all of them in proportion to their sizes: the j-th document of a task with n comes
    at (j + u) / n of the way, where u is a random number of the task in [0, 1).

    Args:
        task: The task.
        seed: Seed of the order.
    """
    if not task.strata:
        return _random_order(task.name, task.n_documents, seed)
    places, documents, before = [], [], 0
    for name, n in task.strata:
        start = int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=4).digest()) / 2**32
        places.append((np.arange(n) + start) / n)
        documents.append(before + _random_order(name, n, seed))
        before += n
    return np.concatenate(documents)[np.argsort(np.concatenate(places), kind="stable")]


def _random_order(name: str, n_documents: int, seed: int) -> IntArray:
    start = hashlib.blake2b(f"{seed}:{name}:".encode(), digest_size=8)

    def rank(document: int) -> bytes:
        content = start.copy()
        content.update(document.to_bytes(8, "big"))
        return content.digest()

    return np.array(sorted(range(n_documents), key=rank), dtype=np.int64)


def rung_sizes(tasks: Sequence[RaceTask], rules: RaceRules) -> IntArray:
    """Compute how many documents of each task an experiment has answered after each rung, (n_rungs, n_tasks).

    The variance of a mean over tasks is a sum of w_t^2 S_t^2 / n_t. For a given cost it is smallest with
    n_t = lambda * w_t * S_t / sqrt(c_t) (Neyman allocation with costs; Cochran 1977, section 5.5). S_t, the spread of
    the differences between experiments, is taken as equal for all tasks. Each n_t is at least `RaceTask.min_documents`
    and at most the documents of the task.

    Args:
        tasks: Tasks of the race.
        rules: Rules of the race.

    Returns:
        Numbers of documents. Rungs that add no document to the one before are left out, so there may be fewer rungs
        than configured. The last rung has all documents.

    Raises:
        UserError: If there is no task, or a task (or a task of a group) has no documents or no tokens.
    """
    if bad := [task.name for task in tasks if task.n_documents < 1 or not task.tokens > 0]:
        raise UserError(f"task {bad[0]} of a race has no documents or no tokens")
    if bad := [name for task in tasks for name, n in task.strata if n < 1]:
        raise UserError(f"task {bad[0]} of a race has no documents or no tokens")
    if not tasks:
        raise UserError("a race needs at least one task")
    n = np.array([task.n_documents for task in tasks], dtype=np.int64)
    weight = np.array([task.weight for task in tasks])
    tokens = np.array([task.tokens for task in tasks])
    least = np.array([task.min_documents for task in tasks], dtype=np.int64)
    per_lambda = weight / np.sqrt(tokens)
    # Each element of `steps` adds one document to one task. All allocations are prefixes of this order.
    steps = np.concatenate(
        [np.arange(low + 1, high + 1) / rate for low, high, rate in zip(least, n, per_lambda, strict=True)]
    )
    owner = np.repeat(np.arange(len(tasks)), n - least)
    order = np.argsort(steps, kind="stable")
    cost = (least * tokens).sum() + np.concatenate([[0.0], np.cumsum(tokens[owner[order]])])
    total = float((n * tokens).sum())
    sizes: list[IntArray] = []
    for share in rules.rungs:
        count = max(0, int(np.searchsorted(cost, share * total * (1 + 1e-12), side="right")) - 1)
        if not sizes and rules.half_width is not None:
            count = max(count, _steps_for_width(owner[order], least, weight, rules.half_width))
        found = n if share == 1 else least + np.bincount(owner[order][:count], minlength=len(tasks))
        if not sizes or (found > sizes[-1]).any():
            sizes.append(found)
    return np.array(sizes, dtype=np.int64)


def _steps_for_width(owner: IntArray, least: IntArray, weight: FloatArray, half_width: float) -> int:
    """Return after how many added documents the 95% interval of any mean accuracy is narrow enough; at most all.

    The interval is that of the reports, which is about other documents of the same kind. So it has no correction for
    the finite number of documents. The variance of an answer is at most 1/4.
    """
    seen = least.astype(np.float64)
    bound = (half_width / _INTERVAL_Z) ** 2
    variance = float((weight**2 / seen / 4).sum())
    for count, task in enumerate(owner.tolist()):
        if variance <= bound:
            return count
        variance -= weight[task] ** 2 / 4 * (1 / seen[task] - 1 / (seen[task] + 1))
        seen[task] += 1
    return len(owner)


class Race:
    """A race among the experiments of one model at one pruning ratio.

    The state depends only on the arguments and on the answers of the rungs, so every job that replays the rungs makes
    the same decisions.

    Args:
        experiments: Names of the experiments.
        tasks: Tasks of the race.
        rules: Rules of the race.
        seed: Seed of the document order.
        controls: Experiments that never stop another one and of which nothing is promised, such as random pruning.

    Attributes:
        experiments: Names of all experiments.
        live: Names of the experiments that have not been stopped.
        sizes: Documents of each task after each rung, (n_rungs, n_tasks).
        rung: Number of decided rungs.

    Raises:
        UserError: As `rung_sizes`, or if there is no experiment, or a name is given twice.
    """

    def __init__(
        self, experiments: Sequence[str], tasks: Sequence[RaceTask], rules: RaceRules, *, seed: int = 0,
        controls: Sequence[str] = (),
    ) -> None:  # fmt: skip
        if len(set(experiments)) < len(experiments) or not experiments:
            raise UserError("a race needs at least one experiment, and each only once")
        self.experiments, self.tasks, self.rules, self.seed = tuple(experiments), tuple(tasks), rules, seed
        self.live = self.experiments
        self.sizes = rung_sizes(tasks, rules)
        self.rung = 0
        self._leads = np.array([name not in set(controls) for name in experiments])
        self._weight = np.array([task.weight for task in tasks])
        self._n_documents = np.array([task.n_documents for task in tasks])
        n_experiments = len(experiments)
        self._right = np.zeros((len(tasks), n_experiments))  # documents answered correctly
        self._both_right = np.zeros((len(tasks), n_experiments, n_experiments))
        self._margin = 0.0

    @property
    def n_rungs(self) -> int:
        """Number of rungs, the last one included, after which there is nothing to decide."""
        return len(self.sizes)

    @property
    def fingerprint(self) -> str:
        """Hash of the order of documents, the rules and the experiments."""
        # A task that is no group has no strata in its hash, so that older decisions stay valid.
        tasks = [{key: value for key, value in asdict(task).items() if key != "strata" or value} for task in self.tasks]
        leads = dict(zip(self.experiments, self._leads.tolist(), strict=True))
        return sha256_of_json({"seed": self.seed, "tasks": tasks, "rules": asdict(self.rules), "experiments": leads})

    @property
    def z(self) -> float:
        """Critical value of a comparison in the first rung, corrected for all decisions of the race."""
        return self._critical(int(self._leads.sum()))

    def _critical(self, n_candidates: int) -> float:
        """Return the critical value of a comparison.

        `best`: The best experiment is compared with every other one. `set`: So is each member, of which there are at
        most as many as candidates that have not been stopped. Every other experiment counts in every rung, because the
        live ones were chosen on the same documents.

        Args:
            n_candidates: Number of experiments that have not been stopped, without controls.
        """
        others = max(1, int(self._leads.sum()) - 1)
        comparisons = others * (max(1, n_candidates) if self.rules.keep == "set" else 1)
        decisions = max(1, self.n_rungs - 1)
        # At least 0, so that the experiment with the highest accuracy goes on whatever the confidence is.
        return max(0.0, -NormalDist().inv_cdf((1 - self.rules.confidence) / (decisions * comparisons)))

    def documents(self, task: int, rung: int) -> slice:
        """Return the positions, in the document order of a task, that a rung adds.

        Args:
            task: Index of the task.
            rung: Number of the rung, from 1.
        """
        before = 0 if rung == 1 else int(self.sizes[rung - 2, task])
        return slice(before, int(self.sizes[rung - 1, task]))

    def advance(self, answers: Sequence[BoolArray]) -> Decision:
        """Decide the next rung.

        Args:
            answers: For each task, whether each live experiment (in the order of `live`) answered each document that
                the rung adds correctly, (n_live, n_new).

        Raises:
            UserError: If the answers are not those of this rung.
        """
        rows = self._add(answers)
        seen = self.sizes[self.rung - 1]
        accuracy = self._weight @ (self._right[:, rows] / seen[:, None])
        covariance = [self._covariance(index, rows) for index in range(len(self.tasks))]
        stopped = {} if self.rung == self.n_rungs else self._stopped(rows, accuracy, covariance)
        names = dict(zip(self.tasks, seen.tolist(), strict=True))
        decision = Decision(
            self.fingerprint, self.rung, {task.name: n for task, n in names.items()},
            dict(zip(self.live, accuracy.tolist(), strict=True)), self._margin, stopped,
        )  # fmt: skip
        self.live = decision.live
        return decision

    def follow(self, answers: Sequence[BoolArray], decision: Decision) -> None:
        """Add the answers of the next rung, and take over its recorded decision instead of deciding again.

        A recorded decision is final, also if another version of the rule made it: a stopped experiment has no more
        answers.

        Args:
            answers: As for `advance`.
            decision: The decision that was made from these answers.

        Raises:
            UserError: As `advance`.
        """
        self._add(answers)
        self.live = decision.live

    def _add(self, answers: Sequence[BoolArray]) -> IntArray:
        """Add the answers of the next rung, and return the numbers of the experiments that took part in it."""
        rows = np.array([self.experiments.index(name) for name in self.live])
        rung = self.rung + 1
        for index, (task, new) in enumerate(zip(self.tasks, answers, strict=True)):
            where = self.documents(index, rung)
            if new.shape != (len(rows), where.stop - where.start):
                raise UserError(
                    f"rung {rung} of a race needs {where.stop - where.start} documents of task {task.name} from "
                    f"{len(rows)} experiments, and got {new.shape[1]} from {new.shape[0]}; evaluate them again"
                )
            values = new.astype(np.float32)  # sums of whole numbers are exact in float32 up to 2**24
            self._right[index, rows] += values.sum(axis=1)
            self._both_right[index][np.ix_(rows, rows)] += values @ values.T
        self.rung = rung
        if rung == 1 and self.rules.keep == "set":
            leads = self._leads[rows]
            self._margin = set_margin(self._weight, self._n_documents, [new[leads] for new in answers])
        return rows

    def _covariance(self, task: int, rows: IntArray) -> FloatArray:
        """Return the sample covariance of the live experiments' answers to one task, (n_live, n_live)."""
        n = int(self.sizes[self.rung - 1, task])
        mean = self._right[task, rows] / n
        both = self._both_right[task][np.ix_(rows, rows)] / n
        return np.asarray((both - np.outer(mean, mean)) * (n / max(1, n - 1)))

    def _stopped(
        self, rows: IntArray, accuracy: FloatArray, covariance: Sequence[FloatArray]
    ) -> dict[str, dict[str, Any]]:
        seen = self.sizes[self.rung - 1]
        left = self._weight**2 * (1 / seen - 1 / self._n_documents)
        joint = np.tensordot(left, np.array(covariance), axes=1)
        own = np.diag(joint)
        # 1 / n_t: as if both experiments had disagreed on one more document. A few documents without disagreement do
        # not show that two experiments always agree.
        variance = np.maximum(own[:, None] + own[None, :] - 2 * joint, 0) + float((left / seen).sum())
        stderr = np.sqrt(variance)  # of the lead of experiment j over i: [i, j]
        lead = accuracy[None, :] - accuracy[:, None]
        leads = self._leads[rows]
        # Critical value up to which experiment j stops i, (n_live, n_live): the positive root z of
        # z * stderr + z^2 / 3 * step = lead - margin. If the right-hand side is negative, any negative number will do.
        # The standard error is above 0, because some task is incomplete before the last rung.
        step = float((self._weight / seen)[left > 0].max())
        excess = lead - self._margin
        root = 2 * excess / (stderr + np.sqrt(variance + 4 / 3 * step * np.maximum(excess, 0)))
        reached = np.where(leads[None, :], root, -np.inf)
        by = reached.argmax(axis=1)
        found: dict[str, dict[str, Any]] = {}
        n_candidates = int(leads.sum())
        for i in np.argsort(-reached.max(axis=1), kind="stable").tolist():
            j = int(by[i])
            if not reached[i, j] > self._critical(n_candidates):
                break
            found[self.live[i]] = {"by": self.live[j], "lead": float(lead[i, j]), "stderr": float(stderr[i, j])}
            n_candidates -= int(leads[i])
        return {name: found[name] for name in self.live if name in found}

"""Files of races in the store of evaluations: answers to ranges of documents, decisions, and outcomes.

Beside the entries of whole evaluations, the store of a model has:

    {key}.answers/           a store whose entries are answers of one experiment to some documents. `key` is the key of
                             the experiment's whole evaluation
    race-{hash}/rung-1.json  the decision after each rung of one race, and which experiments had failed by then
    race-{hash}/failed/      why experiments of this race have no answers, one file for each
    facts/{hash}/            what races of the model know about its tasks and documents; `hash` is that of the requests

Nothing here depends on the rungs of a config, so answers serve any race, and the whole evaluation as well. Decisions
and failures have a checksum and name their own place, so that none is taken for that of another race or rung.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from espalier.errors import UserError
from espalier.evaluation.protocol import ACC_NORM_ELSE_ACC, acc_norm_tasks
from espalier.evaluation.racing import Decision, Race, RaceRules, RaceTask, race_order
from espalier.files import locked, read_json, read_table, sha256_of_json, write_json, write_result, write_table
from espalier.results.store import METRICS, RECIPE, SAMPLES, Store, store_key
from espalier.statistics.correctness import correctness
from espalier.statistics.validation import BoolArray, IntArray

logger = logging.getLogger(__name__)
ANSWERS, PART = "answers.parquet", "part.json"
_PLACE = "place"
_KEY = ["task", "doc_id", "choice"]
_COLUMNS = [*_KEY, "loglikelihood", "is_greedy"]
_ENTRY = re.compile("[0-9a-f]{32}")
Document = tuple[str, int]


@dataclass(frozen=True)
class RaceSettings:
    """Configured settings of a race.

    Attributes:
        rules: What the race promises, and when it decides.
        seed: Seed of the document order.
        perplexity: Which experiments have their perplexity measured: `survivors` or `all`.
        acc_mean_rule: Which accuracy of each task enters the mean (`espalier.evaluation.protocol.task_accuracy`).
    """

    rules: RaceRules
    seed: int = 0
    perplexity: str = "survivors"
    acc_mean_rule: str = ACC_NORM_ELSE_ACC

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> RaceSettings:
        """Read the settings from the params of a rule."""
        rules = RaceRules(params["keep"], params["confidence"], tuple(params["rungs"]), params["half_width"])
        return cls(rules, params["seed"], params["perplexity"], params.get("acc_mean_rule", ACC_NORM_ELSE_ACC))


class AnswerStore:
    """Answers of one experiment, in one or several parts.

    Args:
        store: Folder of the store of the evaluations of the model.
        recipe: Recipe of the experiment's whole evaluation.
    """

    def __init__(self, store: Path, recipe: Mapping[str, Any]) -> None:
        self._store, self.recipe, self.key = store, dict(recipe), store_key(recipe)
        self._folder = store / f"{self.key}.answers"

    @property
    def parts(self) -> Store:
        """Store of the parts."""
        return Store(self._folder)

    def part_recipe(self, documents: Iterable[Document], *, with_perplexity: bool) -> dict[str, Any]:
        """Return the recipe of a part.

        Args:
            documents: Documents of the part.
            with_perplexity: Whether the part has the perplexities.
        """
        return {**self.recipe, "documents": sha256_of_json(sorted(documents)), "perplexity": with_perplexity}

    def write_part(
        self, folder: Path, recipe: Mapping[str, Any], answers: pd.DataFrame, content: Mapping[str, Any]
    ) -> None:
        """Write the files of a part.

        Args:
            folder: Folder of the new entry.
            recipe: Its `part_recipe`.
            answers: Columns task, doc_id, choice, loglikelihood and is_greedy.
            content: `perplexity`, `n_params` and `timing_s`.
        """
        from espalier.tables import Samples, column_metadata

        write_table(folder / ANSWERS, answers, column_metadata(Samples, answers))
        write_json(folder / PART, dict(content))
        write_json(folder / RECIPE, dict(recipe))

    def read(self) -> ExperimentAnswers:
        """Return everything that the experiment has answered. Damaged parts are dropped."""
        found = ExperimentAnswers()
        if Store(self._store).has(self.key):
            metrics = read_json(self._store / self.key / METRICS)
            found.frames.append(read_table(self._store / self.key / SAMPLES)[_COLUMNS])
            found.add(metrics["perplexity"], metrics["n_params"], metrics.get("timing_s", {}))
            return found
        if not self._folder.is_dir():
            return found
        parts = self.parts
        # Other names are those of entries that another job is writing, and of locks.
        for entry in sorted(path for path in self._folder.iterdir() if _ENTRY.fullmatch(path.name)):
            if parts.has(entry.name) and self._is_own(entry):
                content = read_json(entry / PART)
                found.frames.append(read_table(entry / ANSWERS))
                found.add(content["perplexity"], content["n_params"], content["timing_s"])
        return found

    def _is_own(self, entry: Path) -> bool:
        """Return whether an intact part has answers of this experiment. A part of another one is deleted and logged."""
        recipe = read_json(entry / RECIPE)
        own = {**self.recipe, "documents": recipe["documents"], "perplexity": recipe["perplexity"]}
        if store_key(own) == entry.name:
            return True
        logger.warning("%s: has answers of another experiment; it is dropped and made again", entry)
        shutil.rmtree(entry, ignore_errors=True)
        return False


@dataclass
class ExperimentAnswers:
    """Answers of an experiment from all parts.

    Attributes:
        frames: Tables of answers. A document may be in several.
        perplexity: Entries of `metrics.json`; empty if not measured.
        n_params: Parameters of the pruned model; 0 if there is no part.
        timing_s: Seconds of each part of the work.
    """

    frames: list[pd.DataFrame] = field(default_factory=list)
    perplexity: dict[str, Any] = field(default_factory=dict)
    n_params: int = 0
    timing_s: dict[str, float] = field(default_factory=dict)

    def add(self, perplexity: Mapping[str, Any], n_params: int, timing: Mapping[str, float]) -> None:
        """Add what a part knows besides its answers."""
        for name, seconds in timing.items():
            self.timing_s[name] = self.timing_s.get(name, 0.0) + seconds
        self.perplexity |= perplexity
        self.n_params = n_params

    @cached_property
    def table(self) -> pd.DataFrame:
        """All answers, each once."""
        if not self.frames:
            return pd.DataFrame({name: [] for name in _COLUMNS})
        return pd.concat(self.frames, ignore_index=True).drop_duplicates(_KEY)

    @cached_property
    def documents(self) -> frozenset[Document]:
        """Documents that have been answered."""
        found = self.table[["task", "doc_id"]].drop_duplicates()
        return frozenset(zip(found["task"], found["doc_id"].astype(int), strict=True))


@dataclass(frozen=True)
class TaskFacts:
    """What races of a model know about its tasks.

    Attributes:
        tasks: Fields of each task or group: `n_documents`, `tokens` (of a document), `metric`, and for a group
            `strata`, as for `RaceTask`.
        file: A samples table of all documents, in which every log-likelihood is 0.
    """

    tasks: Mapping[str, Mapping[str, Any]]
    file: Path

    @classmethod
    def read(cls, store: Store, requests: str) -> TaskFacts | None:
        """Read the facts; None if they are not stored yet.

        Args:
            store: Store of the evaluations of the model.
            requests: SHA-256 of the tokenised requests.
        """
        folder = _facts_folder(store.folder, requests)
        return cls.read_unchecked(store.folder, requests) if Store(folder.parent).has(folder.name) else None

    @classmethod
    def read_unchecked(cls, store: Path, requests: str) -> TaskFacts:
        """Read the facts without checking whether the files are damaged.

        Args:
            store: Folder of the store of the evaluations of the model.
            requests: SHA-256 of the tokenised requests.

        Raises:
            UserError: If the facts are not stored yet.
        """
        folder = _facts_folder(store, requests)
        return cls(read_json(folder / PART), folder / SAMPLES)

    @staticmethod
    def write(store: Store, requests: str, tasks: Mapping[str, Any], samples: pd.DataFrame) -> None:
        """Store the facts."""
        from espalier.tables import Samples, column_metadata

        folder = _facts_folder(store.folder, requests)
        with Store(folder.parent).new_entry(folder.name) as new:
            write_json(new / PART, dict(tasks))
            write_table(new / SAMPLES, samples, column_metadata(Samples, samples))
            write_json(new / RECIPE, {"requests": requests})

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The samples table of all documents."""
        return read_table(self.file)

    @property
    def race_tasks(self) -> list[RaceTask]:
        """Tasks of a race. All count equally in the mean."""
        weight = 1 / len(self.tasks)
        return [
            RaceTask(
                name, fact["n_documents"], weight, fact["tokens"],
                tuple((member, n) for member, n in fact.get("strata", ())),
            )
            for name, fact in self.tasks.items()
        ]  # fmt: skip

    @cached_property
    def _doc_ids(self) -> dict[str, IntArray]:
        """Ascending numbers of the documents of each task with documents. Skipped documents are left out."""
        return {
            str(task): np.unique(rows["doc_id"].to_numpy(dtype=np.int64))
            for task, rows in self.samples.groupby("task", observed=True)
        }

    def _members(self, task: str) -> list[str]:
        return [name for name, _ in self.tasks[task].get("strata", [(task, 0)])]

    @cached_property
    def documents(self) -> dict[str, list[Document]]:
        """Documents of each task or group, in the order in which a race counts them."""
        return {
            task: [(name, int(number)) for name in self._members(task) for number in self._doc_ids[name]]
            for task in self.tasks
        }

    def samples_of(self, answers: ExperimentAnswers) -> pd.DataFrame:
        """Return the samples table of an experiment's answers.

        Raises:
            UserError: If an answer is to a choice that the tasks do not have.
        """
        known = self.samples.drop(columns=["loglikelihood", "is_greedy"])
        found = answers.table.merge(known, on=_KEY, how="left", validate="one_to_one")
        if found["gold"].isna().any():
            row = found[found["gold"].isna()].iloc[0]
            raise UserError(f"task {row['task']}, document {row['doc_id']}: the task has changed since it was answered")
        return found.astype({"gold": bool, "n_chars": "int64"})

    def correct(
        self, name: str, answers: ExperimentAnswers, acc_mean_rule: str = ACC_NORM_ELSE_ACC
    ) -> dict[str, BoolArray]:
        """Return which of the `documents` of each task an experiment answered correctly; False without an answer."""
        frame = self.samples_of(answers)
        of_acc_norm = acc_norm_tasks(((task, fact["metric"]) for task, fact in self.tasks.items()), acc_mean_rule)
        normalised = {name for task in of_acc_norm for name in self._members(task)}
        found = {one.task: one.correct[0] for one in correctness([(name, frame)], acc_norm_tasks=normalised).tasks}
        answered = {
            str(task): np.unique(rows["doc_id"].to_numpy(dtype=np.int64))
            for task, rows in frame.groupby("task", observed=True)
        }

        def right(leaf: str) -> BoolArray:
            numbers = self._doc_ids[leaf]
            result = np.zeros(len(numbers), dtype=np.bool_)
            if leaf in found:
                result[np.searchsorted(numbers, answered[leaf])] = found[leaf]
            return result

        return {task: np.concatenate([right(leaf) for leaf in self._members(task)]) for task in self.tasks}


def _facts_folder(store: Path, requests: str) -> Path:
    return store / "facts" / store_key({"requests": requests})


class RaceRecord:
    """Decisions and failures of one race.

    Args:
        store: Folder of the store of the evaluations of the model.
        experiments: Store of the answers of each experiment.
        facts: Tasks of the model.
        settings: Settings of the race.
        controls: As for `Race`.
    """

    def __init__(
        self, store: Path, experiments: Mapping[str, AnswerStore], facts: TaskFacts, settings: RaceSettings,
        controls: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._experiments, self._facts, self._settings, self._controls = experiments, facts, settings, tuple(controls)
        race = self._new_race()
        keys = {name: answers.key for name, answers in experiments.items()}
        # Races of earlier versions had no other rule, so the name of such a race does not have it.
        rule = settings.acc_mean_rule
        of_rule = {} if rule == ACC_NORM_ELSE_ACC else {"acc_mean_rule": rule}
        name = sha256_of_json({"race": race.fingerprint, "keys": keys, **of_rule})[:32]
        self.folder = store / f"race-{name}"
        self.n_rungs = race.n_rungs
        self.sizes = race.sizes
        self._race = race

    @cached_property
    def _orders(self) -> dict[str, IntArray]:
        seed = self._settings.seed
        return {task.name: race_order(task, seed) for task in self._facts.race_tasks}

    def standing(self, name: str) -> Standing | None:
        """Return how far an experiment has come; None if the race has to decide first."""
        outcomes = self.outcomes
        stopped = next((one.decision for one in outcomes if name in one.decision.stopped), None)
        if stopped is not None:
            return self._standing(name, stopped.rung, stopped.stopped[name]["by"])
        is_compared = not any(name in outcome.failed for outcome in outcomes)
        # A race that went on without an experiment compares it with nobody, so the experiment answers everything.
        if is_compared and len(outcomes) < self.n_rungs - 1:
            return None
        return self._standing(name, self.n_rungs, None)

    def _standing(self, name: str, rung: int, stopped_by: str | None) -> Standing:
        sizes = dict(zip(self._facts.tasks, self.sizes[rung - 1].tolist(), strict=True))
        # A whole evaluation is the same with and without a race, so it has the same recipe.
        recipe, is_whole = self._experiments[name].recipe, rung == self.n_rungs
        with_perplexity = is_whole or self._settings.perplexity == "all"
        if not is_whole:
            partial = {"documents": sizes, "seed": self._settings.seed, "perplexity": with_perplexity}
            recipe = {**recipe, "race": partial}
        fields = {
            "rung": rung, "n_rungs": self.n_rungs, "n_documents": sum(sizes.values()), "stopped_by": stopped_by,
            "keep": self._settings.rules.keep, "confidence": self._settings.rules.confidence,
        }  # fmt: skip
        return Standing(rung, recipe, with_perplexity, fields)

    def documents(self, rung: int) -> frozenset[Document]:
        """Return all documents of the rungs up to this one."""
        return frozenset(
            self._facts.documents[task][place]
            for index, (task, order) in enumerate(self._orders.items())
            for place in order[: self.sizes[rung - 1, index]]
        )

    @property
    def outcomes(self) -> list[RungOutcome]:
        """Outcomes of the rungs that have been decided.

        Raises:
            UserError: If a decision is damaged, or was made for another race or rung.
        """
        found: list[RungOutcome] = []
        while (path := self.folder / f"rung-{len(found) + 1}.json").is_file():
            content = self._read(path)
            try:
                decision, failed = Decision.from_dict(content["decision"], self._race), tuple(content["failed"])
            except (KeyError, TypeError):
                raise UserError(f"{path}: is no decision of a race; delete it and run again") from None
            except UserError as error:
                raise UserError(f"{path}: {error}") from None
            if decision.rung != len(found) + 1:
                raise UserError(f"{path}: has the decision after rung {decision.rung}; delete it and run again")
            found.append(RungOutcome(decision, failed))
        return found

    @property
    def failures(self) -> dict[str, str]:
        """Reasons of the experiments that could not be answered, by name.

        Raises:
            UserError: If a file is damaged or that of another experiment.
        """
        return {
            name: str(self._read(path).get("reason"))
            for name in self._experiments
            if (path := self._failed(name)).is_file()
        }

    def _read(self, path: Path) -> dict[str, Any]:
        """Read a file of this race. Files of earlier versions have neither a checksum nor their place."""
        content, own = read_json(path), self._place(path)
        if not isinstance(content, dict) or content.get(_PLACE, own) != own:
            raise UserError(f"{path}: is not the file that was written here; delete it and run again")
        return content

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        write_result(path, {_PLACE: self._place(path), **content})

    def _place(self, path: Path) -> str:
        return path.relative_to(self.folder.parent).as_posix()

    def record_failure(self, name: str, reason: str) -> None:
        """Record that an experiment cannot be answered, so that the race goes on without it."""
        self._write(self._failed(name), {"reason": reason})

    def forget_failure(self, name: str) -> None:
        """Remove the record of a failure, because the experiment is tried again."""
        self._failed(name).unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the race while a rung is decided."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "decide.lock"):
            yield

    def decide(self) -> RungOutcome:
        """Decide the next rung and write the decision. The caller holds the lock, and all answers of the rung exist."""
        past, failed = self.outcomes, tuple(sorted(self.failures))
        race = self._new_race()
        right: dict[str, dict[str, BoolArray]] = {}
        for outcome in past:
            race.follow(self._next_answers(race, outcome.failed, right), outcome.decision)
        decision = race.advance(self._next_answers(race, failed, right))
        content = {"decision": decision.to_dict(), "failed": list(failed)}
        self._write(self.folder / f"rung-{race.rung}.json", content)
        return RungOutcome(decision, failed)

    def _next_answers(
        self, race: Race, failed: Sequence[str], right: dict[str, dict[str, BoolArray]]
    ) -> list[BoolArray]:  # fmt: skip
        """Take the experiments that failed out of a race, and return the answers of the others to its next rung.

        Args:
            race: The race.
            failed: Experiments that have no answers to this rung.
            right: Correct answers of the experiments that have been read; the others are added.
        """
        race.live = tuple(name for name in race.live if name not in failed)
        for name in race.live:
            if name not in right:
                answers = self._experiments[name].read()
                right[name] = self._facts.correct(name, answers, self._settings.acc_mean_rule)
        found = []
        for index, task in enumerate(race.tasks):
            numbers = self._orders[task.name][race.documents(index, race.rung + 1)]
            rows = [right[name][task.name][numbers] for name in race.live]
            found.append(np.array(rows, dtype=np.bool_).reshape(len(race.live), len(numbers)))
        return found

    def live(self) -> tuple[str, ...]:
        """Return the experiments that take part in the next rung."""
        past = self.outcomes
        before = past[-1].decision.live if past else tuple(self._experiments)
        gone = {name for one in past for name in one.failed} | set(self.failures)
        return tuple(name for name in before if name not in gone)

    def _failed(self, name: str) -> Path:
        return self.folder / "failed" / f"{name}.json"

    def _new_race(self) -> Race:
        return Race(
            list(self._experiments), self._facts.race_tasks, self._settings.rules, seed=self._settings.seed,
            controls=self._controls,
        )  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """How far a race takes an experiment.

    Attributes:
        rung: Last rung that the experiment answers.
        recipe: Recipe of its result.
        with_perplexity: Whether the result has the perplexities.
        fields: Fields of `metrics.json` that say how far the experiment came.
    """

    rung: int
    recipe: dict[str, Any]
    with_perplexity: bool
    fields: dict[str, Any]

    @property
    def key(self) -> str:
        """Key of the result in the store."""
        return store_key(self.recipe)


@dataclass(frozen=True)
class RungOutcome:
    """A decided rung.

    Attributes:
        decision: The decision.
        failed: Experiments that had no answers when the rung was decided.
    """

    decision: Decision
    failed: tuple[str, ...]

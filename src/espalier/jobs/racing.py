"""Evaluation of one experiment in a race with the other experiments of its model and pruning ratio.

The job answers the documents of one rung after another, until its experiment is stopped or has answered everything. A
rung can be decided only when every experiment in it has answered its documents, or has failed. So the job also answers
for the others whatever no other job is answering. It waits for another job only while that job answers one rung of one
experiment. A single job can therefore run a whole race, and several jobs share it.

Answers and decisions are kept in the store (`espalier.results.race_store`). The decision is made once, under a lock.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from espalier.errors import UserError
from espalier.files import read_json, sha256_of_unchanged, write_result, write_table
from espalier.jobs.evaluation import EvaluationJob, scores_of
from espalier.jobs.interrupts import is_stopping
from espalier.jobs.pieces import Piece, make_piece
from espalier.planning.plan import Plan
from espalier.results.race_store import AnswerStore, Document, RaceRecord, RaceSettings, TaskFacts
from espalier.results.store import METRICS, SAMPLES, Store, store_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RacedResult:
    """Result of an experiment in a race.

    Attributes:
        key: Its key in the store.
        race: Fields of `metrics.json` that say how far it came.
    """

    key: str
    race: dict[str, Any]


class RaceJob:
    """A job that evaluates one experiment of a race.

    Args:
        job: Inputs and settings of the evaluations.
        store: Store of the model.
        plans: File `plan.json` of each experiment of the race.
        settings: Settings of the race.
        controls: Experiments that stop no other (`espalier.evaluation.racing.Race`).
        only_hands_over: Whether this job has the resources to hand over files only.
    """

    def __init__(
        self, job: EvaluationJob, store: Store, plans: Mapping[str, Path], settings: RaceSettings, *,
        controls: tuple[str, ...] = (), only_hands_over: bool = False,
    ) -> None:  # fmt: skip
        self._job, self._store, self._settings = job, store, settings
        self._plans: dict[str, dict[str, Any]] = {name: read_json(path) for name, path in plans.items()}
        self._answers = {name: AnswerStore(store, job.recipe(plan)) for name, plan in self._plans.items()}
        self._only_hands_over = only_hands_over
        self._facts = self._read_facts()
        self._record = RaceRecord(store, self._answers, self._facts, settings, controls)

    def run(self, name: str) -> RacedResult:
        """Evaluate an experiment as far as the race takes it, and store its result.

        Raises:
            UserError: If the experiment cannot be evaluated, or the workflow was told to stop.
        """
        record = self._record
        if not any(name in outcome.failed for outcome in record.outcomes):
            record.forget_failure(name)
        while True:
            outcomes = record.outcomes
            if any(name in outcome.failed for outcome in outcomes):
                # The race went on without this experiment, so nothing compares it: it answers everything.
                self._answer_or_fail(name, record.n_rungs)
                return self._result(name, record.n_rungs, None)
            stopped = next((one.decision for one in outcomes if name in one.decision.stopped), None)
            if stopped is not None:
                return self._result(name, stopped.rung, stopped.stopped[name]["by"])
            rung = len(outcomes) + 1
            if rung == record.n_rungs:
                self._answer_or_fail(name, rung)
                return self._result(name, rung, None)
            self._answer_or_fail(name, rung)
            self._finish_rung(rung)

    def _finish_rung(self, rung: int) -> None:
        """Have all experiments of a rung answered, and decide it, unless another job has done so."""
        waiting = [other for other in self._record.live() if self._missing(other, rung)]
        for other in waiting:
            self._answer_beside(other, rung, wait=False)
        for other in [one for one in waiting if self._missing(one, rung) and one not in self._record.failures]:
            self._answer_beside(other, rung, wait=True)
        with self._record.lock():
            if len(self._record.outcomes) >= rung:
                return
            if any(self._missing(other, rung) for other in self._record.live()):
                return  # the next round answers it
            outcome = self._record.decide()
        decision = outcome.decision
        logger.info(
            "rung %d of %d: %d of %d experiments go on", rung, self._record.n_rungs, len(decision.live),
            len(decision.accuracy),
        )  # fmt: skip

    def _missing(self, name: str, rung: int) -> frozenset[Document]:
        """Return the documents up to a rung that an experiment has not answered."""
        return self._record.documents(rung) - self._answers[name].read().documents

    def _needs_perplexity(self, name: str, rung: int) -> bool:
        wanted = rung == self._record.n_rungs or self._settings.perplexity == "all"
        texts = self._job.settings.protocol.get("texts", ())
        return wanted and bool(texts) and not self._answers[name].read().perplexity

    def _answer_or_fail(self, name: str, rung: int) -> None:
        """Answer the documents of the job's own experiment. A failure is recorded, so that the race can go on."""
        try:
            with self._store.claim(self._answers[name].key, wait=True):
                self._answer(name, rung, beside=False)
            self._record.forget_failure(name)  # another job may have failed at it
        except UserError as error:
            self._record.record_failure(name, str(error))
            raise

    def _answer_beside(self, name: str, rung: int, *, wait: bool) -> None:
        """Answer the documents of another experiment, unless another job is at it and `wait` is false.

        A failure is recorded and logged. The experiment's own job reports it.
        """
        if is_stopping():
            raise UserError(
                "the workflow was told to stop; what has been answered is stored, and the race goes on then"
            )
        try:
            with self._store.claim(self._answers[name].key, wait=wait) as free:
                if free:
                    self._answer(name, rung, beside=True)
        except Exception as error:  # noqa: BLE001 (no failure of another experiment may end this job)
            logger.warning("%s, done beside, failed: %s", name, error)
            self._record.record_failure(name, str(error))

    def _answer(self, name: str, rung: int, *, beside: bool) -> None:
        """Answer the documents up to a rung that an experiment has not answered yet. The caller has the claim."""
        missing, with_perplexity = self._missing(name, rung), self._needs_perplexity(name, rung)
        if not missing and not with_perplexity:
            return
        if self._only_hands_over:
            raise UserError(f"{name}: the store lacks answers, and this job has no device to compute them; run again")
        answers = self._answers[name]
        recipe = answers.part_recipe(missing, with_perplexity=with_perplexity)

        def make(folder: Path) -> None:
            plan = Plan.from_dict(self._plans[name])
            found = self._job.evaluator.answer(plan, missing, with_perplexity=with_perplexity)
            rows = [(*key, score.loglikelihood, score.is_greedy) for key, score in found.scores.items()]
            columns = ["task", "doc_id", "choice", "loglikelihood", "is_greedy"]
            content = {
                "n_truncated": dict(found.n_truncated), "perplexity": dict(found.perplexity),
                "n_params": found.n_params, "timing_s": dict(found.timing_s),
            }  # fmt: skip
            answers.write_part(folder, recipe, pd.DataFrame(rows, columns=columns), content)

        job = f"evaluate {self._job.manifest['model']} {name}"
        make_piece(answers.parts, Piece(name, store_key(recipe), make, job, kind="rung"), beside=beside)

    def _result(self, name: str, rung: int, stopped_by: str | None) -> RacedResult:
        """Store the result of an experiment, computed from its answers up to a rung."""
        record, answers = self._record, self._answers[name]
        is_whole = rung == record.n_rungs
        sizes = dict(zip(self._facts.tasks, record.sizes[rung - 1].tolist(), strict=True))
        race = {
            "rung": rung, "n_rungs": record.n_rungs, "n_documents": sum(sizes.values()), "stopped_by": stopped_by,
            "keep": self._settings.rules.keep, "confidence": self._settings.rules.confidence,
        }  # fmt: skip
        # A whole evaluation is the same with and without a race, so it has the same key.
        with_perplexity = is_whole or self._settings.perplexity == "all"
        partial = {"documents": sizes, "seed": self._settings.seed, "perplexity": with_perplexity}
        recipe = answers.recipe if is_whole else {**answers.recipe, "race": partial}
        key = store_key(recipe)
        with self._store.claim(key, wait=True):
            if not self._store.has(key):
                self._summarise(name, rung, recipe, with_perplexity=with_perplexity)
        return RacedResult(key, race)

    def _summarise(self, name: str, rung: int, recipe: Mapping[str, Any], *, with_perplexity: bool) -> None:
        from espalier.evaluation.evaluator import DocumentAnswers
        from espalier.tables import Samples

        found, wanted = self._answers[name].read(), self._record.documents(rung)
        scores = scores_of(found, wanted)
        perplexity = found.perplexity if with_perplexity else {}
        answers = DocumentAnswers(scores, found.n_truncated, perplexity, found.n_params, found.timing_s)
        result = self._job.evaluator.summarise(answers)
        with self._store.new_entry(store_key(recipe)) as folder:
            write_table(folder / SAMPLES, Samples.validate(result.samples))
            write_result(folder / METRICS, {**result.metrics, "recipe": recipe})
        logger.info("%s: acc_mean %.4f on %d documents", name, result.metrics["acc_mean"]["value"], len(wanted))

    def _read_facts(self) -> TaskFacts:
        """Read what the race needs to know about the tasks; the first job of a model finds it out and stores it."""
        requests = sha256_of_unchanged(self._job.requests)
        facts = TaskFacts.read(self._store, requests)
        if facts is not None:
            return facts
        with self._store.claim(f"facts-{requests[:32]}", wait=True):
            facts = TaskFacts.read(self._store, requests)
            if facts is None:
                evaluator = self._job.evaluator
                facts = TaskFacts(evaluator.race_facts(), evaluator.blank_samples())
                TaskFacts.write(self._store, requests, facts.tasks, facts.samples)
        return facts

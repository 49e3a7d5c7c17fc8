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
from pathlib import Path
from typing import Any

import pandas as pd

from espalier.errors import UserError
from espalier.files import read_json, sha256_of_unchanged, write_result
from espalier.jobs.evaluation import EvaluationJob, mean_in_words, plan_header, scores_of
from espalier.jobs.pieces import Piece, make_piece, only_hands_over
from espalier.planning.plan import Plan
from espalier.results.race_store import AnswerStore, Document, RaceRecord, RaceSettings, Standing, TaskFacts
from espalier.results.store import METRICS, SAMPLES, Store, store_key
from espalier.study.paths import Paths, results_folder
from espalier.study.stopping import is_stopping

logger = logging.getLogger(__name__)


def run_raced_evaluation(snakemake: Any) -> None:
    """Evaluate an experiment as far as its race takes it, and write `metrics.json` and `samples.parquet`.

    Args:
        snakemake: The `snakemake` object of the script.
    """
    job, model = EvaluationJob.from_snakemake(snakemake), snakemake.wildcards.model
    params, plan = snakemake.params.racing, Path(snakemake.input.plan)
    store = Store(Path(Paths(results_folder(snakemake.config["study"])).evaluation_store(model)))
    plans = dict(zip(params["experiments"], map(Path, snakemake.input.race), strict=True))
    race = RaceJob(
        job, store, plans, RaceSettings.from_params(params), controls=tuple(params["controls"]),
        only_hands_over=only_hands_over(dict(snakemake.resources.items())),
    )  # fmt: skip
    found = race.run(snakemake.wildcards.experiment)
    header, output = plan_header(plan) | {"race": found.fields}, snakemake.output
    store.deliver_evaluation(found.key, header, metrics=Path(output.metrics), samples=Path(output.samples))


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
        self._answers = {name: AnswerStore(store.folder, job.recipe(plan)) for name, plan in self._plans.items()}
        self._only_hands_over = only_hands_over
        self._facts = self._read_facts()
        self._record = RaceRecord(store.folder, self._answers, self._facts, settings, controls)

    def run(self, name: str) -> Standing:
        """Evaluate an experiment as far as the race takes it, and store its result.

        Raises:
            UserError: If the experiment cannot be evaluated, or the workflow was told to stop.
        """
        record = self._record
        if not any(name in outcome.failed for outcome in record.outcomes):
            record.forget_failure(name)
        while (standing := record.standing(name)) is None:
            rung = len(record.outcomes) + 1
            self._answer_or_fail(name, rung)
            self._finish_rung(rung)
        if not self._store.has(standing.key):
            self._answer_or_fail(name, standing.rung)
            self._store_result(name, standing)
            if standing.rung == record.n_rungs:
                self._finish_survivors(name)
        return standing

    def _finish_survivors(self, own: str) -> None:
        """Answer all documents for the other survivors, whose own jobs then only hand over."""
        for other in (one for one in self._record.live() if one != own):
            standing = self._record.standing(other)
            if is_stopping() or standing is None or self._store.has(standing.key):
                continue
            self._answer_beside(other, standing.rung, wait=False)
            if not self._missing(other, standing.rung) and not self._needs_perplexity(other, standing.rung):
                self._store_result_beside(other, standing)

    def _store_result_beside(self, name: str, standing: Standing) -> None:
        try:
            self._store_result(name, standing)
        except Exception as error:  # noqa: BLE001 (its own job reports the error)
            logger.warning("%s: its result could not be stored: %s", name, error)

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
        for other in decision.stopped:
            standing = self._record.standing(other)
            if standing is not None:
                self._store_result_beside(other, standing)

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
                if free and name not in self._record.failures:  # the job that had the claim may have failed
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
            self._job.check_plan(plan)
            found = self._job.evaluator.answer(plan, missing, with_perplexity=with_perplexity)
            rows = [(*key, score.loglikelihood, score.is_greedy) for key, score in found.scores.items()]
            columns = ["task", "doc_id", "choice", "loglikelihood", "is_greedy"]
            content = {
                "perplexity": dict(found.perplexity), "n_params": found.n_params, "timing_s": dict(found.timing_s),
            }  # fmt: skip
            answers.write_part(folder, recipe, pd.DataFrame(rows, columns=columns), content)

        job = f"evaluate {self._job.manifest['model']} {name}"
        make_piece(answers.parts, Piece(name, store_key(recipe), make, job, kind="rung"), beside=beside)

    def _store_result(self, name: str, standing: Standing) -> None:
        """Store the result of an experiment, computed from its answers, unless the store has it."""
        with self._store.claim(standing.key, wait=True):
            if not self._store.has(standing.key):
                self._summarise(name, standing)

    def _summarise(self, name: str, standing: Standing) -> None:
        from espalier.evaluation.evaluator import DocumentAnswers
        from espalier.tables import Samples, write_with_schema

        found, wanted = self._answers[name].read(), self._record.documents(standing.rung)
        scores = scores_of(found, wanted)
        perplexity = found.perplexity if standing.with_perplexity else {}
        answers = DocumentAnswers(scores, perplexity, found.n_params, found.timing_s)
        result = self._job.evaluator.summarise(answers)
        with self._store.new_entry(standing.key) as folder:
            write_with_schema(folder / SAMPLES, result.samples, Samples)
            content = {**result.metrics, "hardware": self._job.hardware, "recipe": standing.recipe}
            write_result(folder / METRICS, content)
        logger.info("%s: %s on %d documents", name, mean_in_words(result.metrics), len(wanted))

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
                TaskFacts.write(self._store, requests, evaluator.race_facts(), evaluator.blank_samples())
                facts = TaskFacts.read_unchecked(self._store.folder, requests)
        return facts

"""Selection of the valid experiments and of the best experiment, for the analyses of one model and of the whole study.

An experiment is valid if its status is `ok` and it has an accuracy on all tasks. The best experiment of a model at a
pruning ratio has the highest mean accuracy. Ties are broken by the lower perplexity on the first text, then by name. A
control (criterion `random`) is never the best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from espalier.analysis.message_json import english, reason_fields
from espalier.errors import UserError
from espalier.messages.catalogue import Message
from espalier.naming import BASELINE, CONTROL, ratio_key

STOPPED = "reason.stopped_in_race"
REQUIRED_COLUMNS = (
    "study", "model", "family", "kind", "experiment", "method", "pruning_ratio", "acc_mean", "acc_mean_rule", "status",
)  # fmt: skip
# A report does not need these columns, but it lists those that are missing.
OPTIONAL_COLUMNS = (
    "criterion", "calibration", "taylor_seq_len", "taylor_num_samples", "removed_param_fraction", "n_params",
    "extreme_pruning_layers",
)  # fmt: skip


@dataclass(frozen=True)
class ModelRows:
    """Rows of one model in the experiments table.

    Attributes:
        study: Name of the study.
        model: Name of the model.
        family: Family of the model.
        kind: `base` or `instruct`.
        acc_mean_rule: Rule of the mean accuracy: which metric of each task enters it.
        experiments: The pruned experiments, with two additional columns: `invalid` (code of the reason why a row is
            invalid; empty if it is valid) and `control`.
        baseline: Row of the unpruned model; None if it has no result.
        tasks: Tasks that enter the mean accuracy.
        texts: Perplexity texts. Experiments are compared on the first text.
        missing_columns: Optional columns that the table does not have. All their values are missing.
        protocol: Evaluation protocol of the results; None if it is unknown.
        methods: Methods of all models of the study, in the order of the table. The sides of a difference are in this
            order, whatever the order in which the grid of a model names its methods.
        skipped: Number of documents of each task that the model skipped, because they are longer than its context.
    """

    study: str
    model: str
    family: str
    kind: str
    acc_mean_rule: str
    experiments: pd.DataFrame
    baseline: dict[str, Any] | None
    tasks: list[str]
    texts: list[str]
    missing_columns: list[str]
    protocol: str | None = None
    methods: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """Pruning ratios of the model, ascending."""
        return ratios_of(self.experiments["pruning_ratio"])

    def at(self, ratio: float | None) -> pd.DataFrame:
        """Return the experiments at one pruning ratio; no rows if the ratio is None."""
        keys = self.experiments["pruning_ratio"].map(ratio_key)
        return self.experiments[keys == (None if ratio is None else ratio_key(ratio))]


@dataclass(frozen=True)
class ExperimentCounts:
    """Numbers of experiments.

    Attributes:
        total: Number of experiments.
        valid: Number of valid experiments, controls included.
        invalid: Number of invalid experiments.
        reasons: Number of invalid experiments for each reason, in English.
        codes: The same, by the code of the reason.
        controls: Number of valid controls.
    """

    total: int = 0
    valid: int = 0
    invalid: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    controls: int = 0
    codes: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: ExperimentCounts) -> ExperimentCounts:
        return ExperimentCounts(
            total=self.total + other.total,
            valid=self.valid + other.valid,
            invalid=self.invalid + other.invalid,
            reasons=_sums(self.reasons, other.reasons),
            controls=self.controls + other.controls,
            codes=_sums(self.codes, other.codes),
        )


@dataclass(frozen=True)
class Scores:
    """Results of one experiment or of the unpruned model.

    Attributes:
        acc_mean: Mean accuracy.
        ppl: Perplexity of the first text; None if it is missing.
        perplexities: Perplexity of each text.
        tasks: Accuracy of each task.
        n_params: Number of parameters.
    """

    acc_mean: float
    ppl: float | None
    perplexities: dict[str, float | None]
    tasks: dict[str, float | None]
    n_params: int | None


@dataclass(frozen=True)
class BaselineComparison:
    """Comparison of the best experiment with the unpruned model.

    Attributes:
        acc_mean_difference: Mean accuracy of the best experiment minus that of the unpruned model.
        acc_kept: Ratio of the two; None if the accuracy of the unpruned model is 0.
        ppl_ratio: Ratio of the perplexities of the first text; None if one is missing.
        reason: Why the models were not compared; all other values are then None.
    """

    acc_mean_difference: float | None = None
    acc_kept: float | None = None
    ppl_ratio: float | None = None
    reason: Message | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON content, with a reason as text (`reason`) and as message (`why`).

        Without a reason there is no key `why`: `global_best_config.json` has the comparison, and jobs that use the best
        experiment would run again for a key that says nothing.
        """
        fields = ("acc_mean_difference", "acc_kept", "ppl_ratio")
        values = {field: getattr(self, field) for field in fields}
        return values | (reason_fields(self.reason) if self.reason else {"reason": None})


def rows_of(
    experiments: pd.DataFrame, model: str, *, protocol: str | None = None, skipped: Mapping[str, int] | None = None
) -> ModelRows:
    """Select the rows of one model from the experiments table and mark invalid experiments and controls.

    Args:
        experiments: The experiments table.
        model: Name of the model.
        protocol: Evaluation protocol of the results; None if it is unknown.
        skipped: Number of documents of each task that the model skipped; None means no documents.

    Raises:
        UserError: If the table has no such model, lacks a required column, or lists an experiment twice.
    """
    if lacking := [column for column in REQUIRED_COLUMNS if column not in experiments]:
        raise UserError(f"the experiments table has no column {', '.join(lacking)}; run `snakemake consolidated` again")
    rows = experiments[experiments["model"] == model]
    if rows.empty:
        raise UserError(f"model {model!r} is not in the experiments table")
    if (twice := rows["experiment"].duplicated()).any():
        name = rows.loc[twice, "experiment"].iloc[0]
        raise UserError(f"model {model!r}: experiment {name} is in the experiments table twice; keep one of the two")
    missing = [column for column in OPTIONAL_COLUMNS if column not in rows]
    rows = rows.copy()
    rows[missing] = pd.NA
    is_baseline = rows["experiment"] == BASELINE
    pruned = rows[~is_baseline]
    baseline = rows[is_baseline & (rows["status"] == "ok") & rows["acc_mean"].notna()]
    measured = pruned[pruned["status"] == "ok"] if (pruned["status"] == "ok").any() else baseline
    texts = [column.removeprefix("ppl_") for column in _columns_with_prefix(rows, "ppl_") if rows[column].notna().any()]
    tasks = [column.removeprefix("acc_") for column in _task_columns(measured) if measured[column].notna().any()]
    return ModelRows(
        **{key: str(rows[key].iloc[0]) for key in ("study", "model", "family", "kind", "acc_mean_rule")},
        experiments=pruned.assign(invalid=_invalid_reasons(pruned, tasks), control=_is_control(pruned)),
        baseline=_row_dicts(baseline)[0] if len(baseline) else None,
        tasks=tasks,
        texts=texts,
        missing_columns=missing,
        protocol=protocol,
        methods=tuple(str(method) for method in experiments["method"].dropna().unique()),
        skipped=dict(skipped or {}),
    )


def valid_rows(rows: pd.DataFrame, *, controls: bool = False) -> pd.DataFrame:
    """Return the valid experiments, with or without controls."""
    valid = rows[rows["invalid"] == ""]
    return valid if controls else valid[~valid["control"]]


def is_raced(rows: pd.DataFrame) -> bool:
    """Return whether some experiments were raced, so that those that were stopped have answered fewer documents."""
    return "race_keep" in rows and bool(rows["race_keep"].notna().any())


def raced_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the experiments whose accuracies are known, controls and those that a race stopped included."""
    return rows[rows["invalid"].isin(["", STOPPED])]


def on_common_documents(rows: pd.DataFrame, accuracy: Mapping[str, float]) -> pd.DataFrame:
    """Return the experiments with their accuracies on the documents that all of them answered in a race.

    Those that the race stopped are valid here. Accuracies of single tasks are left as they are.

    Args:
        rows: Experiments of a model.
        accuracy: Mean accuracy of each experiment on the common documents.
    """
    known = rows["experiment"].isin(list(accuracy))
    values = rows["experiment"].map(accuracy).astype("float64")
    return rows.assign(
        acc_mean=values.where(known, rows["acc_mean"].astype("float64")), invalid=rows["invalid"].where(~known, "")
    )


def count_experiments(rows: pd.DataFrame) -> ExperimentCounts:
    """Count the valid experiments, the invalid experiments for each reason, and the valid controls."""
    counts = rows.loc[rows["invalid"] != "", "invalid"].value_counts().sort_index()
    codes = {str(code): int(n) for code, n in counts.items()}
    valid = valid_rows(rows, controls=True)
    return ExperimentCounts(
        total=len(rows),
        valid=len(valid),
        invalid=len(rows) - len(valid),
        reasons={english(Message(code)): n for code, n in codes.items()},
        controls=int(valid["control"].sum()),
        codes=codes,
    )


def best_row(rows: pd.DataFrame, texts: list[str]) -> dict[str, Any] | None:
    """Return the row of the best experiment of one model and ratio; None if no experiment is valid."""
    candidates = _row_dicts(valid_rows(rows))
    text = f"ppl_{texts[0]}" if texts else None

    def order(row: Mapping[str, Any]) -> tuple[float, float, str]:
        perplexity = to_float(row[text]) if text else None
        return -row["acc_mean"], math.inf if perplexity is None else perplexity, row["experiment"]

    return min(candidates, key=order, default=None)


def scores_of(row: Mapping[str, Any], model: ModelRows) -> Scores:
    """Return the accuracies, perplexities and number of parameters of a row that has a mean accuracy."""
    perplexities = {text: to_float(row[f"ppl_{text}"]) for text in model.texts}
    return Scores(
        acc_mean=float(row["acc_mean"]),
        ppl=perplexities[model.texts[0]] if model.texts else None,
        perplexities=perplexities,
        tasks={task: to_float(row[f"acc_{task}"]) for task in model.tasks},
        n_params=to_int(row["n_params"]),
    )


def baseline_scores(model: ModelRows) -> Scores | None:
    """Return the scores of the unpruned model; None if it has no result."""
    return None if model.baseline is None else scores_of(model.baseline, model)


def compare_with_baseline(best: Scores | None, baseline: Scores | None) -> BaselineComparison:
    """Compare the best experiment with the unpruned model."""
    if best is None:
        return BaselineComparison(reason=Message("no_valid_experiment"))
    if baseline is None:
        return BaselineComparison(reason=Message("no_baseline"))
    if any(baseline.tasks[task] is None for task in best.tasks):
        return BaselineComparison(reason=Message("baseline_tasks"))
    return BaselineComparison(
        acc_mean_difference=best.acc_mean - baseline.acc_mean,
        acc_kept=best.acc_mean / baseline.acc_mean if baseline.acc_mean > 0 else None,
        ppl_ratio=best.ppl / baseline.ppl if best.ppl and baseline.ppl else None,
    )


def global_best_config(analysis: Mapping[str, Any]) -> dict[str, Any]:
    """Extract the best configuration at each pruning ratio from the analysis of one model."""
    found = _extract(analysis, ("pruning_ratio", "best", "baseline", "best_vs_baseline"))
    for content in (found, *found["by_ratio"].values()):
        # Jobs that use the best experiment would run again after an upgrade, for a key that older versions had not.
        content["best_vs_baseline"] = {k: v for k, v in content["best_vs_baseline"].items() if k != "why"}
    return found


def method_comparison(analysis: Mapping[str, Any]) -> dict[str, Any]:
    """Extract the comparison of methods at each pruning ratio from the analysis of one model."""
    return _extract(analysis, ("pruning_ratio", "experiments", "methods", "best_by_mean"))


def ratios_of(values: Iterable[float]) -> list[float]:
    """Return the distinct pruning ratios, ascending."""
    return sorted({ratio_key(value): float(value) for value in values}.values())


def to_float(value: Any) -> float | None:
    """Convert a table cell to a number for JSON; missing and infinite values become None."""
    if pd.isna(value) or math.isinf(value):
        return None
    return float(value)


def to_int(value: Any) -> int | None:
    """Convert a table cell to a whole number for JSON; missing values become None."""
    return None if pd.isna(value) else int(value)


def to_str(value: Any) -> str | None:
    """Convert a table cell to a string for JSON; missing values become None."""
    return None if pd.isna(value) else str(value)


def _extract(analysis: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {
        "model": analysis["model"],
        **{key: analysis[key] for key in keys},
        "by_ratio": {p: {key: content[key] for key in keys} for p, content in analysis["by_ratio"].items()},
    }


def _sums(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {key: first.get(key, 0) + second.get(key, 0) for key in sorted({*first, *second})}


def _invalid_reasons(rows: pd.DataFrame, tasks: list[str]) -> pd.Series[str]:
    lacks_a_task = rows[[f"acc_{task}" for task in tasks]].isna().any(axis=1)
    reasons = pd.Series("", index=rows.index, dtype=object)
    reasons[lacks_a_task] = "reason.fewer_tasks"
    reasons[rows["acc_mean"].isna()] = "reason.no_accuracy"
    if "race_stopped_by" in rows:  # its accuracies rest on fewer documents, so they are not compared with the others
        reasons[rows["race_stopped_by"].notna()] = STOPPED
    return reasons.where(rows["status"] == "ok", "reason." + rows["status"].astype(object))


def _is_control(rows: pd.DataFrame) -> pd.Series[bool]:
    return pd.Series([one == CONTROL for one in rows["criterion"].astype(object).fillna("")], rows.index, bool)


def _columns_with_prefix(rows: pd.DataFrame, prefix: str) -> list[str]:
    return [column for column in rows.columns if column.startswith(prefix)]


def _task_columns(rows: pd.DataFrame) -> list[str]:
    return [column for column in _columns_with_prefix(rows, "acc_") if column not in {"acc_mean", "acc_mean_rule"}]


def _row_dicts(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]

"""Strict schemas of the tables. Every table is validated before it is written: `Samples.validate(frame)`."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing import Series

from espalier.files import write_table


class _Table(pa.DataFrameModel):
    class Config:
        strict = True
        coerce = False
        ordered = True


class Samples(_Table):
    """Each row scores one answer choice of one document of a task."""

    task: Series[pa.String] = pa.Field(description="Task of lm-evaluation-harness.")
    doc_id: Series[int] = pa.Field(ge=0, description="Number of the document in its split.")
    choice: Series[int] = pa.Field(ge=0, description="Number of the choice.")
    gold: Series[bool] = pa.Field(description="Whether this choice is right.")
    loglikelihood: Series[float] = pa.Field(le=0, description="Sum of token log-probabilities of the choice (nats).")
    is_greedy: Series[bool] = pa.Field(description="Whether each token of the choice was the most probable one.")
    n_chars: Series[int] = pa.Field(ge=0, description="Length of the choice without delimiter (characters).")
    n_bytes: Series[int] = pa.Field(ge=0, description="Length of the choice without delimiter (UTF-8 bytes).")
    task_group: Series[pa.String] | None = pa.Field(
        nullable=True,
        description="Group that the task counts in; null if it counts alone. Left out if all do, and by old versions.",
    )  # fmt: skip

    class Config(_Table.Config):
        unique = ["task", "doc_id", "choice"]  # noqa: RUF012 (pandera's own form)


class Generations(_Table):
    """Each row is the answer to one document of a generative task, as one filter of the task reads it."""

    task: Series[pa.String] = pa.Field(description="Task of lm-evaluation-harness.")
    doc_id: Series[int] = pa.Field(ge=0, description="Number of the document in its split.")
    filter: Series[pa.String] = pa.Field(description="Filter that reads the answer; `none` takes it as it is.")
    answer: Series[pa.String] = pa.Field(description="Text that the model generated, without the stop text.")
    extracted: Series[pa.String] = pa.Field(description="What the filter extracts from it, which is compared.")
    target: Series[pa.String] = pa.Field(description="The right answer.")

    class Config(_Table.Config):
        unique = ["task", "doc_id", "filter"]  # noqa: RUF012


class Importance(_Table):
    """Each row gives the importance of one prunable group, measured on `n_samples` calibration sequences."""

    n_samples: Series[int] = pa.Field(ge=0, description="Calibration sequences; 0 for a criterion that reads no text.")
    layer: Series[int] = pa.Field(ge=0, description="Number of the decoder layer.")
    block: Series[pa.String] = pa.Field(
        isin=["attention", "mlp", "experts"], description="Block that the group belongs to; `experts`: whole experts."
    )
    group: Series[int] = pa.Field(
        ge=0, description="Number of the KV group, MLP channel or expert. Channels of experts count expert by expert."
    )
    importance: Series[float] = pa.Field(
        ge=0, lt=float("inf"), description="Sum of the criterion over the weights of the group."
    )

    class Config(_Table.Config):
        unique = ["n_samples", "layer", "block", "group"]  # noqa: RUF012


class GradientStatistics(_Table):
    """Each row describes g, the mean gradient of one projection (weight and bias) over `n_samples` sequences."""

    n_samples: Series[int] = pa.Field(ge=1, description="Calibration sequences that the gradient is the mean of.")
    layer: Series[int] = pa.Field(ge=0, description="Number of the decoder layer.")
    projection: Series[pa.String] = pa.Field(description="Projection, such as q_proj.")
    n_params: Series[int] = pa.Field(ge=1, description="Parameters of the projection.")
    grad_mean: Series[float] = pa.Field(ge=0, lt=float("inf"), description="Mean of |g|.")
    grad_std: Series[float] = pa.Field(ge=0, lt=float("inf"), description="Standard deviation of |g|.")
    grad_norm: Series[float] = pa.Field(ge=0, lt=float("inf"), description="L2 norm of g.")
    grad_max: Series[float] = pa.Field(ge=0, lt=float("inf"), description="Largest |g|.")

    class Config(_Table.Config):
        unique = ["n_samples", "layer", "projection"]  # noqa: RUF012


class PriorTable(_Table):
    """Each row gives the effect of removing one block or one whole layer, for one number of calibration samples."""

    n_samples: Series[int] = pa.Field(
        ge=1, description="Calibration sequences of the setting. Priors use a fifth, or `calibration.prior_samples`."
    )
    layer: Series[int] = pa.Field(ge=0, description="Number of the decoder layer.")
    scope: Series[pa.String] = pa.Field(isin=["layer", "attention", "mlp"], description="What was removed.")
    loss_increase: Series[float] = pa.Field(description="Mean token loss without it minus with it (nats).")
    cosine_distance: Series[float] = pa.Field(
        ge=-1e-6, le=2.000001, description="Mean over tokens of 1 - cosine between hidden states before and after."
    )

    class Config(_Table.Config):
        unique = ["n_samples", "layer", "scope"]  # noqa: RUF012


class Experiments(_Table):
    """Each row is one experiment, or one unpruned model (`experiment` is then `baseline`)."""

    study: Series[pa.String] = pa.Field(description="Name of the study.")
    model: Series[pa.String] = pa.Field(description="Name of the model.")
    family: Series[pa.String] = pa.Field(description="Family of the model.")
    kind: Series[pa.String] = pa.Field(isin=["base", "instruct"], description="Kind of the model.")
    experiment: Series[pa.String] = pa.Field(description="Name of the experiment; `baseline` is the unpruned model.")
    method: Series[pa.String] = pa.Field(nullable=True, description="Pruning method; null for the baseline.")
    criterion: Series[pa.String] = pa.Field(nullable=True, description="Criterion of the method.")
    taylor_seq_len: Series[pd.Int64Dtype] = pa.Field(
        ge=2, nullable=True, description="Calibration sequence length (tokens); null where the method has no such axis."
    )
    taylor_num_samples: Series[pd.Int64Dtype] = pa.Field(
        ge=1, nullable=True, description="Calibration sequences; null where the method has no such axis."
    )
    calibration: Series[pa.String] = pa.Field(nullable=True, description="Calibration set and seed.")
    pruning_ratio: Series[float] = pa.Field(ge=0, lt=1, description="Requested share of all parameters; 0: baseline.")
    removed_param_fraction: Series[float] = pa.Field(ge=0, lt=1, nullable=True, description="Achieved share.")
    n_params: Series[pd.Int64Dtype] = pa.Field(ge=1, nullable=True, description="Parameters of the evaluated model.")
    acc_mean: Series[float] = pa.Field(ge=0, le=1, nullable=True, description="Mean accuracy over the tasks.")
    acc_mean_rule: Series[pa.String] = pa.Field(description="Which accuracy of each task enters the mean.")
    ppl: Series[float] | None = pa.Field(
        alias=r"^ppl_.+", regex=True, gt=0, nullable=True, description="Perplexity of a text."
    )
    acc: Series[float] | None = pa.Field(
        alias=r"^acc_(?!mean$|mean_rule$).+", regex=True, ge=0, le=1, nullable=True,
        description="Accuracy of a task, as it enters the mean.",
    )  # fmt: skip
    gen: Series[float] | None = pa.Field(
        alias=r"^gen_.+", regex=True, nullable=True,
        description="`gen_{task}_{metric}`: metric of a generative task, which never enters the mean.",
    )  # fmt: skip
    grad: Series[float] | None = pa.Field(
        alias=r"^grad_.+", regex=True, ge=0, nullable=True,
        description="Gradient metric over layers; null where the method uses no gradient. Where `source` is not `run`, "
        "by the definition of the imported files: never compared with computed ones.",
    )  # fmt: skip
    extreme_pruning_layers: Series[pd.Int64Dtype] = pa.Field(
        ge=0, nullable=True, description="Layers whose MLP lost more than half of its channels."
    )
    status: Series[pa.String] = pa.Field(
        isin=["ok", "failed", "missing", "unknown", "contradictory"],
        description="Whether there are results; unknown, contradictory: an imported folder whose setting is uncertain.",
    )
    source: Series[pa.String] = pa.Field(description="Where the numbers come from: `run`, or the imported folder.")
    note: Series[pa.String] | None = pa.Field(
        nullable=True,
        description="What was odd about an imported folder; the column is there if anything was imported.",
    )
    race_keep: Series[pa.String] | None = pa.Field(
        nullable=True,
        description="What its race promises to keep; the columns of races are there if anything was raced.",
    )
    race_rung: Series[pd.Int64Dtype] | None = pa.Field(
        ge=1, nullable=True, description="Last rung of the race that the experiment answered."
    )
    race_n_documents: Series[pd.Int64Dtype] | None = pa.Field(
        ge=1, nullable=True, description="Documents that its accuracies rest on."
    )
    race_stopped_by: Series[pa.String] | None = pa.Field(
        nullable=True,
        description="Experiment that led it by more than chance explains after this rung; null if it was not stopped.",
    )

    class Config(_Table.Config):
        unique = ["model", "experiment"]  # noqa: RUF012


class AnalysedExperiments(Experiments):
    """The rows of the experiments table, with their uncertainty and costs. Intervals are at 95%, over documents.

    They are null where nothing is known about documents. The sets are those of one model and pruning ratio.
    """

    acc: Series[float] | None = pa.Field(
        alias=r"^acc_(?!mean$|mean_rule$|mean_low$|mean_high$|kept$|kept_low$|kept_high$).+", regex=True, ge=0, le=1,
        nullable=True, description="Accuracy of a task, as it enters the mean.",
    )  # fmt: skip
    acc_mean_low: Series[float] = pa.Field(nullable=True, description="Lower end of the interval of acc_mean.")
    acc_mean_high: Series[float] = pa.Field(nullable=True, description="Upper end of the interval of acc_mean.")
    acc_kept: Series[float] = pa.Field(
        nullable=True, description="acc_mean divided by that of the unpruned model; null where that has no result."
    )
    acc_kept_low: Series[float] = pa.Field(nullable=True, description="Lower end of the interval of acc_kept.")
    acc_kept_high: Series[float] = pa.Field(nullable=True, description="Upper end of the interval of acc_kept.")
    in_set: Series[pd.BooleanDtype] = pa.Field(
        nullable=True,
        description="Whether it is in the pointwise set: cannot be told from the best at 95%, tested alone. "
        "Null for controls.",
    )
    in_simultaneous_set: Series[pd.BooleanDtype] = pa.Field(
        nullable=True,
        description="Whether it is in the simultaneous set: cannot be told from the best in a test of all experiments "
        "together, at the level of the study. The pages show this set. Null for controls.",
    )
    kv_cache_bytes_per_token: Series[pd.Int64Dtype] = pa.Field(
        ge=0, nullable=True, description="Size of the KV cache of one token, in the dtype of the model's config."
    )
    flops_per_token: Series[pd.Int64Dtype] = pa.Field(
        ge=0, nullable=True, description="Floating-point operations of one token, attention scores left out."
    )


class Draws(_Table):
    """Each row is one draw of the bootstrap of the documents: the mean accuracy of each experiment in this draw.

    Columns are joint: the same documents are drawn for all experiments. The table has no column if nothing is known
    about documents. The metadata of the schema has `source` (`documents` or `counts`), `origin` and `accuracy`, the
    accuracies themselves.
    """

    experiment: Series[np.float32] | None = pa.Field(
        alias=r"^.+", regex=True, ge=0, le=1,
        description="Mean accuracy of the experiment of this name in the draw; `baseline` is the unpruned model. "
        "After a race on the documents that all experiments answered; with `all_documents/` before the name, on all.",
    )  # fmt: skip


class Evaluations(_Table):
    """Each row is one metric of one task for one experiment.

    A perplexity has the task `ppl_{text}` and the metric `perplexity`.
    """

    model: Series[pa.String] = pa.Field(description="Name of the model.")
    experiment: Series[pa.String] = pa.Field(description="Name of the experiment.")
    task: Series[pa.String] = pa.Field(description="Task, or `ppl_{text}`.")
    metric: Series[pa.String] = pa.Field(description="Metric of the task.")
    value: Series[float] = pa.Field(
        description="Its value (perplexity in exp(nats), accuracies 0-1, other metrics as lm-eval defines them)."
    )
    stderr: Series[float] = pa.Field(ge=0, nullable=True, description="Standard error; null where there is none.")
    n_samples: Series[pd.Int64Dtype] = pa.Field(
        ge=1, nullable=True, coerce=True,
        description="Documents, or scored tokens of a perplexity text; null where an imported file does not say.",
    )  # fmt: skip
    limit: Series[pd.Int64Dtype] = pa.Field(
        ge=1, nullable=True, description="Limit on documents; null means all (unknown where `protocol` is `imported`)."
    )
    n_shot: Series[pd.Int64Dtype] = pa.Field(
        ge=0, nullable=True, coerce=True, description="Solved examples before each question; null for imported ones."
    )
    task_version: Series[pa.String] = pa.Field(nullable=True, description="Version of lm-eval's task definition.")
    protocol: Series[pa.String] = pa.Field(
        description="Hash of the evaluation protocol (`imported`: unknown); only equal ones compare."
    )
    n_truncated: Series[pd.Int64Dtype] = pa.Field(
        ge=0, nullable=True,
        description="Documents that were longer than the model's context and lost their beginning; null where unknown.",
    )  # fmt: skip
    n_skipped: Series[pd.Int64Dtype] = pa.Field(
        ge=0, nullable=True,
        description="Documents that were longer and were not scored (`too_long: skip`); null where unknown.",
    )  # fmt: skip
    study: Series[pa.String] | None = pa.Field(description="Name of the study.")
    method: Series[pa.String] | None = pa.Field(nullable=True, description="Pruning method; null for the baseline.")
    pruning_ratio: Series[float] | None = pa.Field(
        ge=0, lt=1, description="Requested share of all parameters; 0: baseline."
    )
    enters_mean: Series[bool] | None = pa.Field(description="Whether this metric of this task enters acc_mean.")

    class Config(_Table.Config):
        unique = ["model", "experiment", "task", "metric"]  # noqa: RUF012


class Layers(_Table):
    """Each row gives the sizes of one decoder layer of one experiment, before and after pruning."""

    model: Series[pa.String] = pa.Field(description="Name of the model.")
    experiment: Series[pa.String] = pa.Field(description="Name of the experiment.")
    layer: Series[int] = pa.Field(ge=0, description="Number of the decoder layer.")
    kept_kv_groups: Series[pd.Int64Dtype] = pa.Field(
        ge=0, nullable=True, coerce=True, description="KV groups kept; null for imported experiments."
    )
    kept_mlp_channels: Series[pd.Int64Dtype] = pa.Field(
        ge=0, nullable=True, coerce=True, description="MLP channels kept; null where an imported file does not say."
    )
    params_before: Series[int] = pa.Field(ge=1, description="Parameters of the layer before pruning, norms included.")
    params_after: Series[int] = pa.Field(
        ge=0, description="Parameters after pruning, norms included; 0 for a removed layer."
    )
    attention_before: Series[int] = pa.Field(ge=0, description="Prunable attention parameters before pruning.")
    attention_after: Series[int] = pa.Field(ge=0, description="Prunable attention parameters after pruning.")
    mlp_before: Series[int] = pa.Field(ge=0, description="Prunable MLP parameters before pruning.")
    mlp_after: Series[int] = pa.Field(ge=0, description="Prunable MLP parameters after pruning.")
    kept_experts: Series[pd.Int64Dtype] | None = pa.Field(
        ge=0, nullable=True, coerce=True, description="Experts kept, of models with experts; null in a dense layer."
    )
    study: Series[pa.String] | None = pa.Field(description="Name of the study.")
    method: Series[pa.String] | None = pa.Field(nullable=True, description="Pruning method.")
    pruning_ratio: Series[float] | None = pa.Field(gt=0, lt=1, description="Requested share of all parameters.")

    class Config(_Table.Config):
        unique = ["model", "experiment", "layer"]  # noqa: RUF012


class ImportedValues(_Table):
    """Each row is one value that was read from one imported search folder.

    The numbers are those in the imported files. Every experiment has one row with its status. The column `part` says
    what a row holds:

    - `status`: the status of the experiment, in `text`.
    - `note`: a value that was left out or that disagrees with another one, described in `text`.
    - `params`: a number that describes the whole model. `name` is `n_params`, `params_before`, `params_after`,
      `removed_param_fraction` or `extreme_pruning_layers`.
    - `task`: a metric of a task. `item` is the task and `name` the metric.
    - `perplexity`: the perplexity of a text. `item` is the text.
    - `gradient`: a gradient metric, as the imported files define it. `name` is the metric.
    - `layer`: a size of a decoder layer. `name` is `params`, `attention`, `mlp` or `channels`, followed by `_before` or
      `_after`.
    """

    model: Series[pa.String] = pa.Field(description="Name of the model.")
    search_folder: Series[pa.String] = pa.Field(description="Name of the search folder.")
    folder: Series[pa.String] = pa.Field(description="Name of the experiment's folder.")
    source: Series[pa.String] = pa.Field(description="Path of the experiment's folder.")
    experiment: Series[pa.String] = pa.Field(description="Name of the experiment; the folders' names where unclear.")
    method: Series[pa.String] = pa.Field(nullable=True, description="Method in the search folder's name.")
    criterion: Series[pa.String] = pa.Field(nullable=True, description="Criterion of that method in the config.")
    taylor_seq_len: Series[pd.Int64Dtype] = pa.Field(ge=2, nullable=True, description="As in the folder's name.")
    taylor_num_samples: Series[pd.Int64Dtype] = pa.Field(ge=1, nullable=True, description="As in the folder's name.")
    pruning_ratio: Series[float] = pa.Field(
        gt=0, lt=1, nullable=True, description="Requested share of all parameters: the suffix of the search folder."
    )
    status: Series[pa.String] = pa.Field(
        isin=["ok", "failed", "unknown", "contradictory"],
        description="failed: no results; unknown: a name that cannot be read; contradictory: a setting that is claimed "
        "twice, or files about another folder.",
    )
    part: Series[pa.String] = pa.Field(
        isin=["status", "note", "params", "task", "perplexity", "gradient", "layer"], description="What the row holds."
    )
    item: Series[pa.String] = pa.Field(nullable=True, description="Task or perplexity text.")
    name: Series[pa.String] = pa.Field(nullable=True, description="Metric or count; number of a note.")
    layer: Series[pd.Int64Dtype] = pa.Field(ge=0, nullable=True, description="Number of the decoder layer.")
    value: Series[float] = pa.Field(ge=0, lt=float("inf"), nullable=True, description="The number.")
    stderr: Series[float] = pa.Field(ge=0, lt=float("inf"), nullable=True, description="Its standard error.")
    n_samples: Series[pd.Int64Dtype] = pa.Field(
        ge=1, nullable=True, description="Documents: the file's count, or the one that its standard errors imply."
    )
    text: Series[pa.String] = pa.Field(nullable=True, description="The status, or a note.")

    class Config(_Table.Config):
        unique = ["source", "part", "item", "name", "layer"]  # noqa: RUF012


class RecoveredExperiments(_Table):
    """Each row gives the results of one recovered experiment, before and after fine-tuning."""

    model: Series[pa.String] = pa.Field(description="Name of the model.")
    experiment: Series[pa.String] = pa.Field(description="Name of the experiment.")
    method: Series[pa.String] = pa.Field(description="Pruning method.")
    pruning_ratio: Series[float] = pa.Field(gt=0, lt=1, description="Requested share of all parameters.")
    acc_mean_rule: Series[pa.String] = pa.Field(description="Which accuracy of each task enters the mean.")
    acc_mean_before: Series[float] = pa.Field(
        ge=0, le=1, nullable=True, description="Mean accuracy, pruned only; null if a race stopped the experiment."
    )
    acc_mean_after: Series[float] = pa.Field(ge=0, le=1, nullable=True, description="Mean accuracy, recovered.")
    ppl_before: Series[float] | None = pa.Field(
        alias=r"^ppl_before_.+", regex=True, gt=0, nullable=True, description="Perplexity of a text, pruned only."
    )
    ppl_after: Series[float] | None = pa.Field(
        alias=r"^ppl_after_.+", regex=True, gt=0, nullable=True, description="Perplexity of a text, recovered."
    )
    n_tokens: Series[pd.Int64Dtype] = pa.Field(ge=1, nullable=True, description="Tokens trained on, over all epochs.")
    n_trainable: Series[pd.Int64Dtype] = pa.Field(ge=1, nullable=True, description="Trained parameters.")
    trained: Series[pa.String] = pa.Field(isin=["lora", "full"], nullable=True, description="Adapters, or all weights.")
    distilled: Series[pd.BooleanDtype] = pa.Field(nullable=True, description="Whether on the unpruned model's logits.")
    seconds: Series[float] = pa.Field(ge=0, nullable=True, description="Time of the training loop (s).")
    peak_memory_bytes: Series[pd.Int64Dtype] = pa.Field(
        ge=0, nullable=True, description="Most memory held: of the GPUs, or of the process on the CPU."
    )
    status: Series[pa.String] = pa.Field(isin=["ok", "failed", "missing"], description="Whether there are results.")
    note: Series[pa.String] = pa.Field(nullable=True, description="Why it failed; null where it did not.")

    class Config(_Table.Config):
        unique = ["model", "experiment"]  # noqa: RUF012


# Unit of each column, by a pattern of its name. "1" is a number without unit; "none" is a name, a text or true/false.
_UNITS = {
    r"taylor_seq_len": "tokens",
    r"taylor_num_samples": "sequences",
    r"n_params|params_.*|attention_(before|after)|mlp_(before|after)|n_trainable": "parameters",
    r"kept_kv_groups": "KV groups",
    r"kept_mlp_channels": "MLP channels",
    r"kept_experts": "experts",
    r"acc_mean_rule": "none",
    r"acc_kept.*": "fraction of the unpruned model",
    r"acc_.*|.*_fraction|pruning_ratio": "fraction (0 to 1)",
    r"ppl_.*": "exp(nats per token)",
    r"loglikelihood|loss_increase": "nats",
    r"grad_(mean|norm)_range": "nats per unit of weight",
    r"grad_.*_ratio": "1",
    r"grad_(mean|std|norm|max)": "nats per unit of weight",
    r"cosine_distance": "1",
    r"n_chars": "characters",
    r"n_bytes|peak_memory_bytes": "bytes",
    r"n_tokens": "tokens",
    r"seconds": "s",
    r"kv_cache_bytes_per_token": "bytes per token",
    r"flops_per_token": "FLOPs per token",
    r"extreme_pruning_layers": "layers",
    r"limit|race_n_documents|n_truncated|n_skipped": "documents",
    r"gen_.*": "as lm-eval defines the metric",
    r"filter|answer|extracted|target": "none",
    r"n_shot": "examples",
    r"layer|group|doc_id|choice|race_rung": "number in its order",
    r"study|model|family|kind|experiment|method|criterion|calibration|status|source|note|task|metric": "none",
    r"task_version|task_group|protocol|block|scope|projection|race_keep|race_stopped_by|trained|distilled": "none",
    r"gold|is_greedy|enters_mean|in_.*set": "none",
}
_SAMPLES_OF_CALIBRATION = {"n_samples": "sequences"}
# The same names have other units in these tables.
_UNITS_OF_TABLE: dict[type[_Table], dict[str, str]] = {
    Importance: {**_SAMPLES_OF_CALIBRATION, "importance": "nats with criterion taylor, else the criterion's own"},
    GradientStatistics: _SAMPLES_OF_CALIBRATION,
    PriorTable: _SAMPLES_OF_CALIBRATION,
    Evaluations: {
        "value": "fraction (0 to 1); a perplexity: exp(nats per token)",
        "stderr": "the unit of value",
        "n_samples": "documents; of a perplexity: tokens",
    },
    ImportedValues: {
        r"search_folder|folder|part|item|name|text": "none",
        "value": "fraction (0 to 1) of a task, exp(nats per token) of a perplexity, parameters or channels of a size",
        "stderr": "the unit of value",
        "n_samples": "documents",
    },
    Draws: {r".*": "fraction (0 to 1)"},
}


def unit_of(schema: type[pa.DataFrameModel], column: str) -> str:
    """Return the unit of a column.

    Raises:
        LookupError: If the column has no unit in this module.
    """
    found = {**_UNITS_OF_TABLE.get(schema, {}), **_UNITS}
    for pattern, unit in found.items():
        if re.fullmatch(pattern, column):
            return str(unit)
    raise LookupError(f"{schema.__name__}.{column}: has no unit")


def column_metadata(schema: type[pa.DataFrameModel], columns: Iterable[Hashable]) -> Mapping[str, Mapping[str, str]]:
    """Return the description and the unit of each column of a table, for the Parquet schema."""
    known = schema.to_schema().columns
    found: dict[str, dict[str, str]] = {}
    for name in map(str, columns):
        column = known.get(name) or next(one for key, one in known.items() if one.regex and re.match(key, name))
        found[name] = {"description": str(column.description), "unit": unit_of(schema, name)}
    return found


def write_with_schema(path: str | Path, frame: pd.DataFrame, schema: type[pa.DataFrameModel]) -> None:
    """Validate a table of measurements and write it as Parquet, with the description and unit of each column.

    An importance table of an 8B model has 4.6 million rows, so encodings are chosen by size.

    Raises:
        pandera.errors.SchemaError: If the table does not follow the schema.
    """
    write_table(path, schema.validate(frame), column_metadata(schema, frame), is_large=True)

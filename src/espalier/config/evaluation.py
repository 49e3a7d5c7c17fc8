"""The section `evaluation`: tasks, perplexity and the protocol, which is stored with every number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from espalier.config.base import Fraction, PositiveInt, Section, check_path, duplicates
from espalier.config.data import PerplexityText
from espalier.statistics.rungs import RUNGS, rungs_problem

SEVEN_TASKS = ("boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
WIKITEXT2 = PerplexityText(
    name="wikitext2", dataset="Salesforce/wikitext", config="wikitext-2-raw-v1", split="test", joiner="\n\n"
)
# The repository of PTB holds only code. The hub stores the converted Parquet files on a branch of their own.
PTB = PerplexityText(
    name="ptb",
    dataset="ptb-text-only/ptb_text_only",
    data_files="penn_treebank/test/0000.parquet",
    revision="refs/convert/parquet",
    split="test",
    text_field="sentence",
    joiner=" ",
)


class Perplexity(Section):
    """Perplexity over sliding windows. Each token is scored at most once."""

    window: Annotated[int, Field(ge=2)] = 2048
    """Window length, in tokens."""
    stride: PositiveInt = 512
    """Tokens by which the window moves, at most `window`. Equal to it, windows are disjoint, as Wanda, SparseGPT and
    GPTQ report: their first tokens and what is left at the end of the text are not scored."""
    bos: Literal["first", "every", "none"] | None = None
    """Which windows begin with the BOS token; none given means as the text was tokenised (`add_bos`)."""
    texts: tuple[PerplexityText, ...] = (WIKITEXT2, PTB)
    """Texts to measure on."""

    @model_validator(mode="after")
    def _consistent(self) -> Perplexity:
        if self.stride > self.window:
            raise ValueError(f"stride {self.stride} is larger than window {self.window}; give at most the window")
        if repeated := duplicates(text.name for text in self.texts):
            raise ValueError(f"two texts are named {repeated[0]!r}; give each its own name")
        return self


class Racing(Section):
    """A race among the experiments of each model and ratio, which stops those that are clearly behind.

    docs/statistics.md defines it. A change of any key starts a new race, which answers only what has no answer yet.
    """

    keep: Literal["best", "set", "comparisons"] = "best"
    """What is never stopped: the experiment with the highest mean accuracy on all documents; also the whole set that
    cannot be told from it at 95% (pages without a race show a larger set); or the best, after a first rung that is
    large enough to compare all experiments."""
    confidence: Fraction = 0.99
    """Probability that the race keeps this promise."""
    rungs: tuple[float, ...] = RUNGS
    """Share of the full grid's token cost after each rung; the last is 1."""
    half_width: Fraction | None = None
    """Only for `comparisons`: largest half-width of the 95% interval of each mean accuracy after the first rung, as in
    the reports. If all documents do not make it so narrow, the first rung has all."""
    perplexity: Literal["survivors", "all"] = "survivors"
    """Whose perplexity is measured: of experiments that answer all documents, or of all."""
    seed: int = 0
    """Seed of the order of the documents."""

    @field_validator("rungs")
    @classmethod
    def _rungs_grow_to_one(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if problem := rungs_problem(values):
            raise ValueError(problem)
        return values

    @model_validator(mode="after")
    def _width_belongs_to_comparisons(self) -> Racing:
        if (self.keep == "comparisons") != (self.half_width is not None):
            raise ValueError("half_width belongs to keep: comparisons; give both, such as half_width: 0.02, or neither")
        return self


TaskName = Annotated[str, Field(min_length=1)]


class TaskEntry(Section):
    """A task with settings of its own, such as `{name: mmlu, num_fewshot: 5}`."""

    name: TaskName
    """Task, group or tag of lm-evaluation-harness."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Solved examples before each question of this task; none means `evaluation.num_fewshot`."""


def _form_of_entry(value: object) -> str:
    return "<mapping>" if isinstance(value, dict | TaskEntry) else "<name>"


Entry = Annotated[
    Annotated[TaskName, Tag("<name>")] | Annotated[TaskEntry, Tag("<mapping>")],
    Discriminator(_form_of_entry),
]


class Evaluation(Section):
    """Evaluation of the models. The defaults are the protocol of the published runs."""

    tasks: Annotated[tuple[Entry, ...], Field(min_length=1)] = SEVEN_TASKS
    """Tasks, groups or tags of lm-evaluation-harness: names, or mappings such as `{name: mmlu, num_fewshot: 5}`.
    Multiple-choice tasks enter the mean accuracy. Generative tasks have columns of their own."""
    data: Annotated[str, Field(min_length=1)] = "hub"
    """Task documents: `hub` (staged), `sandbox`, or a folder with `{task}/{split}.parquet` (.json, .jsonl.gz ...)."""
    limit: PositiveInt | None = None
    """Documents per task; none means all. Stored with every number."""
    too_long: Literal["truncate", "skip"] = "truncate"
    """What happens to a document that is longer than the model's context: it loses its beginning, as in lm-eval, or is
    not scored. The tables count such documents."""
    perplexity: Perplexity = Perplexity()
    """Perplexity texts and windows."""
    num_fewshot: Annotated[int, Field(ge=0)] = 0
    """Solved examples before each question, for tasks that give no number of their own."""
    chat_template: bool = False
    """Whether prompts are written with the tokenizer's chat template."""
    fewshot_as_multiturn: bool | None = None
    """Whether solved examples are turns of the chat; none means as lm-eval does: turns, with a chat template."""
    add_bos: bool | None = None
    """Whether texts (of tasks, perplexity and calibration) begin with the BOS token; none means as the tokenizer does.
    A tokenizer without BOS adds none, as in lm-eval."""
    racing: Racing | None = None
    """Race of the experiments; none means that every experiment answers all documents."""
    token_budget: Annotated[int, Field(ge=64)] = 16384
    """Tokens in one forward pass."""
    compile: bool = False
    """Whether layers run through `torch.compile`; the first batches of a job are then slow (docs/method.md)."""
    experiments_per_job: PositiveInt = 16
    """Most experiments of one model that one job evaluates; the weights are then read once. It does not
    limit races."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; auto takes a GPU when there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; auto takes the model's own."""

    @field_validator("data")
    @classmethod
    def _no_pattern(cls, value: str) -> str:
        return check_path(value)

    @field_validator("tasks")
    @classmethod
    def _unique(cls, values: tuple[str | TaskEntry, ...]) -> tuple[str | TaskEntry, ...]:
        if repeated := duplicates(map(_name_of, values)):
            raise ValueError(f"{repeated[0]!r} is listed twice; list each task once")
        return values

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, groups and tags."""
        return tuple(map(_name_of, self.tasks))

    @property
    def task_fewshots(self) -> dict[str, int]:
        """Solved examples of each task, group or tag whose number is not `num_fewshot`."""
        given = {entry.name: entry.num_fewshot for entry in self.tasks if isinstance(entry, TaskEntry)}
        return {name: number for name, number in given.items() if number not in {None, self.num_fewshot}}

    @model_validator(mode="after")
    def _multiturn_needs_chat_template(self) -> Evaluation:
        if self.fewshot_as_multiturn and not self.chat_template:
            raise ValueError("fewshot_as_multiturn is true, but chat_template is not; turns need a chat template")
        return self


def _name_of(entry: str | TaskEntry) -> str:
    return entry if isinstance(entry, str) else entry.name

"""`evaluation`: tasks, perplexity and the protocol that is stored with every number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from espalier.config.base import PositiveInt, Section, repeated
from espalier.config.data import PerplexityText

SEVEN_TASKS = ("boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
WIKITEXT2 = PerplexityText(
    name="wikitext2", dataset="Salesforce/wikitext", config="wikitext-2-raw-v1", split="test", joiner="\n\n"
)
# The repository of PTB holds code only; its Parquet form lies on the branch that the hub converts to.
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
    """Perplexity over sliding windows; each token is scored once."""

    window: Annotated[int, Field(ge=2)] = 2048
    """Window length, in tokens."""
    stride: PositiveInt = 512
    """Tokens by which the window moves."""
    texts: tuple[PerplexityText, ...] = (WIKITEXT2, PTB)
    """Texts to measure on."""

    @model_validator(mode="after")
    def _consistent(self) -> Perplexity:
        if self.stride >= self.window:
            raise ValueError(f"stride {self.stride} is not smaller than window {self.window}; give a smaller stride")
        if twice := repeated(text.name for text in self.texts):
            raise ValueError(f"two texts are named {twice[0]!r}; give each its own name")
        return self


class Evaluation(Section):
    """How models are evaluated. The defaults are the protocol of the published runs."""

    tasks: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = SEVEN_TASKS
    """Multiple-choice tasks or groups of lm-evaluation-harness."""
    data: Annotated[str, Field(min_length=1)] = "hub"
    """Task documents: `hub` (staged), `sandbox`, or a folder with `{task}/{split}.parquet` (.json, .jsonl.gz ...)."""
    limit: PositiveInt | None = None
    """Documents per task; none means all. Stored with every number."""
    perplexity: Perplexity = Perplexity()
    """Perplexity texts and windows."""
    num_fewshot: Annotated[int, Field(ge=0)] = 0
    """Solved examples before each question."""
    chat_template: bool = False
    """Whether prompts are written with the tokenizer's chat template."""
    add_bos: bool | None = None
    """Whether texts begin with the BOS token; none means as the tokenizer does by itself."""
    token_budget: Annotated[int, Field(ge=64)] = 16384
    """Tokens in one forward pass."""
    experiments_per_job: PositiveInt = 1
    """Experiments of one model that one job evaluates."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; auto takes a GPU when there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; auto takes the model's own."""

    @field_validator("tasks")
    @classmethod
    def _unique(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if twice := repeated(values):
            raise ValueError(f"{twice[0]!r} is listed twice; list each task once")
        return values

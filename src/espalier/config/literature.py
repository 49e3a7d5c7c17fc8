"""The file `config/literature.yaml`: published figures, each with its source and the protocol that the source gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from espalier.config.base import REPOSITORY_PATTERN, Name, PositiveInt, Section, duplicates
from espalier.config.duplicate_keys import find_duplicate_keys
from espalier.config.problems import describe_problems
from espalier.errors import UserError

SHIPPED = "shipped"
"""Stands for `config/literature.yaml` of the workflow in `report.literature`."""
Text = Annotated[str, Field(min_length=1)]


class PublishedCalibration(Section):
    """Calibration text of a published figure, as far as the source says."""

    dataset: Text | None = None
    """Name of the text, such as c4 or wikitext2; none means that the source does not say."""
    n_samples: PositiveInt | None = None
    """Number of sequences; none means that the source does not say."""
    seq_len: PositiveInt | None = None
    """Tokens of a sequence; none means that the source does not say."""


class PublishedProtocol(Section):
    """How the figures of a source were computed. A key that is left out means that the source does not say."""

    accuracy: Literal["acc", "acc_norm", "acc_norm_else_acc"] | None = None
    """Which accuracy of each task is given."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Solved examples before each document."""
    ppl_window: PositiveInt | None = None
    """Tokens of a window of the perplexity."""
    ppl_stride: PositiveInt | None = None
    """Tokens between the starts of two windows."""
    calibration: PublishedCalibration | None = None
    """Text that the pruning used."""
    share_of: Literal["model", "decoder"] | None = None
    """Whether the ratio is a share of all parameters, or of the decoder layers."""


class Source(Section):
    """A document with published figures."""

    title: Text
    """Name of the paper or document."""
    url: Text
    """Address of the document that was read."""
    table: Text
    """Table or part of the document."""
    read_in: str | None = None
    """Document in which the figures were read, if it is not the paper itself."""
    protocol: PublishedProtocol = PublishedProtocol()
    """Protocol of all figures of this source; a figure may give its own."""
    leaves_out: Text
    """What the source does not say."""


class PublishedFigure(Section):
    """Published accuracies and perplexities of one model, pruned by one method, or unpruned."""

    source: Name
    """Key of `sources`."""
    model: Annotated[str, Field(pattern=REPOSITORY_PATTERN)]
    """Repository of the unpruned model on the hub."""
    method: Text
    """Method, as the source calls it."""
    ratio: Annotated[float, Field(ge=0, lt=1)]
    """Removed share of the parameters; 0 for the unpruned model."""
    fine_tuned: bool = False
    """Whether the model was fine-tuned after pruning."""
    accuracy: dict[Name, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """Accuracy of each task."""
    acc_mean: Annotated[float, Field(ge=0, le=1)] | None = None
    """Mean accuracy, if the source gives no accuracies of single tasks."""
    perplexity: dict[Name, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Perplexity of each text; `unnamed` if the source does not say which."""
    protocol: PublishedProtocol | None = None
    """Protocol of this figure, instead of that of its source."""

    @model_validator(mode="after")
    def _has_values(self) -> PublishedFigure:
        if not (self.accuracy or self.perplexity or self.acc_mean is not None):
            raise ValueError("has no value; give accuracy, acc_mean or perplexity")
        if self.accuracy and self.acc_mean is not None:
            raise ValueError("acc_mean is computed from accuracy; give one of the two")
        return self


class Literature(Section):
    """Published figures and their sources."""

    sources: dict[Name, Source]
    """Documents, by a short name."""
    figures: tuple[PublishedFigure, ...]
    """Published figures, in the order in which reports show them."""

    @model_validator(mode="after")
    def _sources_exist(self) -> Literature:
        known = ", ".join(self.sources)
        lines = [
            f"figures[{number}].source: got {one.source!r}, which is not in sources; allowed: {known or 'none'}"
            for number, one in enumerate(self.figures)
            if one.source not in self.sources
        ]
        names = [
            f"{one.source}, {one.model}, {one.method}, ratio {one.ratio:g}{', fine-tuned' if one.fine_tuned else ''}"
            for one in self.figures
        ]
        lines += [f"figures: {name} is listed twice; keep one" for name in duplicates(names)]
        if lines:
            raise ValueError("\n".join(lines))
        return self

    def protocol_of(self, figure: PublishedFigure) -> PublishedProtocol:
        """Return the protocol of a figure: its own, or that of its source."""
        return figure.protocol or self.sources[figure.source].protocol


def read_literature(path: str | Path) -> Literature:
    """Read a file of published figures.

    Raises:
        UserError: If the file cannot be read or is invalid. The message has one line per problem.
    """
    try:
        content = json.dumps(yaml.safe_load(Path(path).read_text(encoding="utf-8")), default=str)
    except OSError:
        raise UserError(f"{path}: cannot be read; give a file like config/literature.yaml") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is not a YAML file ({reason}); correct it") from None
    if repeated := find_duplicate_keys([path]):
        raise UserError("\n".join(repeated))
    try:
        return Literature.model_validate_json(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in describe_problems(error, Literature))) from None

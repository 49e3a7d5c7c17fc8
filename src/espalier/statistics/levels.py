"""How the error of a study is divided, so that at most 5% of studies print any false sentence, all pages together.

The error is divided among pages and, on a page, among kinds of sentences (Bonferroni); every kind uses a procedure that
is simultaneous over all of its sentences on the page. This needs no assumption on how the pages depend on each other.

With one model, its page has the whole error. With several, the pages of models share one half, and the page that
compares all models has the other: the sentences that answer for the study are few and matter most.
"""

from __future__ import annotations

from dataclasses import dataclass

# Share of studies that may print a false sentence.
ERROR = 0.05


@dataclass(frozen=True)
class PageLevels:
    """Confidence levels of the page of one model.

    Attributes:
        contrasts: Level of all differences between methods and between settings of the page together.
        sets: Level of the simultaneous sets of all pruning ratios together.
        relations: Level of all correlations with the accuracy together.
        seeds: Level of all tests of an axis against the variation between calibration seeds together.
    """

    contrasts: float
    sets: float
    relations: float
    seeds: float


def page_levels(n_models: int) -> PageLevels:
    """Return the levels of one model's page in a study of `n_models` models.

    Raises:
        ValueError: If there is no model.
    """
    if n_models < 1:
        raise ValueError(f"{n_models} models; at least 1 is needed")
    error = ERROR if n_models == 1 else ERROR / 2 / n_models
    return PageLevels(1 - error / 2, 1 - error / 4, 1 - error / 8, 1 - error / 8)


def study_level() -> float:
    """Return the level of all sentences of the page that compares all models of a study of several models."""
    return 1 - ERROR / 2


def after_stopping(level: float, rung: int, n_rungs: int) -> float:
    """Return the level of statements on the documents of a rung of a race, if the answers determined which rung it is.

    All experiments have answered the documents of the rung that stopped the first of them. An experiment is stopped
    when its errors are large, so the errors on these documents are larger than on a fixed number of documents. The
    error is divided among the possible rungs (Bonferroni): a half for the first rung, which usually stops some, and
    equal parts of the other half for all later ones.

    Args:
        level: Level on a fixed number of documents.
        rung: Rung of the documents, from 1.
        n_rungs: Number of rungs of the race. With one rung there is nothing to decide, and the level stays.
    """
    if n_rungs == 1:
        return level
    return 1 - (1 - level) / 2 / (1 if rung == 1 else n_rungs - 1)


def divided(level: float, n: int) -> float:
    """Return the level of each of `n` statements that hold together at `level`; `level` itself if there is none."""
    return 1 - (1 - level) / max(n, 1)

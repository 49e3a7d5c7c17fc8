"""Published figures beside the results of a study, with every difference in protocol.

A figure is shown beside the best experiment of a model if it is of the same model, and its ratio is within
`RATIO_TOLERANCE` of the study's. Figures are never ranked. What a source does not say counts as a difference, because
the figure may then have been computed in another way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from espalier.config.literature import Literature, PublishedFigure, PublishedProtocol

RATIO_TOLERANCE = 0.01
"""Largest difference between a published ratio and the study's at which a figure is shown."""
_EXACT = 5e-4  # ratios that are equal to the digits that papers print


@dataclass(frozen=True)
class StudySettings:
    """Settings of a study that published figures are compared with.

    Attributes:
        models: For each model its name on the hub, or the name of its folder.
        num_fewshot: Solved examples before each document.
        limit: Documents of each task; None means all.
        window: Tokens of a window of the perplexity.
        stride: Tokens between the starts of two windows.
        texts: Names of the perplexity texts.
        calibration: Name of the calibration text.
        task_fewshots: Solved examples of tasks, groups or tags that have a number of their own.
        chat_template: Whether prompts are written with the chat template.
        max_tokens: Number of first tokens that are read, of each perplexity text that is not read whole.
    """

    models: Mapping[str, str]
    num_fewshot: int
    limit: int | None
    window: int
    stride: int
    texts: Sequence[str]
    calibration: str
    task_fewshots: Mapping[str, int] = field(default_factory=dict)
    chat_template: bool = False
    max_tokens: Mapping[str, int] = field(default_factory=dict)

    @property
    def solved_examples(self) -> int | list[str]:
        """Solved examples: one number, or that of most tasks and that of each task with its own."""
        own = [f"{name}: {number}" for name, number in self.task_fewshots.items()]
        return [str(self.num_fewshot), *own] if own else self.num_fewshot


def with_literature(summary: Mapping[str, Any], literature: Literature, settings: StudySettings) -> dict[str, Any]:
    """Return a copy of a cross-model analysis with the published figures added to each pruning ratio.

    Args:
        summary: Content of `analysis_summary.json`.
        literature: Published figures.
        settings: Settings of the study.
    """
    by_ratio = {
        key: {**content, "literature": [*_models_with_figures(content, literature, settings)]}
        for key, content in summary["by_ratio"].items()
    }
    return {**summary, "by_ratio": by_ratio}


def _models_with_figures(
    content: Mapping[str, Any], literature: Literature, settings: StudySettings
) -> Iterator[dict[str, Any]]:
    """Yield each model of a pruning ratio that has published figures."""
    for row in content["best_configs"]:
        figures = [
            one
            for one in literature.figures
            if is_same_model(one.model, settings.models.get(row["model"], ""))
            and (one.ratio == 0 or abs(one.ratio - row["pruning_ratio"]) <= RATIO_TOLERANCE + 1e-9)
        ]
        pruned_in = {one.source for one in figures if one.ratio}
        shown = [one for one in figures if one.source in pruned_in]
        if shown:
            yield {
                "model": row["model"],
                "name": settings.models[row["model"]],
                "own": row,
                "figures": [_figure_json(one, literature, row, settings) for one in shown],
            }


def is_same_model(published: str, own: str) -> bool:
    """Return whether a published model is a model of the study: its repository, or a folder with its last name."""
    wanted, given = published.lower(), own.lower()
    return wanted == given or ("/" not in given and wanted.rpartition("/")[2] == given)


def _figure_json(
    figure: PublishedFigure, literature: Literature, row: Mapping[str, Any], settings: StudySettings
) -> dict[str, Any]:
    source = literature.sources[figure.source]
    accuracies = list(figure.accuracy.values())
    return {
        "source": figure.source,
        "title": source.title,
        "url": source.url,
        "table": source.table,
        "read_in": source.read_in,
        "leaves_out": source.leaves_out,
        "method": figure.method,
        "ratio": figure.ratio,
        "fine_tuned": figure.fine_tuned,
        "acc_mean": sum(accuracies) / len(accuracies) if accuracies else figure.acc_mean,
        "n_tasks": len(accuracies) or None,
        "perplexity": dict(figure.perplexity),
        "differences": list(differences(figure, literature.protocol_of(figure), row, settings)),
    }


def differences(
    figure: PublishedFigure, protocol: PublishedProtocol, row: Mapping[str, Any], settings: StudySettings
) -> Iterator[dict[str, Any]]:
    """Yield each difference between a published figure and the study: a `code`, and `published` and `own` values.

    A value of None means that the source does not say.

    Args:
        figure: The published figure.
        protocol: Its protocol.
        row: The study's best experiment of the same model and ratio.
        settings: Settings of the study.
    """

    def differ(code: str, published: Any, own: Any) -> Iterator[dict[str, Any]]:
        if published != own:
            yield {"code": code, "published": published, "own": own}

    if "/" not in settings.models[row["model"]]:
        yield {"code": "model", "published": figure.model, "own": settings.models[row["model"]]}
    pruned = figure.ratio > 0
    if pruned:
        if abs(figure.ratio - row["pruning_ratio"]) > _EXACT:
            yield {"code": "ratio", "published": figure.ratio, "own": row["pruning_ratio"]}
        yield from differ("share_of", protocol.share_of, "model")
        yield from differ("fine_tuned", figure.fine_tuned, False)
        yield from _calibration_differences(protocol, row, settings)
    if figure.accuracy or figure.acc_mean is not None:
        yield from differ("accuracy", protocol.accuracy, row["acc_mean_rule"])
        yield from differ("num_fewshot", protocol.num_fewshot, settings.solved_examples)
        yield from differ("chat_template", False, settings.chat_template)
        yield from differ("tasks", sorted(figure.accuracy) or None, sorted(row["tasks"]))
        yield from differ("limit", None, settings.limit)
    if figure.perplexity and row["ppl_text"]:
        named = sorted(figure.perplexity)
        if row["ppl_text"] not in figure.perplexity:
            yield {"code": "text", "published": None if named == ["unnamed"] else named, "own": row["ppl_text"]}
        yield from differ("ppl_window", protocol.ppl_window, settings.window)
        yield from differ("ppl_stride", protocol.ppl_stride, settings.stride)
        yield from differ("max_tokens", None, settings.max_tokens.get(row["ppl_text"]))


def _calibration_differences(
    protocol: PublishedProtocol, row: Mapping[str, Any], settings: StudySettings
) -> Iterator[dict[str, Any]]:
    """Yield a difference if text, number or length of the calibration sequences differ or are unknown."""
    published, own = protocol.calibration, [row["taylor_num_samples"], row["taylor_seq_len"]]
    is_same_text = published is not None and (published.dataset or "").lower() == settings.calibration.lower()
    if published is None or not is_same_text or [published.n_samples, published.seq_len] != own:
        shown = None if published is None else [published.dataset, published.n_samples, published.seq_len]
        used = None if own == [None, None] else [settings.calibration, *own]  # magnitude and random read no text
        yield {"code": "calibration", "published": shown, "own": used}

"""All figures that compare the models of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from espalier.reports.chart_rows import Row
from espalier.reports.figures.drawing import (
    INK,
    INTERVAL,
    MARKERS,
    PALETTE,
    Drawing,
    Figure,
    Style,
    empty_figure,
    limit_x,
    line_handle,
    method_styles,
    name_axis,
    percent_axis,
)
from espalier.reports.figures.model import ratio_name
from espalier.reports.formatting import format_fixed, format_percent
from espalier.reports.messages import Texts
from espalier.reports.sections.introduction import by_kept, by_ratio
from espalier.reports.sections.types import Content


def study_figures(texts: Texts, summary: Content, analyses: Sequence[Content]) -> list[Figure]:
    """Return the figures of a study: those of each ratio, the headline ratio first, then the one of all ratios.

    Args:
        texts: Texts in the language of the report.
        summary: Cross-model analysis of the study.
        analyses: Analyses of the models.
    """
    figures = [
        figure.renamed(ratio_name(figure.name, summary, key))
        for key, content in by_ratio(summary) or [("", summary)]
        for figure in cross_figures(texts, content, analyses, key)
    ]
    return [*figures, accuracy_sizes(texts, summary)]


def cross_figures(texts: Texts, content: Content, analyses: Sequence[Content] = (), key: str = "") -> list[Figure]:
    """Return the figures that compare all models at one pruning ratio.

    Args:
        texts: Texts in the language of the report.
        content: Comparison of the models at that ratio.
        analyses: Analyses of the models.
        key: Key of the ratio in the analyses.
    """
    return [
        _best_vs_baseline(texts, content, _methods(analyses, content)),
        _kept_by_method(texts, content, analyses, key),
        _base_vs_instruct(texts, content),
    ]


def accuracy_sizes(texts: Texts, summary: Content) -> Figure:
    """Draw the accuracy that the best experiment of each model keeps, by pruning ratio."""
    name, caption = "accuracy_size", texts("f.sizes")
    table = [
        {
            "model": row["model"], "pruning_ratio": row["pruning_ratio"], "experiment": row["experiment"],
            "params_kept": 1 - row["pruning_ratio"], "acc_kept": row["acc_kept"],
            "acc_kept_low": (row["acc_kept_interval"] or [None])[0],
            "acc_kept_high": (row["acc_kept_interval"] or [None])[-1],
        }
        for _, content in by_ratio(summary)
        for row in content["best_configs"]
        if row["acc_kept"] is not None
    ]  # fmt: skip
    if not table:
        return empty_figure(name, caption, texts("f.size.none"))
    models = list(dict.fromkeys(row["model"] for row in table))

    def draw() -> Drawing:
        drawing = Drawing(2.5)
        axes = drawing.axes
        styles = _model_styles(models)
        for place, model in enumerate(models):
            of_model = sorted((row for row in table if row["model"] == model), key=lambda row: -row["params_kept"])
            shift = 0.004 * (place - (len(models) - 1) / 2)
            line = [(1.0, 1.0), *((row["params_kept"] + shift, row["acc_kept"]) for row in of_model)]
            style = styles[model]
            axes.plot([x for x, _ in line], [y for _, y in line], color=style.colour, linewidth=0.8)
            for row, (x, y) in zip(of_model, line[1:], strict=True):
                if row["acc_kept_low"] is not None:
                    ends = [row["acc_kept_low"], row["acc_kept_high"]]
                    axes.plot([x, x], ends, color=INTERVAL, linewidth=0.7, zorder=1.5)
                tip = f"{model}, {row['experiment']}\n{texts('kept')} {format_percent(y)}"
                drawing.point(axes, x, y, style, tip, markersize=4, **style.properties)
        percent_axis(axes.xaxis, ticks=[1.0, *(1 - row["pruning_ratio"] for row in table)])
        percent_axis(axes.yaxis)
        axes.set_xlabel(texts("f.params_kept"))
        axes.set_ylabel(texts("f.acc_kept"))
        drawing.legend(styles)
        return drawing

    at_headline = (row for row in table if row["pruning_ratio"] == summary["headline_ratio"])
    words = ", ".join(f"{row['model']} {format_percent(row['acc_kept'])}" for row in at_headline)
    return Figure(name, caption, texts("f.sizes.alt", words=words), table, draw)


def _best_vs_baseline(texts: Texts, content: Content, methods: Mapping[str, Content]) -> Figure:
    """Draw the best experiment of each model, with its interval, and the unpruned model."""
    name, caption = "best_vs_baseline", texts("f.best")
    configs = by_kept(content["best_configs"])
    if not configs:
        return empty_figure(name, caption, texts("f.best.none"))
    table = [
        {
            "model": row["model"], "method": row["method"], "experiment": row["experiment"],
            "acc_mean": row["acc_mean"], "acc_mean_low": (row["acc_mean_interval"] or [None])[0],
            "acc_mean_high": (row["acc_mean_interval"] or [None])[-1], "unpruned": row["baseline_acc_mean"],
            "acc_kept": row["acc_kept"],
        }
        for row in configs
    ]  # fmt: skip

    def draw() -> Drawing:
        drawing = Drawing(0.8 + 0.24 * len(table))
        axes = drawing.axes
        styles = method_styles(methods, {row["method"] for row in table})
        open_circle = Style(INK, "o", {"markerfacecolor": "white"})
        name_axis(axes, [row["model"] for row in table])
        for place, row in enumerate(table):
            if row["unpruned"] is not None:
                axes.plot([row["acc_mean"], row["unpruned"]], [place, place], color="#bbbbbb", linewidth=0.8, zorder=1)
                tip = f"{row['model']}, {texts('unpruned')}\n{texts('f.acc_axis')} {format_fixed(row['unpruned'])}"
                drawing.point(axes, row["unpruned"], place, open_circle, tip, **open_circle.properties)
            if row["acc_mean_low"] is not None:
                ends = [row["acc_mean_low"], row["acc_mean_high"]]
                axes.plot(ends, [place, place], color=INK, linewidth=1.4, zorder=1.5)
            kept = f"\n{texts('kept')} {format_percent(row['acc_kept'])}" if row["acc_kept"] is not None else ""
            tip = f"{row['model']}, {row['experiment']}\n{texts('f.acc_axis')} {format_fixed(row['acc_mean'])}{kept}"
            drawing.point(axes, row["acc_mean"], place, styles[row["method"]], tip)
        axes.set_xlabel(texts("f.acc_axis"))
        columns = ("acc_mean", "acc_mean_low", "acc_mean_high", "unpruned")
        limit_x(axes, [row[key] for row in table for key in columns if row[key] is not None])
        drawing.legend(styles | {texts("unpruned"): open_circle})
        return drawing

    description = ", ".join(
        texts("f.best.one", model=row["model"], acc=format_fixed(row["acc_mean"]), kept=format_percent(row["acc_kept"]))
        for row in configs
    )
    return Figure(name, caption, texts("f.best.alt", words=description), table, draw)


def _kept_by_method(texts: Texts, content: Content, analyses: Sequence[Content], key: str) -> Figure:
    """Draw the accuracy that each method keeps of each model, averaged over its experiments, with intervals."""
    name, caption = "kept_by_method", texts("f.kept_by_method")
    table = [row for analysis in analyses if key in analysis["by_ratio"] for row in _kept_rows(analysis, key)]
    if not table:
        return empty_figure(name, caption, texts("f.size.none"))
    models = list(dict.fromkeys(row["model"] for row in table))
    shown = {row["method"] for row in table}
    methods = {name: one for name, one in _methods(analyses, content).items() if name in shown}

    def draw() -> Drawing:
        styles = method_styles(methods, methods)
        drawing = Drawing(0.8 + len(models) * (0.1 + 0.09 * len(methods)))
        axes = drawing.axes
        name_axis(axes, models)
        for row in table:
            place = list(methods).index(row["method"])
            y = models.index(row["model"]) + 0.7 * ((place + 0.5) / len(methods) - 0.5)
            if row["acc_kept_low"] is not None:
                ends = [row["acc_kept_low"], row["acc_kept_high"]]
                axes.plot(ends, [y, y], color=INTERVAL, linewidth=0.9, zorder=1.5)
            tip = f"{row['model']}, {row['method']}\n{texts('kept')} {format_percent(row['acc_kept'])}"
            drawing.point(axes, row["acc_kept"], y, styles[row["method"]], tip, markersize=4)
        for border in range(1, len(models)):
            axes.axhline(border - 0.5, color="#e6e6e6", linewidth=0.5, zorder=0.5)
        percent_axis(axes.xaxis)
        axes.set_xlabel(texts("f.acc_kept"))
        drawing.legend(styles)
        return drawing

    best = [max((row for row in table if row["model"] == model), key=lambda row: row["acc_kept"]) for model in models]
    words = ", ".join(f"{row['model']} {row['method']} {format_percent(row['acc_kept'])}" for row in best)
    return Figure(name, caption, texts("f.kept_by_method.alt", words=words), table, draw)


def _kept_rows(analysis: Content, key: str) -> list[Row]:
    """Return what each method keeps of one model at one ratio; none if the unpruned model has no result.

    Means are over the experiments of a method. They have intervals if the results of single documents are known.
    """
    content = analysis["by_ratio"][key]
    compared = content["comparisons"]
    names = {"model": analysis["model"], "kind": analysis["kind"]}
    if compared["measure"] == "kept":
        return [
            names | {
                "method": method, "control": one["control"], "n_experiments": one["n"], "acc_kept": one["mean"],
                "acc_kept_low": (one["interval"] or [None])[0], "acc_kept_high": (one["interval"] or [None])[-1],
            }
            for method, one in compared["kept"].items()
        ]  # fmt: skip
    unpruned = (content["baseline"] or {}).get("acc_mean")
    return [
        names | {
            "method": method, "control": one["control"], "n_experiments": one["n"], "acc_kept": one["mean"] / unpruned,
            "acc_kept_low": None, "acc_kept_high": None,
        }
        for method, one in content["methods"].items()
        if one["n"] and unpruned
    ]  # fmt: skip


def _base_vs_instruct(texts: Texts, content: Content) -> Figure:
    """Draw base and instruct accuracy of each family: of the best experiments, and averaged over common settings."""
    name, caption = "base_vs_instruct", texts("f.kinds")
    pairs = [one for one in content["base_vs_instruct"] if one["reason"] is None]
    if not pairs:
        return empty_figure(name, caption, texts("f.kinds.none"))
    titles = {"best": texts("f.kinds.of_best"), "common": texts("f.kinds.of_common")}
    table: list[Row] = []
    for one in pairs:
        table.append({"family": one["family"], "of": "best", "base": one["base_acc"], "instruct": one["instruct_acc"]})
        if (common := one["common_settings"]) and common["n"]:
            values = {"base": common["base"], "instruct": common["instruct"]}
            table.append({"family": one["family"], "of": "common"} | values)
    families = [one["family"] for one in pairs]

    def draw() -> Drawing:
        drawing = Drawing(0.95 + 0.36 * len(families))
        axes = drawing.axes
        name_axis(axes, families)
        styles = {texts("kind.base"): Style(PALETTE[0], "o"), texts("kind.instruct"): Style(PALETTE[1], "s")}
        dashes = {"best": "solid", "common": (0, (4, 3))}
        for row in table:
            y = families.index(row["family"]) + (-0.18 if row["of"] == "best" else 0.18)
            axes.plot([row["base"], row["instruct"]], [y, y], color="#555555", linewidth=0.9, ls=dashes[row["of"]])
            for kind, (title, style) in zip(("base", "instruct"), styles.items(), strict=True):
                tip = f"{row['family']}, {title}, {titles[row['of']]}\n{format_fixed(row[kind])}"
                drawing.point(axes, row[kind], y, style, tip)
        axes.set_xlabel(texts("f.acc_axis"))
        handles = [
            line_handle(title, marker=style.marker, color=style.colour, linestyle="none")
            for title, style in styles.items()
        ]
        shown = dict.fromkeys(row["of"] for row in table)
        handles += [line_handle(titles[of], color="#555555", linewidth=0.9, linestyle=dashes[of]) for of in shown]
        drawing.legend_of(handles)
        return drawing

    description = ", ".join(f"{one['family']} {format_percent(one['relative_change'], sign=True)}" for one in pairs)
    return Figure(name, caption, texts("f.kinds.alt", words=description), table, draw)


def _methods(analyses: Sequence[Content], content: Content) -> dict[str, Content]:
    """Return all methods of the study in one order, so that a method has one colour in all its figures."""
    methods = {name: {"control": one["control"]} for analysis in analyses for name, one in analysis["methods"].items()}
    named = [*content["method_distribution"]["overall"], *(row["method"] for row in content["best_configs"])]
    return methods | {name: {"control": False} for name in named if name not in methods}


def _model_styles(models: Sequence[str]) -> dict[str, Style]:
    """Return one style for each model; the second seven have open markers."""
    return {
        model: Style(
            PALETTE[place % len(PALETTE)],
            MARKERS[place % len(MARKERS)],
            {"markerfacecolor": "white"} if place % (2 * len(MARKERS)) >= len(MARKERS) else {},
        )
        for place, model in enumerate(models)
    }

"""Sections that the reference reports do not have: certainty of the best, explained variation, and costs."""

from __future__ import annotations

from espalier.reports.formatting import (
    format_cost,
    format_fixed,
    format_interval,
    format_percent,
    format_value,
    format_yes_no,
)
from espalier.reports.messages import Texts
from espalier.reports.sections.answers import percent_interval
from espalier.reports.sections.types import Content, ReportSection, Table


def certainty_section(texts: Texts, content: Content) -> ReportSection:
    """Return the section on experiments that cannot be distinguished from the best, and on selection bias."""
    uncertainty = content["uncertainty"]
    statements = uncertainty["statements"]
    if not statements:
        reason = texts.reason(uncertainty) if uncertainty["why"] else texts("no_valid_experiment")
        return ReportSection(texts("s.certainty"), [texts("certainty.none", reason=reason)])
    sentences = [texts.message(message) for group in ("set", "optimism") for message in statements[group]]
    sentences += [texts.message(message) for message in statements.get("race", [])]
    rows = [
        [
            name, format_fixed(acc), format_interval(texts, one["interval"]), format_percent(one["acc_kept"]),
            percent_interval(texts, one["acc_kept_interval"]), format_yes_no(texts, one["in_simultaneous_set"]),
        ]
        for acc, name, one in _by_accuracy(content)
    ]  # fmt: skip
    header = [texts(code) for code in ("experiment", "acc_mean", "ci", "kept", "kept_ci", "in_set")]
    intervals = [texts.message(message) for message in statements["intervals"]]
    table = Table(header, rows, (0, 5))
    about_set = [texts("certainty.about")] if uncertainty["set"] else []
    return ReportSection(texts("s.certainty"), sentences, [table], [*about_set, *intervals], ["intervals"])


def variation_section(texts: Texts, content: Content) -> ReportSection:
    """Return the section on settings of equally many tokens, and on the variation between calibration seeds."""
    uncertainty = content["uncertainty"]
    if uncertainty["seeds"] is None:
        reason = texts.reason(uncertainty) if uncertainty["why"] else texts("no_valid_experiment")
        return ReportSection(texts("s.spread"), [texts("spread.none", reason=reason)])
    messages = [*content["comparisons"]["statements"].get("tokens", []), *uncertainty["statements"]["axes"]]
    tables = [*_tokens_tables(texts, uncertainty["tokens"]), *_seeds_tables(texts, uncertainty["seeds"])]
    remarks = [] if uncertainty["tokens"] else [texts("spread.tokens_none")]
    return ReportSection(texts("s.spread"), [texts.message(message) for message in messages], tables, remarks)


def costs_section(texts: Texts, analysis: Content, content: Content) -> ReportSection:
    """Return the section that compares accuracy, perplexity and costs with the unpruned model."""
    costs = analysis["costs"]
    if costs is None or not costs["experiments"]:
        reason = texts("no_structure") if costs is None else texts.reason(costs)
        return ReportSection(texts("s.costs"), [texts("costs.none", reason=reason)])
    baseline = costs["baseline"]
    rows = [
        [texts("unpruned"), format_percent(1.0), format_fixed(1.0, 2), *(format_value(baseline[key]) for key in _COSTS)]
    ]
    for _, name, certain in _by_accuracy(content):
        if name in costs["experiments"]:
            one = costs["experiments"][name]
            share = one["relative"]
            cells = [format_cost(one[key], share[key]) for key in _COSTS]
            ratio = format_fixed(content["results"][name]["ppl_ratio"], 2)
            rows.append([name, format_percent(certain["acc_kept"]), ratio, *cells])
    header = [texts(code) for code in ("experiment", "kept", "ppl_ratio", "params", "kv", "flops")]
    text = content["ppl_accuracy"]["text"]
    about = texts("costs.about", text=format_value(text), dtype=format_value(costs["dtype"]))
    remarks = [texts("costs.none", reason=texts.reason(costs))] if costs["reason"] else []
    if wrapper := costs.get("wrapper"):
        left_out = format_value(wrapper["n_params_left_out"])
        remarks.append(texts("costs.wrapper", name=wrapper["architecture"], n=left_out))
    return ReportSection(texts("s.costs"), [about], [Table(header, rows)], remarks)


def _by_accuracy(content: Content) -> list[tuple[float, str, Content]]:
    """Return accuracy, name and uncertainty of each valid experiment, best first."""
    results, certain = content["results"], content["uncertainty"]["experiments"]
    return sorted(
        ((results[name]["acc_mean"], name, certain[name]) for name in results), key=lambda row: (-row[0], row[1])
    )


_COSTS = ("n_params", "kv_cache_bytes_per_token", "flops_per_token")


def _tokens_tables(texts: Texts, groups: list[Content]) -> list[Table]:
    rows = [
        [
            format_value(group["tokens"]), str(one["taylor_seq_len"]), str(one["taylor_num_samples"]),
            format_fixed(one["mean"]), format_interval(texts, one["interval"]),
        ]
        for group in groups
        for one in group["settings"]
    ]  # fmt: skip
    header = [texts(code) for code in ("tokens", "seq_len", "samples", "acc_mean", "ci")]
    return [Table(header, rows, (), texts("spread.tokens"))] if rows else []


def _seeds_tables(texts: Texts, seeds: Content) -> list[Table]:
    rows = [
        [
            texts(f"axis.{axis}"),
            str(value),
            format_fixed(effect["effect"][number]),
            format_interval(texts, effect["intervals"] and effect["intervals"][number]),
        ]
        for axis, effect in seeds["axes"].items()
        if effect["effect"] is not None
        for number, value in enumerate(effect["values"])
    ]
    header = [texts(code) for code in ("part", "value", "spread.effect", "ci")]
    return [Table(header, rows, (0, 1), texts("spread.seeds", n=len(seeds["seeds"])))] if rows else []

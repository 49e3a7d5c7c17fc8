"""Sections that the reference reports do not have: certainty of the best, explained variation, and costs."""

from __future__ import annotations

from espalier.reports.messages import Words
from espalier.reports.sections.base import (
    Content,
    ReportSection,
    Table,
    fixed,
    interval,
    percent,
    plain,
    with_relative,
    yes_no,
)


def certainty_section(words: Words, content: Content) -> ReportSection:
    """Return the section on experiments that cannot be distinguished from the best, and on selection bias."""
    uncertainty = content["uncertainty"]
    statements = uncertainty["statements"]
    if not statements:
        reason = words.reason(uncertainty) if uncertainty["reason"] else words.reason("there is no valid experiment")
        return ReportSection(words("s.certainty"), [words("certainty.none", reason=reason)])
    spoken = [words.say(message) for group in ("set", "optimism") for message in statements[group]]
    rows = [
        [
            name, fixed(acc), interval(words, one["interval"]), interval(words, one["acc_kept_interval"]),
            yes_no(words, one["in_set"]), yes_no(words, one["in_simultaneous_set"]),
        ]
        for acc, name, one in _by_accuracy(content)
    ]  # fmt: skip
    header = [words(code) for code in ("experiment", "acc_mean", "ci", "kept_ci", "in_set", "in_both")]
    intervals = [words.say(message) for message in statements["intervals"]]
    table = Table(header, rows, (0, 4, 5))
    return ReportSection(words("s.certainty"), spoken, [table], [words("certainty.about"), *intervals], ["intervals"])


def spread_section(words: Words, content: Content) -> ReportSection:
    """Return the section on the axes that explain the variation, with comparisons at equal tokens and over seeds."""
    uncertainty = content["uncertainty"]
    axes = uncertainty["axes"]
    if axes is None:
        reason = words.reason(uncertainty) if uncertainty["reason"] else words.reason("there is no valid experiment")
        return ReportSection(words("s.spread"), [words("spread.none", reason=reason)])
    spoken = [words.say(message) for group in ("axes", "tokens") for message in uncertainty["statements"][group]]
    tables = [_axes(words, axes), *_tokens(words, uncertainty["tokens"]), *_seeds(words, uncertainty["seeds"])]
    remarks = [] if uncertainty["tokens"] else [words("spread.tokens_none")]
    return ReportSection(words("s.spread"), spoken, tables, remarks)


def costs_section(words: Words, analysis: Content, content: Content) -> ReportSection:
    """Return the section that compares accuracy, perplexity and costs with the unpruned model."""
    costs = analysis["costs"]
    if costs is None or not costs["experiments"]:
        reason = words.say({"code": "no_structure", "values": {}}) if costs is None else words.reason(costs)
        return ReportSection(words("s.costs"), [words("costs.none", reason=reason)])
    baseline = costs["baseline"]
    rows = [[words("unpruned"), percent(1.0), fixed(1.0, 2), *(plain(baseline[key]) for key in _COSTS)]]
    for _, name, certain in _by_accuracy(content):
        if name in costs["experiments"]:
            one = costs["experiments"][name]
            share = one["relative"]
            cells = [with_relative(one[key], share[key]) for key in _COSTS]
            ratio = fixed(content["results"][name]["ppl_ratio"], 2)
            rows.append([name, percent(certain["acc_kept"]), ratio, *cells])
    header = [words(code) for code in ("experiment", "kept", "ppl_ratio", "params", "kv", "flops")]
    text = content["ppl_accuracy"]["text"]
    about = words("costs.about", text=plain(text), dtype=plain(costs["dtype"]))
    remarks = [words("costs.none", reason=words.reason(costs))] if costs["reason"] else []
    return ReportSection(words("s.costs"), [about], [Table(header, rows)], remarks)


def _by_accuracy(content: Content) -> list[tuple[float, str, Content]]:
    """Return accuracy, name and uncertainty of each valid experiment, best first."""
    results, certain = content["results"], content["uncertainty"]["experiments"]
    return sorted(
        ((results[name]["acc_mean"], name, certain[name]) for name in results), key=lambda row: (-row[0], row[1])
    )


_COSTS = ("n_params", "kv_cache_bytes_per_token", "flops_per_token")


def _axes(words: Words, axes: Content) -> Table:
    rows = [
        [_name(words, name), percent(part["share"]), str(part["df"]), words.reason(part) if part["reason"] else ""]
        for name, part in axes["parts"].items()
    ]
    header = [words(code) for code in ("part", "share", "df", "meaning")]
    return Table(header, rows, (0, 3), words("spread.axes"))


def _name(words: Words, part: str) -> str:
    return words(f"part.{part}") if part in {"interaction", "within", "total"} else part


def _tokens(words: Words, groups: list[Content]) -> list[Table]:
    rows = [
        [
            plain(group["tokens"]), str(one["taylor_seq_len"]), str(one["taylor_num_samples"]), fixed(one["mean"]),
            interval(words, one["interval"]),
        ]
        for group in groups
        for one in group["settings"]
    ]  # fmt: skip
    header = [words(code) for code in ("tokens", "seq_len", "samples", "acc_mean", "ci")]
    return [Table(header, rows, (), words("spread.tokens"))] if rows else []


def _seeds(words: Words, seeds: Content) -> list[Table]:
    rows = [
        [axis, str(value), fixed(effect["effect"][number]), interval(words, effect["intervals"][number])]
        for axis, effect in seeds["axes"].items()
        if effect["effect"] is not None
        for number, value in enumerate(effect["values"])
    ]
    header = [words(code) for code in ("part", "value", "spread.effect", "ci")]
    return [Table(header, rows, (0, 1), words("spread.seeds", n=len(seeds["seeds"])))] if rows else []

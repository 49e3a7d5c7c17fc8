"""Answers first: what each method keeps, and the differences between methods and between settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from espalier.reports.formatting import MISSING, format_percent, format_yes_no
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content, ReportSection, Table


def percent_interval(texts: Texts, ends: Sequence[float] | None) -> str:
    """Format an interval of fractions as percentages; None becomes a dash."""
    if ends is None:
        return MISSING
    return texts("interval", low=format_percent(ends[0]), high=format_percent(ends[1]))


def value_and_interval(texts: Texts, one: Content | None) -> str:
    """Format a mean and its interval as percentages; None becomes a dash."""
    if one is None:
        return MISSING
    return f"{format_percent(one['mean'])} ({percent_interval(texts, one['interval'])})"


def method_title(texts: Texts, name: str, one: Content) -> str:
    """Return the name of a method, marked if it is a control."""
    return texts("control", name=name) if one["control"] else name


def kept_matrix(texts: Texts, content: Content, title: str) -> list[Table]:
    """Return the table of what each method keeps of each model at one ratio; no table if nothing is known.

    Args:
        texts: Texts in the language of the report.
        content: Results of all models at the ratio.
        title: Title of the ratio.
    """
    overall, of_models = content["comparisons"]["kept"], content["comparisons_of_models"]
    known = {name: one for name, one in of_models.items() if one["kept"]}
    if not known:
        return []
    methods = {name: one for of_model in known.values() for name, one in of_model["kept"].items()}
    rows = [
        [model, *(value_and_interval(texts, one["kept"].get(name)) for name in methods)] for model, one in known.items()
    ]
    if overall:
        rows.append([texts("x.all_models"), *(value_and_interval(texts, overall.get(name)) for name in methods)])
    measures = {one["measure"] for one in known.values()} | ({content["comparisons"]["measure"]} if overall else set())
    code = f"answers.matrix.{next(iter(measures))}" if len(measures) == 1 else "answers.matrix.mixed"
    header = [texts("x.model"), *(method_title(texts, name, one) for name, one in methods.items())]
    return [Table(header, rows, (0,), texts(code, ratio=title))]


def kept_table(texts: Texts, content: Content, title: str) -> list[Table]:
    """Return the table of what each method keeps of one model at one ratio, best first; none if nothing is known."""
    compared = content["comparisons"]
    ordered = sorted(compared["kept"].items(), key=lambda item: (-item[1]["mean"], item[0]))
    rows = [
        [
            method_title(texts, name, one),
            format_percent(one["mean"]),
            percent_interval(texts, one["interval"]),
            str(one["n"]),
        ]
        for name, one in ordered
    ]
    header = [texts(code) for code in ("method", f"answers.{compared['measure']}", "ci", "n")] if rows else []
    caption = ". ".join([texts("answers.means", ratio=title), *common_documents_label(texts, compared)])
    return [Table(header, rows, (0,), caption)] if rows else []


def common_documents_label(texts: Texts, compared: Content) -> list[str]:
    """Return on how many documents a race compares all experiments; an empty list if on all documents.

    Args:
        texts: Texts in the language of the report.
        compared: The comparisons of one model, or over all models.
    """
    found = compared.get("common_documents")
    if not found or found["n_documents"] == found["n_all"]:
        return []
    return [texts("race.label", n=f"{found['n_documents']:,}", total=f"{found['n_all']:,}")]


def differences_section(texts: Texts, compared: Content, of_models: Sequence[Table] = ()) -> ReportSection:
    """Return the section with all differences between methods and settings, with simultaneous intervals.

    Args:
        texts: Texts in the language of the report.
        compared: The comparisons of one model, or over all models.
        of_models: Tables of each model (`differences_of_models`).
    """
    if compared["reason"]:
        none = texts("differences.none", reason=texts.reason(compared))
        return ReportSection(texts("s.differences"), [none], list(of_models))
    if not compared["differences"]:
        none = texts("differences.each_only" if of_models else "differences.one")
        return ReportSection(texts("s.differences"), [none], list(of_models))
    groups = [(texts("x.all_models") if "groups" in compared else "", compared)]
    groups += [(group_title(texts, one), one) for one in compared.get("groups", [])]
    tables = [
        table
        for title, one in groups
        for table in _difference_tables(
            texts, title, one["differences"], [name for name in compared.get("models", []) if name in one["models"]]
        )
    ]
    about = texts(f"differences.about.{compared['measure']}")
    left_out = compared.get("left_out", [])
    remarks = [texts("differences.left_out", models=", ".join(left_out))] if left_out else []
    return ReportSection(texts("s.differences"), [about], [*tables, *of_models], remarks)


def ranking_section(texts: Texts, compared: Content) -> ReportSection:
    """Return the section with the models ordered by what they keep, and all differences between them.

    Args:
        texts: Texts in the language of the report.
        compared: The comparisons over all models at one ratio.
    """
    ranking, measure = compared["ranking"], compared["measure"]
    if ranking["reason"]:
        return ReportSection(texts("x.ranking"), [texts("x.ranking.none", reason=texts.reason(ranking))])
    n = ranking["n_settings"]
    settings = texts("one_setting" if n == 1 else "several_settings", n=n)
    separator = texts("list.separator")
    rows = [
        [
            one["model"], format_percent(one["mean"]), percent_interval(texts, one["interval"]),
            separator.join(row["second"] for row in ranking["differences"]
                           if row["differs"] and row["first"] == one["model"]) or MISSING,
        ]
        for one in ranking["models"]
    ]  # fmt: skip
    mean = texts("x.ranking.mean" if measure == "kept" else "x.ranking.mean_accuracy")
    header = [texts("x.model"), mean, texts("ci"), texts("x.ranking.more")]
    pairs = [
        [
            texts("difference.method", first=one["first"], second=one["second"]),
            *_points(texts, one), format_yes_no(texts, one["differs"]),
        ]
        for one in ranking["differences"]
    ]  # fmt: skip
    codes = ("differences.what", "differences.points", "differences.ci", "differences.told")
    return ReportSection(
        texts("x.ranking"),
        [texts(f"x.ranking.about.{measure}", settings=settings)],
        [
            Table(header, rows, (0, 3)),
            Table([texts(code) for code in codes], pairs, (0, 3), texts("x.ranking.pairs")),
        ],
    )


def _points(texts: Texts, one: Content) -> tuple[str, str]:
    """Return a difference and its interval in percentage points."""
    low, high = (f"{100 * end:+z.1f}" for end in one["interval"])
    return f"{100 * one['difference']:+z.1f}", texts("interval", low=low, high=high)


def differences_of_models(texts: Texts, of_models: Mapping[str, Content]) -> list[Table]:
    """Return the tables of the differences of each model: methods, then settings; without those that would be empty."""
    return [
        *_table_of_models(texts, of_models, ("method",), texts("differences.each")),
        *_table_of_models(
            texts, of_models, ("taylor_seq_len", "taylor_num_samples"), texts("differences.each_settings")
        ),
    ]


def _table_of_models(texts: Texts, of_models: Mapping[str, Content], axes: Sequence[str], caption: str) -> list[Table]:
    known = {name: {_name(texts, one): one for one in content["differences"] if one["axis"] in axes}
             for name, content in of_models.items()}  # fmt: skip
    pairs = list(dict.fromkeys(pair for of_model in known.values() for pair in of_model))
    rows = [[pair, *(_cell(texts, of_model.get(pair)) for of_model in known.values())] for pair in pairs]
    return [Table([texts("differences.what"), *known], rows, (0,), caption)] if rows else []


def opposite_models(texts: Texts, differences: Sequence[Content], of_models: Mapping[str, Content]) -> list[str]:
    """Name the models in which a difference over all models has the opposite sign, both told apart.

    Args:
        texts: Texts in the language of the report.
        differences: Differences over all models.
        of_models: The comparisons of each model, at the same pruning ratio.
    """
    lines = []
    for one in differences:
        name = _name(texts, one)
        opposite = [
            model
            for model, content in of_models.items()
            for own in content["differences"]
            if _name(texts, own) == name and one["axis"] == own["axis"] and one["differs"] and own["differs"]
            and one["difference"] * own["difference"] < 0
        ]  # fmt: skip
        if opposite:
            lines.append(texts("differences.opposite", what=name, models=texts("list.separator").join(opposite)))
    return lines


def group_title(texts: Texts, group: Content) -> str:
    """Return the title of a group of models."""
    if group["by"] == "kind":
        return texts(f"group.{group['value']}")
    return texts("group.family", family=group["value"])


def sentences(statements: Mapping[str, Sequence[Content]], *kinds: str) -> list[Content]:
    """Return the statements of some kinds, in order."""
    return [message for kind in kinds for message in statements.get(kind, [])]


def _difference_tables(texts: Texts, title: str, differences: Sequence[Content], models: Sequence[str]) -> list[Table]:
    """Return the tables of differences. If one of them is not over all of `models`, a column names those of each."""
    names_models = any(one.get("models", models) != models for one in differences)
    tables = []
    for code, axes in (("methods", {"method"}), ("settings", {"taylor_seq_len", "taylor_num_samples", "tokens"})):
        rows = [
            [
                _name(texts, one), *_points(texts, one), _settings(texts, one), format_yes_no(texts, one["differs"]),
                *([texts("list.separator").join(one["models"])] if names_models else []),
            ]
            for one in differences
            if one["axis"] in axes
        ]  # fmt: skip
        codes = ("differences.what", "differences.points", "differences.ci", "x.n_settings", "differences.told")
        header = [texts(one) for one in (*codes, *(["x.models"] if names_models else []))]
        caption = (
            texts(f"differences.{code}")
            if not title
            else texts("differences.of", group=title, what=texts(f"differences.{code}"))
        )
        if rows:
            tables.append(Table(header, rows, (0, 4, 5) if names_models else (0, 4), caption))
    return tables


def _settings(texts: Texts, one: Content) -> str:
    """Return the number of settings of a difference, or the numbers of experiments if one side has no settings."""
    if one["n_of_sides"] is None:
        return str(one["n_settings"])
    return texts("differences.sides", first=one["n_of_sides"][0], second=one["n_of_sides"][1])


def _cell(texts: Texts, one: Content | None) -> str:
    """Format a difference and its interval; a star marks what is told apart."""
    if one is None:
        return MISSING
    difference, ends = _points(texts, one)
    return f"{difference} ({ends}){'*' if one['differs'] else ''}"


def _name(texts: Texts, one: Content) -> str:
    values = {"first": one["first"], "second": one["second"], "tokens": one["tokens"]}
    return texts(f"difference.{one['axis']}", **values)

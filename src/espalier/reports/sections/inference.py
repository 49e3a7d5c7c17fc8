"""Section on inference measurements: sizes, speeds, and whether pruning makes the model faster."""

from __future__ import annotations

from espalier.reports.formatting import format_fixed, format_value
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content, ReportSection, Table


def inference_sections(texts: Texts, analysis: Content, content: Content) -> list[ReportSection]:
    """Return one section for each measured experiment of a pruning ratio."""
    measured = [one for one in analysis.get("inference", []) if one["pruning_ratio"] == content["pruning_ratio"]]
    return [_measurement_section(texts, one) for one in measured]


def _measurement_section(texts: Texts, measured: Content) -> ReportSection:
    machine, load = measured["machine"], measured["load"]
    threads = "" if machine["threads"] is None else texts("inference.threads", n=machine["threads"])
    about = texts(
        "inference.about", device=machine["device"], name=machine["name"], threads=threads, dtype=machine["dtype"],
        prompt_tokens=load["prompt_tokens"], new_tokens=load["new_tokens"], repeats=load["repeats"],
    )  # fmt: skip
    tables = [_sizes_table(texts, measured), _speeds_table(texts, measured), _gains_table(texts, measured)]
    aligned = [] if measured["padded_to"] else [texts("inference.aligned")]
    title = texts("s.inference", experiment=measured["experiment"])
    return ReportSection(title, [about, texts("inference.level")], tables, [*_outcomes(texts, measured), *aligned])


def _sizes_table(texts: Texts, measured: Content) -> Table:
    rows = [
        [_version_name(texts, name, measured), *(format_value(one[key]) for key in ("n_params", "weights_bytes", _KV))]
        for name, one in measured["models"].items()
    ]
    header = [texts(code) for code in ("inference.version", "params", "inference.weights", "kv")]
    return Table(header, rows, (0,), texts("inference.sizes"))


def _speeds_table(texts: Texts, measured: Content) -> Table:
    rows = [
        [
            str(batch["batch_size"]), _version_name(texts, name, measured), _range(one["prefill_tokens_per_s"], 1),
            _range(one["decode_tokens_per_s"], 1), _range(one["time_to_first_token_s"], 4),
            format_value(one["cache_bytes"]), format_value(one["beyond_weights_bytes"]),
        ]
        for batch in measured["batches"]
        for name, one in batch["versions"].items()
    ]  # fmt: skip
    codes = ("batch", "version", "prefill", "decode", "first", "cache", "peak")
    return Table([texts(f"inference.{code}") for code in codes], rows, (1,), texts("inference.speeds"))


def _gains_table(texts: Texts, measured: Content) -> Table:
    rows = [
        [
            str(batch["batch_size"]),
            texts("inference.pair", of=_short_version_name(texts, one["of"]), to=_short_version_name(texts, one["to"])),
            texts(f"speed.{one['speed']}"), format_fixed(one["ratio"], 3),
            texts("interval", low=format_fixed(one["interval"][0], 3), high=format_fixed(one["interval"][1], 3)),
            texts(f"outcome.{one['outcome']}"),
        ]
        for batch in measured["batches"]
        for one in batch["gains"]
    ]  # fmt: skip
    codes = ("batch", "compared", "speed", "ratio", "interval", "outcome")
    return Table([texts(f"inference.{code}") for code in codes], rows, (1, 2, 5), texts("inference.gains"))


def _outcomes(texts: Texts, measured: Content) -> list[str]:
    """Return one sentence per batch size and speed on the gain from pruning, and one on the gain from padding."""
    return [
        texts(
            f"inference.{one['of']}.{one['outcome']}", batch=batch["batch_size"], speed=texts(f"speed.{one['speed']}"),
            ratio=format_fixed(one["ratio"], 2), low=format_fixed(one["interval"][0], 2),
            high=format_fixed(one["interval"][1], 2),
        )
        for pair in _SUMMARISED_PAIRS
        for batch in measured["batches"]
        for one in batch["gains"]
        if (one["of"], one["to"]) == pair
    ]  # fmt: skip


_KV = "kv_cache_bytes_per_token"
_SUMMARISED_PAIRS = (("pruned", "unpruned"), ("padded", "pruned"))


def _version_name(texts: Texts, name: str, measured: Content) -> str:
    return texts(f"version.{name}", multiple=measured["padded_to"])


def _short_version_name(texts: Texts, name: str) -> str:
    """Return the short name of a version, for a pair of versions."""
    return texts(f"version.short.{name}")


def _range(measurement: Content, digits: int) -> str:
    median, low, high = (format_fixed(measurement[key], digits) for key in ("median", "min", "max"))
    return f"{median} ({low}\N{EN DASH}{high})"

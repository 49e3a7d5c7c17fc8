"""Section on inference measurements: sizes, speeds, and whether pruning makes the model faster."""

from __future__ import annotations

from espalier.reports.messages import Words
from espalier.reports.sections.base import Content, ReportSection, Table, fixed, plain


def inference_sections(words: Words, analysis: Content, content: Content) -> list[ReportSection]:
    """Return one section for each measured experiment of a pruning ratio."""
    measured = [one for one in analysis.get("inference", []) if one["pruning_ratio"] == content["pruning_ratio"]]
    return [_section(words, one) for one in measured]


def _section(words: Words, measured: Content) -> ReportSection:
    machine, load = measured["machine"], measured["load"]
    threads = "" if machine["threads"] is None else words("inference.threads", n=machine["threads"])
    about = words(
        "inference.about", device=machine["device"], name=machine["name"], threads=threads, dtype=machine["dtype"],
        prompt_tokens=load["prompt_tokens"], new_tokens=load["new_tokens"], repeats=load["repeats"],
    )  # fmt: skip
    tables = [_sizes(words, measured), _speeds(words, measured), _gains(words, measured)]
    aligned = [] if measured["padded_to"] else [words("inference.aligned")]
    title = words("s.inference", experiment=measured["experiment"])
    return ReportSection(title, [about], tables, [*_outcomes(words, measured), *aligned])


def _sizes(words: Words, measured: Content) -> Table:
    rows = [
        [_version(words, name, measured), *(plain(one[key]) for key in ("n_params", "weights_bytes", _KV))]
        for name, one in measured["models"].items()
    ]
    header = [words(code) for code in ("inference.version", "params", "inference.weights", "kv")]
    return Table(header, rows, (0,), words("inference.sizes"))


def _speeds(words: Words, measured: Content) -> Table:
    rows = [
        [
            str(batch["batch_size"]), _version(words, name, measured), _range(one["prefill_tokens_per_s"], 1),
            _range(one["decode_tokens_per_s"], 1), _range(one["time_to_first_token_s"], 4), plain(one["cache_bytes"]),
            plain(one["beyond_weights_bytes"]),
        ]
        for batch in measured["batches"]
        for name, one in batch["versions"].items()
    ]  # fmt: skip
    codes = ("batch", "version", "prefill", "decode", "first", "cache", "peak")
    return Table([words(f"inference.{code}") for code in codes], rows, (1,), words("inference.speeds"))


def _gains(words: Words, measured: Content) -> Table:
    rows = [
        [
            str(batch["batch_size"]),
            words("inference.pair", of=_short(words, one["of"]), to=_short(words, one["to"])),
            words(f"speed.{one['speed']}"), fixed(one["ratio"], 3),
            words("interval", low=fixed(one["interval"][0], 3), high=fixed(one["interval"][1], 3)),
            words(f"outcome.{one['outcome']}"),
        ]
        for batch in measured["batches"]
        for one in batch["gains"]
    ]  # fmt: skip
    codes = ("batch", "compared", "speed", "ratio", "interval", "outcome")
    return Table([words(f"inference.{code}") for code in codes], rows, (1, 2, 5), words("inference.gains"))


def _outcomes(words: Words, measured: Content) -> list[str]:
    """Return one sentence per batch size and speed on the gain from pruning, and one on the gain from padding."""
    return [
        words(
            f"inference.{one['of']}.{one['outcome']}", batch=batch["batch_size"], speed=words(f"speed.{one['speed']}"),
            ratio=fixed(one["ratio"], 2), low=fixed(one["interval"][0], 2), high=fixed(one["interval"][1], 2),
        )
        for pair in _SPOKEN
        for batch in measured["batches"]
        for one in batch["gains"]
        if (one["of"], one["to"]) == pair
    ]  # fmt: skip


_KV = "kv_cache_bytes_per_token"
_SPOKEN = (("pruned", "unpruned"), ("padded", "pruned"))


def _version(words: Words, name: str, measured: Content) -> str:
    return words(f"version.{name}", multiple=measured["padded_to"])


def _short(words: Words, name: str) -> str:
    """Return the short name of a version, for a pair of versions."""
    return words(f"version.short.{name}")


def _range(of: Content, digits: int) -> str:
    return f"{fixed(of['median'], digits)} ({fixed(of['min'], digits)}\N{EN DASH}{fixed(of['max'], digits)})"

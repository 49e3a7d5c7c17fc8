"""Odd and damaged forms of files with texts or documents, in JSON lines and Parquet."""

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[dict[str, Any]]


def json_forms(rows: Rows, text: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield what is odd, the suffix and the content of files with rows in JSON.

    Args:
        rows: At least four rows.
        text: A field that holds a text.
    """

    def with_text(value: str) -> str:
        return _lines([row | {text: value} for row in rows])

    lines, first = _lines(rows), rows[0]
    plain = {
        "byte order mark": "\ufeff" + lines, "CR LF": lines.replace("\n", "\r\n"), "CR": lines.replace("\n", "\r"),
        "commas between lines": lines.replace("}\n", "},\n"), "one line": lines.replace("\n", " "),
        "pretty printed": "\n".join(json.dumps(row, indent=1) for row in rows),
        "a list that ends with a comma": f"[{','.join(map(json.dumps, rows))},]",
        "an object of lists": json.dumps({key: [row[key] for row in rows] for key in first}),
        "rows under a key": json.dumps({"data": rows}), "CSV": "a,b\n1,2\n3\n",
        "a key twice": lines.replace("{", f'{{"{text}": "x", ', 1),
        "an odd key": _lines([{**first, "a\nb": 1}]) + lines,
        "not a number": _lines([{**row, "more": float("nan")} for row in rows]),
        "too many digits": lines + '{"more": ' + "1" * 5000 + "}\n",
        "100,000 levels": lines + '{"more": ' + "[" * 100_000 + "]" * 100_000 + "}\n",
        "100,000 open lists": "[" * 100_000, "half of a surrogate pair": lines.replace('": "', '": "\\ud800', 1),
        "zero bytes": lines + "\0" * 1000, "a zero character": lines.replace('": "', '": "\\u0000', 1),
        "a separator of lines": with_text("a\u2028b"), "dates": with_text("2024-01-01"), "numbers": with_text("1"),
        "times": with_text("2024-01-01T00:00:00"), "a line of 1 MB": with_text("x " * 500_000),
        "lists of many lengths": _lines([row | {"more": [1] * number} for number, row in enumerate(rows)]),
        "an object in one row": _lines([rows[0] | {"more": {"a": 1}}, *rows[1:]]),
        "two types": _lines([row | {"more": ("a", 1)[number % 2]} for number, row in enumerate(rows)]),
    }  # fmt: skip
    for what, content in plain.items():
        yield what, ".jsonl", content.encode()
    yield "UTF-16", ".jsonl", lines.encode("utf-16")
    yield "Latin-1", ".jsonl", lines.encode() + b'{"a": "\xe9"}\n'
    yield "gzip of nothing", ".jsonl.gz", gzip.compress(b"")
    yield "gzip of 20 MB of spaces", ".jsonl.gz", gzip.compress(b" " * 20_000_000)
    yield "gzip twice", ".jsonl.gz", gzip.compress(gzip.compress(lines.encode()))
    yield "half of a gzip", ".jsonl.gz", gzip.compress(lines.encode())[:40]


def parquet_forms(rows: Rows, text: str, label: str | None = None) -> Iterator[tuple[str, str, bytes]]:
    """Yield what is odd, the suffix and the content of Parquet files with rows; `json_forms` describes the arguments.

    Args:
        rows: At least four rows.
        text: A column of texts.
        label: A column of labels, if there is one.
    """
    table, n = pa.Table.from_pylist(rows), len(rows)

    def with_column(name: str, values: Any) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, values)

    texts = table[text].combine_chunks()
    columns: dict[str, Any] = {
        "dictionary": texts.dictionary_encode(), "large strings": texts.cast(pa.large_string()),
        "string views": texts.cast(pa.string_view()), "bytes": texts.cast(pa.binary()),
        "bytes that are no UTF-8": pa.Array.from_buffers(pa.string(), n, pa.array([b"\xff"] * n).buffers()),
        "nulls": pa.nulls(n), "structs": pa.array([{"a": None}] * n), "lists": pa.array([["a"], ["a", "b"]] * (n // 2)),
        "timestamps": pa.array([0] * n, pa.timestamp("us")), "dates": pa.array([0] * n, pa.date32()),
        "durations": pa.array([1] * n, pa.duration("s")), "numbers": pa.array([1.5] * n),
        "a string of 2 MB": pa.array(["x " * 1_000_000, *texts.to_pylist()[1:]]),
    }  # fmt: skip
    tables = {f"{text} of {kind}": with_column(text, values) for kind, values in columns.items()}
    labels: dict[str, Any] = {} if label is None else {
        "7": pa.array([7] * n), "-1": pa.array([-1] * n), "2**63": pa.array([2**63] * n, pa.uint64()),
        "half": pa.array([0.5] * n), "NaN": pa.array([float("nan")] * n), "true": pa.array([True] * n),
        "text": pa.array(["1"] * n), "time": pa.array([0] * n, pa.timestamp("us")), "null": pa.nulls(n),
        "decimal": pa.array([1] * n).cast(pa.decimal128(30, 2)),
    }  # fmt: skip
    tables |= {f"{label}: {kind}": with_column(str(label), values) for kind, values in labels.items()}
    features = {text: {"dtype": "int64", "_type": "Value"}}
    tables |= {
        "a column twice": table.append_column(text, texts), "no rows": table.slice(0, 0),
        "no columns": table.select([]),
        "a column without a name": table.append_column("", texts), "an odd name": table.append_column("a/b\n", texts),
        "broken metadata": table.replace_schema_metadata({"huggingface": "{"}),
        "metadata of another type": table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        ),
    }  # fmt: skip
    for what, one in tables.items():
        yield what, ".parquet", _parquet(one)
    yield "row groups without rows", ".parquet", _parquet(table.slice(0, 0), table, table.slice(0, 0))
    sound = _parquet(table)
    yield "footer without a length", ".parquet", sound[:-8] + b"\0\0\0\0PAR1"
    yield "footer of 2 GB", ".parquet", sound[:-8] + b"\xff\xff\xff\x7fPAR1"
    yield "a page with a flipped byte", ".parquet", sound[:40] + bytes([sound[40] ^ 255]) + sound[41:]
    yield "JSON in it", ".parquet", b"{}"


def _lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _parquet(*tables: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    return sink.getvalue()

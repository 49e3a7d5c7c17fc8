"""Tokenised requests: made once for a tokenizer and a protocol, read by every evaluation.

A Parquet file with one row per request. Requests of tasks have a context and a continuation; a perplexity text is one
row whose continuation is the whole text. What the rows were made from (protocol, tokenizer, documents) is kept as
JSON in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from espalier.errors import UserError
from espalier.files import read_parquet, write_parquet
from espalier.scoring import Request
from espalier.scoring.requests import Integers, Tokens

SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("doc_id", pa.int32(), nullable=False),
        pa.field("choice", pa.int32(), nullable=False),
        pa.field("context", pa.list_(pa.int32()), nullable=False),
        pa.field("continuation", pa.list_(pa.int32()), nullable=False),
    ]
)
_RECIPE, _APART = b"espalier_recipe", b"espalier_n_apart"


class RequestKey(NamedTuple):
    """Which request: document and choice of a task."""

    task: str
    doc_id: int
    choice: int

    @property
    def document(self) -> str:
        """Name of the document, for messages."""
        return f"task {self.task}, document {self.doc_id}"


@dataclass(frozen=True)
class TokenisedRequests:
    """All requests of an evaluation.

    Attributes:
        requests: Requests of the tasks.
        texts: Tokens of each perplexity text.
        recipe: What they were made from.
        n_apart: For each task that has any, the requests whose continuation was encoded apart from its context.
    """

    requests: Mapping[RequestKey, Request]
    texts: Mapping[str, Tokens]
    recipe: Mapping[str, Any]
    n_apart: Mapping[str, int] = field(default_factory=dict)

    def find(self, key: RequestKey) -> Request:
        """Return one request.

        Raises:
            UserError: If it was not tokenised.
        """
        try:
            return self.requests[key]
        except KeyError:
            raise UserError(
                f"{key.document}: not among the tokenised requests; delete the requests file "
                "of this model and run again"
            ) from None

    def write(self, path: str | Path) -> None:
        """Write the Parquet file."""
        rows = [
            ("loglikelihood", key.task, key.doc_id, key.choice, request.context, request.continuation)
            for key, request in self.requests.items()
        ] + [("perplexity", name, 0, 0, [], tokens) for name, tokens in self.texts.items()]
        columns = [list(column) for column in zip(*rows, strict=True)]
        table = pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
        metadata = {_RECIPE: json.dumps(self.recipe, sort_keys=True, ensure_ascii=False).encode()}
        if self.n_apart:  # left out where there are none: evaluations count as made from this file's bytes
            metadata[_APART] = json.dumps(self.n_apart, sort_keys=True).encode()
        write_parquet(path, table.replace_schema_metadata(metadata))


def read_requests(path: str | Path) -> TokenisedRequests:
    """Read a file that `TokenisedRequests.write` made.

    Raises:
        UserError: If the file is not such a file.
    """
    table = read_parquet(path)
    metadata = table.schema.metadata or {}
    if _RECIPE not in metadata or not table.schema.equals(SCHEMA, check_metadata=False):
        raise UserError(f"{path}: is not a file of tokenised requests; delete it and run again")
    keys = zip(*(table[name].to_pylist() for name in ("kind", "task", "doc_id", "choice")), strict=True)
    requests, texts = {}, {}
    for (kind, task, doc_id, choice), context, continuation in zip(
        keys, _rows(table["context"]), _rows(table["continuation"]), strict=True
    ):
        if kind == "perplexity":
            texts[task] = continuation
        else:
            requests[RequestKey(task, doc_id, choice)] = Request(context, continuation)
    return TokenisedRequests(requests, texts, json.loads(metadata[_RECIPE]), json.loads(metadata.get(_APART, b"{}")))


def _rows(column: pa.ChunkedArray) -> Iterator[Integers]:
    """Yield the lists of a column as views of one array: lists of Python's integers take 30 times the memory."""
    for chunk in column.chunks:
        values, bounds = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        yield from map(values.__getitem__, map(slice, bounds, bounds[1:]))

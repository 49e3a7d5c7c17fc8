"""Tokenised requests: built once for a tokenizer and a protocol, and read by every evaluation.

They are stored in a Parquet file with one row per request. A request of a task has a context and a continuation. A
perplexity text is one row, whose continuation is the whole text. The recipe of the requests (protocol, tokenizer,
documents) is stored as JSON in the file's metadata.
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
from espalier.scoring.requests import Integers, Request, Tokens

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
    """Identifier of a request: the task, the index of the document and the index of the choice."""

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
        texts: Token ids of each perplexity text, by its name.
        recipe: Recipe of the requests.
        n_encoded_apart: Number of requests whose continuation was tokenised separately from its context, by task.
            Tasks without such requests are left out.
        n_skipped: Number of documents that were left out because they are too long, by task; None if too long documents
            are truncated. It is not stored, because it depends on the model's context.
    """

    requests: Mapping[RequestKey, Request]
    texts: Mapping[str, Tokens]
    recipe: Mapping[str, Any]
    n_encoded_apart: Mapping[str, int] = field(default_factory=dict)
    n_skipped: Mapping[str, int] | None = None

    def find(self, key: RequestKey) -> Request:
        """Return one request.

        Raises:
            UserError: If there is no such request.
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
        if (
            self.n_encoded_apart
        ):  # evaluations store this file's hash, so files without such requests must stay the same
            metadata[_APART] = json.dumps(self.n_encoded_apart, sort_keys=True).encode()
        write_parquet(path, table.replace_schema_metadata(metadata))


def read_requests(path: str | Path) -> TokenisedRequests:
    """Read a file that `TokenisedRequests.write` wrote.

    Raises:
        UserError: If the file is damaged or has other content.
    """
    table = read_parquet(path)
    metadata = table.schema.metadata or {}
    if _RECIPE not in metadata or not table.schema.equals(SCHEMA, check_metadata=False):
        raise UserError(f"{path}: is not a file of tokenised requests; delete it and run again")
    keys = zip(*(table[name].to_pylist() for name in ("kind", "task", "doc_id", "choice")), strict=True)
    requests, texts = {}, {}
    for (kind, task, doc_id, choice), context, continuation in zip(
        keys, _lists(table["context"]), _lists(table["continuation"]), strict=True
    ):
        if kind == "perplexity":
            texts[task] = continuation
        else:
            requests[RequestKey(task, doc_id, choice)] = Request(context, continuation)
    return TokenisedRequests(requests, texts, json.loads(metadata[_RECIPE]), json.loads(metadata.get(_APART, b"{}")))


def _lists(column: pa.ChunkedArray) -> Iterator[Integers]:
    """Yield the lists of a column as views of one array. Lists of Python integers would take 30 times the memory."""
    for chunk in column.chunks:
        values, bounds = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        yield from map(values.__getitem__, map(slice, bounds, bounds[1:]))

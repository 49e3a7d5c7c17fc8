"""Suffixes of the data files that are read. Imported by every job, so without pyarrow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".lz4")
TEXT_SUFFIXES = (
    ".parquet", *(plain + packed for plain in (".json", ".jsonl", ".txt") for packed in ("", *COMPRESSIONS)),
)  # fmt: skip
"""Of a text for calibration, perplexity or recovery."""

# `datasets`, which lm-eval reads documents with, unpacks the other compressions only with packages that are not here.
DOCUMENT_SUFFIXES = {
    ".parquet": "parquet",
    **{plain + packed: "json" for plain in (".jsonl", ".json") for packed in ("", ".gz", ".bz2", ".xz")},
}
"""Of the documents of a task, each with its builder of `datasets`."""

TEXT_FORMS = f".parquet, .json, .jsonl, .txt, the last three also compressed: {', '.join(COMPRESSIONS)}"
DOCUMENT_FORMS = ".parquet, .json or .jsonl (or .json.gz and the like: .gz, .bz2, .xz)"

# Files that are no text that is read here, and no repository either: data/c4.csv looks like owner/name.
OTHER_FILES = (*COMPRESSIONS, ".csv", ".tsv", ".ndjson", ".arrow", ".zip", ".tar", ".tgz")


def document_suffix(name: str) -> str | None:
    """Return the suffix of a file of documents, `.jsonl.gz` of `test.jsonl.gz`; None of another file."""
    return next((suffix for suffix in DOCUMENT_SUFFIXES if name.endswith(suffix) and name != suffix), None)


def split_name(path: Path) -> str:
    """Return the split that a file of documents holds: `test` for `test.jsonl.gz`."""
    return path.name.removesuffix(document_suffix(path.name) or "")


def document_files(paths: Iterable[Path]) -> list[str]:
    """Choose the files that tasks are read from, as inputs of a rule.

    What was an input before compressed files were read is one still, and a compressed copy beside such a file is none:
    another list of inputs would rerun finished studies.
    """
    found = list(paths)
    plain = {path for path in found if path.suffix in {".parquet", ".json", ".jsonl", ".txt"}}
    known = {(path.parent, path.stem) for path in plain}
    packed = {path for path in found if document_suffix(path.name) and (path.parent, split_name(path)) not in known}
    return sorted(map(str, plain | packed))

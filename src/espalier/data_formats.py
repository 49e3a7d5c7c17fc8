"""Formats of the texts and task documents that a study reads: the suffixes of their files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".lz4")
TEXT_SUFFIXES = (
    ".parquet", *(plain + packed for plain in (".json", ".jsonl", ".txt") for packed in ("", *COMPRESSIONS)),
)  # fmt: skip
"""Suffixes of the text files for calibration, perplexity and recovery."""

# lm-eval reads documents with `datasets`, which needs further packages for the other compressions.
DOCUMENT_SUFFIXES = {
    ".parquet": "parquet",
    **{plain + packed: "json" for plain in (".jsonl", ".json") for packed in ("", ".gz", ".bz2", ".xz")},
}
"""Suffixes of the document files of a task, and the builder of `datasets` that reads each."""

TEXT_FORMATS = f".parquet, .json, .jsonl, .txt, the last three also compressed: {', '.join(COMPRESSIONS)}"
DOCUMENT_FORMATS = ".parquet, .json or .jsonl (or .json.gz and the like: .gz, .bz2, .xz)"

# Suffixes of files that are not supported as texts. Without this list, data/c4.csv would look like a hub repository.
UNSUPPORTED_SUFFIXES = (*COMPRESSIONS, ".csv", ".tsv", ".ndjson", ".arrow", ".zip", ".tar", ".tgz")


def document_suffix(name: str) -> str | None:
    """Return the suffix of a document file, such as `.jsonl.gz` for `test.jsonl.gz`; None for any other file."""
    return next((suffix for suffix in DOCUMENT_SUFFIXES if name.endswith(suffix) and name != suffix), None)


def split_name(path: Path) -> str:
    """Return the split that a document file holds: `test` for `test.jsonl.gz`."""
    return path.name.removesuffix(document_suffix(path.name) or "")


def document_files(paths: Iterable[Path]) -> list[str]:
    """Return the files that tasks are read from, sorted, as inputs of a rule.

    A changed list of inputs would rerun finished studies. Every file that was an input before compressed files were
    supported therefore remains an input. A compressed copy beside such a file is left out.
    """
    found = list(paths)
    plain = {path for path in found if path.suffix in {".parquet", ".json", ".jsonl", ".txt"}}
    known = {(path.parent, path.stem) for path in plain}
    packed = {path for path in found if document_suffix(path.name) and (path.parent, split_name(path)) not in known}
    return sorted(map(str, plain | packed))

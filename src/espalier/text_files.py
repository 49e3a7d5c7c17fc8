"""Texts in local files: Parquet, JSON and plain text, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from espalier.errors import UserError
from espalier.files import COMPRESSIONS, read_parquet


def read_texts(path: str | Path, text_field: str) -> list[str]:
    """Read one text per row (Parquet, JSON lines, JSON list) or per line (.txt), compressed or not.

    Lines end with LF or CR LF. Other characters that Unicode calls line breaks are part of a text.

    Args:
        path: The file.
        text_field: Column or key of the text. Not used for .txt files.

    Raises:
        UserError: If the file is missing, unreadable or empty, has no `text_field`, or has a row whose text is not a
            string. Messages count rows from 0 and lines from 1.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the dataset in the config")
    plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    if plain.suffix == ".txt":
        texts = [_without_newline(line) for line in _lines(path)]
    elif plain.suffix == ".parquet":
        texts = _parquet_texts(path, text_field)
    else:
        texts = [_text_of(row, text_field, f"{path}: {where}") for where, row in read_json_rows(path)]
    if not texts:
        raise UserError(f"{path}: is empty; give a file with at least one text")
    return texts


def read_json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the position (such as `line 3` or `row 2`) and the value of each item of JSON lines or of one JSON list.

    Raises:
        UserError: If a line is not JSON. The message names the first such line.
    """
    numbered = ((number, line) for number, line in enumerate(_lines(path), start=1) if line.strip())
    first = next(numbered, None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        yield from ((f"row {number}", row) for number, row in enumerate(_parse_json("".join(_lines(path)), path, 1)))
        return
    yield f"line {first[0]}", _parse_json(first[1], path, first[0])
    yield from ((f"line {number}", _parse_json(line, path, number)) for number, line in numbered)


def _parse_json(content: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UserError(f"{path}: line {line} is not JSON ({error.msg}); mend the line or take it out") from None


def _lines(path: Path) -> Iterator[str]:
    """Yield the decompressed lines of a file, each with its newline character.

    Not `str.splitlines`: it also splits at form feeds and at the line separators of Unicode, which texts contain.

    Raises:
        UserError: If the file is not compressed as its suffix says, is truncated, or is not UTF-8.
    """
    number = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, start=1):  # noqa: B007 (used in the messages below)
                yield line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: line {number} is not UTF-8 ({error.reason}); save the file as UTF-8") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if path.suffix not in COMPRESSIONS:
            raise
        raise UserError(
            f"{path}: is not a complete {path.suffix} file ({error}, after line {number}); fetch or pack it again"
        ) from None


def _without_newline(line: str) -> str:
    return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def _open(path: Path) -> IO[bytes]:
    if path.suffix in {".zst", ".lz4"}:
        return io.BufferedReader(pa.input_stream(path, compression="detect"))
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast("IO[bytes]", openers.get(path.suffix, open)(path, "rb"))


def _parquet_texts(path: Path, text_field: str) -> list[str]:
    table = read_parquet(path)
    if text_field not in table.column_names:
        raise UserError(f"{path}: has no column {text_field!r}; it has {', '.join(table.column_names)}")
    values = table[text_field].to_pylist()
    return [_checked_text(value, text_field, f"{path}: row {number}") for number, value in enumerate(values)]


def _text_of(row: Any, text_field: str, where: str) -> str:
    if not isinstance(row, dict):
        raise UserError(f"{where}: is not a JSON object with {text_field!r}")
    if text_field not in row:
        raise UserError(f"{where}: has no {text_field!r}; it has {', '.join(row) or 'nothing'}")
    return _checked_text(row[text_field], text_field, where)


def _checked_text(value: Any, text_field: str, where: str) -> str:
    if isinstance(value, str):
        return value
    given = "null" if value is None else f"not a text ({type(value).__name__})"
    raise UserError(f"{where}: {text_field!r} is {given}; mend the row or take it out")

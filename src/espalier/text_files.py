"""Texts in local files: Parquet, JSON and plain text, compressed or not."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import re
import reprlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from espalier.data_formats import COMPRESSIONS
from espalier.errors import UserError
from espalier.files import DELETE, read_parquet

_MADE = ("cache", "results")
"""Folders of files that rules make. Other files are the user's own: no message tells to delete them."""
MOST_NAMES = 20
"""Names of fields that a message lists."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HALF_OF_A_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


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


def check_text_field(path: str | Path, text_field: str) -> None:
    """Check quickly that a file has a text: the schema of a Parquet file, or the first of its JSON lines.

    JSON lists and damaged Parquet files are left to `read_texts`.

    Args:
        path: A file that exists.
        text_field: As in `read_texts`.

    Raises:
        UserError: If the file has no `text_field`, or the first line is no JSON object with a text.
    """
    path = Path(path)
    plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    if plain.suffix == ".txt":
        return
    if plain.suffix == ".parquet":
        with contextlib.suppress(OSError, pa.ArrowException):
            _check_has_column(path, pq.read_schema(path).names, text_field)
        return
    first = next((line for line in _lines(path) if line.strip()), "[")
    if not first.lstrip().startswith("["):
        where, row = next(read_json_rows(path))
        _text_of(row, text_field, f"{path}: {where}")


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


def read_given_parquet(path: Path) -> pa.Table:
    """Read a Parquet file with texts or documents that the user gave, or that was fetched, and check its values.

    Raises:
        UserError: If the file is damaged, holds bytes that are no UTF-8 in a column of texts, or has a column twice.
    """
    remedy = DELETE if path.parts[0] in _MADE else "give a complete file"
    table = read_parquet(path, remedy=remedy)
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: has values that cannot be read ({str(error).splitlines()[0]}); {remedy}") from None
    if repeated := _first_repeated(table.column_names):
        raise UserError(f"{path}: has the column {reprlib.repr(repeated)} more than once; keep one")
    return table


def listed(names: Iterable[str]) -> str:
    """Return names of fields in one short line, separated by commas."""
    known = [name if name.isidentifier() else reprlib.repr(name) for name in islice(names, MOST_NAMES + 1)]
    return ", ".join([*known[:MOST_NAMES], *(["..."] if len(known) > MOST_NAMES else [])])


def _first_repeated(names: Sequence[str]) -> str | None:
    return next((name for number, name in enumerate(names) if name in names[:number]), None)


class _UnreadableError(ValueError):
    """A JSON value that is valid, but that has no clear meaning."""


def _parse_json(content: str, path: Path, first_line: int) -> Any:
    try:
        value = json.loads(content, object_pairs_hook=_without_repeated_keys)
        if _HALF_OF_A_PAIR.search(content):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UserError(f"{path}: line {line} is not JSON ({error.msg}); mend the line or take it out") from None
    except UnicodeEncodeError:
        reason = "has half of a surrogate pair (`\\ud800` to `\\udfff`), which is no character"
    except RecursionError:
        reason = "has too many levels"
    except _UnreadableError as error:
        reason = str(error)
    except ValueError:  # Python converts no number of over 4,300 digits
        reason = "has a number with too many digits"
    else:
        return value
    where = "a row" if content.lstrip().startswith("[") else f"line {first_line}"
    raise UserError(f"{path}: {where} {reason}; mend it or take it out")


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. `json` would keep only the last of two equal keys."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise _UnreadableError(f"has the key {reprlib.repr(_first_repeated([key for key, _ in pairs]))} more than once")
    return content


def _lines(path: Path) -> Iterator[str]:
    """Yield the decompressed lines of a file, each with its newline character.

    Not `str.splitlines`: it also splits at form feeds and at the line separators of Unicode, which texts contain.

    Raises:
        UserError: If the file is not compressed as its suffix says, is truncated, is not UTF-8, or begins with a byte
            order mark, which would become a part of the first text.
    """
    number = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, start=1):
                if number == 1 and line.startswith(_BYTE_ORDER_MARK):
                    raise UserError(f"{path}: begins with a byte order mark; save the file as UTF-8 without it")
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
    table = read_given_parquet(path)
    _check_has_column(path, table.column_names, text_field)
    values = table[text_field].to_pylist()
    return [_checked_text(value, text_field, f"{path}: row {number}") for number, value in enumerate(values)]


def _check_has_column(path: Path, columns: Sequence[str], text_field: str) -> None:
    if text_field not in columns:
        raise UserError(f"{path}: has no column {text_field!r}; it has {listed(columns)}")


def _text_of(row: Any, text_field: str, where: str) -> str:
    if not isinstance(row, dict):
        raise UserError(f"{where}: is not a JSON object with {text_field!r}")
    if text_field not in row:
        raise UserError(f"{where}: has no {text_field!r}; it has {listed(row) or 'nothing'}")
    return _checked_text(row[text_field], text_field, where)


def _checked_text(value: Any, text_field: str, where: str) -> str:
    if isinstance(value, str):
        return value
    given = "null" if value is None else f"not a text ({type(value).__name__})"
    raise UserError(f"{where}: {text_field!r} is {given}; mend the row or take it out")

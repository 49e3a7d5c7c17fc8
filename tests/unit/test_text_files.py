"""Texts from local files: every format gives the same texts, and errors name the row or line that is not a text."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from espalier.data_formats import COMPRESSIONS, TEXT_SUFFIXES
from espalier.errors import UserError
from espalier.files import write_parquet
from espalier.text_files import read_texts

OTHER_BREAKS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029\r"
"""Characters at which `str.splitlines` splits, and which end no line of a file."""
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
    ".lz4": lambda content: pa.compress(content, codec="lz4", asbytes=True),
}


def write(path: Path, content: str) -> Path:
    """Write a file, compressed according to its suffix; return its path."""
    path.write_bytes(PACK.get(path.suffix, bytes)(content.encode()))
    return path


@pytest.mark.parametrize("suffix", TEXT_SUFFIXES)
def test_every_format_gives_the_same_texts(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"c4-train.00000-of-01024{suffix}"
    texts = [f"one{OTHER_BREAKS}still one", "", "two"]
    rows = [{"body": text, "id": number} for number, text in enumerate(texts)]
    if suffix == ".parquet":
        write_parquet(path, pa.Table.from_pylist(rows))
    elif ".txt" in suffix:
        write(path, "\n".join(texts) + "\n")
    else:
        write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert read_texts(path, "body") == texts


def test_lines_end_with_lf_or_cr_lf(tmp_path: Path) -> None:
    for end in ("", "\n", "\r\n"):
        assert read_texts(write(tmp_path / "a.txt", f"one\r\ntwo\n\r\nlast{end}"), "text") == ["one", "two", "", "last"]


@pytest.mark.parametrize("suffix", ["", *COMPRESSIONS])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_may_be_a_list(suffix: str, indent: int | None, tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": ""}, {"text": "c"}]
    assert read_texts(write(tmp_path / f"a.json{suffix}", json.dumps(rows, indent=indent)), "text") == ["a", "", "c"]


def test_blank_lines_of_json_are_skipped(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path / "a.jsonl", '\n{"text": "a"}\n\n{"text": "b"}'), "text") == ["a", "b"]


def test_compressed_files_may_have_several_streams(tmp_path: Path) -> None:
    """`cat a.gz b.gz` creates such files."""
    for suffix, pack in PACK.items():
        path = tmp_path / f"a.jsonl{suffix}"
        path.write_bytes(pack(b'{"text": "a"}\n') + pack(b'{"text": "b"}\n'))
        assert read_texts(path, "text") == ["a", "b"], suffix


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.txt: no such file; check the dataset in the config"):
        read_texts(tmp_path / "none.txt", "text")
    write_parquet(tmp_path / "a.parquet", pa.table({"x": ["a"], "y": ["b"]}))
    with pytest.raises(UserError, match=r"a.parquet: has no column 'text'; it has x, y"):
        read_texts(tmp_path / "a.parquet", "text")
    (tmp_path / "a.txt").write_bytes(b"one\ntw\xe9\n")
    with pytest.raises(UserError, match=r"a.txt: line 2 is not UTF-8 \(invalid continuation byte\); save the file as"):
        read_texts(tmp_path / "a.txt", "text")


GOOD = '{"text": "a"}\n'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (GOOD + '{"x": "a"}', "line 2: has no 'text'; it has x"),
        (GOOD + '{"text": "a', r"line 2 is not JSON \(Unterminated string starting at\); mend the line or take it out"),
        (GOOD + '"text"', "line 2: is not a JSON object with 'text'"),
        (GOOD + "null", "line 2: is not a JSON object with 'text'"),
        (GOOD + "\n" + '{"text": null}', "line 3: 'text' is null; mend the row or take it out"),
        (GOOD + '{"text": 5}', r"line 2: 'text' is not a text \(int\); mend the row"),
        (GOOD + '{"text": ["a"]}', r"line 2: 'text' is not a text \(list\); mend the row"),
        ('[{"text": "a"},\n {"text": null}]', "row 1: 'text' is null; mend the row"),
        ('[{"text": "a"},\n {"text"}]', r"line 2 is not JSON \(Expecting ':' delimiter\)"),
        (GOOD + '{"text": "a", "text": "b"}', "line 2 has the key 'text' more than once; mend it or take it out"),
        ('[{"text": "a", "text": "b"}]', "a row has the key 'text' more than once"),
        (
            GOOD + '{"text": "\\ud800"}',
            r"line 2 has half of a surrogate pair \(`\\ud800` to `\\udfff`\), which is no char",
        ),
        (GOOD + '{"text": "a", "x": ' + "1" * 5000 + "}", "line 2 has a number with too many digits; mend it or take"),
        (GOOD + '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 2 has too many levels; mend it or take it out"),
        ("[" * 100_000, "a row has too many levels"),
        ("\ufeff" + GOOD, "begins with a byte order mark; save the file as UTF-8 without it"),
        ("", "is empty; give a file with at least one text"),
        ("[]", "is empty; give a file with at least one text"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_rows_that_are_no_text_are_named(content: str, problem: str, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.jsonl{suffix}", content)
    with pytest.raises(UserError, match=rf"a.jsonl{suffix}: {problem}"):
        read_texts(path, "text")


def test_escapes_that_are_characters_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "\\ud83d\\ude00"}\n{"text": "\\\\ud800"}\n')
    assert read_texts(path, "text") == ["\U0001f600", "\\ud800"]


def test_a_byte_order_mark_would_be_a_part_of_the_first_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    with pytest.raises(UserError, match=r"a.txt: begins with a byte order mark; save the file as UTF-8 without it"):
        read_texts(tmp_path / "a.txt", "text")


def test_long_names_and_many_of_them_are_cut(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", pa.table({f"x{number}\n{'y' * 500}": ["a"] for number in range(100)}))
    with pytest.raises(UserError, match=r"has no column 'text'; it has 'x0\\nyy.*, \.\.\.$") as error:
        read_texts(tmp_path / "a.parquet", "text")
    assert len(str(error.value)) < 1000


def _with_bad_bytes() -> pa.Table:
    return pa.table({"text": pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"a"]).buffers())})


@pytest.mark.parametrize("folder", [".", "cache/texts", "results/s/sandbox"])
def test_damaged_parquet_is_named_and_only_what_rules_make_is_to_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(folder, "a.parquet")
    remedy = "give a complete file" if folder == "." else "delete it and run again"
    write_parquet(path, _with_bad_bytes())
    with pytest.raises(UserError, match=rf"^{path}: has values that cannot be read \(.*UTF8.*\); {remedy}$"):
        read_texts(path, "text")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=rf"^{path}: is not a complete Parquet file \(.*\); {remedy}$"):
        read_texts(path, "text")
    write_parquet(path, pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]))
    with pytest.raises(UserError, match=rf"^{path}: has the column 'text' more than once; keep one$"):
        read_texts(path, "text")


def test_every_type_of_text_in_parquet_is_read(tmp_path: Path) -> None:
    texts = pa.array(["a", "b", "a"])
    for column in (texts.dictionary_encode(), texts.cast(pa.large_string()), texts.cast(pa.string_view())):
        write_parquet(tmp_path / "a.parquet", pa.table({"text": column}))
        assert read_texts(tmp_path / "a.parquet", "text") == ["a", "b", "a"]


def test_rows_of_parquet_that_are_no_text_are_named(tmp_path: Path) -> None:
    for values, problem in ((["a", None], "row 1: 'text' is null"), ([1, 2], r"row 0: 'text' is not a text \(int\)")):
        write_parquet(tmp_path / "a.parquet", pa.table({"text": values}))
        with pytest.raises(UserError, match=rf"a.parquet: {problem}; mend the row or take it out"):
            read_texts(tmp_path / "a.parquet", "text")
    for name in ("a.parquet", "a.txt"):
        write_parquet(tmp_path / "a.parquet", pa.table({"text": pa.array([], pa.string())}))
        (tmp_path / "a.txt").touch()
        with pytest.raises(UserError, match=rf"{name}: is empty; give a file with at least one text"):
            read_texts(tmp_path / name, "text")


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_broken_compressed_files_are_named(suffix: str, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"{number} " * 20}) + "\n" for number in range(500))
    path = write(tmp_path / f"a.json{suffix}", lines)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=rf"a.json{suffix}: is not a complete {suffix} file \(.*\); fetch or"):
        read_texts(path, "text")
    path.write_text(lines)
    with pytest.raises(UserError, match=rf"a.json{suffix}: is not a complete {suffix} file \(.*, after line 0\); "):
        read_texts(path, "text")

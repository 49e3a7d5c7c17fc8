"""Texts from local files."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from espalier.errors import UserError
from espalier.files import write_parquet
from espalier.texts import read_texts


@pytest.mark.parametrize("name", ["a.parquet", "a.json", "a.jsonl", "a.txt"])
def test_every_format_holds_the_same_texts(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    # A line separator of Unicode ends no line of JSON.
    texts = ["one", "two"] if path.suffix == ".txt" else ["one\u2028still one", "two"]
    rows = [{"body": text, "id": number} for number, text in enumerate(texts)]
    if path.suffix == ".parquet":
        write_parquet(path, pa.Table.from_pylist(rows))
    elif path.suffix == ".txt":
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text(f"[{','.join(lines)}]" if path.suffix == ".json" else "\n".join(lines) + "\n", encoding="utf-8")
    assert read_texts(path, "body") == texts


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.txt: no such file; check the dataset in the config"):
        read_texts(tmp_path / "none.txt", "text")
    write_parquet(tmp_path / "a.parquet", pa.table({"x": ["a"], "y": ["b"]}))
    with pytest.raises(UserError, match=r"a.parquet: has no column 'text'; it has x, y"):
        read_texts(tmp_path / "a.parquet", "text")
    for content in ('{"x": "a"}', '{"text": "a', '"text"'):
        (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"a.jsonl: is not JSON rows with a 'text'"):
            read_texts(tmp_path / "a.jsonl", "text")

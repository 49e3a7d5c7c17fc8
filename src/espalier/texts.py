"""Read texts from local files."""

from __future__ import annotations

import json
from pathlib import Path

from espalier.errors import UserError
from espalier.files import read_parquet


def read_texts(path: str | Path, text_field: str) -> list[str]:
    """Read one text per row (Parquet, JSON lines, JSON list) or per line (.txt).

    Raises:
        UserError: If the file is missing, not readable, or lacks the column.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the dataset in the config")
    if path.suffix == ".txt":
        return path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".parquet":
        table = read_parquet(path)
        if text_field not in table.column_names:
            raise UserError(f"{path}: has no column {text_field!r}; it has {', '.join(table.column_names)}")
        return [str(text) for text in table[text_field].to_pylist()]
    return _read_json_texts(path, text_field)


def _read_json_texts(path: Path, text_field: str) -> list[str]:
    content = path.read_text(encoding="utf-8")
    try:
        # Not splitlines: JSON texts may hold the line separators of Unicode as they are.
        lines = content.removesuffix("\n").split("\n")
        rows = json.loads(content) if path.suffix == ".json" else [json.loads(line) for line in lines]
        return [str(row[text_field]) for row in rows]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not JSON rows with a {text_field!r} ({error!r})") from None

"""Descriptions and units in the schemas of Parquet files."""

from pathlib import Path

import pyarrow.parquet as pq

NOT_DESCRIBED = ("requests", "sandbox", "tasks", "texts", "perplexity")
"""Folders of data that other results identify by the SHA-256 of the file (docs/results.md)."""


def without_description(results: Path) -> list[str]:
    """List the columns of all Parquet files below a folder whose schema has no description or no unit."""
    return [
        f"{path.relative_to(results)}: {field.name}"
        for path in sorted(results.rglob("*.parquet"))
        if path.relative_to(results).parts[0] not in NOT_DESCRIBED
        for field in pq.read_schema(path)
        if not {b"description", b"unit"} <= set(field.metadata or {})
    ]

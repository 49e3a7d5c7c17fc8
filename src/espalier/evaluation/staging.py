"""Fetch datasets from the hub into `cache/datasets/` as Parquet: task documents and texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict, load_dataset

from espalier.errors import UserError
from espalier.evaluation.tasks import leaf_tasks, packaged_entries
from espalier.files import sha256_of, write_parquet


def stage_task(task: str, folder: Path) -> dict[str, Any]:
    """Fetch the documents of a task or group: `{folder}/{leaf task}/{split}.parquet`.

    Raises:
        UserError: If a dataset cannot be read, or needs code from the hub.
    """
    entries = packaged_entries([task])
    files: dict[str, str] = {}
    for leaf in leaf_tasks([task], entries):
        definition = entries[leaf].cfg or {}
        arguments = dict(definition.get("dataset_kwargs") or {})
        arguments.pop("trust_remote_code", None)
        splits = _load(definition["dataset_path"], name=definition.get("dataset_name"), **arguments)
        for split, documents in splits.items():
            files |= _write(documents, folder / leaf / f"{split}.parquet")
    return {"task": task, "files": files}


def stage_text(source: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Fetch one split of a text dataset as one Parquet file.

    Args:
        source: `dataset`, `config`, `data_files`, `split` and `revision` of the text.
        path: The Parquet file to write.
    """
    splits = _load(
        source["dataset"],
        name=source["config"],
        data_files={source["split"]: source["data_files"]} if source["data_files"] else None,
        revision=source["revision"],
    )
    if source["split"] not in splits:
        raise UserError(f"{source['dataset']}: has no split {source['split']!r}; it has {', '.join(splits)}")
    return {**source, "files": _write(splits[source["split"]], path)}


def _load(path: str, **arguments: Any) -> DatasetDict:
    try:
        return load_dataset(path, **arguments)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: could not be read as a dataset ({reason}); check the name and HF_TOKEN. Datasets that need code "
            "from the hub are not read"
        ) from None


def _write(documents: Dataset, path: Path) -> dict[str, str]:
    table: pa.Table = documents.with_format("arrow")[:]
    # Features of `datasets` in the metadata would make the file depend on its version.
    write_parquet(path, table.replace_schema_metadata(None))
    return {str(path): sha256_of(path)}

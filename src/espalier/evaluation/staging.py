"""Fetch datasets from the hub into `cache/` as Parquet: task documents and texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict, load_dataset
from httpx2 import TransportError  # the HTTP library of huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from espalier.errors import UserError
from espalier.evaluation.tasks import leaf_tasks, packaged_entries
from espalier.files import sha256_of, write_parquet
from espalier.lock import STAGED


def stage_task(task: str, folder: Path) -> dict[str, Any]:
    """Fetch the documents of a task or group: `{folder}/{leaf task}/{split}.parquet`.

    Returns:
        The commit of each dataset, and the SHA-256 of each file.

    Raises:
        UserError: If a dataset cannot be read, or needs code from the hub.
    """
    entries = packaged_entries([task])
    commits: dict[str, str | None] = {}
    files: dict[str, str] = {}
    for leaf in leaf_tasks([task], entries):
        definition = entries[leaf].cfg or {}
        path = definition["dataset_path"]
        arguments = dict(definition.get("dataset_kwargs") or {})
        arguments.pop("trust_remote_code", None)
        commits[path] = resolve_commit(path, arguments.pop("revision", "main"))
        splits = _load(path, name=definition.get("dataset_name"), revision=commits[path], **arguments)
        for split, documents in splits.items():
            file = folder / leaf / f"{split}.parquet"
            _write(documents, file, {})
            files[str(file)] = sha256_of(file)
    return {"task": task, "commits": commits, "files": files}


def stage_text(source: Mapping[str, Any], path: Path) -> None:
    """Fetch one split of a text dataset as one Parquet file, with its source and commit in the metadata.

    Args:
        source: `dataset`, `config`, `data_files`, `split` and `revision` of the text.
        path: The Parquet file to write.

    Raises:
        UserError: If the dataset cannot be read, needs code from the hub, or lacks the split.
    """
    commit = resolve_commit(source["dataset"], source["revision"])
    splits = _load(
        source["dataset"],
        name=source["config"],
        data_files={source["split"]: source["data_files"]} if source["data_files"] else None,
        revision=commit,
    )
    if source["split"] not in splits:
        raise UserError(f"{source['dataset']}: has no split {source['split']!r}; it has {', '.join(splits)}")
    _write(splits[source["split"]], path, {**source, "commit": commit})


def resolve_commit(repository: str, revision: str) -> str | None:
    """Return the commit of a dataset's revision; None for a local folder.

    Raises:
        UserError: If the hub cannot be asked.
    """
    if Path(repository).is_dir():
        return None
    try:
        return HfApi().dataset_info(repository, revision=revision).sha
    except HfHubHTTPError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{repository}@{revision}: could not be found ({reason}); check name and HF_TOKEN") from None
    except (TransportError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{repository}@{revision}: the hub could not be reached ({reason}); run `snakemake stage` where there is a "
            "network"
        ) from None


def _load(path: str, **arguments: Any) -> DatasetDict:
    try:
        return load_dataset(path, **arguments)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: could not be read as a dataset ({reason}); check the name and HF_TOKEN. Datasets that need code "
            "from the hub are not read"
        ) from None


def _write(documents: Dataset, path: Path, source: Mapping[str, Any]) -> None:
    """Write a Parquet file; what `datasets` keeps in the metadata would make it depend on that library's version."""
    table: pa.Table = documents.with_format("arrow")[:]
    metadata = {STAGED: json.dumps(source, sort_keys=True).encode()} if source else None
    write_parquet(path, table.replace_schema_metadata(metadata))

"""Fetch datasets from the hub into `cache/` as Parquet: task documents and texts."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict, load_dataset
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from espalier.errors import UserError
from espalier.evaluation.tasks import leaf_tasks, packaged_entries
from espalier.files import sha256_of, write_parquet
from espalier.staging.lock import STAGED, locked_dataset
from espalier.staging.network_errors import NETWORK_ERRORS

logger = logging.getLogger(__name__)


def stage_task(task: str, folder: Path, lock: Path) -> dict[str, Any]:
    """Fetch the documents of a task or group into `{folder}/{leaf task}/{split}.parquet`.

    Args:
        task: Task or group of lm-eval.
        folder: Folder for the files.
        lock: The lock file, which pins revisions to commits.

    Returns:
        The task, the commit of each dataset, its revision if that is not `main`, and the SHA-256 of each file.

    Raises:
        UserError: If a dataset cannot be read, or needs code from the hub.
    """
    entries = packaged_entries([task])
    commits: dict[str, str | None] = {}
    revisions: dict[str, str] = {}
    files: dict[str, str] = {}
    for leaf in leaf_tasks([task], entries):
        definition = entries[leaf].cfg or {}
        path = definition["dataset_path"]
        arguments = dict(definition.get("dataset_kwargs") or {})
        arguments.pop("trust_remote_code", None)
        revision = arguments.pop("revision", "main")
        locked = locked_dataset(lock, path, revision, section="tasks", key=task)
        commits[path] = resolve_commit(path, revision, locked)
        if revision != "main":
            revisions[path] = revision
        with _pinned(lock, locked):
            splits = _load_splits(path, name=definition.get("dataset_name"), revision=commits[path], **arguments)
        for split, documents in splits.items():
            file = folder / leaf / f"{split}.parquet"
            _write_documents(documents, file, {})
            files[str(file)] = sha256_of(file)
    # An empty `revisions` is left out: requests depend on this record, so a new key would rerun their tokenisation.
    return {"task": task, "commits": commits, **({"revisions": revisions} if revisions else {}), "files": files}


def stage_text(source: Mapping[str, Any], path: Path, lock: Path) -> None:
    """Fetch one split of a text dataset as one Parquet file, with its source and commit in the metadata.

    Args:
        source: `dataset`, `config`, `data_files`, `split` and `revision` of the text.
        path: The Parquet file to write.
        lock: The lock file, which pins revisions to commits.

    Raises:
        UserError: If the dataset cannot be read, needs code from the hub, or lacks the split.
    """
    locked = locked_dataset(lock, source["dataset"], source["revision"], section="texts", key=path.stem)
    commit = resolve_commit(source["dataset"], source["revision"], locked)
    with _pinned(lock, locked):
        splits = _load_splits(
            source["dataset"],
            name=source["config"],
            data_files={source["split"]: source["data_files"]} if source["data_files"] else None,
            revision=commit,
        )
    if source["split"] not in splits:
        raise UserError(f"{source['dataset']}: has no split {source['split']!r}; it has {', '.join(splits)}")
    _write_documents(splits[source["split"]], path, {**source, "commit": commit})


def resolve_commit(repository: str, revision: str, locked: str | None) -> str | None:
    """Return the commit of a dataset's revision; None for a local folder.

    Args:
        repository: Repository on the hub, or a folder in its layout.
        revision: Branch, tag or commit.
        locked: Commit to which the lock file pins the revision; None if it is not pinned.

    Raises:
        UserError: If the repository or revision is not found, or the hub cannot be reached.
    """
    if Path(repository).is_dir():
        return None
    if locked:
        logger.info("%s: %s stays at commit %s", repository, revision, locked)
        return locked
    try:
        return HfApi().dataset_info(repository, revision=revision).sha
    except HfHubHTTPError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{repository}@{revision}: could not be found ({reason}); check name and HF_TOKEN") from None
    except NETWORK_ERRORS as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{repository}@{revision}: the hub could not be reached ({reason}); run `snakemake stage` where there is a "
            "network"
        ) from None


@contextlib.contextmanager
def _pinned(lock: Path, locked: str | None) -> Iterator[None]:
    """Add to the message of an error that the lock file determined the commit."""
    try:
        yield
    except UserError as error:
        if locked is None:
            raise
        raise UserError(
            f"{error}. {lock} keeps it at commit {locked}; delete its entries there to take another commit"
        ) from None


def _load_splits(path: str, **arguments: Any) -> DatasetDict:
    try:
        return load_dataset(path, **arguments)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: could not be read as a dataset ({reason}); check the name and HF_TOKEN. Datasets that need code "
            "from the hub are not read"
        ) from None


def _write_documents(documents: Dataset, path: Path, source: Mapping[str, Any]) -> None:
    """Write documents to a Parquet file, without the metadata of `datasets`, which depends on its version."""
    table: pa.Table = documents.with_format("arrow")[:]
    metadata = {STAGED: json.dumps(source, sort_keys=True).encode()} if source else None
    write_parquet(path, table.replace_schema_metadata(metadata))

"""Fetch models from the hub into `cache/`: one commit, verified checksums, and only safetensors weights."""

from __future__ import annotations

import glob
import logging
import shutil
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo

from espalier.errors import UserError
from espalier.files import read_json, sha256_of
from espalier.models.config_file import CONFIG, INDEX
from espalier.models.folder import check_config
from espalier.staging.network_errors import NETWORK_ERRORS

logger = logging.getLogger(__name__)

# Files of config and tokenizer, in the top folder of a repository; never code. `*` also matches slashes.
CONFIG_PATTERNS = (
    "config.json", "generation_config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "vocab.json", "merges.txt", "*.jinja", "LICENSE*", "README.md",
)  # fmt: skip
TEMPLATES = "additional_chat_templates/"
WEIGHTS = "model.safetensors"


def stage_model(repository: str, revision: str, folder: Path, locked_commit: str | None) -> dict[str, Any]:
    """Fetch one model repository. Files that exist already are not fetched again.

    Args:
        repository: `owner/name`.
        revision: Branch, tag or commit. It is resolved to a commit unless `locked_commit` is given.
        folder: Folder for the files.
        locked_commit: Commit to which the lock file pins this revision; None if it is not pinned.

    Returns:
        The repository, revision and commit, and the size and SHA-256 of every fetched file.

    Raises:
        UserError: If the repository cannot be read, has no safetensors weights or does not fit on the disk, if its
            config shows that its model cannot be used, or if the checksum of a file differs from the hub's.
    """
    api = HfApi()
    try:
        info = api.model_info(repository, revision=locked_commit or revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        logger.info("%s: %s is commit %s", repository, revision, info.sha)
        names = [*filter(is_config_file, sizes), *_weight_names(api, info, sizes, folder)]
        _check_space(repository, {name: sizes[name] for name in names}, folder)
        if CONFIG in sizes:  # before the weights, which may take hours
            api.hf_hub_download(info.id, CONFIG, revision=info.sha, local_dir=folder)
            check_config(folder)
        patterns = [glob.escape(name) for name in names]
        api.snapshot_download(repository, revision=info.sha, local_dir=folder, allow_patterns=patterns)
    except RepositoryNotFoundError:
        raise UserError(
            f"{repository}: no such repository, or no access to it; check the name and HF_TOKEN"
            f"{_folder_hint(repository)}"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{repository}: {_no_revision(revision, locked_commit)}") from None
    except (HfHubHTTPError, *NETWORK_ERRORS) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{repository}: could not be fetched ({reason}); run `snakemake stage` again{_folder_hint(repository)}"
        ) from None
    _remove_stale_files(folder, names)
    return {
        "repository": repository,
        "revision": revision,
        "commit": info.sha,
        "files": verified_files(info, folder, names),
    }


def is_config_file(name: str) -> bool:
    """Return whether a file of a repository is fetched besides the weights: config, tokenizer, licence or README."""
    patterns = ("*.jinja",) if name.startswith(TEMPLATES) else CONFIG_PATTERNS
    name = name.removeprefix(TEMPLATES)
    return "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)


def _weight_names(api: HfApi, info: ModelInfo, sizes: Mapping[str, int], folder: Path) -> list[str]:
    """Return the weight files that transformers loads: `model.safetensors`, or else the index and its shards.

    Other precisions, formats and adapters in the repository are left out.
    """
    found = [name for name in sizes if name.endswith(".safetensors")]
    if not found:
        raise UserError(
            f"{info.id}: has no safetensors weights; .bin files are pickles and are never read. "
            "Name a repository or revision with safetensors"
        )
    if WEIGHTS in sizes:
        return [WEIGHTS]
    if INDEX in sizes:
        index = api.hf_hub_download(info.id, INDEX, revision=info.sha, local_dir=folder)
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        if missing := [name for name in shards or ["nothing"] if name not in found]:
            raise UserError(f"{info.id}: {INDEX} names {missing[0]}, which is no safetensors file of the repository")
        return [INDEX, *shards]
    raise UserError(
        f"{info.id}: has neither {WEIGHTS} nor {INDEX}, only {', '.join(found[:3])}; name a repository or revision in "
        "the format of save_pretrained"
    )


def _check_space(repository: str, sizes: Mapping[str, int], folder: Path) -> None:
    """Raise a UserError if the files do not fit on the disk. Files that exist with the right size need no space."""
    there = {name for name in sizes if (folder / name).is_file() and (folder / name).stat().st_size == sizes[name]}
    needed = sum(size for name, size in sizes.items() if name not in there)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"{repository}: needs {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; make room, or "
            "make cache/ a link to a larger disk"
        )


def _remove_stale_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files of another commit that transformers would load in addition to, or instead of, those of this one."""
    keep = set(names)
    for path in (*folder.iterdir(), *(folder / TEMPLATES).glob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in keep and (name == WEIGHTS or is_config_file(name)):
            logger.info("%s: not in this commit, removed", path)
            path.unlink()


def _folder_hint(repository: str) -> str:
    """Return a hint if the name is also that of a local folder, which the user may have meant."""
    return ", or give the local folder of this name as `path`, not as `hub`" if Path(repository).is_dir() else ""


def _no_revision(revision: str, locked_commit: str | None) -> str:
    if locked_commit is None:
        return f"has no revision {revision!r}; give a branch, tag or commit"
    return (
        f"no longer has commit {locked_commit}, at which cache/lock.yaml keeps {revision!r}; delete that entry to take "
        "another commit"
    )


def verified_files(info: ModelInfo, folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Hash every fetched file, and compare it with the hub's checksum if there is one.

    Returns:
        Size (`bytes`) and `sha256` of each file.

    Raises:
        UserError: If a checksum differs; the broken file is deleted.
    """
    files, fetched = {}, set(names)
    for sibling in info.siblings or ():
        if sibling.rfilename not in fetched:
            continue
        path = folder / sibling.rfilename
        checksum = sha256_of(path)
        expected = sibling.lfs.sha256 if sibling.lfs else None
        if expected and expected != checksum:
            path.unlink()
            raise UserError(
                f"{path}: its SHA-256 is {checksum[:12]}..., the hub says {expected[:12]}...; it was deleted. "
                "Run `snakemake stage` again"
            )
        files[sibling.rfilename] = {"bytes": path.stat().st_size, "sha256": checksum}
    return files

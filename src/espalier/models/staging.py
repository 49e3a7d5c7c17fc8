"""Fetch models from the hub into `cache/`, at one resolved commit, verified, safetensors only."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from httpx2 import TransportError  # the HTTP library of huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo

from espalier.errors import UserError
from espalier.files import sha256_of

logger = logging.getLogger(__name__)

# Weights, config and tokenizer; never .bin (a pickle) and never code.
PATTERNS = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*.json",
    "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "vocab.json", "merges.txt", "*.jinja",
    "LICENSE*", "README.md",
)  # fmt: skip


def stage_model(repository: str, revision: str, folder: Path, locked_commit: str | None) -> dict[str, Any]:
    """Fetch one repository; what is there already is kept.

    Args:
        repository: `owner/name`.
        revision: Branch, tag or commit, resolved unless `locked_commit` is given.
        folder: Where the files go.
        locked_commit: Commit to which the lock file pins this revision.

    Returns:
        Repository, revision, commit, and size and SHA-256 of every fetched file.

    Raises:
        UserError: If the repository cannot be read, has no safetensors, or a file does not have the hub's checksum.
    """
    api = HfApi()
    try:
        info = api.model_info(repository, revision=locked_commit or revision, files_metadata=True)
        if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or ()):
            raise UserError(
                f"{repository}: has no safetensors weights; .bin files are pickles and are never read. "
                "Name a repository or revision with safetensors"
            )
        logger.info("%s: %s is commit %s", repository, revision, info.sha)
        api.snapshot_download(repository, revision=info.sha, local_dir=folder, allow_patterns=list(PATTERNS))
    except RepositoryNotFoundError:
        raise UserError(f"{repository}: no such repository, or no access to it; check the name and HF_TOKEN") from None
    except RevisionNotFoundError:
        raise UserError(f"{repository}: has no revision {revision!r}; give a branch, tag or commit") from None
    except (HfHubHTTPError, TransportError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{repository}: could not be fetched ({reason}); run `snakemake stage` again") from None
    return {
        "repository": repository,
        "revision": revision,
        "commit": info.sha,
        "files": verified_files(info, folder),
    }


def verified_files(info: ModelInfo, folder: Path) -> dict[str, dict[str, Any]]:
    """Hash every fetched file and compare with the hub's checksum where it gives one.

    Raises:
        UserError: If a checksum differs; the broken file is deleted.
    """
    files = {}
    for sibling in info.siblings or ():
        path = folder / sibling.rfilename
        if not path.is_file():
            continue
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

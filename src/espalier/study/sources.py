"""Source files of a study: staged from a hub, made by the sandbox, or given by the user."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from espalier.config.data import HUB, SANDBOX, TextSource
from espalier.config.models import ModelEntry
from espalier.config.study import StudyConfig
from espalier.errors import UserError
from espalier.sandbox.splits import sandbox_task_files
from espalier.study.paths import Paths, Wildcards

Source = TypeVar("Source", ModelEntry, TextSource)
_MODEL_KEYS = {"hub", "revision"}
_TEXT_KEYS = {"dataset", "config", "data_files", "split", "revision"}


def model_slug(model: ModelEntry) -> str:
    """Return the name of a model's folder under `cache/models/`."""
    return _slug(model.hub, model.revision)


def text_slug(text: TextSource) -> str:
    """Return the name of a text's file under `cache/texts/`, without suffix."""
    return _slug(text.dataset, text.config, text.data_files, text.split, text.revision)


def text_file(paths: Paths, text: TextSource, name: str) -> str:
    """Return the path of a text.

    Args:
        paths: Paths of the study.
        text: Source of the text. From the sandbox, only perplexity texts are found.
        name: Name of the perplexity text; only used for a sandbox text.
    """
    if text.dataset == SANDBOX:
        return paths.of("make_world.perplexity", name)
    return paths.of("stage_text", text_slug(text)) if text.is_hub else text.dataset


def calibration_text(config: StudyConfig, paths: Paths) -> str:
    """Return the path of the calibration text."""
    if config.calibration.dataset == SANDBOX:
        return paths.of("make_world.calibration")
    return text_file(paths, config.calibration, config.calibration.name)


class StagedSources:
    """Models, tasks and texts that a study stages from a hub.

    Args:
        config: Config of the study.
    """

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._is_computed = any(model.legacy is None for model in config.models)
        recovery_text = config.recovery.text if config.recovery else None
        texts = [*config.evaluation.perplexity.texts, config.calibration, recovery_text or config.calibration]
        self._models = _by_slug((model for model in config.models if model.hub), model_slug, _MODEL_KEYS)
        self._texts = _by_slug((text for text in texts if text.is_hub), text_slug, _TEXT_KEYS)

    @property
    def models(self) -> list[str]:
        """Folder names under `cache/models/` of the repositories to stage."""
        return list(self._models)

    @property
    def tasks(self) -> list[str]:
        """Tasks whose documents to stage under `cache/datasets/`."""
        evaluation = self._config.evaluation
        return list(evaluation.task_names) if evaluation.data == HUB and self._is_computed else []

    @property
    def texts(self) -> list[str]:
        """Names under `cache/texts/` of the texts to stage."""
        return list(self._texts) if self._is_computed else []

    @property
    def has_any(self) -> bool:
        """Whether anything is staged from a hub."""
        return bool(self.models or self.tasks or self.texts)

    def model(self, wildcards: Wildcards) -> dict[str, str | None]:
        """Return the params of `stage_model`."""
        model = self._models[wildcards.hub_model]
        return {"repository": model.hub, "revision": model.revision}

    def text(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the params of `stage_text`."""
        return self._texts[wildcards.text].model_dump(include=_TEXT_KEYS)


class SandboxSources:
    """Sandbox files that the workflow makes: texts and tasks of the synthetic world, tokenizers and models.

    Args:
        config: Config of the study.
        paths: Paths of the study.
    """

    def __init__(self, config: StudyConfig, paths: Paths) -> None:
        self._config, self._paths = config, paths
        self._models = {model.name: model.sandbox for model in config.models}

    @property
    def models(self) -> list[str]:
        """Names of the models that the workflow trains."""
        return [name for name, sandbox in self._models.items() if sandbox]

    @property
    def world(self) -> dict[str, Any]:
        """Params of `make_world`."""
        return {**self._config.sandbox.model_dump(exclude={"vocab_size"}), "perplexity_texts": self.texts}

    @property
    def texts(self) -> list[str]:
        """Names of the perplexity texts that `make_world` writes."""
        return [text.name for text in self._config.evaluation.perplexity.texts if text.dataset == SANDBOX]

    @property
    def task_files(self) -> list[str]:
        """Task files, as `{task}/{split}.parquet`."""
        return sandbox_task_files()

    def training(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the params of `train_sandbox_model`."""
        sandbox = self._models[wildcards.model]
        return sandbox.model_dump() if sandbox else {}

    def tokenizer(self, wildcards: Wildcards) -> str:
        """Return the path of a model's tokenizer."""
        sandbox = self._models[wildcards.model]
        return self._paths.of("train_sandbox_tokenizer", sandbox.architecture) if sandbox else ""

    def parent(self, wildcards: Wildcards) -> list[str]:
        """Return the weights from which training continues; empty if it starts from random weights."""
        sandbox = self._models[wildcards.model]
        if not sandbox or not sandbox.continue_from:
            return []
        return [self._paths.of("train_sandbox_model", sandbox.continue_from)]


def _by_slug(sources: Iterable[Source], slug: Callable[[Source], str], keys: set[str]) -> dict[str, Source]:
    """Return sources by their names in the cache; of equal ones the last.

    Raises:
        UserError: If different sources have the same name there, in which all other characters than letters, digits, .
            _ and - are replaced.
    """
    found: dict[str, Source] = {}
    for source in sources:
        name = slug(source)
        wanted = source.model_dump(include=keys)
        if name in found and (other := found[name].model_dump(include=keys)) != wanted:
            raise UserError(
                f"config: the sources {other} and {wanted} would be staged under one name, cache/.../{name}; use only "
                "one"
            )
        found[name] = source
    return found


def _slug(*parts: str | None) -> str:
    """Join the parts that identify a source on the hub to one name of a file or folder."""
    return "@".join(re.sub(r"[^A-Za-z0-9._-]+", "--", part) for part in parts if part)

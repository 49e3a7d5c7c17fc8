"""Files that a study reads: what is staged from a hub, made by the sandbox, or given by the user."""

from __future__ import annotations

import re
from typing import Any

from espalier.config.data import HUB, SANDBOX, TextSource
from espalier.config.models import ModelEntry
from espalier.config.study import StudyConfig
from espalier.sandbox.splits import split_files
from espalier.study.paths import Paths

Wildcards = Any


def model_slug(model: ModelEntry) -> str:
    """Name the folder of a model under `cache/models/`."""
    return _slug(model.hub, model.revision)


def text_slug(text: TextSource) -> str:
    """Name the file of a text under `cache/texts/`, without suffix."""
    return _slug(text.dataset, text.config, text.data_files, text.split, text.revision)


def text_file(paths: Paths, text: TextSource, name: str) -> str:
    """Return the file of a perplexity text (`name` in the sandbox), or of another text that is no sandbox text."""
    if text.dataset == SANDBOX:
        return paths.of("make_world.perplexity", name)
    return paths.of("stage_text", text_slug(text)) if text.is_hub else text.dataset


def calibration_text(config: StudyConfig, paths: Paths) -> str:
    """Return the file of the calibration text."""
    if config.calibration.dataset == SANDBOX:
        return paths.of("make_world.calibration")
    return text_file(paths, config.calibration, config.calibration.name)


class StagedSources:
    """What the study fetches from a hub.

    Args:
        config: The study.
    """

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._is_computed = any(model.legacy is None for model in config.models)
        recovery_text = config.recovery.text if config.recovery else None
        texts = [*config.evaluation.perplexity.texts, config.calibration, recovery_text or config.calibration]
        self._models = {model_slug(model): model for model in config.models if model.hub}
        self._texts = {text_slug(text): text for text in texts if text.is_hub}

    @property
    def models(self) -> list[str]:
        """Folder names under `cache/models/` of the repositories to stage."""
        return list(self._models)

    @property
    def tasks(self) -> list[str]:
        """Tasks whose documents are to be staged under `cache/datasets/`."""
        evaluation = self._config.evaluation
        return list(evaluation.tasks) if evaluation.data == HUB and self._is_computed else []

    @property
    def texts(self) -> list[str]:
        """Names under `cache/texts/` of the texts to stage."""
        return list(self._texts) if self._is_computed else []

    @property
    def are_any(self) -> bool:
        """Whether anything comes from a hub."""
        return bool(self.models or self.tasks or self.texts)

    def model(self, wildcards: Wildcards) -> dict[str, str | None]:
        """Params of `stage_model`."""
        model = self._models[wildcards.hub_model]
        return {"repository": model.hub, "revision": model.revision}

    def text(self, wildcards: Wildcards) -> dict[str, Any]:
        """Params of `stage_text`."""
        text = self._texts[wildcards.text]
        return text.model_dump(include={"dataset", "config", "data_files", "split", "revision"})


class SandboxSources:
    """What the workflow makes itself: the world, its texts and tasks, tokenizers and models.

    Args:
        config: The study.
        paths: Its paths.
    """

    def __init__(self, config: StudyConfig, paths: Paths) -> None:
        self._config, self._paths = config, paths
        self._models = {model.name: model.sandbox for model in config.models}

    @property
    def models(self) -> list[str]:
        """Models that the workflow trains."""
        return [name for name, sandbox in self._models.items() if sandbox]

    @property
    def world(self) -> dict[str, Any]:
        """Params of `make_world`."""
        return {**self._config.sandbox.model_dump(exclude={"vocab_size"}), "perplexity_texts": self.texts}

    @property
    def texts(self) -> list[str]:
        """Names of the perplexity texts that are drawn from the world."""
        return [text.name for text in self._config.evaluation.perplexity.texts if text.dataset == SANDBOX]

    @property
    def task_files(self) -> list[str]:
        """Task files, as `{task}/{split}.parquet`."""
        return split_files()

    def training(self, wildcards: Wildcards) -> dict[str, Any]:
        """Params of `train_sandbox_model`."""
        sandbox = self._models[wildcards.model]
        return sandbox.model_dump() if sandbox else {}

    def tokenizer(self, wildcards: Wildcards) -> str:
        """Tokenizer of a model."""
        sandbox = self._models[wildcards.model]
        return self._paths.of("train_sandbox_tokenizer", sandbox.architecture) if sandbox else ""

    def parent(self, wildcards: Wildcards) -> list[str]:
        """Weights that a model continues from; empty when it starts from nothing."""
        sandbox = self._models[wildcards.model]
        if not sandbox or not sandbox.continue_from:
            return []
        return [self._paths.of("train_sandbox_model", sandbox.continue_from)]


def _slug(*parts: str | None) -> str:
    """Join what names something on the hub to one folder name."""
    return "@".join(re.sub(r"[^A-Za-z0-9._-]+", "--", part) for part in parts if part)

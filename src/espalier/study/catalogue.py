"""The study as the rules see it.

Rules name literal paths; where a path or a param depends on a wildcard, they pass a method of this class, which
looks the wildcard up in tables made from the config. Imports neither torch nor lm-eval.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from espalier import versions
from espalier.config.data import HUB, SANDBOX, TextSource
from espalier.config.models import ModelEntry
from espalier.config.study import StudyConfig
from espalier.evaluation.protocol import Protocol, TextProtocol
from espalier.files import document_files
from espalier.planning.criteria import CRITERIA
from espalier.sandbox.splits import split_files
from espalier.study.exports import Exports
from espalier.study.failures import Failures
from espalier.study.inference import Measured
from espalier.study.legacy import Imports
from espalier.study.memory import Memory
from espalier.study.paths import CACHE, Paths, results_folder
from espalier.study.recovery import Recoveries
from espalier.study.slugs import model_slug, text_slug
from espalier.study.sweep import Sweep

ModelWildcards = Any


class Catalogue:
    """Look-up tables of one study."""

    def __init__(self, config: StudyConfig, sources: Path) -> None:
        self.config = config
        self._sources = sources
        self.results = results_folder(config.study)
        self.paths = Paths(self.results)
        self.sweep = Sweep(config, self.paths)
        self.imports = Imports(config, self.paths)
        self.exports = Exports(config, self.paths, self.sweep)
        self.measured = Measured(config, self.paths, self.sweep)
        self.failures = Failures(config, self.paths, self.sweep, more=(self.exports.jobs, self.measured.jobs))
        self.recovery = Recoveries(
            config, self.sweep, self.paths, self.failures, self.calibration_text, self._text_file
        )
        recovery_dtype = config.recovery.dtype if config.recovery else "auto"
        self.memory = Memory(
            {"evaluation": config.evaluation.dtype, "recovery": recovery_dtype}, uses_gpu=self.uses_gpu
        )
        self._models = {model.name: model for model in config.models}
        self._hub_models = {model_slug(m): m for m in config.models if m.hub}
        self._hub_texts = {text_slug(text): text for text in self._texts() if text.is_hub}

    def code(self, *patterns: str) -> list[str]:
        """Return the library's source files that match, as inputs of cheap rules: edited, they rerun the rule."""
        found = [path for pattern in patterns for path in sorted(self._sources.glob(pattern))]
        return [os.path.relpath(path) for path in found]

    # -- names ---------------------------------------------------------------------------------------------------

    @property
    def models(self) -> list[str]:
        """Models that are computed here (not imported)."""
        return [model.name for model in self.config.models if model.legacy is None]

    @property
    def model_names(self) -> list[str]:
        """Models computed here and imported ones, in the order of the config."""
        return [model.name for model in self.config.models]

    @property
    def reported_models(self) -> list[str]:
        """Models that have reports; where results may be missing, not those of `Failures.unchecked_models`."""
        unchecked = [name for name in self.models if not self.sweep.present([self.paths.of("check_model", name)])]
        return [name for name in self.model_names if name not in unchecked] or self.model_names

    @property
    def models_with_structures(self) -> list[str]:
        """Models whose experiments are compared layer by layer."""
        return [*self.models, *self.imports.models_with_structures]

    @property
    def sandbox_models(self) -> list[str]:
        """Models that the workflow trains."""
        return [model.name for model in self.config.models if model.sandbox]

    @property
    def hub_models(self) -> list[str]:
        """Folder names under `cache/models/` of the repositories to stage."""
        return list(self._hub_models)

    @property
    def hub_tasks(self) -> list[str]:
        """Tasks whose documents are to be staged under `cache/datasets/`."""
        return list(self.config.evaluation.tasks) if self.config.evaluation.data == HUB and self.models else []

    @property
    def hub_texts(self) -> list[str]:
        """Names under `cache/texts/` of the texts to stage."""
        return list(self._hub_texts) if self.models else []

    @property
    def needs_staging(self) -> bool:
        """Whether anything comes from a hub."""
        return bool(self.hub_models or self.hub_tasks or self.hub_texts)

    @staticmethod
    def any_of(names: Iterable[str]) -> str:
        """Make a wildcard constraint that allows just these names (and nothing when there are none)."""
        return "|".join(re.escape(name) for name in names) or "(?!)"

    # -- sandbox -------------------------------------------------------------------------------------------------

    @property
    def world_params(self) -> dict[str, Any]:
        """Params of `make_world`."""
        return {**self.config.sandbox.model_dump(exclude={"vocab_size"}), "perplexity_texts": self.sandbox_texts}

    @property
    def sandbox_texts(self) -> list[str]:
        """Perplexity texts that are drawn from the sandbox world."""
        return [text.name for text in self.config.evaluation.perplexity.texts if text.dataset == SANDBOX]

    @property
    def sandbox_task_files(self) -> list[str]:
        """Task files of the sandbox, as `{task}/{split}.parquet`."""
        return split_files()

    def training_params(self, wildcards: ModelWildcards) -> dict[str, Any]:
        """Params of `train_sandbox_model`."""
        sandbox = self._models[wildcards.model].sandbox
        return sandbox.model_dump() if sandbox else {}

    def training_tokenizer(self, wildcards: ModelWildcards) -> str:
        """Tokenizer of a sandbox model."""
        sandbox = self._models[wildcards.model].sandbox
        return self.paths.of("train_sandbox_tokenizer", sandbox.architecture) if sandbox else ""

    def training_parent(self, wildcards: ModelWildcards) -> list[str]:
        """Weights that a sandbox model continues from; empty when it starts from nothing."""
        sandbox = self._models[wildcards.model].sandbox
        if not sandbox or not sandbox.continue_from:
            return []
        return [self.paths.of("train_sandbox_model", sandbox.continue_from)]

    # -- models --------------------------------------------------------------------------------------------------

    def trained_model(self, wildcards: ModelWildcards) -> list[str]:
        """Weights that must exist before a sandbox model can be checked; none for others.

        A local folder is not declared: results must not become stale because weights were deleted after use.
        """
        model = self._models[wildcards.model]
        return [self.paths.of("train_sandbox_model", model.name)] if model.sandbox else []

    def staged_model(self, wildcards: ModelWildcards) -> list[str]:
        """What says to which commit a hub model was staged; none for others."""
        model = self._models[wildcards.model]
        return [self.paths.of("stage_model", model_slug(model))] if model.hub else []

    def manifest(self, wildcards: ModelWildcards) -> list[str]:
        """Manifest of a model; none for an imported one, whose sizes are in the tables of its imports."""
        return [self.paths.of("check_model", wildcards.model)] if wildcards.model in self.models else []

    def check_params(self, wildcards: ModelWildcards) -> dict[str, Any]:
        """Params of `check_model`."""
        model = self._models[wildcards.model]
        return {"folder": self.model_folder(model), "trust_remote_code": model.trust_remote_code}

    def hub_model(self, wildcards: Any) -> dict[str, str | None]:
        """Params of `stage_model`."""
        model = self._hub_models[wildcards.hub_model]
        return {"repository": model.hub, "revision": model.revision}

    def hub_text(self, wildcards: Any) -> dict[str, Any]:
        """Params of `stage_text`."""
        text = self._hub_texts[wildcards.text]
        return text.model_dump(include={"dataset", "config", "data_files", "split", "revision"})

    def model_folder(self, model: ModelEntry) -> str:
        """Folder of a model's weights, whether or not it is there yet."""
        if model.sandbox:
            return str(Path(self.paths.of("train_sandbox_model", model.name)).parent)
        if model.hub:
            return str(Path(self.paths.of("stage_model", model_slug(model))).parent)
        return model.path or ""

    def forecast(self, wildcards: Any) -> dict[str, Any]:
        """Params of `forecast`."""
        from espalier.study.planned_jobs import outlook

        return outlook(self)

    @property
    def text_criteria(self) -> list[str]:
        """Criteria that have a pass over calibration text of their own."""
        return [name for name, criterion in CRITERIA.items() if criterion.reads_text and name != "taylor"]

    @property
    def weight_criteria(self) -> list[str]:
        """Criteria that look at the weights alone."""
        return [name for name, criterion in CRITERIA.items() if criterion.reads_model and not criterion.reads_text]

    @property
    def pass_resources(self) -> dict[str, int]:
        """How a pass over calibration text uses memory; 0 layers means as many as fit."""
        passes = self.config.gradients
        return {
            "token_budget": passes.token_budget,
            "layers_per_pass": passes.layers_per_pass or 0,
            "checkpointing": int(passes.checkpointing),
        }

    def gpus(self, wildcards: ModelWildcards) -> int:
        """GPUs that a job which runs a model asks for."""
        return self._models[wildcards.model].gpus if self.uses_gpu else 0

    # -- evaluation ----------------------------------------------------------------------------------------------

    @property
    def protocol(self) -> dict[str, Any]:
        """The evaluation protocol as plain values."""
        return self._protocol.to_dict()

    @property
    def request_version(self) -> int:
        """Version of `tokenize_requests`: another one where `add_bos` asks for BOS, whose tokens changed alone."""
        return versions.TOKENIZE_REQUESTS_WITH_BOS if self.config.evaluation.add_bos else versions.TOKENIZE_REQUESTS

    @property
    def request_protocol(self) -> dict[str, Any]:
        """The part of the protocol that decides which tokens are scored."""
        return self._protocol.of_requests()

    @property
    def _protocol(self) -> Protocol:
        evaluation = self.config.evaluation
        texts = tuple(TextProtocol(t.name, t.text_field, t.joiner, t.max_tokens) for t in evaluation.perplexity.texts)
        has_turns = evaluation.chat_template and evaluation.num_fewshot > 0  # elsewhere the key changes nothing
        as_turns = evaluation.fewshot_as_multiturn is not False
        return Protocol(
            tasks=evaluation.tasks,
            num_fewshot=evaluation.num_fewshot,
            chat_template=evaluation.chat_template,
            add_bos=evaluation.add_bos,
            limit=evaluation.limit,
            window=evaluation.perplexity.window,
            stride=evaluation.perplexity.stride,
            texts=texts,
            fewshot_as_multiturn=has_turns and as_turns,
            bos=evaluation.perplexity.bos,
        )

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """What every evaluation is made by: protocol and dtype."""
        return {"protocol": self.protocol, "dtype": self.config.evaluation.dtype}

    def task_data_folder(self, wildcards: ModelWildcards) -> str:
        """Folder that holds `{task}/{split}.parquet`."""
        return self._task_data_folder

    @property
    def _task_data_folder(self) -> str:
        data = self.config.evaluation.data
        folders = {SANDBOX: f"{self.results}/sandbox/tasks", HUB: f"{CACHE}/datasets"}
        return folders.get(data, data)

    @property
    def task_data(self) -> list[str]:
        """Files that the tasks are read from."""
        data = self.config.evaluation.data
        if data == SANDBOX:
            return [f"{self._task_data_folder}/{name}" for name in self.sandbox_task_files]
        if data == HUB:
            return [self.paths.of("stage_dataset", task) for task in self.config.evaluation.tasks]
        return document_files(Path(data).glob("*/*"))

    @property
    def perplexity_texts(self) -> list[str]:
        """Files of the perplexity texts, in the order of the protocol."""
        return [self._text_file(text, text.name) for text in self.config.evaluation.perplexity.texts]

    @property
    def calibration_text(self) -> str:
        """File of the calibration text."""
        calibration = self.config.calibration
        if calibration.dataset == SANDBOX:
            return self.paths.of("make_world.calibration")
        return self._text_file(calibration, calibration.name)

    @property
    def uses_gpu(self) -> bool:
        """Whether jobs that run models may ask for a GPU."""
        return self.config.evaluation.device != "cpu"

    def _texts(self) -> list[TextSource]:
        return [*self.config.evaluation.perplexity.texts, self.config.calibration, self.recovery.source]

    def _text_file(self, text: TextSource, name: str) -> str:
        if text.dataset == SANDBOX:
            return self.paths.of("make_world.perplexity", name)
        return self.paths.of("stage_text", text_slug(text)) if text.is_hub else text.dataset


def grow(base: int) -> Callable[..., int]:
    """Make a resource that grows with each attempt: base, 2 x base, ..."""

    def resource(wildcards: Mapping[str, str], attempt: int) -> int:
        return base * attempt

    return resource

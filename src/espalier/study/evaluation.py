"""Look-ups for evaluation: the protocol, and the files of tasks and perplexity texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espalier import versions
from espalier.config.data import HUB, SANDBOX
from espalier.config.study import StudyConfig
from espalier.data_formats import document_files
from espalier.evaluation.protocol import Protocol, TextProtocol
from espalier.sandbox.splits import sandbox_task_files
from espalier.study.paths import CACHE, Paths, Wildcards
from espalier.study.sources import text_file


class EvaluationSettings:
    """Protocol and data files of the evaluations of a study.

    Args:
        config: Config of the study.
        paths: Paths of the study.
    """

    def __init__(self, config: StudyConfig, paths: Paths) -> None:
        self._config, self._paths = config.evaluation, paths

    @property
    def protocol(self) -> dict[str, Any]:
        """The evaluation protocol as plain values."""
        return self._protocol.to_dict()

    @property
    def request_version(self) -> int:
        """Version of `tokenize_requests`. It is different if `add_bos` is true: only those requests have changed."""
        return versions.TOKENIZE_REQUESTS_WITH_BOS if self._config.add_bos else versions.TOKENIZE_REQUESTS

    @property
    def request_protocol(self) -> dict[str, Any]:
        """The part of the protocol that determines the tokens of the requests."""
        return self._protocol.of_requests()

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of every evaluation: protocol and dtype."""
        return {"protocol": self.protocol, "dtype": self._config.dtype}

    def data_folder(self, wildcards: Wildcards) -> str:
        """Return the folder of the task documents, one file for each task and split."""
        return self._data_folder

    @property
    def data(self) -> list[str]:
        """Input files of the tasks: their documents, or for hub data the record of each staged task.

        If the folder of the documents does not exist, it is the only input. Results whose input is missing stay valid
        for Snakemake, while a shorter list of inputs would rerun them. `data_problems` reports the folder if it is
        still needed.
        """
        data = self._config.data
        if data == SANDBOX:
            return [self._paths.of("make_world.tasks", name) for name in sandbox_task_files()]
        if data == HUB:
            return [self._paths.of("stage_dataset", task) for task in self._config.task_names]
        folder = Path(data)
        return document_files(folder.glob("*/*")) if folder.is_dir() else [str(folder)]

    @property
    def texts(self) -> list[str]:
        """Files of the perplexity texts, in the order of the protocol."""
        return [text_file(self._paths, text, text.name) for text in self._config.perplexity.texts]

    @property
    def _data_folder(self) -> str:
        data = self._config.data
        folders = {SANDBOX: f"{self._paths.results}/sandbox/tasks", HUB: f"{CACHE}/datasets"}
        return folders.get(data, data)

    @property
    def _protocol(self) -> Protocol:
        evaluation = self._config
        texts = tuple(TextProtocol(t.name, t.text_field, t.joiner, t.max_tokens) for t in evaluation.perplexity.texts)
        shows_examples = evaluation.num_fewshot > 0 or any(evaluation.task_fewshots.values())
        has_turns = evaluation.chat_template and shows_examples  # otherwise the key has no effect
        as_turns = evaluation.fewshot_as_multiturn is not False
        return Protocol(
            tasks=evaluation.task_names,
            num_fewshot=evaluation.num_fewshot,
            chat_template=evaluation.chat_template,
            add_bos=evaluation.add_bos,
            limit=evaluation.limit,
            window=evaluation.perplexity.window,
            stride=evaluation.perplexity.stride,
            texts=texts,
            fewshot_as_multiturn=has_turns and as_turns,
            bos=evaluation.perplexity.bos,
            task_fewshots=evaluation.task_fewshots,
            too_long=evaluation.too_long,
        )

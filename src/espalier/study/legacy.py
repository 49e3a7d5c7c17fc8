"""Look-ups for imported models: their search folders, the files in them, and what the folder names mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from espalier.config.grid import REFERENCE_METHODS
from espalier.config.models import ModelEntry
from espalier.config.study import StudyConfig
from espalier.errors import UserError
from espalier.naming import NAME_PATTERN
from espalier.results.legacy.names import normalised_name
from espalier.results.legacy.scan import COMPARISON, SearchFolder, scan
from espalier.study.paths import Paths, Wildcards


class LegacyResults:
    """Imported models of a study, with their search folders.

    Args:
        config: Config of the study.
        paths: Paths of the study.
    """

    def __init__(self, config: StudyConfig, paths: Paths) -> None:
        self._config = config
        self._paths = paths
        self._criteria = {method.name: method.criterion for method in (*REFERENCE_METHODS, *config.methods)}
        self._models = {model.name: model for model in config.models if model.legacy is not None}
        self._folders = {name: scan(m.legacy or (), self._criteria, _names(m)) for name, m in self._models.items()}

    @property
    def models(self) -> list[str]:
        """Names of the models whose results are imported."""
        return list(self._models)

    @property
    def search_folders(self) -> list[str]:
        """Names of search folders, each once."""
        return list(dict.fromkeys(folder.name for found in self._folders.values() for folder in found))

    @property
    def models_with_structures(self) -> list[str]:
        """Names of the models with a layer comparison in at least one usable experiment."""
        return [
            name
            for name, found in self._folders.items()
            if any(COMPARISON in e.files and e.status is None for folder in found for e in folder.experiments)
        ]

    @property
    def tables(self) -> list[str]:
        """Tables of all search folders."""
        return [entry["table"] for entry in self.entries]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """One entry per search folder: its table, and the configured facts about its model."""
        return [
            {
                "table": self._table(name, folder),
                "facts": {"study": self._config.study, "family": model.family, "kind": model.kind},
            }
            for name, model in self._models.items()
            for folder in self._folders[name]
        ]

    # -- params and inputs of rules ------------------------------------------------------------------------------

    def files(self, wildcards: Wildcards) -> list[str]:
        """Return the JSON files of one search folder that are read."""
        return self._find(wildcards).files

    def import_params(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the params of `import_legacy`: what was parsed from the names in one search folder."""
        folder = self._find(wildcards)
        return {
            "search": {
                "model": wildcards.model,
                "search_folder": folder.name,
                "method": folder.method,
                "criterion": self._criteria.get(folder.method or ""),
                "pruning_ratio": folder.pruning_ratio,
            },
            "experiments": [experiment.to_dict() for experiment in folder.experiments],
            "not_read": list(folder.not_read),
            "methods": list(self._criteria),
            "model_names": _names(self._models[wildcards.model]),
        }

    def tables_of(self, wildcards: Wildcards) -> list[str]:
        """Return the tables of one model; none if it is not imported."""
        return [self._table(wildcards.model, folder) for folder in self._folders.get(wildcards.model, [])]

    # -- problems ------------------------------------------------------------------------------------------------

    def problems(self) -> Iterator[str]:
        """Yield one line for each problem that makes an import impossible."""
        for number, model in enumerate(self._config.models):
            found = self._folders.get(model.name, [])
            lines = [line for line in map(_folder_problem, _paths(number, found), found) if line]
            names = [folder.name for folder in found]
            lines += [
                f"models[{number}].legacy[{at}]: another folder is named {name!r}, too; give each its own name"
                for at, name in enumerate(names)
                if name in names[:at]
            ]
            if found and not lines and not any(self._has_rows(folder) for folder in found):
                lines.append(
                    f"models[{number}].legacy: no folder holds experiments that can be placed; "
                    "allowed: search_{model}[_{method}]_{percent}/exp_*_taylor_seq_len{L}_taylor_num_samples{N}/"
                )
            yield from lines

    def warnings(self) -> list[str]:
        """Return one line for each search folder with experiments that are not imported, or with a doubtful name."""
        return [
            line
            for number, model in enumerate(self._config.models)
            for path, folder in zip(
                _paths(number, self._folders.get(model.name, [])), self._folders.get(model.name, []), strict=True
            )
            for line in (*_folder_warnings(path, folder), *self._other_model(path, model, folder))
        ]

    # -- helpers -------------------------------------------------------------------------------------------------

    def _table(self, model: str, folder: SearchFolder) -> str:
        return self._paths.of("import_legacy", model, folder.name)

    def _find(self, wildcards: Wildcards) -> SearchFolder:
        folders = {folder.name: folder for folder in self._folders.get(wildcards.model, [])}
        if wildcards.search_folder not in folders:
            raise UserError(
                f"model {wildcards.model!r} has no search folder {wildcards.search_folder!r}; "
                f"allowed: {', '.join(folders) or 'none, it is not imported'}"
            )
        return folders[wildcards.search_folder]

    def _other_model(self, path: str, model: ModelEntry, folder: SearchFolder) -> Iterator[str]:
        all_models = {normalised_name(other.name) for other in self._config.models}
        this_model = {normalised_name(name) for name in _names(model)}
        if normalised_name(folder.model_in_name or "") in all_models - this_model:
            yield f"{path}: {folder.path} is named after {folder.model_in_name!r}, another model of this study"

    @staticmethod
    def _has_rows(folder: SearchFolder) -> bool:
        return folder.pruning_ratio is not None and bool(folder.experiments)


def _names(model: ModelEntry) -> list[str]:
    return [model.name, model.family, model.family + model.kind]


def _paths(number: int, folders: list[SearchFolder]) -> list[str]:
    return [f"models[{number}].legacy[{at}]" for at in range(len(folders))]


def _folder_problem(path: str, folder: SearchFolder) -> str | None:
    if not folder.exists:
        return (
            f"{path}: {folder.path!r} is not a folder; give the path of a search folder, such as results/search_Qwen_20"
        )
    if "{" in folder.path or "}" in folder.path:
        return f"{path}: got {folder.path!r}; braces are Snakemake's wildcards, so no path may have them; rename it"
    if not re.fullmatch(NAME_PATTERN, folder.name):
        return f"{path}: got the name {folder.name!r}; allowed: letters, digits and . _ + -; rename the folder"
    return None


def _folder_warnings(path: str, folder: SearchFolder) -> Iterator[str]:
    if folder.problem:
        yield f"{path}: {folder.path}: {folder.problem}; its {len(folder.experiments)} experiments are listed, not used"
    elif not folder.experiments:
        yield f"{path}: {folder.path}: holds no folder exp_*"
    elif unused := [e for e in folder.experiments if e.status]:
        yield (
            f"{path}: {folder.path}: {len(unused)} of {len(folder.experiments)} experiments are listed, not used "
            f"(first: {unused[0].folder}: {unused[0].notes[0]})"
        )

"""Scan search folders of legacy results: find their experiments and the readable files of each.

The scan reads names and file sizes only, so it is fast enough to run each time a Snakefile is parsed. Links that lead
out of a search folder and files that are too large are not read. They are noted instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from espalier.naming import experiment_name
from espalier.results.legacy.names import FolderNameError, parse_experiment, parse_search

EVALUATION = "evaluation/evaluation_results.json"
GRADIENTS = "analysis/gradient_diagnosis.json"
COMPARISON = "analysis/model_comparison.json"
FILES = (EVALUATION, GRADIENTS, COMPARISON)
# For scale: the comparison of a model with 126 layers has 80 kB.
MAX_BYTES = 16 * 2**20

UNKNOWN, CONTRADICTORY = "unknown", "contradictory"


@dataclass(frozen=True)
class FoundExperiment:
    """An experiment folder found in a search folder.

    Attributes:
        name: Name of the experiment in the study. If its setting is uncertain: `{search folder}.{folder}`.
        folder: Name of its folder.
        source: Path of its folder.
        seq_len: Tokens per calibration sequence; None if the folder name does not give it.
        n_samples: Number of calibration sequences; None if the folder name does not give it.
        status: `unknown` or `contradictory`; None if the setting is certain.
        notes: Reasons for the status, and files that cannot be read.
        files: The readable files among `FILES`. Empty if the status is `unknown`, because they would not be used.
    """

    name: str
    folder: str
    source: str
    seq_len: int | None
    n_samples: int | None
    status: str | None
    notes: tuple[str, ...]
    files: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, for the `params` of a rule."""
        return asdict(self) | {"notes": list(self.notes), "files": list(self.files)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FoundExperiment:
        """Create the record from the values that `to_dict` returned."""
        return cls(**{**values, "notes": tuple(values["notes"]), "files": tuple(values["files"])})


@dataclass(frozen=True)
class SearchFacts:
    """What is known about a search folder, as in the `params` of a rule.

    Attributes:
        model: Name of the model in the config.
        search_folder: Name of the folder.
        method: Pruning method; None if the name cannot be parsed.
        criterion: Importance criterion of the method; None if the method is not known.
        pruning_ratio: Requested fraction of all parameters to remove; None if the name cannot be parsed.
    """

    model: str
    search_folder: str
    method: str | None
    criterion: str | None
    pruning_ratio: float | None


@dataclass(frozen=True)
class SearchFolder:
    """One search folder.

    Attributes:
        name: Name of the folder.
        path: Path from the config.
        exists: Whether the path is a folder.
        method: Pruning method; None if the name cannot be parsed.
        pruning_ratio: Requested fraction of all parameters to remove; None if the name cannot be parsed.
        problem: Reason why the name cannot be parsed; None if it can.
        model_in_name: Name of the model in the folder name; None if the name cannot be parsed.
        experiments: Folders in it whose names begin with `exp`.
        not_read: Names of the other folders in it.
    """

    name: str
    path: str
    exists: bool
    method: str | None = None
    pruning_ratio: float | None = None
    problem: str | None = None
    experiments: tuple[FoundExperiment, ...] = ()
    not_read: tuple[str, ...] = ()
    model_in_name: str | None = None

    @property
    def files(self) -> list[str]:
        """Paths of all files to read."""
        return [f"{e.source}/{file}" for e in self.experiments for file in e.files]


def scan(paths: Iterable[str], methods: Collection[str], model_names: Collection[str]) -> list[SearchFolder]:
    """Scan the search folders of one model.

    Args:
        paths: Paths of the search folders.
        methods: Known methods.
        model_names: All names of the model.

    Returns:
        One entry per search folder. If several experiments have the same setting, all of them are `contradictory`.
    """
    return _mark_duplicates([_scan_folder(path, methods, model_names) for path in paths])


def _scan_folder(path: str, methods: Collection[str], model_names: Collection[str]) -> SearchFolder:
    root = Path(path)
    name = root.name if root.name not in {"", ".."} else root.resolve().name
    if not root.is_dir():
        return SearchFolder(name, path, exists=False)
    found = SearchFolder(name, root.as_posix(), exists=True)
    try:
        parsed = parse_search(name, methods, model_names)
        found = replace(found, method=parsed.method, pruning_ratio=parsed.pruning_ratio, model_in_name=parsed.model)
    except FolderNameError as reason:
        found = replace(found, problem=str(reason))
    inside = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return replace(
        found,
        experiments=tuple(_scan_experiment(found, folder) for folder in inside if folder.startswith("exp")),
        not_read=tuple(folder for folder in inside if not folder.startswith("exp")),
    )


def _scan_experiment(search: SearchFolder, folder: str) -> FoundExperiment:
    source = (Path(search.path) / folder).as_posix()
    unknown = FoundExperiment(_listed_name(search.name, folder), folder, source, None, None, UNKNOWN, (), ())
    try:
        seq_len, n_samples = parse_experiment(folder)
    except FolderNameError as reason:
        return replace(unknown, notes=(str(reason),))
    found = replace(unknown, seq_len=seq_len, n_samples=n_samples)
    if search.method is None or search.pruning_ratio is None:
        return replace(found, notes=(f"its search folder: {search.problem}",))
    name = experiment_name(search.method, search.pruning_ratio, seq_len=seq_len, n_samples=n_samples, seed=None)
    files, notes = _readable(Path(search.path), folder)
    return replace(found, name=name, status=None, notes=notes, files=files)


def _readable(root: Path, folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the readable files of an experiment, and notes on the files that are not read."""
    files, notes = [], []
    for name in FILES:
        path = root / folder / name
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(root.resolve()):
            notes.append(f"{name}: is a link that leads out of the search folder, not read")
        elif (size := path.stat().st_size) > MAX_BYTES:
            notes.append(f"{name}: has {size:,} bytes, at most {MAX_BYTES:,} are read; not read")
        else:
            files.append(name)
    return tuple(files), tuple(notes)


def _mark_duplicates(folders: Sequence[SearchFolder]) -> list[SearchFolder]:
    """Mark experiments with the same setting as `contradictory`, so that none of them is used."""
    sources: dict[str, list[str]] = {}
    for folder in folders:
        for experiment in folder.experiments:
            sources.setdefault(experiment.name, []).append(experiment.source)
    return [
        replace(folder, experiments=tuple(_marked(sources[e.name], folder, e) for e in folder.experiments))
        for folder in folders
    ]


def _marked(sources: list[str], folder: SearchFolder, found: FoundExperiment) -> FoundExperiment:
    if len(sources) == 1:
        return found
    others = ", ".join(source for source in sources if source != found.source)
    note = f"claims the setting of {others or 'a folder named twice'}; keep one of them"
    name = _listed_name(folder.name, found.folder)
    return replace(found, name=name, status=CONTRADICTORY, notes=(note, *found.notes))


def _listed_name(search_folder: str, folder: str) -> str:
    return f"{search_folder}.{folder}"

"""Load lm-evaluation-harness tasks on local data.

Task definitions stay lm-eval's own: each leaf task is read through a YAML file that includes the packaged one and
replaces only where the documents come from (`dataset_path`, `dataset_name`, `dataset_kwargs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.tasks.manager import TaskDict

from espalier.errors import UserError
from espalier.evaluation.definitions import packaged_manager, packaged_tasks
from espalier.files import DOCUMENT_FORMS, DOCUMENT_SUFFIXES, document_suffix, split_name


def packaged_entries(names: Iterable[str]) -> dict[str, Entry]:
    """Find the packaged definitions of tasks, groups and tags, and of everything they contain.

    Raises:
        UserError: If lm-eval does not know a name.
    """
    if _are_single_tasks(names):
        return {name: _read_entry(packaged_tasks()[name]) for name in names}
    index = packaged_manager().task_index
    if unknown := [name for name in names if name not in index]:
        raise UserError(f"evaluation.tasks: lm-evaluation-harness has no task or group {unknown[0]!r}")
    return dict(index)


def leaf_tasks(names: Iterable[str], entries: Mapping[str, Entry]) -> list[str]:
    """Expand groups and tags to the tasks in them, each once, in order.

    Raises:
        UserError: If one of them is not multiple choice.
    """
    leaves = list(dict.fromkeys(leaf for name in names for leaf in _expand(name, entries)))
    for leaf in leaves:
        kind = (entries[leaf].cfg or {}).get("output_type")
        if kind != "multiple_choice":
            raise UserError(
                f"evaluation.tasks: {leaf!r} is a {kind or 'Python-defined'} task; only multiple_choice tasks can be "
                "evaluated (perplexity has its own section, evaluation.perplexity)"
            )
    return leaves


@dataclass(frozen=True)
class Tasks:
    """Tasks that were loaded.

    Attributes:
        loaded: lm-eval's flat mapping of tasks and groups.
        reported: Tasks and groups that get a number of their own and enter the mean: a group where lm-eval aggregates
            it, else what it holds; of a tag, what carries it.
    """

    loaded: TaskDict
    reported: tuple[str, ...]

    @property
    def leaves(self) -> dict[str, Task]:
        """Tasks with documents, by name."""
        found: dict[str, Task] = self.loaded["tasks"]
        return found


def load_tasks(names: Iterable[str], data_folder: Path, scratch: Path) -> Tasks:
    """Load tasks with their documents from local folders.

    Args:
        names: Tasks, groups or tags.
        data_folder: Folder with `{task}/{split}.parquet` (or .json, .jsonl, compressed or not) for each leaf task.
        scratch: Folder for the generated YAML files and for the cache of `datasets`.

    Raises:
        UserError: If a name is unknown, a task is not multiple choice or has no accuracy, or documents are missing.
    """
    names = list(names)
    entries = packaged_entries(names)
    definitions = scratch / "tasks"
    definitions.mkdir(parents=True, exist_ok=True)
    for leaf in leaf_tasks(names, entries):
        override = data_override(entries[leaf], data_folder / leaf, scratch / "datasets")
        (definitions / f"{leaf}.yaml").write_text(yaml.safe_dump(override), encoding="utf-8")
    manager = TaskManager(include_path=definitions, include_defaults=not _are_single_tasks(names))
    # Tags are expanded here, since lm-eval refuses a task that is named and also carries a named tag.
    untagged = list(dict.fromkeys(task for name in names for task in _without_tags(name, entries)))
    tasks = manager.load(_not_within(untagged, entries))
    reported = tuple(dict.fromkeys(task for name in untagged for task in _reported(name, tasks)))
    for name in reported:
        _check_has_accuracy(name, tasks)
    return Tasks(tasks, reported)


def _without_tags(name: str, entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yield a task or group as it is, and for a tag what carries it."""
    entry = entries[name]
    if entry.kind is Kind.TAG:
        for child in sorted(entry.tags):
            yield from _without_tags(child, entries)
    else:
        yield name


def _not_within(names: Sequence[str], entries: Mapping[str, Entry]) -> list[str]:
    """Leave out tasks that a named group holds: lm-eval loads them with the group, and only once."""
    held = {leaf for name in names if entries[name].kind is Kind.GROUP for leaf in _expand(name, entries)}
    return [name for name in names if name not in held]


def _reported(name: str, tasks: TaskDict) -> Iterator[str]:
    """Yield a task, or a group that lm-eval aggregates; of another group, what it holds."""
    group = tasks.get("groups", {}).get(name)
    if group is None or group.has_aggregation:
        yield name
        return
    for child in tasks["group_map"][name]:
        yield from _reported(child, tasks)


def _check_has_accuracy(name: str, tasks: TaskDict) -> None:
    """Refuse before anything is evaluated what has no number for the mean."""
    group = tasks.get("groups", {}).get(name)
    if group is not None:
        metrics = [each.metric for each in group.aggregate_metric_list]
    else:
        metrics = list(tasks["tasks"][name].aggregation())
    if not {"acc", "acc_norm"} & set(metrics):
        raise UserError(
            f"evaluation.tasks: {name!r} has only the metrics {', '.join(metrics) or 'none'}; the mean over tasks "
            "needs acc or acc_norm. Leave it out"
        )


def data_override(entry: Entry, folder: Path, cache: Path) -> dict[str, Any]:
    """Make the YAML content that reads a packaged task from a local folder."""
    files = split_files(entry.name, folder)
    suffixes = {split: document_suffix(path.name) or "" for split, path in files.items()}
    first = next(iter(suffixes.values()))
    if missing := [split for split in _required_splits(entry.cfg or {}) if split not in files]:
        raise UserError(
            f"evaluation.data: task {entry.name!r} needs the split {missing[0]!r}, but {folder} has only "
            f"{', '.join(files)}; add {missing[0]}{first}"
        )
    if len({DOCUMENT_SUFFIXES[suffix] for suffix in suffixes.values()}) > 1:
        raise UserError(
            f"evaluation.data: {folder} has {', '.join(path.name for path in files.values())}; give all splits of task "
            f"{entry.name!r} as Parquet, or all as JSON"
        )
    return {
        "include": str(entry.yaml_path),
        "task": entry.name,
        "dataset_path": DOCUMENT_SUFFIXES[first],
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: str(path.resolve()) for split, path in files.items()},
            "cache_dir": str(cache.resolve()),
        },
    }


def split_files(task: str, folder: Path) -> dict[str, Path]:
    """Find the file of each split of a task.

    Raises:
        UserError: If there is none, or a split has two.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        if not document_suffix(path.name):
            continue
        if other := files.get(split_name(path)):
            raise UserError(
                f"evaluation.data: {folder} has both {other.name} and {path.name} for the split {split_name(path)!r}; "
                "keep one of them"
            )
        files[split_name(path)] = path
    if not files:
        raise UserError(
            f"evaluation.data: no documents of task {task!r} in {folder}; it needs one {DOCUMENT_FORMS} file per "
            "split, named after the split"
        )
    return files


def _required_splits(definition: Mapping[str, Any]) -> list[str]:
    """Return the splits that lm-eval opens: the scored one, and the one for examples (even when none are shown)."""
    scored = definition.get("test_split") or definition.get("validation_split")
    shown = definition.get("fewshot_config") or {}
    examples = shown.get("split") or definition.get("fewshot_split")
    if not examples and not shown.get("samples"):
        examples = definition.get("training_split") or definition.get("validation_split") or scored
    return [split for split in (scored, examples) if split]


def _are_single_tasks(names: Iterable[str]) -> bool:
    return packaged_tasks().keys() >= set(names)


def _read_entry(path: Path) -> Entry:
    """Read one packaged definition, with what it includes."""
    index: dict[str, Entry] = {}
    TaskIndex.process_cfg(load_yaml(path, resolve_func=False), path, index)
    return next(entry for entry in index.values() if entry.kind is Kind.TASK)


def _expand(name: str, entries: Mapping[str, Entry]) -> Iterator[str]:
    entry = entries[name]
    if entry.kind is Kind.TAG:
        for child in sorted(entry.tags):
            yield from _expand(child, entries)
    elif entry.kind is Kind.GROUP:
        children = (entry.cfg or {}).get("task", [])
        for child in [children] if isinstance(children, str) else children:
            yield from _expand(child if isinstance(child, str) else child["task"], entries)
    else:
        yield name

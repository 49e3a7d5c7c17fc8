"""Tasks of lm-evaluation-harness on local data.

The task definitions of lm-eval are used unchanged. For each task with documents, a generated YAML file includes the
packaged definition and overrides only the source of its documents (`dataset_path`, `dataset_name`, `dataset_kwargs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.tasks.manager import TaskDict

from espalier.data_formats import DOCUMENT_FORMATS, DOCUMENT_SUFFIXES, document_suffix, split_name
from espalier.errors import UserError
from espalier.evaluation.definitions import MOST_PROBLEMS, packaged_manager, packaged_tasks

OUTPUT_TYPES = ("multiple_choice", "generate_until")
"""Output types of lm-eval's tasks that can be evaluated."""
_LENGTH_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names under which lm-eval reads the largest number of tokens of an answer."""


def packaged_entries(names: Iterable[str]) -> dict[str, Entry]:
    """Return the packaged definitions of tasks, groups and tags, and of everything that they contain, by name.

    Raises:
        UserError: If lm-eval does not know a name.
    """
    if _are_single_tasks(names):
        return {name: _read_entry(packaged_tasks()[name]) for name in names}
    index = packaged_manager().task_index
    if unknown := [name for name in names if name not in index]:
        raise UserError(f"evaluation.tasks: lm-evaluation-harness has no task or group {unknown[0]!r}")
    entries = dict(index)
    for name in names:
        _add_inline_groups(name, entries)
    return entries


def _add_inline_groups(name: str, entries: dict[str, Entry]) -> None:
    """Add the groups that a group, or a group in it, defines within its own list (such as `stem` in MMLU variants).

    lm-eval gives them the names `outer::inner`.
    """
    entry = entries.get(name)
    if entry is None or entry.kind not in {Kind.GROUP, Kind.TAG}:
        return
    if entry.kind is Kind.TAG:
        for child in sorted(entry.tags):
            _add_inline_groups(child, entries)
        return
    for child in _children(entry):
        if isinstance(child, dict) and "group" in child and child["group"] not in entries:
            inner = f"{name}::{child['group']}"
            entries[inner] = Entry(inner, Kind.GROUP, None, cfg=child)
    for each in _child_names(name, entries):
        _add_inline_groups(each, entries)


def _children(entry: Entry) -> list[str | dict[str, Any]]:
    """Return the list of a group: names, and mappings that name a task or group or define a group."""
    children = (entry.cfg or {}).get("task") or []
    return [children] if isinstance(children, str) else list(children)


def _child_names(group: str, entries: Mapping[str, Entry]) -> list[str]:
    """Return the names of the direct children of a group.

    Raises:
        UserError: If the group defines a task within its own list, so that the task has no definition of its own.
    """
    names = []
    for child in _children(entries[group]):
        if isinstance(child, str):
            name = child
        elif "group" in child:
            name = child["group"] if child["group"] in entries else f"{group}::{child['group']}"
        else:
            name = str(child.get("task"))
        if name not in entries:
            raise UserError(
                f"evaluation.tasks: group {group!r} contains {name!r}, which has no definition of its own; name the "
                "tasks that have one instead of the group"
            )
        names.append(name)
    return names


def leaf_tasks(names: Iterable[str], entries: Mapping[str, Entry]) -> list[str]:
    """Expand groups and tags to their tasks, in order and without duplicates.

    Args:
        names: Tasks, groups or tags.
        entries: Their packaged definitions, as `packaged_entries` returns them.

    Raises:
        UserError: If a task is neither multiple choice nor generative, a group has both, or a generative task has no
            stop rule or is not greedy.
    """
    names = list(names)
    leaves = list(dict.fromkeys(leaf for name in names for leaf in _expand(name, entries)))
    for leaf in leaves:
        kind = _output_type(leaf, entries)
        if kind not in OUTPUT_TYPES:
            raise UserError(
                f"evaluation.tasks: {leaf!r} is a {kind or 'Python-defined'} task; only multiple_choice and "
                "generate_until tasks can be evaluated (perplexity has its own section, evaluation.perplexity)"
            )
        if kind == "generate_until" and (problem := generation_problem(entries[leaf].cfg or {})):
            raise UserError(f"evaluation.tasks: {leaf!r} {problem}. Leave it out")
    for group in dict.fromkeys(group for name in names for group in _groups_of(name, entries)):
        _check_one_output_type(group, entries)
    return leaves


def fewshots_of(names: Sequence[str], entries: Mapping[str, Entry], task_fewshots: Mapping[str, int]) -> dict[str, int]:
    """Return the number of solved examples of each task with documents whose number the config gives by name.

    Args:
        names: Tasks, groups or tags.
        entries: Their packaged definitions, as `packaged_entries` returns them.
        task_fewshots: Number of each task, group or tag that has one of its own.

    Raises:
        UserError: If a task belongs to two names with different numbers.
    """
    given: dict[str, tuple[str, int | None]] = {}
    for name in names:
        number = task_fewshots.get(name)
        for leaf in _expand(name, entries):
            other, before = given.setdefault(leaf, (name, number))
            if before != number:
                raise UserError(
                    f"evaluation.tasks: {other!r} and {name!r} both contain {leaf!r}, but with different numbers of "
                    "solved examples; name it once"
                )
    return {leaf: number for leaf, (_, number) in given.items() if number is not None}


def generation_problem(definition: Mapping[str, Any]) -> str | None:
    """Return why a generative task cannot be evaluated, or None.

    A stop rule is a text that ends the answer (`until`) or a largest number of tokens. Without either, lm-eval would
    take the separator of solved examples, which is a guess.

    Args:
        definition: Content of the task's YAML file.
    """
    settings = definition.get("generation_kwargs") or {}
    until = settings.get("until")
    texts = [until] if isinstance(until, str) else until or []
    if not any(texts) and not any(settings.get(name) for name in _LENGTH_LIMITS):
        return "generates text without a stop rule: generation_kwargs has neither until nor max_gen_toks"
    if settings.get("do_sample") or (settings.get("do_sample") is None and float(settings.get("temperature") or 0) > 0):
        return "samples its answers; only greedy answers can be repeated and compared"
    if int(settings.get("num_beams") or 1) > 1:
        return "searches with several beams; only greedy answers are evaluated"
    return None


def _output_type(leaf: str, entries: Mapping[str, Entry]) -> str | None:
    kind = (entries[leaf].cfg or {}).get("output_type")
    return None if kind is None else str(kind)


def _check_one_output_type(group: str, entries: Mapping[str, Entry]) -> None:
    """Check that the tasks of a group are all multiple choice, or all generative.

    Raises:
        UserError: If they are not.
    """
    first: dict[str | None, str] = {}
    for leaf in _expand(group, entries):
        first.setdefault(_output_type(leaf, entries), leaf)
    if len(first) > 1:
        (kind, one), (other_kind, other) = list(first.items())[:2]
        raise UserError(
            f"evaluation.tasks: the tasks of group {group!r} differ in their output type: {one!r} is {kind}, {other!r} "
            f"is {other_kind}; name its tasks instead of the group"
        )


def _groups_of(name: str, entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yield the group of this name, or the groups that carry the tag of this name."""
    entry = entries[name]
    if entry.kind is Kind.GROUP:
        yield name
    elif entry.kind is Kind.TAG:
        for child in sorted(entry.tags):
            yield from _groups_of(child, entries)


@dataclass(frozen=True)
class Tasks:
    """Loaded tasks of one output type.

    Attributes:
        loaded: lm-eval's mapping of tasks and groups.
        reported: Names of the tasks and groups whose results are reported. The accuracies of multiple-choice tasks are
            used in the mean. A group is reported if lm-eval aggregates it. Otherwise its members are reported. A tag is
            replaced by the tasks that carry it.
        fewshots: Solved examples of each task with documents whose number differs from the protocol's `num_fewshot`.
        generative: The generative tasks, if these are the multiple-choice tasks and there are generative ones.
    """

    loaded: TaskDict
    reported: tuple[str, ...]
    fewshots: Mapping[str, int] = field(default_factory=dict)
    generative: Tasks | None = None

    @property
    def leaves(self) -> dict[str, Task]:
        """Tasks that have documents, by name."""
        found: dict[str, Task] = self.loaded["tasks"]
        return found

    def members(self, name: str) -> tuple[str, ...]:
        """Return the tasks with documents of a task or group, each once."""
        if name in self.leaves:
            return (name,)
        children = self.loaded["group_map"][name]
        return tuple(dict.fromkeys(leaf for child in children for leaf in self.members(child)))

    def metric_names(self, name: str) -> list[str]:
        """Return the metrics of a task, or those that lm-eval aggregates for a group."""
        group = self.loaded.get("groups", {}).get(name)
        if group is None:
            return list(self.leaves[name].aggregation())
        return [each.metric for each in group.aggregate_metric_list]


def load_tasks(
    names: Iterable[str], data_folder: Path, scratch: Path, *, task_fewshots: Mapping[str, int] | None = None
) -> Tasks:
    """Load tasks with documents from local folders.

    Args:
        names: Tasks, groups or tags.
        data_folder: Folder with `{task}/{split}.parquet` (or .json, .jsonl, compressed or not) for each task that has
            documents.
        scratch: Folder for the generated YAML files and for the cache of `datasets`.
        task_fewshots: Solved examples of single tasks, groups or tags (`Protocol.task_fewshots`).

    Raises:
        UserError: If a name is unknown, a task cannot be evaluated (`leaf_tasks`), no task is multiple choice, a
            multiple-choice task or group has no accuracy, a task is reported twice, or documents are missing.
    """
    names = list(names)
    entries = packaged_entries(names)
    definitions = scratch / "tasks"
    definitions.mkdir(parents=True, exist_ok=True)
    leaves = leaf_tasks(names, entries)
    fewshots = fewshots_of(names, entries, task_fewshots or {})
    for leaf in leaves:
        override = data_override(entries[leaf], data_folder / leaf, scratch / "datasets")
        (definitions / f"{leaf}.yaml").write_text(yaml.safe_dump(override), encoding="utf-8")
    manager = TaskManager(include_path=definitions, include_defaults=False)
    for name, entry in entries.items():  # lm-eval would read all of its definitions again, which takes seconds
        manager.task_index.setdefault(name, entry)
    # Expand tags here: lm-eval raises if the names include both a tag and a task that carries it.
    untagged = list(dict.fromkeys(task for name in names for task in _without_tags(name, entries)))
    by_type = {kind: [name for name in untagged if _type_of(name, entries) == kind] for kind in OUTPUT_TYPES}
    if not by_type["multiple_choice"]:
        raise UserError(
            f"evaluation.tasks: {', '.join(names)} only generate text; the mean accuracy needs at least one "
            "multiple-choice task"
        )
    loaded = {kind: _load(manager, of_type, entries, fewshots) for kind, of_type in by_type.items() if of_type}
    for name in loaded["multiple_choice"].reported:
        _check_has_accuracy(name, loaded["multiple_choice"])
    return replace(loaded["multiple_choice"], generative=loaded.get("generate_until"))


def _type_of(name: str, entries: Mapping[str, Entry]) -> str | None:
    """Return the output type of a task or group, whose tasks all have the same."""
    return _output_type(next(_expand(name, entries)), entries)


def _load(
    manager: TaskManager, names: Sequence[str], entries: Mapping[str, Entry], fewshots: Mapping[str, int]
) -> Tasks:
    """Load tasks and groups of one output type, without tags.

    Raises:
        UserError: If a task is reported both alone and as a part of a group.
    """
    tasks = manager.load(_not_within(names, entries))
    reported = tuple(dict.fromkeys(task for name in names for task in _reported(name, tasks)))
    within = {leaf: name for name in reported if entries[name].kind is Kind.GROUP for leaf in _contents(name, entries)}
    if twice := [name for name in reported if name in within]:
        raise UserError(
            f"evaluation.tasks: {twice[0]!r} is also a part of {within[twice[0]]!r}, so it would count twice; name one "
            "of the two"
        )
    own = {leaf: number for leaf, number in fewshots.items() if leaf in tasks["tasks"]}
    return Tasks(tasks, reported, own)


def _contents(group: str, entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yield everything that a group contains: tasks, groups, and their contents."""
    for name in _child_names(group, entries):
        for member in _without_tags(name, entries):
            yield member
            if entries[member].kind is Kind.GROUP:
                yield from _contents(member, entries)


def _without_tags(name: str, entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yield a task or group unchanged, and for a tag the tasks and groups that carry it."""
    entry = entries[name]
    if entry.kind is Kind.TAG:
        for child in sorted(entry.tags):
            yield from _without_tags(child, entries)
    else:
        yield name


def _not_within(names: Sequence[str], entries: Mapping[str, Entry]) -> list[str]:
    """Remove tasks that belong to a group in `names`. lm-eval loads them with the group, and only once."""
    held = {leaf for name in names if entries[name].kind is Kind.GROUP for leaf in _expand(name, entries)}
    return [name for name in names if name not in held]


def _reported(name: str, tasks: TaskDict) -> Iterator[str]:
    """Yield a task, a group that lm-eval aggregates, or the members of any other group."""
    group = tasks.get("groups", {}).get(name)
    if group is None or group.has_aggregation:
        yield name
        return
    for child in tasks["group_map"][name]:
        yield from _reported(child, tasks)


def _check_has_accuracy(name: str, tasks: Tasks) -> None:
    """Check, before the evaluation, that a task or group has an accuracy for the mean.

    Raises:
        UserError: If it has none.
    """
    group = tasks.loaded.get("groups", {}).get(name)
    metrics = tasks.metric_names(name)
    if not {"acc", "acc_norm"} & set(metrics):
        raise UserError(
            f"evaluation.tasks: {name!r} has only the metrics {', '.join(metrics) or 'none'}; the mean over tasks "
            "needs acc or acc_norm. Leave it out"
        )
    unweighted = group is not None and [
        each.metric for each in group.aggregate_metric_list
        if each.metric in {"acc", "acc_norm"} and not each.weight_by_size
    ]  # fmt: skip
    if unweighted:
        raise UserError(
            f"evaluation.tasks: group {name!r} gives its tasks the same weight, whatever their number of documents; "
            "name its tasks instead of the group"
        )


def document_problems(names: Sequence[str], data_folder: Path) -> list[str]:
    """Return one line for each task whose files of documents are missing or do not fit together.

    Only the names of the files are checked.

    Args:
        names: Tasks, groups or tags that lm-eval knows.
        data_folder: As in `load_tasks`.
    """
    entries = packaged_entries(names)
    problems = []
    try:
        for leaf in leaf_tasks(names, entries):
            try:
                _checked_files(entries[leaf], data_folder / leaf)
            except UserError as error:
                problems.append(str(error))
    except UserError as error:
        return [str(error)]
    more = len(problems) - MOST_PROBLEMS
    counted = [f"evaluation.data: {more} more tasks lack documents in {data_folder}"] if more > 0 else []
    return problems[:MOST_PROBLEMS] + counted


def data_override(entry: Entry, folder: Path, cache: Path) -> dict[str, Any]:
    """Return the content of the YAML file that makes a packaged task read its documents from a local folder.

    Args:
        entry: Packaged definition of the task.
        folder: Folder with a file for each split.
        cache: Folder for the cache of `datasets`.

    Raises:
        UserError: If a split is missing, or the splits have different file formats.
    """
    files = _checked_files(entry, folder)
    suffix = document_suffix(next(iter(files.values())).name) or ""
    return {
        "include": str(entry.yaml_path),
        "task": entry.name,
        "dataset_path": DOCUMENT_SUFFIXES[suffix],
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: str(path.resolve()) for split, path in files.items()},
            "cache_dir": str(cache.resolve()),
        },
    }


def _checked_files(entry: Entry, folder: Path) -> dict[str, Path]:
    """Return the file of each split of a task, all of one format, by the name of the split.

    Raises:
        UserError: If a split is missing, or the splits have different file formats.
    """
    files = task_files(entry.name, folder)
    suffixes = [document_suffix(path.name) or "" for path in files.values()]
    if missing := [split for split in _required_splits(entry.cfg or {}) if split not in files]:
        raise UserError(
            f"evaluation.data: task {entry.name!r} needs the split {missing[0]!r}, but {folder} has only "
            f"{', '.join(files)}; add {missing[0]}{suffixes[0]}"
        )
    if len({DOCUMENT_SUFFIXES[suffix] for suffix in suffixes}) > 1:
        raise UserError(
            f"evaluation.data: {folder} has {', '.join(path.name for path in files.values())}; give all splits of task "
            f"{entry.name!r} as Parquet, or all as JSON"
        )
    return files


def task_files(task: str, folder: Path) -> dict[str, Path]:
    """Return the file of each split of a task, by the name of the split.

    Raises:
        UserError: If the folder has no documents, or two files for a split.
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
            f"evaluation.data: no documents of task {task!r} in {folder}; it needs one {DOCUMENT_FORMATS} file per "
            "split, named after the split"
        )
    return files


def _required_splits(definition: Mapping[str, Any]) -> list[str]:
    """Return the splits that lm-eval opens: the scored split, and the split of examples even if none are shown."""
    scored = definition.get("test_split") or definition.get("validation_split")
    shown = definition.get("fewshot_config") or {}
    examples = shown.get("split") or definition.get("fewshot_split")
    if not examples and not shown.get("samples"):
        examples = definition.get("training_split") or definition.get("validation_split") or scored
    return [split for split in (scored, examples) if split]


def _are_single_tasks(names: Iterable[str]) -> bool:
    return packaged_tasks().keys() >= set(names)


def _read_entry(path: Path) -> Entry:
    """Read one packaged definition and the files that it includes."""
    index: dict[str, Entry] = {}
    TaskIndex.process_cfg(load_yaml(path, resolve_func=False), path, index)
    return next(entry for entry in index.values() if entry.kind is Kind.TASK)


def _expand(name: str, entries: Mapping[str, Entry]) -> Iterator[str]:
    entry = entries[name]
    if entry.kind is Kind.TAG:
        for child in sorted(entry.tags):
            yield from _expand(child, entries)
    elif entry.kind is Kind.GROUP:
        for child in _child_names(name, entries):
            yield from _expand(child, entries)
    else:
        yield name

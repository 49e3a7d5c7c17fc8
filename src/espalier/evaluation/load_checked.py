"""Loading and checking of tasks, with errors that name the file or document that lm-eval cannot read."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from lm_eval.api.task import ConfigurableTask, TaskConfig
from lm_eval.tasks._yaml_loader import load_yaml

from espalier.errors import UserError
from espalier.evaluation.check_accuracy import accuracy_problem
from espalier.evaluation.check_documents import bad_documents, check_documents, describe_failure, refusal
from espalier.evaluation.misread import misread_row, rows_of
from espalier.evaluation.task_rules import RULE_ERRORS, Rules
from espalier.evaluation.tasks import Tasks, leaf_tasks, load_tasks, packaged_entries, task_files
from espalier.files import why_no_file
from espalier.text_files import listed, read_given_parquet, read_json_rows


def load_checked_tasks(
    names: list[str],
    data_folder: Path,
    scratch: Path,
    *,
    num_fewshot: int,
    limit: int | None,
    task_fewshots: Mapping[str, int] | None = None,
) -> Tasks:
    """Load tasks and check their documents.

    Args:
        names: Tasks, groups or tags.
        data_folder: Folder with `{task}/{split}.parquet`, or with JSON files of the same names.
        scratch: Folder for temporary files.
        num_fewshot: Solved examples before each question.
        limit: Documents per task that are scored. None scores all.
        task_fewshots: Solved examples of single tasks, groups or tags.

    Raises:
        UserError: If a task or its documents cannot be read, a document cannot be scored, or the accuracy of a task is
            not the share of correct documents.
    """
    leaves = leaf_tasks(names, packaged_entries(names))
    files = {leaf: list(task_files(leaf, data_folder / leaf).values()) for leaf in leaves}
    # Files are checked before they are loaded: pyarrow ends the process at a row that is null.
    if unreadable := [line for paths in files.values() for path in paths for line in _file_problems(path)]:
        raise UserError("\n".join(f"evaluation.data: {line}" for line in unreadable))
    try:
        tasks = load_tasks(names, data_folder, scratch, task_fewshots=task_fewshots)
    except ImportError as error:
        raise UserError(
            f"evaluation.tasks: a task needs a Python package that is not installed ({error}); install it, or leave "
            "the task out"
        ) from None
    except (*RULE_ERRORS, OSError, datasets.exceptions.DatasetsError) as error:
        lines = [line for leaf in leaves for line in _loading_problems(leaf, files[leaf], scratch)]
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else error!r}"
        raise UserError("\n".join(lines) or f"evaluation.tasks: could not be loaded ({reason})") from None
    of_types = [of_type for of_type in (tasks, tasks.generative) if of_type]
    leaf_rules = [
        (leaf, Rules(task, solved=solved))
        for of_type in of_types
        for leaf, task in of_type.leaves.items()
        for solved in ((False, True) if of_type.fewshots.get(leaf, num_fewshot) else (False,))
    ]
    if misread := [line for leaf, rules in leaf_rules if (line := misread_row(rules, data_folder / leaf))]:
        raise UserError("\n".join(f"evaluation.data: {line}" for line in misread))
    check_documents(tasks, num_fewshot=num_fewshot, limit=limit)
    if problems := [line for task in tasks.leaves.values() if (line := accuracy_problem(task))]:
        raise UserError("\n".join(problems))
    return tasks


class _Draft(ConfigurableTask):
    """A task built from its definition alone, for documents with which lm-eval cannot load the task.

    It has only the attributes that `Rules` and this module use.
    """

    def __init__(self, config: dict[str, Any], documents: datasets.DatasetDict) -> None:
        self._config = TaskConfig(**{key: value for key, value in config.items() if key not in {"tag", "group"}})
        self.fewshot_cfg = self._config.fewshot_config
        self.prompt = None
        self.dataset = documents


def _loading_problems(task: str, files: list[Path], scratch: Path) -> list[str]:
    """Return error lines that say why a task cannot be loaded, or an empty list if no reason is found."""
    definition = load_yaml(scratch / "tasks" / f"{task}.yaml", resolve_func=True)
    try:
        splits = datasets.load_dataset(definition["dataset_path"], **definition["dataset_kwargs"])
    except (*RULE_ERRORS, OSError, datasets.exceptions.DatasetsError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        unclear = (
            f"task {task!r}: {' and '.join(map(str, files))} cannot be read together ({reason}); give them the same "
            "fields, each of one type"
        )
        return [f"evaluation.data: {_odd_row(files) or _odd_fields(files) or unclear}"]
    return list(_document_problems(_Draft(definition, splits)))


def _odd_row(files: list[Path]) -> str | None:
    """Return an error line for the first row with a field of another type than in earlier rows, or None."""
    types: dict[str, tuple[type, str]] = {}
    for path in files:
        for place, row in rows_of(path):
            for field, value in row.items():
                if value is None:
                    continue
                expected, first = types.setdefault(field, (type(value), f"{path.name}, {place}"))
                if type(value) is not expected:
                    given = f"{reprlib.repr(value)} ({type(value).__name__})"
                    return f"{path}: {place}: {field} is {given}, but {expected.__name__} in {first}; give one type"
    return None


def _odd_fields(files: list[Path]) -> str | None:
    """Return an error line for the first file with other fields than the first one, or None."""
    found = [(path, {field: None for _, row in rows_of(path) for field in row}) for path in files]
    for path, fields in found:
        if fields.keys() != found[0][1].keys():
            first, expected = found[0]
            others = f"{first.name} has {listed(expected)}"
            return f"{path}: has the fields {listed(fields)}, but {others}; give all splits the same fields"
    return None


def _file_problems(path: Path) -> Iterator[str]:
    if problem := why_no_file(path):
        yield f"{path}: {problem}; give a file with documents"
        return
    try:
        n_rows = _count_parquet_rows(path) if path.suffix == ".parquet" else _count_objects(path)
    except UserError as error:
        yield str(error)
    else:
        if not n_rows:
            yield f"{path}: is empty; give a file with documents"


def _count_parquet_rows(path: Path) -> int:
    n_rows = read_given_parquet(path).num_rows
    metadata = pq.read_metadata(path)
    if n_rows and not all(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)):
        raise UserError(f"{path}: has a row group without rows, which `datasets` cannot read; write the file again")
    return n_rows


def _count_objects(path: Path) -> int:
    n_rows = 0
    for where, row in read_json_rows(path):
        if not isinstance(row, dict):
            raise UserError(f"{path}: {where}: is not a JSON object; mend it or take it out")
        n_rows += 1
    return n_rows


def _document_problems(draft: _Draft) -> Iterator[str]:
    """Yield error lines for the documents at which lm-eval fails.

    lm-eval applies `process_docs` to all documents and then the task's rules to the first document.
    """
    scored, shown = Rules(draft, solved=False), Rules(draft, solved=True)
    processes = {scored: draft.config.process_docs, shown: draft.fewshot_cfg.process_docs}
    for rules, process in processes.items():
        raw = draft.dataset.get(rules.split)
        if raw is None:
            continue
        try:
            documents = process(raw) if process else raw
        except RULE_ERRORS:
            yield from _unprocessed(rules, raw, process)
            return
        if rules is scored and not len(documents):
            yield f"{rules.location}: has no documents"
        elif rules is scored:
            draft.features = list(documents.features)
            yield from bad_documents(rules, documents)


def _unprocessed(rules: Rules, raw: datasets.Dataset, process: Any) -> Iterator[str]:
    for number in range(len(raw)):
        try:
            process(raw.select([number]))
        except RULE_ERRORS as error:
            yield refusal(rules, number, describe_failure(raw[number], error))
            return

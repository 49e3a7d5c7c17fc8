"""Task names that lm-evaluation-harness knows.

The look-up does not need torch. It imports lm-eval only if a name is not a default task and is not found by a text
search of lm-eval's files.
"""

from __future__ import annotations

import difflib
import importlib.util
import logging
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.config.evaluation import SEVEN_TASKS

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

MOST_PROBLEMS = 10
"""Tasks that are named at most. A comparison of a name with the 14,000 that lm-eval knows takes half a second."""
LONGEST_NAME = 100
_TASK = re.compile(r"""^["']?task["']?: *["']?([\w.+-]+)""", re.MULTILINE)
_OUTPUT_TYPE = re.compile(r"""^["']?output_type["']?: *["']?(\w+)""", re.MULTILINE)
_INCLUDE = re.compile(r"""^["']?include["']?: *["']?([^\s"'#]+)""", re.MULTILINE)


def unknown_task_problems(tasks: Iterable[str]) -> list[str]:
    """Return one error line for each task name that lm-eval does not know.

    Returns an empty list if lm-eval is not installed where Snakemake runs. The jobs then check the names.
    """
    unrecognised = [name for name in tasks if name not in SEVEN_TASKS]
    if _tasks_folder() is None or not unrecognised or packaged_tasks().keys() >= set(unrecognised):
        return []
    unknown = [name for name in unrecognised if name not in _indexed_names()]
    more = len(unknown) - MOST_PROBLEMS
    counted = [f"evaluation.tasks: {more} more names are no task or group either"] if more > 0 else []
    return [_unknown_task_problem(name) for name in unknown[:MOST_PROBLEMS]] + counted


def racing_problems(tasks: Iterable[str]) -> list[str]:
    """Return an error line if one of the tasks of a race is generative.

    Only single tasks are looked up. Generative tasks of groups and tags are found when the race begins.
    """
    return [not_raced(name) for name in tasks if name not in SEVEN_TASKS and _is_generative(name)][:1]


def not_raced(task: str) -> str:
    """Return the error line for a generative task in a race."""
    return (
        f"evaluation.racing: {task!r} is a generative task, which cannot be raced; take it out of evaluation.tasks, or "
        "remove evaluation.racing"
    )


def _is_generative(task: str) -> bool:
    path = packaged_tasks().get(task)
    while path is not None and path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
        if found := _OUTPUT_TYPE.search(text):
            return found[1] == "generate_until"
        included = _INCLUDE.search(text)
        path = path.parent / included[1] if included else None
    return False


@cache
def packaged_tasks() -> dict[str, Path]:
    """Return the YAML file of each single task that lm-eval packages, by the name of the task.

    This text search takes about 0.3 seconds. lm-eval's own index of its 14,000 files takes 6 seconds. The search does
    not find groups, tags, and the few tasks whose name comes from an included file.
    """
    found: dict[str, Path] = {}
    folder = _tasks_folder()
    for path in sorted(folder.glob("**/*.yaml")) if folder else ():
        match = _TASK.search(path.read_text(encoding="utf-8", errors="replace"))
        if match:
            found.setdefault(match[1], path)
    return found


def _unknown_task_problem(name: str) -> str:
    close = difflib.get_close_matches(name, _indexed_names(), n=3) if len(name) <= LONGEST_NAME else []
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return (
        f"evaluation.tasks: got {name[:LONGEST_NAME]!r}, which is no task or group of lm-evaluation-harness; {hint}"
        "`lm-eval ls tasks` lists all"
    )


def _tasks_folder() -> Path | None:
    """Return the folder of lm-eval's task definitions, without importing lm-eval. None if it is not installed."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "tasks"


@cache
def packaged_manager() -> TaskManager:
    """Return lm-eval's index of its packaged tasks. Takes 6 seconds, so it is cached; callers must not change it."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager()


def _indexed_names() -> frozenset[str]:
    return frozenset(packaged_manager().all_tasks)

"""Check of task documents before they are scored.

lm-eval scores some damaged documents without an error. If the answer is none of the choices, it counts every prediction
as wrong. If the question is null, it writes `None` into the prompt. This module writes every document that will be
scored, or shown as an example, by the rules of its task as lm-eval does, and checks the result. Fields that the task
does not use are not checked.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable, Sequence
from itertools import islice
from numbers import Integral
from typing import Any

from jinja2.meta import find_undeclared_variables
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import env

from espalier.errors import UserError
from espalier.evaluation.gaps import gap_problems
from espalier.evaluation.task_rules import RULE_ERRORS, Rules, TaskDocument, WrittenDocument
from espalier.evaluation.tasks import Tasks
from espalier.text_files import listed

logger = logging.getLogger(__name__)
LONGEST_PROBLEM = 300
"""Most characters of the problem of a document that an error quotes."""


def check_documents(tasks: Tasks, *, num_fewshot: int, limit: int | None) -> None:
    """Check every document that will be scored, and every document that may be shown as a solved example.

    Args:
        tasks: Loaded tasks.
        num_fewshot: Solved examples before each question.
        limit: Documents per task that are scored. None scores all.

    Raises:
        UserError: If a document cannot be scored or shown, or a task has too few examples, examples that are scored, or
            no examples although the config asks for them. The message has one line for each task and split. It names
            the first such document and gives the number of others.
    """
    lines: list[str] = []
    for of_type in filter(None, (tasks, tasks.generative)):
        for name, task in of_type.leaves.items():
            lines += _problems_of_task(task, of_type.fewshots.get(name), num_fewshot, limit)
    if lines:
        raise UserError("\n".join(lines))


def _problems_of_task(task: ConfigurableTask, own: int | None, num_fewshot: int, limit: int | None) -> list[str]:
    """Return error lines for a task.

    Args:
        task: The task.
        own: Solved examples that the config asks for by the name of this task; None if it does not.
        num_fewshot: Solved examples of the other tasks.
        limit: Documents that are scored. None scores all.
    """
    scored = Rules(task, solved=False)
    lines = bad_documents(scored, islice(task.task_docs, limit))
    n_examples = num_fewshot if own is None else own
    if task.get_config("num_fewshot") == 0:  # lm-eval never shows examples for such a task
        if own:
            lines.append(
                f"evaluation.tasks: num_fewshot is {own} for {task.config.task!r}, but its definition allows no "
                "examples (num_fewshot: 0); leave its num_fewshot out"
            )
        return lines
    if n_examples:
        shown = Rules(task, solved=True)
        examples = _examples(task, n_examples)
        lines += (
            _scored_example_problems(shown, examples, limit)
            or _example_count_problems(shown, n_examples)
            or bad_documents(shown, examples)
        )
    return lines


def bad_documents(rules: Rules, documents: Iterable[TaskDocument]) -> list[str]:
    """Return one error line for the first document with a problem, or an empty list."""
    found = ((number, problem) for number, doc in enumerate(documents) if (problem := problem_of(rules, doc)))
    first = next(found, None)
    if first is None:
        return []
    more = sum(1 for _ in found)
    others = f" ({more} more of this split are refused, too)" if more else ""
    return [f"{refusal(rules, *first)}{others}"]


def refusal(rules: Rules, number: int, problem: str) -> str:
    """Return the error line of a document. A problem that quotes a long value is cut in its middle."""
    if len(problem) > LONGEST_PROBLEM:
        problem = f"{problem[: LONGEST_PROBLEM // 2]} ... {problem[-LONGEST_PROBLEM // 2 :]}"
    return f"{rules.location}, document {number}: {problem}; mend it or take it out of the file"


def problem_of(rules: Rules, document: TaskDocument) -> str | None:
    """Return what is wrong with a document, or None."""
    if absent := [rule for rule in rules.string_rules if re.fullmatch(r"[A-Za-z_]\w*", rule) and rule not in document]:
        return _missing_field_problem(absent[0], document)  # lm-eval would write the field's name into the prompt
    try:
        written = rules.write(document)
    except RULE_ERRORS as error:
        read = (name for rule in rules.string_rules for name in sorted(find_undeclared_variables(env.parse(rule))))
        absent = [name for name in read if name not in document]
        return _missing_field_problem(absent[0], document) if absent else describe_failure(document, error)
    if rules.is_generative:
        return (
            next(gap_problems(rules, document, written), None)
            or _question_problem(rules, written)
            or (_shown_answer_problem(written.answer) if rules.solved else None)
        )
    return (
        next(gap_problems(rules, document, written), None)
        or _choices_problem(written.choices)
        or _question_problem(rules, written)
        or _answer_problem(rules, written)
        or _negative_label_problem(rules, document)
    )


def describe_failure(document: TaskDocument, error: Exception) -> str:
    """Return an error text for a document at which the rules of its task raised `error`.

    The text names the field that caused the error, if this can be found from the exception.
    """
    reason, key = " ".join(str(error).split()), error.args[0] if isinstance(error, KeyError) else None
    if isinstance(key, str) and key not in document and key not in document.values():
        return _missing_field_problem(key, document)
    about = [
        f"{name} is {'null' if value is None else repr(value)}"
        for name, value in document.items()
        if value is None or (isinstance(value, str | int | float) and repr(value) in reason)
    ]
    last = traceback.extract_tb(error.__traceback__)[-1]
    about += [f"at `{last.line}`"] if "tasks" in last.filename and last.line else []
    return f"cannot be read by the rules of its task ({'; '.join([f'{type(error).__name__}: {reason}', *about])})"


def _missing_field_problem(field: str, document: TaskDocument) -> str:
    return f"has no {field!r}, which its task reads; it has {listed(document)}"


def _examples(task: ConfigurableTask, num_fewshot: int) -> list[TaskDocument]:
    """Return the documents that may be shown as examples, without those that are part of lm-eval's task definition."""
    if task.fewshot_cfg.split is None and task.fewshot_cfg.samples is not None:
        return []
    return list(task.sampler.df[:num_fewshot] if task.fewshot_cfg.sampler == "first_n" else task.sampler.df)


def _scored_example_problems(rules: Rules, examples: Sequence[TaskDocument], limit: int | None) -> list[str]:
    """Return an error line if the examples are scored documents, or an empty list.

    An example gives away the answer of a document that is scored. So examples may not come from the scored split, nor
    from a copy of it in another split: if all examples are scored documents, or all scored documents are examples, it
    is a copy. Large datasets repeat single documents by accident, so a few of them in both splits are only logged.
    """
    remedy = "give the task examples of their own, or set its num_fewshot to 0"
    if not examples:  # they are a part of lm-eval's definition
        return []
    scored_rules = Rules(rules.task, solved=False)
    scored_split = scored_rules.split
    if rules.split == scored_split:
        return [f"{rules.location}: its solved examples are documents that are scored; {remedy}"]
    scored = _written(scored_rules, islice(rules.task.task_docs, limit))
    shown = _written(scored_rules, examples)
    both = len(scored & shown)
    if both and both in {len(scored), len(shown)}:
        which = f"{both} of its {len(shown)} solved examples are documents of the scored split {scored_split!r}"
        return [f"{rules.location}: {which}; {remedy}"]
    if both:
        logger.warning("%s: %d of its documents are also in the scored split %r", rules.location, both, scored_split)
    return []


def _written(rules: Rules, documents: Iterable[TaskDocument]) -> set[str]:
    """Return the question and choices of documents as texts. Documents that cannot be written are left out."""
    texts = set()
    for document in documents:
        try:
            texts.add(repr((rules.question(document), rules.choices(document))))
        except RULE_ERRORS:
            continue
    return texts


def _example_count_problems(rules: Rules, num_fewshot: int) -> list[str]:
    """Return an error line if there are fewer examples than the task needs, or an empty list.

    lm-eval draws one more than it shows if the definition names the same split, or none, for examples and scoring.
    """
    n_found, shown = len(rules.task.sampler.df), rules.task.fewshot_cfg
    needed = num_fewshot + (shown.sampler != "first_n" and shown.split == rules.task.config.test_split)
    if n_found >= needed:
        return []
    return [f"{rules.location}: has {n_found} documents, but evaluation.num_fewshot {num_fewshot} needs {needed}"]


def _shown_answer_problem(answer: Any) -> str | None:
    """Check the answer that an example of a generative task shows. lm-eval shows the first of several answers."""
    first = answer[0] if isinstance(answer, list) and answer else answer
    is_shown = isinstance(first, int | float) or (isinstance(first, str) and first.strip())
    return None if is_shown else f"its answer is {_describe_value(first)}"


def _choices_problem(choices: Any) -> str | None:
    if not isinstance(choices, list):
        return f"its choices are no list, but {_describe_value(choices)}"
    for number, choice in enumerate(choices):
        if not isinstance(choice, str) or not choice.strip():
            return f"choice {number} (the first is 0) is {_describe_value(choice)}"
    return None if len(choices) >= 2 else f"its number of choices is {len(choices)}, but at least 2 are needed"


def _question_problem(rules: Rules, written: WrittenDocument) -> str | None:
    """Check the question. If it is an index, the choices are the questions and the index is the answer (WinoGrande)."""
    many = getattr(rules.task, "multiple_input", None)  # missing on a `_Draft`, which lm-eval could not load
    question = written.question
    if isinstance(question, int) and (many is None or many):
        return _index_problem(question, written.choices)
    if not isinstance(question, str) or many:
        return f"its question is no text, but {_describe_value(question)}"
    # A task whose choices are whole sentences has no question. Its rule is then an empty string or a function.
    rule = rules.task.fewshot_cfg.doc_to_text if rules.solved else rules.task.config.doc_to_text
    return "its question is empty" if not question.strip() and isinstance(rule, str) and rule.strip() else None


def _answer_problem(rules: Rules, written: WrittenDocument) -> str | None:
    answer = written.answer
    if isinstance(written.question, int):
        is_text = isinstance(answer, str) and answer.strip()
        return None if is_text else f"what follows its choices is {_describe_value(answer)}"
    if callable(rules.task.config.process_results) and not isinstance(answer, str):
        return None  # only the task's own `process_results` knows which answers are valid
    many = getattr(rules.task, "multiple_target", None)
    if many is not None and bool(many) != isinstance(answer, list) and not rules.solved:
        return f"its answer is {answer!r}, but that of the first document is {'a list' if many else 'no list'}"
    answers = answer if isinstance(answer, list) else [answer]
    if not answers:
        return "has no answer"
    return next(filter(None, (_single_answer_problem(rules, one, written.choices) for one in answers)), None)


def _single_answer_problem(rules: Rules, answer: Any, choices: list[str]) -> str | None:
    if isinstance(answer, Integral):  # rules that are functions may give integers of numpy
        return _index_problem(int(answer), choices)
    if not isinstance(answer, str):
        return f"its answer is {_describe_value(answer)}, which is no choice and no number of one"
    # An example may show its answer in other words than the choices.
    if answer in choices or (rules.solved and answer.strip()):
        return None
    return f"its answer is {answer!r}, which is none of its {len(choices)} choices"


def _negative_label_problem(rules: Rules, document: TaskDocument) -> str | None:
    """Check for a negative label, which marks a missing answer, for example in test splits.

    The rule of the task may use the label as an index. A negative index would then count from the end of the choices.
    """
    for name, value in document.items():
        if isinstance(value, int | str) and re.fullmatch(r"-\d+", str(value)):
            try:
                answers = [rules.answer({**document, name: type(value)(index)}) for index in (0, 1)]
            except RULE_ERRORS:
                continue
            if answers[0] != answers[1]:
                return f"{name} is {value}; its split may have no answers"
    return None


def _index_problem(index: int, choices: list[str]) -> str | None:
    if 0 <= index < len(choices):
        return None
    return f"its answer is {index}, but its {len(choices)} choices are 0 to {len(choices) - 1}"


def _describe_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str) and not value.strip():
        return "empty"
    return f"{value!r} ({type(value).__name__})"

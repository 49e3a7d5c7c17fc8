"""Open a study from a Snakefile: check the config once, in the driver process, and report each problem in one line."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier.config import StudyConfig, load_study
from espalier.config.duplicate_keys import keys_given_twice
from espalier.errors import UserError
from espalier.evaluation.definitions import unknown_task_problems
from espalier.study.lookups import Study
from espalier.study.sweep import ALLOW_MISSING

logger = logging.getLogger("snakemake.logging")


PARTIAL_REPORTS, INFERENCE = "partial_reports", "inference"
"""Targets that change what is allowed."""


def asked_targets(
    parser: argparse.ArgumentParser, arguments: Sequence[str], rule_name: Callable[[str], str | None]
) -> set[str]:
    """Return which of the targets above the user asks for.

    Snakemake knows its targets only after it has read the Snakefile, so its own parser reads the command line once
    more: the value of an option is then no target, whatever it is.

    Args:
        parser: Snakemake's parser of its command line.
        arguments: The command line, without the program.
        rule_name: Gives the name under which a rule is known: a module import may add a prefix (None: not imported).
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            given = set(parser.parse_args(list(arguments)).targets)
    except SystemExit:  # not a command line of Snakemake: a program that uses its API
        return set()
    return {target for target in (PARTIAL_REPORTS, INFERENCE) if rule_name(target) in given}


def open_study(
    config: Mapping[str, Any],
    *,
    is_driver: bool,
    targets: Collection[str] = (),
    files: Sequence[str | Path] = (),
) -> Study:
    """Check a config and make its look-up tables.

    Args:
        config: The config as Snakemake merged it.
        is_driver: Whether this is the process that the user started; only there are task names looked up in lm-eval,
            sizes of models compared with the grid, and warnings shown.
        targets: What `asked_targets` found; `partial_reports` allows results to be missing.
        files: Files that the config came from. Snakemake's loader keeps the last of two equal keys, so the driver looks
            for such keys in the files themselves.

    Raises:
        SystemExit: With one line per problem.
    """
    try:
        if is_driver:
            _check_files(files)
        study = load_study(config)
        if is_driver and PARTIAL_REPORTS in targets:
            _allow_missing(study.study)
        lookups = Study(study, Path(__file__).resolve().parents[1])
        unusable = _check_in_driver(study, lookups, targets) if is_driver else []
    except UserError as error:
        lines = "\n".join(f"  {line}" for line in str(error).splitlines())
        raise SystemExit(f"The config has problems:\n{lines}") from None
    if is_driver:
        # Snakemake's handler writes the message as it is, without its arguments.
        for line in (f"warning: {line}" for line in [*unusable, *study.warnings(), *lookups.imports.warnings()]):
            logger.warning(line)
    return lookups


def _check_files(files: Sequence[str | Path]) -> None:
    if twice := keys_given_twice(files):
        raise UserError("\n".join(twice))


def _allow_missing(study: str) -> None:
    """Allow results of a study to be missing, in this process and in its jobs, which inherit the variable."""
    allowed = os.environ.get(ALLOW_MISSING, "").split()
    os.environ[ALLOW_MISSING] = " ".join(dict.fromkeys([*allowed, study]))


def _check_in_driver(study: StudyConfig, lookups: Study, targets: Collection[str]) -> list[str]:
    """Reject impossible settings before any job starts. Code that reads models is imported here, so jobs start faster.

    A model folder that cannot be used stops the study only where no other model is left, or where there is no such
    folder. Else its own job refuses it, and the other models go on.

    Returns:
        Warnings, one line each.

    Raises:
        UserError: With one line per problem.
    """
    from espalier.study.checks import data_problems, folder_problems, infeasible_problems, known_sizes, text_problems

    sizes = {model.name: known_sizes(model, lookups.model_folder(model), study.sandbox) for model in study.models}
    # A study that is only imported evaluates nothing, so it does without lm-eval.
    problems = unknown_task_problems(study.evaluation.tasks) if lookups.models else []
    problems = [*problems, *infeasible_problems(study, sizes), *lookups.imports.problems()]
    unusable: list[str] = []
    if not lookups.sweep.allows_missing:
        unknown = [model for model in study.models if sizes[model.name] is None]
        for model in unknown:
            unusable += folder_problems(model, lookups.paths.of("check_model", model.name))
        is_absent = any(model.path and not Path(model.path).is_dir() for model in unknown)
        if problems or (is_absent and unusable) or len(unusable) == len(lookups.models):
            problems, unusable = [*problems, *unusable], []
    if lookups.models and not lookups.sweep.allows_missing:
        problems += data_problems(study, lookups.paths, lookups.sweep)
        problems += text_problems(study, lookups.paths, lookups.sweep)
    problems += lookups.exports.problems()
    problems += lookups.measured.problems(is_target=INFERENCE in targets)
    problems += lookups.recovery.problems()
    if problems:
        raise UserError("\n".join([*problems, *unusable]))
    return [f"{line}; the other models go on without it" for line in unusable]

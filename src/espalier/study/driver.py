"""Open a study from a Snakefile. The driver process checks its config and reports each problem in one line."""

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
from espalier.config.duplicate_keys import find_duplicate_keys
from espalier.errors import UserError
from espalier.evaluation.definitions import racing_problems, unknown_task_problems
from espalier.study.lookups import Study
from espalier.study.only_files import ONLY_FILES
from espalier.study.sweep import ALLOW_MISSING

logger = logging.getLogger("snakemake.logging")


PARTIAL_REPORTS, INFERENCE, RECOVERED = "partial_reports", "inference", "recovered"
"""Targets that change the checks: the first allows missing results, the others need a section of the config."""


def requested_targets(
    parser: argparse.ArgumentParser, arguments: Sequence[str], rule_name: Callable[[str], str | None]
) -> set[str]:
    """Return which of `PARTIAL_REPORTS`, `INFERENCE` and `RECOVERED` the user requests.

    Snakemake sets its targets only after it has read the Snakefile. So Snakemake's own parser parses the command line
    a second time here. It never mistakes the value of an option for a target.

    Args:
        parser: Snakemake's command line parser.
        arguments: The command line, without the program.
        rule_name: Returns the name of a rule in this run, since a module import may add a prefix. Returns None if the
            rule is not imported.
    """
    given = command_line_targets(parser, arguments)
    return {target for target in (PARTIAL_REPORTS, INFERENCE, RECOVERED) if rule_name(target) in given}


def requests_only_files(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> bool:
    """Return whether the user requests files and no rule; `requested_targets` describes the arguments."""
    given = command_line_targets(parser, arguments)
    return bool(given) and all("/" in target for target in given)


def command_line_targets(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> set[str]:
    """Return all targets that the user requests; `requested_targets` describes the arguments."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return set(parser.parse_args(list(arguments)).targets)
    except SystemExit:  # not Snakemake's command line: a program uses its API
        return set()


def open_study(
    config: Mapping[str, Any],
    *,
    is_driver: bool,
    targets: Collection[str] = (),
    only_files: bool = False,
    config_files: Sequence[str | Path] = (),
) -> Study:
    """Check a config and build its look-up tables.

    Args:
        config: The config as Snakemake merged it.
        is_driver: Whether this is the process that the user started. Only the driver looks up task names in lm-eval,
            compares sizes of models with the grid, and shows warnings.
        targets: Result of `requested_targets`; `partial_reports` allows missing results.
        only_files: Result of `requests_only_files`; jobs then do no other work than their own.
        config_files: Config files. Snakemake's loader keeps only the last of two equal keys, so the driver searches
            the files themselves for duplicate keys.

    Raises:
        SystemExit: If the config has problems, with one line for each.
    """
    try:
        if is_driver:
            _check_is_plain(config_files)
            _check_duplicate_keys(config_files)
        study = load_study(config)
        if is_driver and PARTIAL_REPORTS in targets:
            _allow_missing(study.study)
        if is_driver:
            os.environ.pop(ONLY_FILES, None)
            if only_files:
                os.environ[ONLY_FILES] = "1"
        lookups = Study(study, Path(__file__).resolve().parents[1])
        warnings = _check_in_driver(study, lookups, targets) if is_driver else []
    except UserError as error:
        lines = [f"  {line}" for line in str(error).splitlines()]
        if not Path("Snakefile").exists() and any("no such" in line for line in lines):
            lines.append(f"  (Relative paths start in the folder where Snakemake runs, {Path.cwd()}.)")
        raise SystemExit("\n".join(["The config has problems:", *lines])) from None
    except OSError as error:  # such as a path that is too long for the file system
        raise SystemExit(
            f"The config names a path that cannot be read: {str(error.filename)[:200]}: {error.strerror}"
        ) from None
    if is_driver:
        # Snakemake's log handler ignores the arguments of a message, so the text is complete here.
        without = lookups.recovered.warnings() if RECOVERED in targets else []
        for line in [*warnings, *without, *study.warnings(), *lookups.legacy.warnings()]:
            logger.warning(f"warning: {line}")  # noqa: G004
    return lookups


def _check_is_plain(config_files: Sequence[str | Path]) -> None:
    """Refuse config files with `__use_yte__`, a key that lets Snakemake run Python code in the file.

    Snakemake has run the code of a file that was given by `--configfile` by now, so the user should know.
    """
    for file in config_files:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if "__use_yte__" in Path(file).read_text(encoding="utf-8"):
                raise UserError(
                    f"{file}: has the key __use_yte__, so Snakemake runs Python code in it; write plain YAML"
                )


def _check_duplicate_keys(config_files: Sequence[str | Path]) -> None:
    if lines := find_duplicate_keys(config_files):
        raise UserError("\n".join(lines))


def _allow_missing(study: str) -> None:
    """Allow missing results of a study, in this process and in its jobs, which inherit the environment variable."""
    allowed = os.environ.get(ALLOW_MISSING, "").split()
    os.environ[ALLOW_MISSING] = " ".join(dict.fromkeys([*allowed, study]))


def _check_in_driver(study: StudyConfig, lookups: Study, targets: Collection[str]) -> list[str]:
    """Reject impossible settings before any job starts.

    An unusable model folder stops the study if the folder does not exist or if no other model is left. Otherwise only
    the `check_model` job of that model fails, and the study continues with the other models.

    Code that reads models is imported here, so that jobs start faster.

    Returns:
        Warnings, one line each.

    Raises:
        UserError: With one line per problem.
    """
    from espalier.study.config_checks import (
        case_problems,
        data_problems,
        folder_problems,
        infeasible_problems,
        known_sizes,
        literature_problems,
        style_problems,
        text_problems,
    )

    sizes = {model.name: known_sizes(model, lookups.model_folder(model), study.sandbox) for model in study.models}
    results = Path(lookups.results)
    if results.exists() and not results.is_dir():
        raise UserError(f"study: got {study.study!r}, but {results} is a file; choose another name")
    # A study with only imported models evaluates nothing, so it does not need lm-eval.
    unknown = unknown_task_problems(study.evaluation.task_names) if lookups.models else []
    not_raced = racing_problems(study.evaluation.task_names) if lookups.models and study.evaluation.racing else []
    problems = [*unknown, *not_raced, *infeasible_problems(study, sizes), *lookups.legacy.problems()]
    warnings: list[str] = []
    if not lookups.sweep.allows_missing:
        is_absent = False
        for model in study.models:
            if sizes[model.name] is None:
                found = folder_problems(model, lookups.paths.of("check_model", model.name))
                is_absent |= bool(found and model.path and not Path(model.path).is_dir())
                warnings += found
        if problems or is_absent or len(warnings) == len(lookups.models):
            problems, warnings = [*problems, *warnings], []
    if lookups.models and not lookups.sweep.allows_missing:
        problems += [] if unknown else data_problems(study, lookups.paths, lookups.sweep)
        problems += text_problems(study, lookups.paths, lookups.sweep)
    problems += case_problems(study, lookups.results)
    problems += style_problems(study)
    problems += literature_problems(study)
    problems += lookups.exports.problems()
    problems += lookups.inference.problems(is_target=INFERENCE in targets)
    problems += lookups.recovered.problems()
    if problems:
        raise UserError("\n".join([*problems, *warnings]))
    return [f"{line}; the other models go on without it" for line in warnings]

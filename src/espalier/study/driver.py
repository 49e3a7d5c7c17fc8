"""Open a study from a Snakefile: check the config once, in the driver, and say what is wrong in plain lines."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier.config import StudyConfig, load_study
from espalier.config.twice import keys_given_twice
from espalier.errors import UserError
from espalier.evaluation.definitions import unknown_task_problems
from espalier.study.catalogue import Catalogue
from espalier.study.sweep import ALLOW_MISSING

logger = logging.getLogger("snakemake.logging")


def open_study(
    config: Mapping[str, Any], *, is_driver: bool, arguments: Sequence[str] = (), files: Sequence[str | Path] = ()
) -> Catalogue:
    """Check a config and make its look-up tables.

    Args:
        config: The config as Snakemake merged it.
        is_driver: Whether this is the process that the user started; only there are task names looked up in lm-eval,
            sizes of models compared with the grid, and warnings shown.
        arguments: Command line of this process; the target `partial_reports` allows results to be missing.
        files: Files that the config came from. Snakemake's loader keeps the last of two equal keys, so the driver looks
            for such keys in the files themselves.

    Raises:
        SystemExit: With one line per problem.
    """
    if is_driver and "partial_reports" in arguments:
        os.environ[ALLOW_MISSING] = "1"  # jobs read the Snakefile anew and inherit it
    try:
        if is_driver:
            _check_files(files)
        study = load_study(config)
        catalogue = Catalogue(study, Path(__file__).resolve().parents[1])
        if is_driver:
            _check_in_driver(study, catalogue, arguments)
    except UserError as error:
        lines = "\n".join(f"  {line}" for line in str(error).splitlines())
        raise SystemExit(f"The config has problems:\n{lines}") from None
    if is_driver:
        # Snakemake's handler writes the message as it is, without its arguments.
        for line in (f"warning: {line}" for line in [*study.warnings(), *catalogue.imports.warnings()]):
            logger.warning(line)
    return catalogue


def _check_files(files: Sequence[str | Path]) -> None:
    if twice := keys_given_twice(files):
        raise UserError("\n".join(twice))


def _check_in_driver(study: StudyConfig, catalogue: Catalogue, arguments: Sequence[str]) -> None:
    """Refuse what no job could do, before any runs. What looks into models is imported only here: jobs start faster."""
    from espalier.study.feasible import data_problems, folder_problems, infeasible_problems, known_sizes, text_problems

    sizes = {model.name: known_sizes(model, catalogue.model_folder(model), study.sandbox) for model in study.models}
    # A study that is only imported evaluates nothing, so it does without lm-eval.
    problems = unknown_task_problems(study.evaluation.tasks) if catalogue.models else []
    problems = [*problems, *infeasible_problems(study, sizes), *catalogue.imports.problems()]
    if not catalogue.sweep.allows_missing:
        for model in study.models:
            if sizes[model.name] is None:
                problems += folder_problems(model, f"{catalogue.results}/models/{model.name}.json")
    if catalogue.models:
        problems += data_problems(study, (f"{catalogue.results}/requests/{name}.parquet" for name in catalogue.models))
        problems += text_problems(study, catalogue.results)
    problems += catalogue.exports.problems()
    problems += catalogue.measured.problems(tuple(arguments))
    problems += catalogue.recovery.problems()
    if problems:
        raise UserError("\n".join(problems))

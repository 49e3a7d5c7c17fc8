"""Open a study from a Snakefile: check the config once, in the driver, and say what is wrong in plain lines."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier.config import StudyConfig, load_study
from espalier.errors import UserError
from espalier.evaluation.definitions import unknown_task_problems
from espalier.study.catalogue import Catalogue

AVAILABLE_CRITERIA = ("taylor", "random")
logger = logging.getLogger("snakemake.logging")


def open_study(config: Mapping[str, Any], *, is_driver: bool) -> Catalogue:
    """Check a config and make its look-up tables.

    Args:
        config: The config as Snakemake merged it.
        is_driver: Whether this is the process that the user started; only there are task names looked up in lm-eval
            and warnings shown.

    Raises:
        SystemExit: With one line per problem.
    """
    try:
        study = load_study(config)
        if is_driver and (problems := [*_criterion_problems(study), *unknown_task_problems(study.evaluation.tasks)]):
            raise UserError("\n".join(problems))
    except UserError as error:
        lines = "\n".join(f"  {line}" for line in str(error).splitlines())
        raise SystemExit(f"The config has problems:\n{lines}") from None
    if is_driver:
        for line in study.warnings():
            logger.warning("warning: %s", line)
    return Catalogue(study, Path(__file__).resolve().parents[1])


def _criterion_problems(study: StudyConfig) -> list[str]:
    """Refuse methods in use whose criterion is named in the config but not written yet."""
    used = {name for grid in (study.grid, *(model.grid for model in study.models)) for name in grid.methods or ()}
    return [
        f"methods[{i}].criterion: got {method.criterion!r}, which is not available yet; allowed: "
        f"{', '.join(AVAILABLE_CRITERIA)}"
        for i, method in enumerate(study.methods)
        if method.name in used and method.criterion not in AVAILABLE_CRITERIA
    ]

"""Check a config file without Snakemake: `python -m espalier.config.check FILE`.

Snakemake loads a config file before any code of this project runs. Of a syntax error it does not say where it is. A
wrong path, a mapping that holds itself and thousands of levels give a traceback, and `__use_yte__` lets Snakemake run
Python code in the file. This check only parses the file, and says in one line what is wrong and where.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from espalier.config.duplicate_keys import find_duplicate_keys
from espalier.config.load import DEEPEST, load_study
from espalier.config.study import StudyConfig
from espalier.errors import UserError

RUNS_CODE = "__use_yte__"


def check_file(path: str | Path) -> StudyConfig:
    """Read a config file, and validate its content.

    Raises:
        UserError: If there are problems, with one line for each.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{str(path)[:200]}: cannot be read ({error.strerror}); give the path of a config file"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error.reason}); save the file as UTF-8") from None
    if RUNS_CODE in text:
        raise UserError(f"{path}: has the key {RUNS_CODE}, so Snakemake runs Python code in it; write plain YAML")
    content = _parse(path, text)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no keys at its top; write `key: value` lines, as in config/config.yaml")
    if repeated := find_duplicate_keys([path]):
        raise UserError("\n".join(repeated))
    return load_study(content)


def _parse(path: Path, text: str) -> Any:
    """Parse JSON or YAML. YAML is read as events first: its library has no limit of levels but the stack of Python."""
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(_too_deep(path)) from None
    except ValueError:
        pass
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise UserError(_too_deep(path))
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: is neither JSON nor YAML ({_describe(error)}); correct it") from None


def _describe(error: yaml.YAMLError | ValueError) -> str:
    """Return the lines of a syntax error and what the parser found there, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())[:300]
    first, last = (mark.line + 1 for mark in (error.context_mark or error.problem_mark, error.problem_mark))
    lines = f"line {last}" if first == last else f"lines {first} to {last}"
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    hint = "; YAML is indented with spaces, not with tabs" if "'\\t'" in problem else ""
    return f"{lines}: {problem[:200]}{hint}"


def _too_deep(path: Path) -> str:
    return f"{path}: has over {DEEPEST} levels of lists and mappings within each other; correct it"


def main(arguments: Sequence[str]) -> int:
    """Print the problems of a config file; return the exit status, which is 1 if there are any."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m espalier.config.check FILE\n")
        return 2
    try:
        study = check_file(arguments[0])
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{os.path.relpath(arguments[0])}: a valid config of study {study.study}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Records of failed jobs: one file for each rule and its wildcards.

For example, `{folder}/failures/plan/A/random-p20.json` belongs to rule `plan` with the wildcards `A` and `random-p20`.
The folder is `results/{study}`, or `cache` for rules that stage. A job that succeeds removes only its own record.

Version 0.1.0 wrote one file for both the plan and the evaluation of an experiment,
`failures/{model}/{experiment}.json`, and one for its recovery, `recovered/{model}/{experiment}/failure.json`. Both are
still read (`older_file`).

This module imports only the standard library, because every job imports it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

_OLDER = {
    "plan": "failures/{}/{}.json",
    "evaluate": "failures/{}/{}.json",
    "evaluate_baseline": "failures/{}/baseline.json",
    "recover": "recovered/{}/{}/failure.json",
    "evaluate_recovered": "recovered/{}/{}/failure.json",
}


def failure_file(folder: str | Path, rule: str, wildcards: Sequence[str]) -> Path:
    """Return the file in which a job records why it failed.

    Args:
        folder: `results/{study}` or `cache`.
        rule: Name of the rule, without the prefix that a module import may give it.
        wildcards: Values of its wildcards, in the order of its output path.
    """
    *parents, last = (rule, *wildcards)
    return Path(folder, "failures", *parents, f"{last}.json")


def older_file(folder: str | Path, rule: str, wildcards: Sequence[str]) -> Path | None:
    """Return the file in which version 0.1.0 recorded a failure; None for rules without such a record."""
    pattern = _OLDER.get(rule)
    return Path(folder, pattern.format(*wildcards)) if pattern else None


def read_failure(path: Path) -> dict[str, str] | None:
    """Read the record of a failure; None if there is none.

    Its keys are `reason` and `log`, and `rule` and `wildcards` unless version 0.1.0 wrote it. All values are strings. A
    file that cannot be read counts as a failure of unknown reason, so that no failure is hidden.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in content.items()} | {"reason": str(content["reason"])}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {"reason": f"{path}: is not a complete record of a failure; see the log of the job"}

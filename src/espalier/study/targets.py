"""The public targets of the workflow: rules without output files. Users request them by name."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Iterable
from typing import Any

logger = logging.getLogger("snakemake.logging")
_WHY_EMPTY = {
    "gradients": "no method of the grid reads the calibration text",
    "legacy": "no model of the config has the key `legacy`",
    "stage": "no model, task or text of the config comes from a hub",
}
"""Why a target of this name collects no files."""


def collecting_rules(rules: Iterable[Any]) -> frozenset[str]:
    """Return the names of the rules that only collect files, so that their jobs do nothing.

    Args:
        rules: Rules of the workflow, as Snakemake has them.
    """
    return frozenset(rule.name for rule in rules if rule.norun)


def _is_target(rule: Any) -> bool:
    return not rule.output


def list_targets_first(workflow: Any) -> None:
    """Make `snakemake --list` print the public targets first, and the rules that make single files after them.

    Args:
        workflow: Snakemake's workflow. Call this while the Snakefile is read.
    """

    def list_rules(*, only_targets: bool = False) -> None:
        rules = sorted(workflow.rules, key=lambda rule: rule.name)
        targets = [rule for rule in rules if _is_target(rule)]
        _print_rules("Targets:", targets)
        if not only_targets:
            others = [rule for rule in rules if not _is_target(rule)]
            _print_rules("\nRules that make single files, which you request by their paths:", others)

    workflow.list_rules = list_rules


def check_targets(requested: Collection[str], rules: Iterable[Any]) -> None:
    """Reject a requested rule that needs wildcards or does not exist, and a config file in place of a target.

    Args:
        requested: Targets on the command line. Those that look like other files are not checked.
        rules: Rules of the workflow, as Snakemake has them.

    Raises:
        SystemExit: With one line for the first such target.
    """
    rules = list(rules)
    outputs = {str(file) for rule in rules for file in rule.output}
    for name in requested:
        if name.endswith((".yaml", ".yml")) and name not in outputs:
            raise SystemExit(f"{name}: is a config file, not a target; give it after --configfile")
    targets = sorted(rule.name for rule in rules if _is_target(rule))
    needs_wildcards = {rule.name: rule.has_wildcards() for rule in rules}
    for name in requested:
        if "/" in name or "." in name or needs_wildcards.get(name) is False:
            continue
        close = difflib.get_close_matches(name, targets, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"targets are {', '.join(targets)}"
        problem = "makes files of single models or experiments" if name in needs_wildcards else "is no target"
        raise SystemExit(f"{name}: {problem}; {hint} (`snakemake --list` lists all; the path of an output also works)")


def warn_of_empty_targets(requested: Collection[str], rules: Iterable[Any]) -> None:
    """Log a line for each requested target for which the config gives nothing to do.

    Snakemake runs an empty job and says nothing.

    Args:
        requested: Targets on the command line.
        rules: Rules of the workflow, as Snakemake has them.
    """
    for rule in rules:
        if rule.name in requested and rule.norun and not rule.input:
            why = _WHY_EMPTY.get(rule.name, "the config has nothing of this kind")
            logger.warning(f"{rule.name}: nothing to do: {why}")  # noqa: G004 (its handler ignores arguments)


def _print_rules(title: str, rules: Iterable[Any]) -> None:
    print(title)  # noqa: T201 (the list is the output of `snakemake --list`)
    for rule in rules:
        print(f"  {rule.name:24} {rule.docstring or ''}".rstrip())  # noqa: T201

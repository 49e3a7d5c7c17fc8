"""Compare the inputs of a job with the checksums that other jobs recorded when they wrote them.

Readers verify the checksums that files carry themselves. This check also finds files that carry none, and files that
were exchanged with an intact file of another job, before a job computes anything from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from espalier.errors import UserError
from espalier.results.verify import problems_of_output, record_file
from espalier.study.paths import PATTERNS

_WILDCARD = re.compile(r"\\\{\w+\\\}")


def check_inputs(results: str | Path, inputs: Iterable[str | Path]) -> None:
    """Compare input files and folders with the records of the jobs that wrote them.

    Inputs outside of `results` and inputs without a record, such as results of earlier versions, are not compared.

    Raises:
        UserError: If inputs are damaged, with one line for each that names the remedy.
    """
    own = dict.fromkeys(path for path in map(Path, inputs) if path.is_relative_to(results))
    problems = [line for path in own for line in _problems(Path(results), path)]
    if problems:
        raise UserError("\n".join(problems))


def _problems(results: Path, path: Path) -> Iterator[str]:
    for record in _records(results, path.relative_to(results).as_posix()):
        if record.is_file():
            yield from problems_of_output(results, record, path)


def _records(results: Path, name: str) -> Iterator[Path]:
    """Yield the records that may have an output, by its path in the results."""
    for output, pattern in _expressions().items():
        if match := pattern.fullmatch(name):
            yield record_file(results, output.partition(".")[0], match.groups())


@cache
def _expressions() -> dict[str, re.Pattern[str]]:
    """Return a regular expression for the paths of each output in the results, with a group for each wildcard."""
    return {
        output: re.compile(_WILDCARD.sub("([^/]+)", re.escape(pattern.removeprefix("<results>/"))))
        for output, pattern in PATTERNS.items()
        if pattern.startswith("<results>/")
    }

"""Compare the files of a study with the checksums that its jobs recorded: `python -m espalier.results.verify FOLDER`.

A job that succeeds writes the size and SHA-256 of each of its output files to
`results/{study}/checksums/{rule}/{wildcards}.json`, with the names of the study and of this file. Readers verify the
checksums that files carry themselves, but not every file can carry one (pages, figures, exported models), and not every
file is read again. This check covers all.

Every job imports this module, so it imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from espalier.errors import UserError
from espalier.files import read_json, size_and_sha256, write_result

RECORDS = "checksums"
BEST_EXPERIMENT = "global_best_config.json"
_OUTPUTS, _STUDY, _JOB = "outputs", "study", "job"


def record_file(results: str | Path, rule: str, wildcards: Sequence[str]) -> Path:
    """Return the file in which a job records the checksums of its outputs.

    Args:
        results: `results/{study}`.
        rule: Name of the rule, without the prefix that a module import may give it.
        wildcards: Values of its wildcards, in the order of its output path.
    """
    *parents, last = (rule, *wildcards)
    return Path(results, RECORDS, *parents, f"{last}.json")


def record_outputs(results: str | Path, rule: str, wildcards: Sequence[str], outputs: Iterable[str | Path]) -> None:
    """Record size and SHA-256 of the files of a job that succeeded. Outputs outside of `results` are left out.

    If the record cannot be written, there is none: the files then count as unknown, not as damaged.

    Raises:
        OSError: If the record of the earlier outputs cannot be deleted. It would call the new ones damaged.
    """
    own = [path for path in map(Path, outputs) if path.is_relative_to(results)]
    record = record_file(results, rule, wildcards)
    record.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        if own:
            content = {path.relative_to(results).as_posix(): _checksums(path) for path in own}
            job = record.relative_to(Path(results, RECORDS)).as_posix()
            write_result(record, {_STUDY: Path(results).resolve().name, _JOB: job, _OUTPUTS: content})


def read_best_experiment(path: str | Path) -> dict[str, Any]:
    """Read `consolidated/{model}/global_best_config.json`, and compare it with the checksum that its job recorded.

    The file itself has no checksum: expensive stages depend on its bytes, which older versions wrote without one. Files
    of older versions have no record either, and are not compared.

    Raises:
        UserError: If the file is damaged.
        FileNotFoundError: If the file does not exist.
    """
    path = Path(path)
    content: dict[str, Any] = read_json(path)
    results = path.parents[2]
    for problem in problems_of_output(results, record_file(results, "consolidate", (path.parent.name,)), path):
        raise UserError(problem)
    return content


def problems_of_output(results: str | Path, record: str | Path, output: str | Path) -> list[str]:
    """Compare an output with a record.

    Args:
        results: `results/{study}`.
        record: File of the record.
        output: Path of a file or folder in the results.

    Returns:
        One line with the remedy if the output is damaged, else nothing. An output that the record does not have, or
        that is missing, has no problem; neither has the output of a damaged record, which `verify` reports.
    """
    results, output, record = Path(results), Path(output), Path(record)
    with contextlib.suppress(UserError, OSError):
        found = _read_record(record)
        expected = found.outputs.get(output.relative_to(results).as_posix())
        if expected and output.exists():
            return list(_problems_of(output, expected, _origin(results, record, found)))
    return []


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        n_files: Number of files that were compared.
        problems: One line for each damaged output, with the remedy.
    """

    n_files: int
    problems: list[str]


def verify(results: str | Path) -> Verification:
    """Compare all files of a study with the records. An output that is missing is not a problem: the next run makes it.

    Raises:
        UserError: If the study has no records.
    """
    results = Path(results)
    records = sorted((results / RECORDS).rglob("[!.]*.json"))
    if not records:
        raise UserError(f"{results}: has no folder {RECORDS}/ with records; run snakemake first")
    n_files, problems = 0, []
    for record in records:
        try:
            found = _read_record(record)
        except (UserError, OSError) as error:
            problems.append(f"{record}: this record is damaged ({error}), and tells nothing about results; delete it")
            continue
        own = record.relative_to(results / RECORDS).as_posix()
        if found.job not in {None, own}:
            problems.append(f"{record}: this record is that of {RECORDS}/{found.job}; delete it")
        for name, expected in found.outputs.items():
            if (results / name).exists():
                n_files += len(expected)
                problems.extend(_problems_of(results / name, expected, _origin(results, record, found)))
    return Verification(n_files, problems)


class _Record(NamedTuple):
    """What a record has; the study and the job are None in records of earlier versions."""

    outputs: dict[str, dict[str, Any]]
    study: str | None
    job: str | None


def _read_record(path: Path) -> _Record:
    """Read a record.

    Raises:
        UserError: If it is damaged.
        OSError: If it cannot be read.
    """
    try:
        content = read_json(path)
        outputs = {
            output: {file: {key: found[key] for key in ("bytes", "sha256")} for file, found in files.items()}
            for output, files in content[_OUTPUTS].items()
        }
        return _Record(outputs, content.get(_STUDY), content.get(_JOB))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"it is no record of checksums: {type(error).__name__}") from None


def _origin(results: Path, record: Path, found: _Record) -> str:
    """Return a remark on a record of another study, from which its folder may have been copied, else nothing."""
    if found.study in {None, results.resolve().name}:
        return ""
    return f" in study {found.study} (if only {record} was copied from there, delete that file instead)"


def _checksums(output: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of each file of an output, by path in the folder; `.` is an output that is a file."""
    files = sorted(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else [output]
    return {path.relative_to(output).as_posix(): size_and_sha256(path) for path in files}


def _problems_of(output: Path, expected: dict[str, dict[str, Any]], origin: str) -> Iterator[str]:
    """Yield a line if an output is damaged. The remedy names the output: Snakemake knows no single files in it."""
    remedy = f"restore it, or delete {output} and run again"
    for name, checksum in expected.items():
        path = output / name
        try:
            found = size_and_sha256(path)
        except OSError as error:
            yield f"{path}: cannot be read ({error.strerror}); {remedy}"
            return
        if found != checksum:
            yield (
                f"{path}: has {found['bytes']} bytes and checksum {found['sha256'][:12]}, not {checksum['bytes']} and "
                f"{checksum['sha256'][:12]} as when it was written{origin}; {remedy}"
            )
            return


def main(arguments: Sequence[str]) -> int:
    """Print the damaged files of a study; return the exit status, which is 1 if there are any."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m espalier.results.verify results/STUDY\n")
        return 2
    try:
        found = verify(arguments[0])
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for line in found.problems:
        sys.stderr.write(f"{line}\n")
    sys.stdout.write(f"{found.n_files} files compared, {len(found.problems)} problems\n")
    return bool(found.problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

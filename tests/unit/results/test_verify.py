"""Damaged outputs of any form: the check names each, with a remedy that Snakemake follows up."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from espalier.errors import UserError
from espalier.files import read_json, write_json, write_result
from espalier.results import verify as module
from espalier.results.verify import main, read_best_experiment, record_file, record_outputs, verify

OUTPUTS = ("tables/a.parquet", "tables/b.parquet", "pages/index.html", "figures")
"""`figures` is a folder, which a rule declares as one output."""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Write the outputs of four jobs."""
    for number, output in enumerate(OUTPUTS):
        path = tmp_path / "results" / output
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes([number]) * 100)
        else:
            (path / "deep").mkdir(parents=True)
            (path / "one.svg").write_text("one")
            (path / "deep/two.svg").write_text("two")
        record_outputs(tmp_path / "results", "rule", (str(number),), [path])
    return tmp_path / "results"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)


def swap(path: Path) -> None:
    other = path.with_name("b.parquet")
    kept = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(kept)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, 99),
    "emptied": lambda path: os.truncate(path, 0),
    "flipped": flip,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
}


def test_sound_files_have_no_problem(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(results) == module.Verification(5, [])
    assert main([str(results)]) == 0
    assert capsys.readouterr().out == "5 files compared, 0 problems\n"


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("output", [name for name in OUTPUTS if Path(name).suffix])
def test_a_damaged_file_is_named_with_its_remedy(
    results: Path, output: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    DAMAGES[damage](results / output)
    (line,) = verify(results).problems
    assert line.startswith(f"{results / output}: has ")
    assert line.endswith(f"; restore it, or delete {results / output} and run again")
    assert main([str(results)]) == 1
    assert capsys.readouterr().err == f"{line}\n"
    (results / output).unlink()  # as the line says; the next run then makes the file
    assert verify(results).problems == []


def test_swapped_neighbours_are_both_named(results: Path) -> None:
    swap(results / "tables/a.parquet")
    assert [line.split(":")[0] for line in verify(results).problems] == [
        str(results / "tables/a.parquet"), str(results / "tables/b.parquet"),
    ]  # fmt: skip


@pytest.mark.parametrize("is_missing", [True, False], ids=["missing", "changed"])
def test_a_damaged_file_of_a_folder_is_named_and_the_remedy_is_the_folder(results: Path, *, is_missing: bool) -> None:
    """Snakemake would not miss a single file of an output that is a folder."""
    path = results / "figures/deep/two.svg"
    if is_missing:
        path.unlink()
    else:
        path.write_text("owt")
    (line,) = verify(results).problems
    assert line.startswith(f"{path}: {'cannot be read (No such file' if is_missing else 'has 3 bytes and checksum'}")
    assert line.endswith(f"; restore it, or delete {results / 'figures'} and run again")
    shutil.rmtree(results / "figures")
    assert verify(results).problems == []


def test_a_damaged_record_is_named_and_condemns_no_result(results: Path) -> None:
    record = record_file(results, "rule", ("1",))
    flip(record)
    (line,) = verify(results).problems
    assert line.startswith(f"{record}: this record is damaged (")
    assert line.endswith("delete it")


@pytest.mark.parametrize("content", [[], "x", {}, {"outputs": 1}, {"outputs": {"a": 1}}, {"outputs": {"a": {"b": {}}}}])
def test_a_file_that_is_no_record_is_named(results: Path, content: object) -> None:
    record = record_file(results, "rule", ("1",))
    write_json(record, content)
    (line,) = verify(results).problems
    assert line.startswith(f"{record}: this record is damaged (it is no record of checksums: ")
    assert line.endswith("delete it")


@pytest.mark.parametrize("is_copied", [True, False], ids=["copied", "exchanged"])
def test_records_in_the_place_of_others_are_named(results: Path, *, is_copied: bool) -> None:
    """Each compares the output of its own job, so without the name of the job both would seem right."""
    records = [record_file(results, "rule", (str(number),)) for number in range(2)]
    contents = [record.read_bytes() for record in records]
    records[0].write_bytes(contents[1])
    if not is_copied:
        records[1].write_bytes(contents[0])
    lines = [f"{records[0]}: this record is that of checksums/rule/1.json; delete it"]
    if not is_copied:
        lines.append(f"{records[1]}: this record is that of checksums/rule/0.json; delete it")
    assert verify(results).problems == lines
    for line in lines:
        Path(line.partition(":")[0]).unlink()
    assert verify(results).problems == []


def test_records_and_outputs_that_are_exchanged_together_are_all_named(results: Path) -> None:
    records = [record_file(results, "rule", (str(number),)) for number in range(2)]
    contents = [record.read_bytes() for record in records]
    for record, content in zip(records, reversed(contents), strict=True):
        record.write_bytes(content)
    swap(results / "tables/a.parquet")
    named = {line.partition(":")[0] for line in verify(results).problems}
    assert named == {str(path) for path in (*records, *(results / output for output in OUTPUTS[:2]))}


def test_records_of_earlier_versions_name_neither_study_nor_job(results: Path) -> None:
    for record in (results / "checksums").rglob("*.json"):
        content = read_json(record)
        write_result(record, {"outputs": content["outputs"]})
    assert verify(results) == module.Verification(5, [])
    flip(results / "tables/a.parquet")
    assert len(verify(results).problems) == 1


def test_a_record_of_another_study_is_said_to_be_one(results: Path) -> None:
    """A result must not be deleted because a record was copied. Records of a folder that was renamed still compare."""
    renamed = results.rename(results.with_name("renamed"))
    assert verify(renamed) == module.Verification(5, [])
    path = renamed / "tables/a.parquet"
    flip(path)
    (line,) = verify(renamed).problems
    record = record_file(renamed, "rule", ("0",))
    assert line.endswith(
        f" as when it was written in study results (if only {record} was copied from there, delete that file instead); "
        f"restore it, or delete {path} and run again"
    )
    record.unlink()
    assert verify(renamed) == module.Verification(4, [])


def test_a_study_without_records_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"has no folder checksums/ with records; run snakemake first"):
        verify(tmp_path)
    assert main([str(tmp_path)]) == 1
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_outputs_elsewhere_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    record_outputs(tmp_path / "results", "rule", (), [tmp_path / "elsewhere"])
    assert not (tmp_path / "results").exists()


def test_a_record_that_cannot_be_written_leaves_no_old_one(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old record would call the new file damaged."""

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_result", full_disk)
    (results / "tables/a.parquet").write_text("new")
    record_outputs(results, "rule", ("0",), [results / "tables/a.parquet"])
    assert verify(results) == module.Verification(4, [])


@pytest.mark.parametrize("is_recorded", [True, False], ids=["recorded", "older"])
def test_any_flipped_bit_of_the_best_experiment_is_refused(tmp_path: Path, *, is_recorded: bool) -> None:
    """Without a record, the file is of an older version: what is no JSON is refused, the rest cannot be known."""
    path = tmp_path / "consolidated/A/global_best_config.json"
    content = {"model": "A", "best": {"experiment": "x-p20", "acc_mean": 0.5}}
    write_json(path, content)
    if is_recorded:
        record_outputs(tmp_path, "consolidate", ("A",), [path])
    assert read_best_experiment(path) == content
    sound, refusals = path.read_bytes(), []
    for bit in range(8 * len(sound)):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            read_best_experiment(path)
        except UserError as error:
            refusals.append(str(error))
    assert all(line.startswith(f"{path}: ") for line in refusals)
    assert (len(refusals) == 8 * len(sound)) == is_recorded


def test_an_old_record_that_cannot_be_deleted_is_an_error(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would call the new file damaged in all later runs."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(PermissionError):
        record_outputs(results, "rule", ("0",), [results / "tables/a.parquet"])

"""Damaged result files are refused by name and with a remedy; results without checksums are read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from espalier.errors import UserError
from espalier.files import (
    CHECKSUM,
    atomic_folder,
    read_json,
    read_parquet,
    read_table,
    write_json,
    write_parquet,
    write_result,
    write_table,
)
from tests.conftest import REPOSITORY

CONTENT = {"name": "Zürich", "values": [0.1, 1e-300, 3], 5: {"nested": None}}


def test_a_result_reads_as_it_was_written(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", CONTENT)
    assert read_json(tmp_path / "a.json") == {"name": "Zürich", "values": [0.1, 1e-300, 3], "5": {"nested": None}}
    assert list(json.loads((tmp_path / "a.json").read_text(encoding="utf-8")))[-1] == CHECKSUM


def test_every_changed_digit_of_a_result_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_result(path, CONTENT)
    text = path.read_text(encoding="utf-8")
    for old, new in (("0.1", "0.2"), ("1e-300", "1e-301"), ("3\n", "4\n"), ("Zürich", "Zurich"), ("null", "true")):
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(
            UserError, match=r"a.json: its content has checksum \w{12}, not \w{12} .* delete it and run"
        ):
            read_json(path)


def test_a_damaged_name_of_the_checksum_is_found(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", CONTENT)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    (tmp_path / "a.json").write_text(text.replace(CHECKSUM, CHECKSUM.replace("s", "r", 1)), encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.json: the name of its checksum is damaged"):
        read_json(tmp_path / "a.json")


def test_a_result_without_checksum_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    assert read_json(tmp_path / "a.json") == {"x": 1}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_json_does_not_have_are_refused(number: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'{{"acc": {number}}}', encoding="utf-8")
    with pytest.raises(UserError, match=rf"a.json: .*holds {number}, which is .* number.*; delete it and run again"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["[" * 100_000, f'{{"n": {"1" * 5000}}}', "\ufeff{}", '{"a": 1}{'])
def test_what_json_readers_cannot_read_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"a.json: is not complete JSON \(.*\); delete it and run again$"):
        read_json(tmp_path / "a.json")


def test_half_a_result_is_refused(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", CONTENT)
    text = (tmp_path / "a.json").read_bytes()
    (tmp_path / "a.json").write_bytes(text[: len(text) // 2])
    with pytest.raises(UserError, match=r"a.json: is not complete JSON .*; delete it and run again"):
        read_json(tmp_path / "a.json")


def test_single_flipped_bits_of_a_table_are_found(tmp_path: Path) -> None:
    """At most 3 of 300 random bit flips go unnoticed: those in the footer, which has no checksum."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"task": ["piqa", "boolq"] * 1000, "loglikelihood": draw.normal(size=2000)})
    path = tmp_path / "a.parquet"
    write_table(path, frame)
    whole = path.read_bytes()
    silent = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[draw.integers(len(whole))] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        try:
            silent += not read_table(path).equals(frame)
        except UserError as error:
            assert "a.parquet: is not a complete Parquet file" in str(error)  # noqa: PT017
    assert silent <= 3


def test_equal_tables_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, pd.DataFrame({"x": [1, 2]}))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_parquet(tmp_path / "c", read_parquet(tmp_path / "a"))
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()


def test_a_large_table_is_read_as_it_was_written_and_is_smaller(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "group": np.arange(20_000), "count": rng.integers(-5, 5, size=20_000), "name": "mlp", "right": True,
            "value": rng.lognormal(size=20_000).astype(np.float32).astype(np.float64), "infinite": -np.inf,
        }
    ).astype({"name": "string"})  # fmt: skip
    write_table(tmp_path / "plain", frame)
    write_table(tmp_path / "large", frame, is_large=True)
    pd.testing.assert_frame_equal(read_table(tmp_path / "large"), read_table(tmp_path / "plain"))
    assert (tmp_path / "large").stat().st_size < 0.7 * (tmp_path / "plain").stat().st_size


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, bool]] = []
    fsync = os.fsync

    def record(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        name = "new" if name.endswith(".part") else name
        flushed.append((name, (tmp_path / "a").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    write_json(tmp_path / "a", {})
    assert flushed == [("new", False), (tmp_path.name, True)]
    flushed.clear()
    (tmp_path / "a").unlink()
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "inner").write_text("x")
    assert flushed == [("inner", False), ("new", False), (tmp_path.name, True)]


def test_a_want_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the message would advise to delete a sound file."""
    write_parquet(tmp_path / "a", pa.table({"x": [1]}))
    errors = [pa.ArrowMemoryError("malloc of size 64 failed"), pa.ArrowException("Failed to launch worker thread")]

    def fail(*_: object, **__: object) -> None:
        raise errors[0]

    monkeypatch.setattr(pq, "ParquetFile", fail)
    while errors:
        with pytest.raises(type(errors[0])):
            read_parquet(tmp_path / "a")
        errors.pop(0)


WITHOUT_ROOM_FOR_A_THREAD = """
import resource, sys
import pyarrow.parquet
from espalier.files import read_parquet
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 2**20,) * 2)
try:
    print(read_parquet(sys.argv[1]).num_rows)
except MemoryError:
    print("no memory")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_table_is_read_where_no_thread_can_be_started(tmp_path: Path) -> None:
    """`pyarrow.parquet.read_table` starts threads, and may wait for ever for one that cannot be started."""
    write_parquet(tmp_path / "a", pa.table({"x": [1, 2, 3]}))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROOM_FOR_A_THREAD, str(tmp_path / "a")], capture_output=True, text=True,
        check=True, timeout=60, env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")},
    )  # fmt: skip
    assert done.stdout in {"3\n", "no memory\n"}

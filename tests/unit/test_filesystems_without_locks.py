"""Shared file systems without hard links or file locks, simulated by patched system calls."""

import errno
import fcntl
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from espalier import files
from espalier.files import (
    atomic_file,
    atomic_folder,
    link_or_copy,
    locked,
    read_parquet,
    try_lock,
    write_json,
    write_table,
)
from espalier.models import devices
from espalier.results.store import Store
from espalier.staging.lock import read_lock, write_lock
from tests.conftest import REPOSITORY

NO_LINKS = [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS]
LEASE_S = 3.0  # renewed every second; must not expire on a busy machine
NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]
HOLDER = """
import fcntl, socket, sys, time
from pathlib import Path

def no_locks(*_):
    raise OSError({number}, "no locks here")

fcntl.flock = no_locks
socket.gethostname = lambda: "another-host"
from espalier import files
files.LEASE_S = {lease_s}
lock = files.try_lock(Path(sys.argv[1]))
print(lock is not None, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def forget_warnings_and_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget which warnings were logged and which leases were seen."""
    monkeypatch.setattr(files, "_logged", set())
    monkeypatch.setattr(files, "_lease_mtimes", {})


def raise_error(number: int) -> Callable[..., None]:
    """Return a function that raises OSError with this errno."""

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.fixture(params=NO_LOCKS, ids=errno.errorcode.get)
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Simulate a mount without `flock` and without atomic exchange of two files (Lustre, NFS); return the errno."""
    monkeypatch.setattr(fcntl, "flock", raise_error(request.param))
    monkeypatch.setattr("filelock._soft.exchange_names", lambda *_: False)
    monkeypatch.setattr(files, "LEASE_S", LEASE_S)
    monkeypatch.setattr(files, "LOCK_POLL_S", 0.05)
    return request.param


@pytest.fixture
def lock_in_another_process(no_locks: int) -> Iterator[Callable[[Path], "subprocess.Popen[str]"]]:
    """Return a function that starts a process with another host name, which holds a lock until it is killed."""
    started = []

    def start(path: Path) -> "subprocess.Popen[str]":
        code = HOLDER.format(number=no_locks, lease_s=LEASE_S)
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], env=environment, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_file_is_linked_where_that_is_possible(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").samefile(tmp_path / "b")


@pytest.mark.parametrize("number", NO_LINKS, ids=errno.errorcode.get)
def test_without_links_files_are_copied_and_the_log_says_it_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`Store.deliver_evaluation` copies files where hard links fail, and logs one warning for all of them."""
    monkeypatch.setattr(os, "link", raise_error(number))
    store = Store(tmp_path / ".store")
    with store.new_entry("key") as folder:
        import pandas as pd

        write_table(folder / "samples.parquet", pd.DataFrame({"doc_id": [1, 2]}))
        write_json(folder / "metrics.json", {"acc": 1})
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            paths = {"metrics": tmp_path / name / "metrics.json", "samples": tmp_path / name / "samples.parquet"}
            store.deliver_evaluation("key", {"experiment": name}, **paths)
            assert read_parquet(paths["samples"]).num_rows == 2
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'a'}: no hard links here ({os.strerror(number)}); files are copied"
    ]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EEXIST, errno.EIO], ids=errno.errorcode.get)
def test_an_error_that_is_not_about_links_is_raised(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(os, "link", raise_error(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_copy_that_fails_leaves_no_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:1])
        raise OSError(errno.ENOSPC, "disk full")

    (tmp_path / "a").write_text("xyz")
    monkeypatch.setattr(os, "link", raise_error(errno.EPERM))
    monkeypatch.setattr(shutil, "copyfile", fill_disk)
    with pytest.raises(OSError, match="disk full"):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_missing_source_is_no_reason_to_copy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "a", tmp_path / "b")


def test_without_locks_a_lease_keeps_others_out_and_the_log_says_it_once(
    no_locks: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", raise_error(errno.EPERM))  # a lease needs no links
    with caplog.at_level(logging.WARNING):
        with locked(tmp_path / "x.lock") as held, locked(tmp_path / "x.lock", wait=False) as twice:
            assert (held, twice) == (True, False)
            with locked(tmp_path / "y.lock", wait=False) as other:
                assert other
        with locked(tmp_path / "x.lock", wait=False) as again:
            assert again
    (line,) = [record.message for record in caplog.records if record.name == "espalier.files"]
    assert line.startswith(f"{tmp_path}: no file locks here (")
    assert line.endswith("; leases of 3 s take their place")


@pytest.mark.parametrize("no_locks", [errno.ENOLCK], indirect=True)
def test_a_lease_of_a_process_that_lives_is_respected(
    lock_in_another_process: Callable[[Path], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    lock_in_another_process(tmp_path / "x.lock")
    until = time.monotonic() + 1.5 * LEASE_S
    while time.monotonic() < until:
        assert try_lock(tmp_path / "x.lock") is None
        time.sleep(0.1)


@pytest.mark.parametrize("no_locks", [errno.ENOLCK], indirect=True)
def test_a_lease_of_a_process_that_was_killed_elsewhere_is_taken_over(
    lock_in_another_process: Callable[[Path], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    """A process on another host cannot be checked, so its lease is taken over after it has expired."""
    process = lock_in_another_process(tmp_path / "x.lock")
    process.kill()
    process.wait()
    began = time.monotonic()
    assert try_lock(tmp_path / "x.lock") is None
    with locked(tmp_path / "x.lock") as held:
        assert held
    assert 0.9 * LEASE_S < time.monotonic() - began < 10 * LEASE_S


@pytest.mark.parametrize("no_locks", [errno.ENOLCK], indirect=True)
def test_a_killed_job_keeps_nobody_from_the_lock_file_of_the_cache(
    lock_in_another_process: Callable[[Path], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    process = lock_in_another_process(tmp_path / ".lock.yaml.lock")
    process.kill()
    process.wait()
    write_json(tmp_path / "datasets/boolq.json", {"task": "boolq", "commits": {"x/boolq": "abc"}, "files": {}})
    write_lock(tmp_path / "lock.yaml")
    assert read_lock(tmp_path / "lock.yaml")["tasks"] == {"boolq": {"commits": {"x/boolq": "abc"}, "files": {}}}


def test_gpus_are_shared_out_without_locks(no_locks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VISIBLE_DEVICES_VARIABLE, "0,1")
    for name in devices.SCHEDULERS:
        monkeypatch.delenv(name, raising=False)
    try:
        assert devices.lock_gpus(1, n_present=0, folder=tmp_path) == ["0"]
        assert devices._try_to_lock(2, ["0", "1"], tmp_path) == []
        other = devices._try_to_lock(1, ["0", "1"], tmp_path)
        assert other == ["1"]
    finally:
        devices.release_gpus()
    assert not list(tmp_path.glob("*.lease"))


def test_a_lock_that_fails_for_another_reason_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", raise_error(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        try_lock(tmp_path / "x.lock")


def write_folder_repeatedly(folder: Path, key: str, text: str) -> None:
    """Write a folder 30 times, as each of two processes does that hold the same lease by mistake."""
    for _ in range(30):
        with atomic_folder(folder / key) as new:
            for number in range(5):
                (new / str(number)).write_text(text)


def test_two_processes_that_write_one_folder_leave_a_whole_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_folder_repeatedly, args=(tmp_path, "key", text)) for text in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len({path.read_text() for path in (tmp_path / "key").iterdir()}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_folder_that_is_there_stays_until_the_new_one_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any moment, a complete old or new folder exists; between the two renames it has a temporary name."""
    path = tmp_path / "results"
    with atomic_folder(path) as folder:
        (folder / "old").touch()
    seen = []

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def watch(*args: Any, **kwargs: Any) -> Any:
            seen.append(sorted(file.name for file in tmp_path.rglob("*") if file.name in {"old", "new"}))
            return call(*args, **kwargs)

        return watch

    for name in ("rename", "rmdir", "unlink", "replace"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    with atomic_folder(path) as folder:
        (folder / "new").touch()
    monkeypatch.undo()
    assert len(seen) >= 3
    assert all(names[-1:] == ["old"] or "new" in names for names in seen)
    assert seen[0] == seen[1] == ["new", "old"]  # before the renames, both folders are complete
    assert [file.name for file in tmp_path.rglob("*")] == ["results", "new"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no"), KeyboardInterrupt("no")], ids=["error", "interrupt"])
def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results"
    with atomic_folder(path) as folder:
        (folder / "old").touch()
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(type(error), match="no"), atomic_folder(path) as folder:
        (folder / "new").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["results", "old"]


def test_an_old_folder_that_cannot_be_moved_back_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results"
    with atomic_folder(path) as folder:
        (folder / "old").touch()
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if target == path:
            raise OSError(errno.EIO, f"no: {self.suffix}")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match=r"no: \.part"), atomic_folder(path) as folder:
        (folder / "new").touch()
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith(".results.")
    assert kept.suffix == ".old"
    assert [file.name for file in kept.iterdir()] == ["old"]


def test_processes_of_equal_number_on_two_hosts_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    """Temporary names have a random part, because processes on two hosts may have the same id."""
    with atomic_file(tmp_path / "x") as one, atomic_file(tmp_path / "x") as other:
        assert one != other
        one.write_text("1")
        other.write_text("2")
    with atomic_folder(tmp_path / "y") as one, atomic_folder(tmp_path / "y") as other:
        assert one != other

"""The lock of a study's results. Each run is its own process, because a lock ends with its process."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.study import study_lock
from espalier.study.study_lock import LOCK, lock_results
from tests.conftest import REPOSITORY

HOLD = """
import sys, time
from espalier.study.study_lock import lock_results
lock_results(sys.argv[1])
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


def start(results: Path, seconds: float) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(results), str(seconds)], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    first = start(tmp_path / "s", 60)
    assert first.stdout is not None
    assert first.stdout.readline() == "locked\n"
    with pytest.raises(SystemExit, match=rf"another run writes these results \(host .*, process {first.pid}, since 20"):
        lock_results(tmp_path / "s")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (tmp_path / "s" / LOCK).exists()
    second = start(tmp_path / "s", 0)  # the killed run left its lock behind
    assert second.wait(timeout=60) == 0
    assert not (tmp_path / "s" / LOCK).exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"host": "elsewhere", "pid": 1, "since": "noon"}, r"host elsewhere, process 1, since noon\); wait for it, or"),
        ([], "host None"),
    ],
)
def test_locks_of_other_hosts_and_unreadable_ones_stay(tmp_path: Path, content: object, line: str) -> None:
    (tmp_path / LOCK).write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=line):
        lock_results(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text()) == content


def test_a_process_number_that_is_in_use_again_is_stale(tmp_path: Path) -> None:
    content = {"host": socket.gethostname(), "pid": os.getpid(), "process_start": 0.0}
    (tmp_path / LOCK).write_text(json.dumps(content))
    assert start(tmp_path, 0).wait(timeout=60) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line_and_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path.open

    def open_on_full_disk(path: Path, mode: str = "r", **rest: str) -> object:
        if mode != "x":
            return own(path, mode, **rest)
        path.touch(exist_ok=False)
        return own(Path("/dev/full"), "w", **rest)

    monkeypatch.setattr(Path, "open", open_on_full_disk)
    with pytest.raises(SystemExit, match=r"cannot be written \(No space left on device\); make room and"):
        lock_results(tmp_path)
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("has_stale_lock", [True, False], ids=["stale", "new"])
def test_a_read_only_folder_is_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_stale_lock: bool
) -> None:
    """What root may write does not depend on permission bits, so access is simulated."""

    def refuse(one: Path, *_: object, **__: object) -> None:
        if has_stale_lock:
            raise FileExistsError(17, "File exists", str(one))
        raise PermissionError(13, "Permission denied", str(one))

    def refuse_to_delete(one: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(one))

    monkeypatch.setattr(os, "access", lambda _, mode: mode == os.R_OK)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse_to_delete)
    monkeypatch.setattr(study_lock, "_is_stale", lambda _: True)
    with pytest.raises(SystemExit) as refused:
        lock_results(tmp_path)
    remedy = "make it writable (`chmod u+w`) and run again"
    assert str(refused.value) == f"{tmp_path}: cannot be written (Permission denied); {remedy}"


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    for results in ("results", "results/study"):
        with pytest.raises(SystemExit, match=rf"^{tmp_path}/results: is not a folder; move it away and run again$"):
            lock_results(tmp_path / results)

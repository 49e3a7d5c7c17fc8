"""Parallel jobs take different GPUs. The tests need no GPU: a job takes a device by locking a file."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.errors import UserError
from espalier.models import devices
from espalier.models.devices import lock_gpus, release_gpus, visible_devices
from tests.conftest import REPOSITORY

JOB = """
import sys
from pathlib import Path
from espalier.models.devices import lock_gpus
print(*lock_gpus(int(sys.argv[1]), n_present=0, folder=Path(sys.argv[2])), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (devices.VISIBLE_DEVICES_VARIABLE, *devices.SCHEDULERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "GPU_POLL_S", 0.02)
    yield
    release_gpus()


class Job:
    """A process that takes devices and holds them until it is killed."""

    def __init__(self, count: int, folder: Path, names: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, str(count), str(folder)],
            env={**os.environ, devices.VISIBLE_DEVICES_VARIABLE: names, "PYTHONPATH": str(REPOSITORY / "src")},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def devices(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def test_parallel_jobs_take_different_devices_and_a_killed_one_gives_back(tmp_path: Path) -> None:
    jobs = [Job(1, tmp_path, "4,5") for _ in range(2)]
    taken = [job.devices() for job in jobs]
    assert sorted(taken) == [["4"], ["5"]]
    waiting = Job(1, tmp_path, "4,5")
    jobs[0].kill()  # SIGKILL: the job cannot release its lock
    assert waiting.devices() == taken[0]
    for job in (jobs[1], waiting):
        job.kill()


def test_a_job_of_two_devices_takes_both_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VISIBLE_DEVICES_VARIABLE, "0,1")
    other = Job(1, tmp_path, "0,1")
    held = other.devices()
    assert devices._try_to_lock(2, ["0", "1"], tmp_path) == []
    assert lock_gpus(1, n_present=0, folder=tmp_path) == [{"0": "1", "1": "0"}[held[0]]]  # the failed attempt kept none
    release_gpus()
    other.kill()
    monkeypatch.setenv(devices.VISIBLE_DEVICES_VARIABLE, "0,1")
    assert lock_gpus(2, n_present=0, folder=tmp_path) == ["0", "1"]


def test_what_the_user_or_a_scheduler_set_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VISIBLE_DEVICES_VARIABLE, "2")
    assert lock_gpus(1, n_present=8, folder=tmp_path) == ["2"]
    release_gpus()
    monkeypatch.setenv(devices.VISIBLE_DEVICES_VARIABLE, "3")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert lock_gpus(1, n_present=8, folder=tmp_path) == []
    assert os.environ[devices.VISIBLE_DEVICES_VARIABLE] == "3"


def test_local_jobs_share_out_a_larger_allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each allocation has its own folder of locks, because the same number may mean another device there."""
    monkeypatch.setenv(devices.VISIBLE_DEVICES_VARIABLE, "0,1")
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert lock_gpus(1, n_present=8) == ["0"]
    release_gpus()
    (folder,) = tmp_path.iterdir()
    assert folder.name.endswith("-7")


def test_a_job_sees_only_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VISIBLE_DEVICES_VARIABLE, "")  # restored after the test
    monkeypatch.delenv(devices.VISIBLE_DEVICES_VARIABLE)
    assert lock_gpus(1, n_present=3, folder=tmp_path) == ["0"]
    assert os.environ[devices.VISIBLE_DEVICES_VARIABLE] == "0"


def test_nothing_is_taken_where_there_is_nothing_or_nothing_is_asked(tmp_path: Path) -> None:
    assert lock_gpus(1, n_present=0, folder=tmp_path) == []
    assert lock_gpus(0, n_present=2, folder=tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "writable by others"])
def test_a_folder_that_others_can_change_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    if kind == "link":
        folder.symlink_to(tmp_path, target_is_directory=True)
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(UserError, match="is no folder of this user alone, so GPUs cannot be locked in it; delete it"):
        lock_gpus(1, n_present=2, folder=folder)


def test_more_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"asks for 3 GPUs, but only 2 are visible \(0, 1\); lower models\[\].gpus or"):
        lock_gpus(3, n_present=2, folder=tmp_path)


@pytest.mark.parametrize(
    ("value", "names"), [("0, 1", ["0", "1"]), ("", []), ("-1", []), ("GPU-8f,MIG-3", ["GPU-8f", "MIG-3"])]
)
def test_visible_devices(value: str, names: list[str]) -> None:
    assert visible_devices({devices.VISIBLE_DEVICES_VARIABLE: value}, 4) == names

"""Whatever dies at whatever moment: finished work stays, nothing half-written is read, tables come out equal."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from espalier.files import read_json
from tests.conftest import HANG_S, REPOSITORY, Run, job_counts
from tests.workflow.conftest import copy_planned

pytestmark = pytest.mark.long

TARGET = "consolidated"
N_KILLS = 6


def write_study(folder: Path, study: dict[str, Any]) -> None:
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start snakemake in a process group of its own, so that it can be killed with all its jobs."""
    # A process that a script starts in the background ignores SIGINT, and so would all that it starts.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "snakemake", TARGET]
    command += ["--snakefile", str(REPOSITORY / "Snakefile")]
    return subprocess.Popen(
        [*command, "--configfile", "study.yaml", *arguments],
        cwd=folder, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def finish(snakemake: Run, folder: Path) -> str:
    snakemake("--unlock", "--configfile", "study.yaml", directory=folder)
    done = snakemake(TARGET, "--configfile", "study.yaml", directory=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    found = folder / "results/tiny/consolidated"
    return {name: pd.read_parquet(found / f"{name}.parquet") for name in ("experiments", "evaluations", "layers")}


def assert_same_tables(folder: Path, expected: dict[str, pd.DataFrame]) -> None:
    for name, table in tables(folder).items():
        pd.testing.assert_frame_equal(table, expected[name], check_exact=True, obj=name)


def evaluated(folder: Path) -> dict[str, int]:
    """Finished evaluations of experiments, whole folders of the store, with the time they were written."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in (folder / "results/tiny").rglob("*/.store/*/metrics.json")
        if not path.parent.name.startswith(".") and read_json(path)["recipe"]["settings"]["plan"] is not None
    }


def stored(folder: Path) -> dict[str, int]:
    """Everything in the stores, passes and the unpruned model too, with the time it was written."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in (folder / "results/tiny").rglob("*/.store/*/checksums.json")
        if not path.parent.name.startswith(".")
    }


def with_more_experiments(study: dict[str, Any]) -> dict[str, Any]:
    study["grid"] |= {"pruning_ratio": [0.1, 0.2, 0.3], "taylor_num_samples": [2, 3]}
    study["evaluation"]["experiments_per_job"] = 3
    return study


@pytest.fixture(scope="module")
def undisturbed(tiny_run: Path, snakemake: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The tables of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_study(folder, with_more_experiments(copy_planned(tiny_run, folder)))
    finish(snakemake, folder)
    return tables(folder)


@pytest.fixture
def from_nothing(study: dict[str, Any], tmp_path: Path) -> None:
    """The study with more experiments in `tmp_path`; nothing is computed."""
    write_study(tmp_path, with_more_experiments(study))


@pytest.fixture
def planned(planned_study: dict[str, Any], tmp_path: Path) -> None:
    """The study with more experiments in `tmp_path`; its model and its text are known, no experiment is evaluated."""
    write_study(tmp_path, with_more_experiments(planned_study))


@pytest.mark.usefixtures("from_nothing")
def test_killed_at_random_moments(undisturbed: dict[str, pd.DataFrame], tmp_path: Path, snakemake: Run) -> None:
    moments = random.Random(7)
    for _ in range(N_KILLS):
        before = stored(tmp_path)
        process = start(tmp_path)
        time.sleep(moments.uniform(2, 16))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        after = stored(tmp_path)
        assert {key: after.get(key) for key in before} == before, "a finished pass or evaluation was lost or redone"
        for path in (tmp_path / "results/tiny").rglob("*.json"):
            read_json(path)  # whole, or not there
        snakemake("--unlock", "--configfile", "study.yaml", directory=tmp_path)
    before = stored(tmp_path)
    finish(snakemake, tmp_path)
    assert {key: time for key, time in stored(tmp_path).items() if key in before} == before
    assert_same_tables(tmp_path, undisturbed)
    left = list((tmp_path / "results").rglob(".*.part"))
    assert len(left) <= 2 * N_KILLS  # rests of killed jobs, which nothing reads


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize(("number", "n_left"), [(signal.SIGTERM, 8), (signal.SIGINT, 9)])
def test_a_workflow_that_is_told_to_stop_ends_after_the_evaluations_at_hand(
    number: signal.Signals, n_left: int, tmp_path: Path, snakemake: Run
) -> None:
    """Each job would evaluate three experiments: it finishes the one that it is at.

    After SIGINT Snakemake forgets the job, whose evaluation is in the store: the job runs again and hands it over.
    """
    process = start(tmp_path, "--cores", "1")
    wait_for_script(process, "evaluate.py")
    os.kill(process.pid, number)
    _, printed = process.communicate(timeout=HANG_S)
    assert process.returncode != 0
    assert len(evaluated(tmp_path)) == 1
    assert "the workflow was told to stop, so no other experiment is begun" in printed
    assert "Traceback" not in printed
    assert not list((tmp_path / ".snakemake").glob("espalier-stop-*"))
    snakemake("--unlock", "--configfile", "study.yaml", directory=tmp_path)
    planned = snakemake("-n", TARGET, "--configfile", "study.yaml", directory=tmp_path)
    assert job_counts(planned.stdout)["evaluate"] == n_left


@pytest.mark.usefixtures("planned")
def test_ctrl_c_prints_one_line_for_each_job(tmp_path: Path) -> None:
    """On a terminal everything that runs gets SIGINT."""
    logs = tmp_path / "results/tiny/logs/evaluate/A"
    shutil.rmtree(logs)
    process = start(tmp_path, "--cores", "1")
    while process.poll() is None and not (logs.is_dir() and any(logs.iterdir())):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=HANG_S)
    assert process.returncode != 0
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if "interrupted" in line]
    assert line.startswith("[evaluate A ")


@pytest.mark.usefixtures("planned")
def test_a_job_that_is_killed_stops_no_other(
    undisturbed: dict[str, pd.DataFrame], tmp_path: Path, snakemake: Run
) -> None:
    """As the kernel kills a job for its memory: SIGKILL to one process. The driver says so and records it."""
    process = start(tmp_path)
    os.kill(wait_for_script(process, "evaluate.py"), signal.SIGKILL)
    _, printed = process.communicate(timeout=HANG_S)
    assert process.returncode != 0
    assert (tmp_path / "results/tiny/baseline/A/metrics.json").is_file()
    line, at_the_end = [line for line in printed.splitlines() if "was killed, most likely for want of memory" in line]
    assert line.startswith("[evaluate A ")
    assert at_the_end.startswith("  evaluate A ")
    assert printed.splitlines().index("Failed jobs:") == printed.splitlines().index(at_the_end) - 1
    (record,) = (tmp_path / "results/tiny/failures/evaluate/A").glob("*.json")
    assert read_json(record)["reason"] in line
    finish(snakemake, tmp_path)
    assert not record.exists()
    assert_same_tables(tmp_path, undisturbed)


def wait_for_script(process: subprocess.Popen[str], script: str) -> int:
    """Wait until a job runs a script; return its process."""
    deadline = time.monotonic() + HANG_S
    while process.poll() is None and time.monotonic() < deadline:
        for found in processes_of_group(process.pid, script):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{script} did not run")


def processes_of_group(group: int, script: str) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if os.getpgid(int(folder.name)) == group and any(word.decode().endswith(script) for word in words):
                yield int(folder.name)
        except (OSError, ProcessLookupError):
            continue


@pytest.mark.usefixtures("planned")
def test_two_runs_on_one_folder(undisturbed: dict[str, pd.DataFrame], tmp_path: Path, snakemake: Run) -> None:
    first = start(tmp_path)
    locks = tmp_path / ".snakemake/locks"
    while not (locks.is_dir() and any(locks.iterdir())) and first.poll() is None:
        time.sleep(0.05)
    second = snakemake(TARGET, "--configfile", "study.yaml", directory=tmp_path)
    assert second.returncode != 0
    assert "lock" in second.stderr.lower()
    first.communicate(timeout=HANG_S)
    assert first.returncode == 0
    assert_same_tables(tmp_path, undisturbed)


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize("target", [TARGET, "partial_reports"])
def test_a_lock_of_another_host_is_one_line_with_its_remedy(target: str, tmp_path: Path, snakemake: Run) -> None:
    """A run that was killed on another host leaves its lock behind. Only the user can know that it is dead."""
    lock = tmp_path / "results/tiny/.run-lock.json"
    lock.write_text('{"host": "elsewhere", "pid": 1, "since": "noon"}')
    snakemake("--unlock", "--configfile", "study.yaml", directory=tmp_path)
    done = snakemake(target, "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode != 0
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "another run writes these results" in line]
    assert line.endswith("delete results/tiny/.run-lock.json if that run is dead")
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("planned")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk(undisturbed: dict[str, pd.DataFrame], tmp_path: Path, snakemake: Run) -> None:
    """Evaluations fill a file system. Jobs fail in one line, and succeed once there is space."""
    results = tmp_path / "results"
    planned = results.rename(tmp_path / "planned")
    n_bytes = sum(
        -(-path.stat().st_size // 4096) * 4096 for path in planned.rglob("*") if path.is_file()
    )  # whole pages
    size = f"size={n_bytes // 1024 + 40}k"
    results.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", results], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        shutil.copytree(planned, results, dirs_exist_ok=True)
        done = snakemake(TARGET, "--configfile", "study.yaml", directory=tmp_path)
        assert done.returncode != 0
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=50m", results], check=True)
        finish(snakemake, tmp_path)
        assert_same_tables(tmp_path, undisturbed)
    finally:
        subprocess.run(["umount", results], check=True)

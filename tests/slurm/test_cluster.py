"""The sandbox sweep on a real Slurm: one sweep, one killed Snakemake, one lost node."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from espalier.files import read_json
from tests.conftest import REPOSITORY
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.conftest import N_PLANS, RACED, Site

pytestmark = pytest.mark.slurm

# What the sweep makes; the reports hold times, the tables are compared bit by bit.
TARGET = "consolidated"
TABLES = ("experiments", "evaluations", "layers")
GPU_RULES = {"collect_gradients", "measure_priors", "evaluate", "evaluate_baseline"}
WAIT_S = 600.0  # for what takes seconds on an idle machine


@pytest.fixture(scope="module")
def sweep(site: Site) -> Site:
    """The study, run from nothing."""
    site.run(TARGET)
    return site


@pytest.fixture(scope="module")
def tables(sweep: Site) -> dict[str, pd.DataFrame]:
    """The tables of the undisturbed sweep."""
    return read_tables(sweep)


def read_tables(site: Site) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(site.results / f"consolidated/{name}.parquet") for name in TABLES}


def test_sweep_finishes_with_complete_tables(tables: dict[str, pd.DataFrame]) -> None:
    experiments = tables["experiments"]
    assert len(experiments) == N_PLANS + 1  # and the unpruned model
    assert experiments.acc_mean.notna().all()


def test_every_job_ran_on_slurm_and_short_ones_together(sweep: Site) -> None:
    scripts = sweep.scripts()
    assert {node for _, _, node, _ in scripts} <= {"n1", "n2"}
    plans = [job for rule, job, _, _ in scripts if rule == "plan"]
    assert len(plans) == N_PLANS
    assert len(set(plans)) == 1  # one submission
    alone = [job for rule, job, _, _ in scripts if rule in GPU_RULES]
    assert len(alone) == len(set(alone)) == N_PLANS + 3
    # One job runs both passes, one each two evaluations; the unpruned model may be evaluated before there are plans.
    assert len(gpu_jobs(sweep)) in {3, 4}
    # Members of a group run one after the other: it asks for what one of them needs, and for the sum of their minutes.
    group = next(job for job in sweep.cluster.jobs() if job["JobId"] == plans[0])
    assert (group["NumCPUs"], group["MinMemoryNode"]) == ("1", "1000M")
    assert group["TimeLimit"] == f"00:{2 * N_PLANS:02d}:00"


def test_jobs_that_run_models_see_one_gpu_and_others_none(sweep: Site) -> None:
    """Also a job of a rule that runs models sees none, if it only hands over a stored result."""
    jobs, with_gpu = {job["JobId"]: job for job in sweep.cluster.jobs()}, gpu_jobs(sweep)
    for rule, job, _, gpus in sweep.scripts():
        uses_gpu = job in with_gpu
        assert rule in GPU_RULES or not uses_gpu
        assert jobs[job].get("TresPerJob", "-") == ("gres:gpu:1" if uses_gpu else "-"), rule
        assert jobs[job]["Partition"] == ("gpu" if uses_gpu else "cpu"), rule
        assert gpus in ({"0", "1"} if uses_gpu else {"-"}), rule


def test_jobs_watch_for_a_file_in_the_folder_that_all_nodes_see(sweep: Site) -> None:
    """Snakemake makes it when it is told to stop; that jobs then begin nothing else, `test_faults` shows."""
    (file,) = sweep.stop_files()
    assert Path(file).parent == sweep.folder / ".snakemake"


def test_a_job_killed_for_memory_runs_again_with_more(sweep: Site) -> None:
    """Training asks for 400 MB here, in which torch and two Snakemake processes do not fit."""
    jobs = {job["JobId"]: job for job in sweep.cluster.jobs()}
    ids = [job for rule, job, _, _ in sweep.scripts() if rule == "train_sandbox_model"]
    assert len(ids) in {2, 3}
    assert [jobs[job]["JobState"] for job in ids] == [*["FAILED"] * (len(ids) - 1), "COMPLETED"]
    assert [jobs[job]["MinMemoryNode"] for job in ids] == ["400M", "800M", "1200M"][: len(ids)]
    (kept,) = sweep.folder.glob(f".snakemake/slurm_logs/rule_train_sandbox_model/**/{ids[0]}.log")
    assert "exceeded memory limit" in kept.read_text(encoding="utf-8")


def test_stored_results_queue_no_gpu_job(sweep: Site, tables: dict[str, pd.DataFrame]) -> None:
    """The files of all evaluations and passes are gone, and what is made of them, but the stores have them."""
    before = len(sweep.scripts())
    shutil.rmtree(sweep.results / "consolidated")
    for pattern in ("gradients/*/*/*.parquet", "importance/*/*/*/*.parquet", "priors/*/*/*.parquet",
                    "experiments/*/[!.]*/*", "baseline/*/*"):  # fmt: skip
        for path in sweep.results.glob(pattern):
            path.unlink()
    sweep.run(TARGET)
    rules = Counter(rule for rule, *_ in sweep.scripts()[before:])
    assert {rule: rules[rule] for rule in GPU_RULES} == {
        "collect_gradients": 1, "measure_priors": 1, "evaluate": N_PLANS, "evaluate_baseline": 1
    }  # fmt: skip
    assert gpu_jobs(sweep, since=before) == set()
    assert_same_tables(read_tables(sweep), tables)


def test_orphans_of_a_killed_snakemake_are_cancelled_by_the_recipe(sweep: Site, cluster: Cluster) -> None:
    """The next test, in the same folder, shows that the sweep then goes on."""
    forget_evaluations(sweep)
    before = len(sweep.scripts())
    with sweep.running(TARGET) as process:
        wait_until(lambda: bool(evaluations(sweep, before)), "an evaluation runs", WAIT_S)
        process.kill()
    assert cluster.ask("squeue", "--noheader")
    subprocess.run(["bash", "-euc", documented("scancel")], cwd=sweep.folder, env=sweep.environment, check=True)
    wait_until(lambda: not cluster.ask("squeue", "--noheader"), "no job is left", WAIT_S)
    sweep.run("--unlock")


def test_a_lost_node_costs_only_its_jobs(sweep: Site, cluster: Cluster, tables: dict[str, pd.DataFrame]) -> None:
    forget_evaluations(sweep)
    before = len(sweep.scripts())
    with sweep.running(TARGET) as process:
        wait_until(lambda: "n1" in {node for _, _, node, _ in evaluations(sweep, before)}, "a job runs on n1", WAIT_S)
        lost = cluster.lose_node("n1")
        assert lost
        wait_until(lambda: cluster.node_state("n1").startswith("DOWN"), "Slurm notices", WAIT_S)
        cluster.start_node("n1")
        sweep.finish(process)
    jobs = {int(job["JobId"]): job for job in cluster.jobs()}
    assert all(jobs[job]["Restarts"] == "1" for job in lost)  # by Slurm, under the same id
    assert_same_tables(read_tables(sweep), tables)


def test_one_job_or_two_run_a_race_and_the_others_hand_over(sweep: Site, tables: dict[str, pd.DataFrame]) -> None:
    """With the same study, raced. A second job needs a GPU if the race stopped the experiment of the first."""
    forget_evaluations(sweep)
    before = len(sweep.scripts())
    sweep.configure(RACED)
    sweep.run("evaluations")
    found = {path.parent.name: read_json(path) for path in sweep.results.glob("experiments/Llama/[!.]*/metrics.json")}
    assert len(found) == len(evaluations(sweep, before)) == N_PLANS
    assert 1 <= len(gpu_jobs(sweep, since=before)) < N_PLANS
    n_documents = {name: metrics["race"]["n_documents"] for name, metrics in found.items()}
    assert 120 in n_documents.values()
    assert set(n_documents.values()) <= {90, 120}
    decisions = list(sweep.results.glob("experiments/Llama/.store/race-*/rung-1.json"))
    assert len(decisions) == 1
    whole = tables["experiments"].set_index("experiment")["acc_mean"]
    for name in (name for name, n in n_documents.items() if n == 120):
        assert found[name]["acc_mean"]["value"] == whole[name]


def forget_evaluations(site: Site) -> None:
    shutil.rmtree(site.results / "consolidated", ignore_errors=True)
    shutil.rmtree(site.results / "experiments/Llama/.store", ignore_errors=True)
    for name in ("metrics.json", "samples.parquet"):
        for path in (site.results / "experiments").rglob(name):
            path.unlink()


def gpu_jobs(site: Site, since: int = 0) -> set[str]:
    """Return the Slurm jobs that requested a GPU."""
    requested = {job["JobId"] for job in site.cluster.jobs() if "gres:gpu" in job.get("TresPerJob", "")}
    return {job for _, job, _, _ in site.scripts()[since:] if job in requested}


def evaluations(site: Site, since: int) -> list[tuple[str, str, str, str]]:
    return [found for found in site.scripts()[since:] if found[0] == "evaluate"]


def documented(word: str) -> str:
    """Take the block of commands from the documentation that has a word in it."""
    text = Path(REPOSITORY / "docs/clusters.md").read_text(encoding="utf-8")
    (block,) = (block for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if word in block)
    return block


def assert_same_tables(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(found[name], expected[name], check_exact=True, obj=name)

"""The Slurm profile, by dry runs: complete in itself, same requests as the default profile, few submissions."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY, Run
from tests.slurm.conftest import PROFILE, STUDY

DEFAULT = REPOSITORY / "profiles/default"
# How one machine differs from many: what is taken from where, and who runs it.
OF_ONE_MACHINE = {"cores", "resources"}
# What only Slurm reads, and the disk that Snakemake guesses for any cluster (the plugin does not pass it on).
OF_SLURM = {"slurm_partition", "handover_partition", "slurm_account", "shares", "disk", "disk_mb", "disk_mib"}


def load(profile: Path) -> dict[str, Any]:
    return yaml.safe_load((profile / "config.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def every_criterion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study of these tests, with a criterion for each rule that runs a model."""
    folder = tmp_path_factory.mktemp("criteria")
    study = {**STUDY, "methods": [{"name": name, "criterion": name} for name in ("taylor", "taylor2", "magnitude")]}
    study["methods"].append({"name": "blockwise", "scope": "block"})
    study["grid"] = {**STUDY["grid"], "methods": ["taylor", "taylor2", "magnitude", "blockwise"]}
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    return folder


def requests(snakemake: Run, folder: Path, profile: Path, *arguments: str) -> dict[str, dict[str, str]]:
    """What one job of each rule asks for, as a dry run prints it."""
    done = snakemake("-n", "--configfile", "study.yaml", "--workflow-profile", str(profile), *arguments,
                     directory=folder)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"^ *rule (\w+):\n(?:.*\n)*?^ *resources: (.*)$", done.stdout + done.stderr, re.MULTILINE)
    return {rule: dict(pair.split("=", 1) for pair in line.split(", ")) for rule, line in found}


def test_a_job_asks_for_the_same_under_both_profiles(snakemake: Run, every_criterion: Path) -> None:
    local = requests(snakemake, every_criterion, DEFAULT)
    slurm = requests(snakemake, every_criterion, PROFILE)
    evaluate = slurm["evaluate"]
    assert (evaluate["gpu"], evaluate["slurm_partition"], evaluate["slurm_account"]) == ("1", "gpu", "espalier")
    assert (evaluate["model_jobs"], evaluate["handover_partition"]) == ("1", "cpu")
    running_models = {rule for rule, asked in local.items() if asked.get("gpu") == "1"}
    assert running_models == {
        "collect_gradients", "measure_importance", "measure_weights", "measure_priors", "evaluate_baseline", "evaluate",
    }  # fmt: skip
    for rule in running_models:
        assert {key: value for key, value in slurm[rule].items() if key not in OF_SLURM} == local[rule]
    assert {rule for rule, asked in slurm.items() if asked["slurm_partition"] == "gpu"} == running_models
    # Two Snakemake processes live inside each allocation.
    assert all(int(asked["mem_mb"]) >= 400 for asked in slurm.values())


def test_memory_and_time_grow_with_each_attempt(snakemake: Run, every_criterion: Path) -> None:
    first, third = (requests(snakemake, every_criterion, PROFILE, "--attempt", number) for number in ("1", "3"))
    done_by_slurm = set(first) - {"all"}
    assert {"evaluate", "plan", "report_model", "make_world"} <= done_by_slurm
    for rule in done_by_slurm:
        for resource in ("mem_mb", "runtime"):
            assert int(third[rule][resource]) == 3 * int(first[rule][resource]), (rule, resource)
        assert third[rule].get("gpu") == first[rule].get("gpu")
    assert load(PROFILE)["retries"] == 2


def test_the_profile_is_complete(snakemake: Run) -> None:
    """`--workflow-profile` replaces the default profile, so what that says must stand in this one too."""
    ours = load(PROFILE)
    for key, value in load(DEFAULT).items():
        if key not in OF_ONE_MACHINE:
            assert ours[key] == value, key
    rules = set(snakemake("--list-rules", directory=REPOSITORY).stdout.split())
    assert set(ours["set-resources"]) | set(ours["groups"]) <= rules
    assert {rule for rule, asked in ours["set-resources"].items() if "shares" in asked} == set(ours["groups"])
    assert set(ours["group-components"]) <= set(ours["groups"].values())


# Submissions of short jobs: of the plans, 26, 45 or 60 for each model in groups of 50; of the reports, one a model.
SUBMISSIONS = {
    "config": {"plans": 6, "calibration": 6, "tables": 1, "reports": 6, "cross_model": 1},
    "quick": {"plans": 2, "calibration": 2, "tables": 1, "reports": 2, "cross_model": 1},
    "paper": {"plans": 3 * 1 + 3 * 2, "calibration": 6, "tables": 1, "reports": 6, "cross_model": 1},
}


@pytest.mark.parametrize("name", list(SUBMISSIONS))
def test_short_jobs_share_submissions(name: str, snakemake: Run, tmp_path: Path) -> None:
    config = str(REPOSITORY / f"config/{name}.yaml")
    done = snakemake("-n", "--configfile", config, "--workflow-profile", str(PROFILE), directory=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = done.stdout + done.stderr
    groups = re.findall(r"Group job (cross_model|[a-z]+)", printed)
    assert Counter(groups) == SUBMISSIONS[name]
    alone = set(re.findall(r"^(?:local)?rule (\w+):", printed, re.MULTILINE))
    assert not alone & set(load(PROFILE)["groups"])


def test_plans_can_be_made_one_by_one(snakemake: Run, tmp_path: Path) -> None:
    """As the recipe does after a plan has failed and taken its group with it."""
    config = str(REPOSITORY / "config/quick.yaml")
    done = snakemake(
        "-n", "plans", "--configfile", config, "--workflow-profile", str(PROFILE), "--group-components",
        "plans_{model}=1", directory=tmp_path,
    )  # fmt: skip
    assert len(re.findall(r"Group job plans_\w+", done.stdout + done.stderr)) == 2 * 13


@pytest.mark.parametrize("method", ["lora", "full"])
def test_jobs_divide_a_model_among_its_gpus_whatever_they_request(method: str, snakemake: Run, tmp_path: Path) -> None:
    """A site may request GPUs by `gres` with `gpu: 0`, and the default profile caps requests at the GPUs it has."""
    (model,) = STUDY["models"]
    names = ["blockwise-seq16-n8-p50"]
    study = {
        **STUDY, "models": [{**model, "gpus": 2}],
        "inference": {"experiments": names, "prompt_tokens": 8, "new_tokens": 8},
        "recovery": {"method": method, "learning_rate": 1e-5, "seq_len": 64, "experiments": names},
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    rules = ["recover" if method == "lora" else "recover_full", "evaluate_recovered", "measure_inference"]
    zero = ["--set-resources", *(f"{rule}:gpu=0" for rule in rules)]
    for more, requested in (([], "1"), (zero, "0")):
        asked = requests(snakemake, tmp_path, DEFAULT, *more, "--", "recovered", "inference")
        assert {rule: (asked[rule]["gpu"], asked[rule]["model_gpus"]) for rule in rules} == dict.fromkeys(
            rules, (requested, "2")
        )

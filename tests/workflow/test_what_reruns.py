"""Only what is stale: edits, and exactly the jobs that each may cause, by dry run over the finished default study."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, Run, job_counts
from tests.workflow.conftest import DEFAULT_CONFIG, DefaultRun

pytestmark = pytest.mark.run

# Rules that take seconds; how often they run is not the matter here.
CHEAP = {
    "consolidate_study", "consolidate", "analyse", "analyse_study", "draw_model", "draw_study",
    "report_model", "report_cross_model", "report_index", "compare_structures", "check_calibration", "all", "total",
}  # fmt: skip
N_MODELS = 6


def expensive(printed: str) -> dict[str, int]:
    """Count the jobs that are not cheap; none when there is nothing to do."""
    if "Nothing to be done" in printed:
        return {}
    return {rule: count for rule, count in job_counts(printed).items() if rule not in CHEAP}


def dry_run(snakemake: Run, run: DefaultRun, *arguments: str) -> str:
    done = snakemake("-n", "--configfile", DEFAULT_CONFIG, *arguments, directory=run.directory)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


WITH_WANDA = (
    "[{name: taylor}, {name: layerwise, scope: layer}, {name: blockwise, scope: block}, "
    "{name: random, criterion: random}, {name: wanda, criterion: wanda}]"
)
CONFIG_EDITS = {
    # 3 methods x 2 counts x 2 ratios more for each model, and one pass more
    "another sequence length": (
        "grid={taylor_seq_len: [16, 32, 64]}",
        {"collect_gradients": 6, "measure_priors": 6, "plan": 72, "evaluate": 72},
    ),
    # 3 methods x 2 lengths x 2 counts + random
    "another ratio": ("grid={pruning_ratio: [0.2, 0.35, 0.5]}", {"plan": 78, "evaluate": 78}),
    # 64 lies on the ladder 1, 2, 4 ... 128 of the pass that was made
    "another count on the ladder": ("grid={taylor_num_samples: [32, 64, 128]}", {"plan": 72, "evaluate": 72}),
    # every plan reads a table that is made again, except those of `random`
    "another count beyond the largest": (
        "grid={taylor_num_samples: [32, 128, 256]}",
        {"collect_gradients": 12, "measure_priors": 12, "plan": 216, "evaluate": 216},
    ),
    "priors on so many sequences": (
        "calibration={prior_samples: 8}", {"measure_priors": 12, "plan": 96, "evaluate": 96},
    ),
    # 2 lengths x 2 counts x 2 ratios for each model, and a pass for each length; no gradient pass
    "another criterion": (
        f"methods={WITH_WANDA}\ngrid={{methods: [taylor, layerwise, blockwise, random, wanda]}}",
        {"measure_importance": 12, "plan": 48, "evaluate": 48},
    ),
    "memory of gradient passes": ("gradients={token_budget: 64, layers_per_pass: 2, checkpointing: true}", {}),
    "fewer methods": ("grid={methods: [taylor, random]}", {}),
    "headline ratio": ("report={ratio: 0.35}", {}),
    "accuracy rule": ("report={acc_mean_rule: acc}", {}),
    "token budget": ("evaluation={token_budget: 8192}", {}),
    "device": ("evaluation={device: auto}", {}),
    # Each evaluation has the plans of its race as inputs; the store has all answers.
    "a race": ("evaluation={racing: {keep: best}}", {"evaluate": 156}),
    "experiments per job": ("evaluation={experiments_per_job: 1}", {}),
    # layerwise: 2 lengths x 2 counts x 2 ratios for each model
    "temperature of a method": (
        f"methods={WITH_WANDA.replace('scope: layer', 'scope: layer, temperature: 2.0')}", {"plan": 48, "evaluate": 48},
    ),
    "perplexity stride": ("evaluation={perplexity: {stride: 32}}", {"evaluate_baseline": 6, "evaluate": 156}),
    "fewer tasks": (
        "evaluation={tasks: [piqa, boolq]}", {"tokenize_requests": 6, "evaluate_baseline": 6, "evaluate": 156},
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", list(CONFIG_EDITS))
def test_a_change_of_the_config_runs_what_depends_on_it(edit: str, default_run: DefaultRun, snakemake: Run) -> None:
    value, expected = CONFIG_EDITS[edit]
    assert expensive(dry_run(snakemake, default_run, "--config", *value.split("\n"))) == expected


def test_the_grid_of_one_model_is_its_own_affair(default_run: DefaultRun, snakemake: Run, tmp_path: Path) -> None:
    config = yaml.safe_load(Path(DEFAULT_CONFIG).read_text(encoding="utf-8"))
    config["models"][0]["grid"] = {"pruning_ratio": [0.2, 0.35, 0.5]}
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = snakemake("-n", "--configfile", str(tmp_path / "edited.yaml"), directory=default_run.directory)
    assert done.returncode == 0, done.stderr
    # 3 methods x 2 lengths x 2 counts + random, at one ratio more
    assert expensive(done.stdout + done.stderr) == {"plan": 13, "evaluate": 13}


def edited_copy(tmp_path: Path, file: str, old: str, new: str) -> Path:
    """Copy the workflow and edit one file of the copy."""
    for name in ("Snakefile", "rules", "workflow", "src", "envs", "profiles"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    path = tmp_path / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return tmp_path


CODE_EDITS = {
    "docstring of the planner": ("src/espalier/planning/select.py", '"""Choose the groups to remove.', {}),
    "docstring of a script": ("workflow/scripts/evaluate.py", '"""Evaluate one pruned model', {}),
    "version of planning": ("src/espalier/versions.py", "PLAN = ", {"plan": 156, "evaluate": 156}),
    "version of evaluation": ("src/espalier/versions.py", "EVALUATE = ", {"evaluate": 156, "evaluate_baseline": 6}),
    "version of priors": (
        "src/espalier/versions.py",
        "MEASURE_PRIORS = ",
        # layerwise and blockwise: 2 methods x 2 lengths x 2 counts x 2 ratios x 6 models
        {"measure_priors": 12, "plan": 96, "evaluate": 96},
    ),
}


@pytest.mark.parametrize("edit", list(CODE_EDITS))
def test_an_edit_of_the_code_runs_what_its_version_says(
    edit: str, default_run: DefaultRun, snakemake: Run, tmp_path: Path
) -> None:
    file, old, expected = CODE_EDITS[edit]
    new = old + "10" if old.endswith("= ") else old + " (edited)"
    copy = edited_copy(tmp_path, file, old, new)
    done = snakemake(
        "-n", "--configfile", DEFAULT_CONFIG, "--snakefile", str(copy / "Snakefile"), directory=default_run.directory
    )
    assert done.returncode == 0, done.stderr
    assert expensive(done.stdout + done.stderr) == expected


def test_packed_results_are_up_to_date_where_they_are_unpacked(
    default_run: DefaultRun, snakemake: Run, tmp_path: Path
) -> None:
    """The commands of `make pack` and `make unpack`."""
    archive = tmp_path / "espalier-sandbox.tar.gz"
    pack = ["tar", "--create", "--gzip", f"--file={archive}", "results/sandbox", ".snakemake/metadata"]
    subprocess.run(pack, cwd=default_run.directory, check=True)
    # Cheap rules name their sources by a path relative to the folder, which here is another one.
    elsewhere = tmp_path / "a/b"
    elsewhere.mkdir(parents=True)
    subprocess.run(["tar", "--extract", "--gzip", f"--file={archive}"], cwd=elsewhere, check=True)
    done = snakemake("-n", "--configfile", DEFAULT_CONFIG, directory=elsewhere)
    assert expensive(done.stdout + done.stderr) == {}
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert "tar --create --gzip --file=espalier-$(STUDY).tar.gz results/$(STUDY) .snakemake/metadata" in makefile


def test_nothing_runs_after_a_touch(default_run: DefaultRun, snakemake: Run) -> None:
    """Files are compared by content; scripts count by their version only."""
    for path in [*default_run.results.rglob("*"), *(REPOSITORY / "workflow/scripts").glob("*.py")]:
        if path.is_file():
            os.utime(path)
    for path in (REPOSITORY / "src/espalier").rglob("*.py"):
        os.utime(path)
    assert "Nothing to be done" in dry_run(snakemake, default_run)

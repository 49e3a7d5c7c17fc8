"""One file is one study: shipped configs dry-run offline, and nothing is inherited, in the driver or in jobs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from espalier.files import read_parquet
from tests.conftest import REPOSITORY, Run, job_counts
from tests.unit.conftest import save_random_model


def write_config(path: Path, content: dict[str, object]) -> str:
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return str(path)


def sweep_jobs(*, models: int, passes: int, experiments: int) -> dict[str, int]:
    """Jobs of a sweep: what is counted per model, per gradient pass, per experiment and per study."""
    per_model = (
        "check_model", "tokenize_requests", "check_calibration", "evaluate_baseline", "consolidate", "analyse",
        "draw_model", "report_model", "compare_structures",
    )  # fmt: skip
    return {
        **dict.fromkeys(per_model, models),
        **dict.fromkeys(("collect_gradients", "measure_priors"), passes),
        **dict.fromkeys(("plan", "evaluate"), experiments),
        **dict.fromkeys(
            ("consolidate_study", "analyse_study", "draw_study", "report_cross_model", "report_index", "all"), 1
        ),
    }


SHIPPED = {
    # 6 models x (3 methods x 2 lengths x 2 counts + random) x 2 ratios
    "config": {"make_world": 1, "train_sandbox_tokenizer": 3, "train_sandbox_model": 6,
               **sweep_jobs(models=6, passes=12, experiments=156)},
    "quick": {"make_world": 1, "train_sandbox_tokenizer": 2, "train_sandbox_model": 2,
              **sweep_jobs(models=2, passes=4, experiments=26)},
    # 3 methods and a control at 3 ratios
    "smollm2": {"stage_model": 1, "stage_dataset": 7, "stage_text": 2,
                **sweep_jobs(models=1, passes=1, experiments=12)},
    # one method at one ratio, two tasks
    "one_model": {"stage_model": 1, "stage_dataset": 2, "stage_text": 2,
                  **sweep_jobs(models=1, passes=1, experiments=1)},
    # base: 3 methods x 5 lengths x 3 counts; instruct: 3 x 4 x 5. One pass per model and length: 5 for 45 experiments.
    "paper": {"stage_model": 6, "stage_dataset": 7, "stage_text": 3,
              **sweep_jobs(models=6, passes=3 * 5 + 3 * 4, experiments=3 * 45 + 3 * 60)},
}  # fmt: skip


@pytest.mark.parametrize("name", list(SHIPPED))
def test_shipped_config_dry_runs_without_network(
    name: str, snakemake: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HF_ENDPOINT"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    done = snakemake("-n", "--configfile", str(REPOSITORY / f"config/{name}.yaml"), directory=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = job_counts(done.stdout + done.stderr)
    assert counts.pop("total") == sum(counts.values())
    assert counts == SHIPPED[name]


def test_staging_covers_models_tasks_and_texts(snakemake: Run, tmp_path: Path) -> None:
    done = snakemake("-n", "stage", "--configfile", str(REPOSITORY / "config/paper.yaml"), directory=tmp_path)
    counts = job_counts(done.stdout + done.stderr)
    assert counts == {
        "stage_model": 6, "stage_dataset": 7, "stage_text": 3, "lock_cache": 1, "stage": 1, "total": 18,
    }  # fmt: skip


def test_a_config_of_two_keys_inherits_nothing(snakemake: Run, tmp_path: Path) -> None:
    save_random_model(tmp_path / "weights")
    models = [{"name": "Mine", "family": "Llama", "kind": "base", "path": "weights"}]
    config = write_config(tmp_path / "mine.yaml", {"study": "mine", "models": models})
    done = snakemake("-n", "--configfile", config, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = job_counts(done.stdout + done.stderr)
    assert counts["evaluate_baseline"] == 1
    assert counts["stage_dataset"] == 7  # real tasks: the default, not the sandbox's
    assert "train_sandbox_model" not in counts
    assert "results/mine/baseline/Mine/metrics.json" in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_job_processes_read_the_same_study(snakemake: Run, tmp_path: Path) -> None:
    """Submit a job the way clusters do: its process reads the Snakefile and the config again.

    The config is two keys, sizes and a window. Were the sandbox's config merged in, the job would draw its texts for
    perplexity.
    """
    model = {"name": "T", "family": "Llama", "kind": "base", "sandbox": {"architecture": "llama"}}
    content = {
        "study": "tiny", "models": [model], "sandbox": {"documents_per_task": 5, "training_pages": 20},
        "evaluation": {"perplexity": {"window": 128, "stride": 64}},
    }  # fmt: skip
    config = write_config(tmp_path / "tiny.yaml", content)
    done = snakemake(
        "results/tiny/sandbox/tokenizers/llama.json",
        *("--configfile", config, "--workflow-profile", "none", "--jobs", "2"),
        *("--executor", "cluster-generic", "--cluster-generic-submit-cmd", "bash"),
        directory=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    sandbox = tmp_path / "results/tiny/sandbox"
    assert (sandbox / "tokenizers/llama.json").is_file()
    assert read_parquet(sandbox / "tasks/piqa/validation.parquet").num_rows == 5
    assert not (sandbox / "perplexity").exists()
    assert not (tmp_path / "results/sandbox").exists()


def test_command_line_values_overlay_one_key(snakemake: Run, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    done = snakemake("-n", "--config", "study=other", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert job_counts(done.stdout + done.stderr)["evaluate"] == SHIPPED["config"]["evaluate"]
    assert "results/other/baseline/Llama/metrics.json" in done.stdout + done.stderr


BAD_ON_THE_COMMAND_LINE = [
    ("grid={taylor_seqlen: [3]}", "grid.taylor_seqlen: unknown key (did you mean 'taylor_seq_len'?)"),
    ("study=a/b", "study: got 'a/b'; allowed: letters, digits"),
    ("evaluation={tasks: [bolq]}", "evaluation.tasks: got 'bolq', which is no task or group of lm-evaluation-harness"),
    (
        "methods=[{name: taylor, criterion: wnda}, {name: layerwise}, {name: blockwise}, {name: random}]",
        "methods[0].criterion: got 'wnda'; allowed: taylor, taylor2, wanda, magnitude, random",
    ),
    ("grid={taylor_seq_len: [512]}", "grid.taylor_seq_len: got 512, but the context of model 'Llama' is 256 tokens"),
    ("grid={pruning_ratio: [0.9]}", "model 'Llama': pruning_ratio 0.9 means removing 258,796 of 287,552 parameters"),
    ("exprt={}", "exprt: unknown key (did you mean 'export'?)"),
]


@pytest.mark.parametrize(("value", "line"), BAD_ON_THE_COMMAND_LINE, ids=lambda text: text.split("=")[0])
def test_bad_config_stops_snakemake_with_one_line(value: str, line: str, snakemake: Run, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    done = snakemake("--config", value, directory=tmp_path)
    assert done.returncode != 0
    printed = done.stdout + done.stderr
    assert f"The config has problems:\n  {line}" in printed
    assert not any(word in printed for word in ("Traceback", "pydantic", "ValidationError"))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("given", [["--configfile", "mine.yaml", "other.json"], []], ids=["named", "default"])
def test_a_key_given_twice_stops_snakemake(given: list[str], snakemake: Run, tmp_path: Path) -> None:
    """Of files that are named, and of the one that is taken when none is."""
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    content = (REPOSITORY / "config/config.yaml").read_text(encoding="utf-8")
    last = len(content.splitlines()) + 1
    for name in ("mine.yaml", "config/config.yaml"):
        (tmp_path / name).write_text(content + "evaluation: {limit: 7}\n", encoding="utf-8")
    (tmp_path / "other.json").write_text('{"report": {"ratio": 0.5, "ratio": 0.35}}', encoding="utf-8")
    done = snakemake("-n", *given, directory=tmp_path)
    assert done.returncode != 0
    first = content.splitlines().index("evaluation:") + 1
    lines = [f"{given[1] if given else 'config/config.yaml'}: evaluation is given twice, in lines {first} and {last}"]
    lines += ["other.json: report.ratio is given twice"] if given else []
    problems = "".join(f"\n  {line}; keep one" for line in lines)
    assert f"The config has problems:{problems}\n" in done.stdout + done.stderr


def test_snakemake_runs_without_environment_of_the_library(tmp_path: Path) -> None:
    """The Snakefile finds `src/` by itself, in whatever folder it runs."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        ["python", "-m", "snakemake", "-n", "--snakefile", REPOSITORY / "Snakefile",
         "--configfile", REPOSITORY / "config/quick.yaml"],
        cwd=tmp_path, env={**environment, "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["PYTHONPATH", "site-packages"])
def test_another_installed_version_does_not_run_in_jobs(place: str, study: dict[str, object], tmp_path: Path) -> None:
    """Snakemake appends the folders of the Snakefile to those of a job, so the other version would come first."""
    write_config(tmp_path / "study.yaml", study)
    other = tmp_path / "other/espalier"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('another version of Espalier runs')\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(other.parent)}
    if place == "site-packages":  # a folder that `site` adds behind PYTHONPATH, like those of installed packages
        startup = tmp_path / "startup"
        startup.mkdir()
        (startup / "sitecustomize.py").write_text(
            f"import site\nsite.addsitedir({str(other.parent)!r})\n", encoding="utf-8"
        )
        environment["PYTHONPATH"] = str(startup)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "results/tiny/models/A.json", "--snakefile", REPOSITORY / "Snakefile",
         "--configfile", "study.yaml", "--cores", "1"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "another version" not in done.stdout + done.stderr
    assert (tmp_path / "results/tiny/models/A.json").is_file()

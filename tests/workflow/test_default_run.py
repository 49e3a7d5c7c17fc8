"""The default study as a user gets it: models that learnt, values that are lm-eval's, nothing done twice."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from espalier.config.evaluation import SEVEN_TASKS
from espalier.evaluation.tasks import load_tasks
from espalier.files import read_json, read_table
from espalier.models.loading import load_tokenizer
from espalier.reports.summary import summarise_study
from espalier.tables import AnalysedExperiments, Experiments, Samples
from tests.conftest import REPOSITORY, Run
from tests.workflow.conftest import DEFAULT_CONFIG, DefaultRun

BASE = ("Llama", "Qwen", "Mistral")
ALL = (*BASE, *(f"{name}-Instruct" for name in BASE))

# By how much the log-likelihood of a choice in float32 depends on batches; measured: 1.1e-5.
ROUNDING = 5e-5

pytestmark = pytest.mark.run


def metrics(run: DefaultRun, model: str) -> dict:
    return read_json(run.results / f"baseline/{model}/metrics.json")


def experiments(run: DefaultRun) -> pd.DataFrame:
    return Experiments.validate(read_table(run.results / "consolidated/experiments.parquet"))


@pytest.mark.parametrize("model", ALL)
def test_every_model_learnt_the_world(default_run: DefaultRun, model: str) -> None:
    found = metrics(default_run, model)
    assert list(found["tasks"]) == list(SEVEN_TASKS)
    assert all(task["n_samples"] == 300 for task in found["tasks"].values())
    assert found["acc_mean"]["value"] >= 0.85
    assert 150_000 <= found["n_params"] <= 300_000
    assert all(1 < text["value"] < 10 for text in found["perplexity"].values())


@pytest.mark.parametrize("model", BASE)
def test_no_task_of_a_base_model_is_near_chance(default_run: DefaultRun, model: str) -> None:
    accuracies = {name: task["metrics"]["acc"]["value"] for name, task in metrics(default_run, model)["tasks"].items()}
    assert min(accuracies.values()) >= 0.6, accuracies


@pytest.mark.usefixtures("no_report_on_the_machine")
@pytest.mark.parametrize("model", ["Llama-Instruct", "Qwen", "Mistral"])
def test_every_value_equals_lm_evals_hf_backend(default_run: DefaultRun, model: str, tmp_path: Path) -> None:
    """lm-eval loads the folder itself and evaluates the same documents, float32, its own batches."""
    folder = default_run.results / "sandbox/models" / model
    tasks = load_tasks(list(SEVEN_TASKS), default_run.results / "sandbox/tasks", tmp_path)
    reference = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=64)
    manager = TaskManager(include_defaults=False)  # the tasks are loaded; reading all definitions takes long
    theirs = simple_evaluate(reference, tasks=list(tasks.leaves.values()), num_fewshot=0, task_manager=manager)
    ours = metrics(default_run, model)["tasks"]
    samples = read_table(default_run.results / f"baseline/{model}/samples.parquet")
    for task in SEVEN_TASKS:
        answered = theirs["samples"][task]
        n_ties = sum(map(is_tie, answered))
        for metric, value in ours[task]["metrics"].items():
            reference_value = theirs["results"][task][f"{metric},none"]
            if n_ties == 0:
                assert value["value"] == reference_value, (task, metric)
                assert value["stderr"] == theirs["results"][task][f"{metric}_stderr,none"], (task, metric)
            assert value["value"] == pytest.approx(reference_value, abs=n_ties / ours[task]["n_samples"]), (
                task,
                metric,
            )
        expected = [answer[0] for sample in answered for answer in sample["filtered_resps"]]
        np.testing.assert_allclose(samples[samples.task == task].loglikelihood, expected, atol=1e-3)


def is_tie(sample: dict[str, Any]) -> bool:
    """Whether rounding can decide which choice is the likeliest, as it stands or by its length.

    Which documents are such ties depends on the models, and these on the processor that trained them.
    """
    likelihoods = np.array([answer[0] for answer in sample["filtered_resps"]])
    lengths = np.array([len(continuation) for _, continuation in sample["arguments"]])
    by_length = likelihoods / lengths
    bounds = ((likelihoods, 2 * ROUNDING), (by_length, 2 * ROUNDING / lengths.min()))
    return any(np.diff(np.sort(values))[-1] <= bound for values, bound in bounds)


def test_tokenizers_are_of_three_kinds(default_run: DefaultRun) -> None:
    first = {
        model: load_tokenizer(default_run.results / "sandbox/models" / model).convert_ids_to_tokens(
            load_tokenizer(default_run.results / "sandbox/models" / model)("red ball")["input_ids"]
        )[0]
        for model in BASE
    }
    assert (first["Llama"], first["Mistral"]) == ("<s>", "<s>")
    assert first["Qwen"] != "<s>"


def test_requests_are_shared_by_models_with_one_tokenizer(default_run: DefaultRun) -> None:
    requests = default_run.results / "requests"
    for name in BASE:
        assert (requests / f"{name}.parquet").samefile(requests / f"{name}-Instruct.parquet")
    assert len({(requests / f"{name}.parquet").stat().st_ino for name in BASE}) == 3


def test_artefacts_are_complete(default_run: DefaultRun) -> None:
    for model in ALL:
        Samples.validate(read_table(default_run.results / f"baseline/{model}/samples.parquet"))
        found = metrics(default_run, model)
        assert found["recipe"]["versions"]["lm-eval"] == "0.4.13"
        assert found["recipe"]["settings"]["protocol"] == found["protocol"]
        assert set(found["timing_s"]) == {"load", "requests", "forward", "metrics"}
        assert found["hardware"] in (default_run.results / f"reports/{model}/report.html").read_text(encoding="utf-8")
        assert found["protocol"]["window"] == 128
        assert (default_run.results / f"benchmarks/evaluate_baseline/{model}.tsv").is_file()
    empty = [str(log) for log in default_run.results.glob("logs/**/*.log") if log.stat().st_size == 0]
    assert not empty, "each job logs its work, also if another job did it"
    assert not list(default_run.results.rglob("*.part"))
    assert not list(default_run.results.rglob("*.pkl"))
    assert not list(default_run.results.rglob("*.bin"))


def test_accuracy_falls_strictly_with_the_ratio(default_run: DefaultRun) -> None:
    """Mean over the settings of the three reference methods, model by model."""
    table = experiments(default_run)
    table = table[table.method.ne("random") | table.experiment.eq("baseline")]
    means = table.pivot_table(index="model", columns="pruning_ratio", values="acc_mean", aggfunc="mean")
    assert means.columns.tolist() == [0.0, 0.35, 0.5]
    assert (means[0.0] > means[0.35]).all(), means
    assert (means[0.35] > means[0.5]).all(), means


def test_taylor_keeps_more_than_chance_at_half(default_run: DefaultRun) -> None:
    """Mean over the six models; one random draw per model is too noisy to compare model by model."""
    half = experiments(default_run).query("pruning_ratio == 0.5")
    means = half.groupby("method").acc_mean.mean()
    assert means["taylor"] >= means["random"] + 0.1, means
    assert means["layerwise"] >= means["random"] + 0.1, means
    assert means["blockwise"] >= means["random"] + 0.1, means


def test_plans_of_the_methods_differ_and_meet_their_ratio(default_run: DefaultRun) -> None:
    for model in ALL:
        folders = sorted((default_run.results / "experiments" / model).glob("*-p50"))
        plans = {folder.name: read_json(folder / "plan.json") for folder in folders}
        assert len(plans) == 13
        same_setting = ["taylor-seq64-n128-p50", "layerwise-seq64-n128-p50", "blockwise-seq64-n128-p50", "random-p50"]
        assert len({json.dumps(plans[name]["layers"]) for name in same_setting}) == 4
        one_channel = 3 * 64 / metrics(default_run, model)["n_params"]
        for plan in plans.values():
            assert 0 <= 0.5 - plan["removed_param_fraction"] < one_channel


def test_a_pruned_model_has_the_parameters_of_its_plan(default_run: DefaultRun) -> None:
    table = experiments(default_run)
    unpruned = table[table.experiment == "baseline"].set_index("model").n_params
    removed = 1 - table.n_params / table.model.map(unpruned)
    assert (removed - table.removed_param_fraction).abs().max() < 1e-12


def test_tables_are_complete(default_run: DefaultRun) -> None:
    table = experiments(default_run)
    assert (table.status == "ok").all()
    assert len(table) == 6 * 27
    assert table[table.criterion == "taylor"].filter(like="grad_").notna().all(axis=None)
    assert np.isfinite(table.filter(like="ppl_")).all(axis=None)


def test_reports_are_there_and_name_the_best(default_run: DefaultRun) -> None:
    reports = default_run.results / "reports"
    for model in ALL:
        analysis = read_json(reports / model / "analysis.json")
        best = analysis["best"]["experiment"]
        assert analysis["pruning_ratio"] == 0.5
        assert best in (reports / model / "report.txt").read_text(encoding="utf-8")
        assert best in (reports / model / "report.html").read_text(encoding="utf-8")
        assert (reports / model / f"structures/{best}.txt").is_file()
        structure = read_json(reports / model / f"structures/{best}.json")
        assert structure["deployment"] == read_json(reports / model / "analysis.json")["deployment"][best]
        assert {one["verdict"] for one in structure["deployment"]["targets"] if one["target"] == "transformers"} == {
            "as_is"
        }
    for page in [*reports.glob("*.html"), *reports.glob("*/report.html")]:
        assert page.stat().st_size < 400_000, page
    for name in ("report.txt", "report.html", "all_models_best_configs.csv", "tables/best_configs.tex"):
        assert (reports / "cross_model" / name).stat().st_size > 0


def test_reports_say_which_method_keeps_most(default_run: DefaultRun) -> None:
    """The strongest result of the study: over six models, taylor keeps less than the others and more than chance."""
    reports = default_run.results / "reports"
    summary = read_json(reports / "cross_model/analysis_summary.json")
    compared = summary["comparisons"]
    assert (compared["measure"], compared["left_out"], len(compared["models"])) == ("kept", [], 6)
    differences = {(one["first"], one["second"]): one for one in compared["differences"] if one["axis"] == "method"}
    for pair in (("taylor", "layerwise"), ("taylor", "blockwise")):
        assert differences[pair]["differs"], pair
        assert differences[pair]["difference"] < -0.05, pair
    assert all(differences[method, "random"]["difference"] > 0 for method in ("taylor", "layerwise", "blockwise"))
    text = (reports / "cross_model/report.txt").read_text(encoding="utf-8")
    assert "Pruning ratio 50%: means of the accuracy kept over 6 models: " in text.splitlines()[4]
    assert "Pruning ratio 50%: Method blockwise keeps " in text
    table = AnalysedExperiments.validate(read_table(reports / "experiments.parquet"))
    pruned = table[table.experiment.ne("baseline")]
    assert pruned.acc_kept.between(pruned.acc_kept_low, pruned.acc_kept_high).all()
    assert pruned[pruned.method.ne("random")].in_simultaneous_set.notna().all()
    assert table.flops_per_token.notna().all()
    markdown = (reports / "cross_model/tables/best_configs.md").read_text(encoding="utf-8")
    assert markdown.count("| Kept, 95% interval |") == 2  # a table of each ratio
    assert "**" not in markdown  # that the first model keeps most is not shown


def test_a_second_run_does_nothing(default_run: DefaultRun, snakemake: Run) -> None:
    done = snakemake("--configfile", DEFAULT_CONFIG, directory=default_run.directory)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_the_summary_names_the_best_of_every_model(default_run: DefaultRun) -> None:
    lines = summarise_study(default_run.results).splitlines()
    for model in ALL:
        best = read_json(default_run.results / f"consolidated/{model}/global_best_config.json")
        line = next(line for line in lines if line.startswith(f"{model} "))
        assert best["best"]["experiment"] in line
        assert f"{best['best']['acc_mean']:.3f}" in line
        assert f"{metrics(default_run, model)['acc_mean']['value']:.3f}" in line


def test_json_has_no_nan(default_run: DefaultRun) -> None:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} in JSON")

    for path in default_run.results.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_snakemakes_own_report_holds_pages_figures_and_tables(
    default_run: DefaultRun, snakemake: Run, tmp_path: Path
) -> None:
    target = tmp_path / "report.zip"
    done = snakemake("--report", str(target), "--configfile", DEFAULT_CONFIG, directory=default_run.directory)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(target) as archive:
        names = [Path(name).name for name in archive.namelist()]
        page = archive.read("report/report.html").decode()
    assert names.count("accuracy_perplexity.svg") == 6
    assert names.count("accuracy_perplexity-p35.svg") == 6
    assert names.count("kept_by_method.svg") == 1
    assert names.count("report.txt") == 7
    assert "all_models_best_configs.csv" in names
    assert names.count("index.html") == 1
    for category in ("Index", "All models", "Models", "Structures"):
        assert f'"{category}"' in page


def test_costs_need_no_model_at_hand(default_run: DefaultRun) -> None:
    """Half of the parameters are gone; what a plan costs follows from manifest and tables."""
    costs = read_json(default_run.results / "reports/Llama/analysis.json")["costs"]
    assert costs["reason"] is None
    for name, one in costs["experiments"].items():
        kept = one["n_params"] / costs["baseline"]["n_params"]
        assert kept == pytest.approx(0.5 if name.endswith("p50") else 0.65, abs=0.002)
        assert 0 <= one["relative"]["kv_cache_bytes_per_token"] <= 1


def test_a_forecast_of_a_finished_study(default_run: DefaultRun, snakemake: Run) -> None:
    done = snakemake("forecast", "--configfile", DEFAULT_CONFIG, directory=default_run.directory)
    assert done.returncode == 0, done.stderr
    assert "nothing is left: all 354 jobs have results" in done.stderr


def test_flipped_bits_are_noticed(default_run: DefaultRun) -> None:
    """The file that names the best experiment has no checksum, but a record of it (`espalier.results.verify`)."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, "benchmarks/bit_flips.py", str(default_run.results), "--flips", "150"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines())
    table = pd.DataFrame(rows, columns=header).set_index("").astype(int)
    assert table.flips["all"] == 150
    assert table.refused["all"] > 100
    assert table.silent["all"] == 0

"""Models that cannot be used: one clear line, a non-zero exit, and what others finished stays."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.files import read_json, write_json
from espalier.reports.summary import summarise_study
from espalier.sandbox.corpora import make_pages
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from espalier.sandbox.world import make_world
from tests.conftest import Run
from tests.unit.conftest import random_model


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    pages = make_pages(make_world(0), "training", 100, 0)
    return wrap(train_tokenizer("llama", pages, 400), model_max_length=128, chat=False)


def write_study(folder: Path, names: Sequence[str]) -> Path:
    """Write a study of local models."""
    models = [{"name": name, "family": "Llama", "kind": "base", "path": name} for name in names]
    study = {
        "study": "bad", "models": models, "grid": {"taylor_seq_len": [16]},
        "evaluation": {"perplexity": {"window": 128, "stride": 64}},
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None) -> None:
    model.save_pretrained(folder)
    if tokenizer:
        tokenizer.save_pretrained(folder)


def test_folders_that_cannot_be_used_are_refused_before_any_job(
    snakemake: Run, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = random_model("llama", len(tokenizer))
    save(tmp_path / "Good", model, tokenizer)
    save(tmp_path / "NoTokenizer", model, None)
    save(tmp_path / "Pickle", model, tokenizer)
    (tmp_path / "Pickle/model.safetensors").rename(tmp_path / "Pickle/pytorch_model.bin")
    config = write_study(tmp_path, ["Missing", "Pickle", "NoTokenizer", "Good"])
    done = snakemake("results/bad/models/Good.json", "--configfile", str(config), directory=tmp_path)
    assert done.returncode != 0
    lines = done.stderr.splitlines()
    expected = {
        "Missing": "no such model folder; give one written by save_pretrained, or a hub repository",
        "Pickle": "has only .bin weights, which are pickles and are never read; load them where you trust them and "
        "save with save_pretrained, which writes safetensors",
        "NoTokenizer": "has no tokenizer (tokenizer.json); save it there with tokenizer.save_pretrained",
    }
    begin = lines.index("The config has problems:") + 1
    said = [f"  model {name!r}: {name}: {problem}" for name, problem in expected.items()]
    assert lines[begin : begin + 3] == said
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_folders_that_cannot_be_used_stop_no_other_model(
    snakemake: Run, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Each kind is named before any job, with the reason that its own job then gives."""
    model = random_model("llama", len(tokenizer))
    for name in ("Good", "Pickle", "NoHead", "Quantised"):
        save(tmp_path / name, model, tokenizer)
    (tmp_path / "Pickle/model.safetensors").rename(tmp_path / "Pickle/pytorch_model.bin")
    tensors = load_file(tmp_path / "NoHead/model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "NoHead/model.safetensors", {"format": "pt"})
    settings = read_json(tmp_path / "Quantised/config.json") | {"quantization_config": {"quant_method": "fp8"}}
    write_json(tmp_path / "Quantised/config.json", settings)
    names = ["Good", "Pickle", "NoHead", "Quantised"]
    config = write_study(tmp_path, names)
    targets = [f"results/bad/models/{name}.json" for name in names]
    done = snakemake(*targets, "--keep-going", "--configfile", str(config), directory=tmp_path)
    assert done.returncode != 0
    warned = [line for line in done.stderr.splitlines() if line.startswith("warning: model ")]
    assert len(warned) == 2  # a missing tensor is found by the job, which loads the headers as transformers does
    assert all(line.endswith("; the other models go on without it") for line in warned)
    assert (tmp_path / "results/bad/models/Good.json").is_file()
    for name, problem in {
        "Pickle": "has only .bin weights", "NoHead": "tensor lm_head.weight is missing", "Quantised": "is quantised",
    }.items():  # fmt: skip
        assert not (tmp_path / f"results/bad/models/{name}.json").exists()
        (said,) = [line for line in done.stderr.splitlines() if line.startswith(f"[check {name}] error:")]
        assert problem in said
    assert "Traceback" not in done.stderr


def test_a_model_whose_weights_are_bad_stops_alone(
    snakemake: Run, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """What only reading the weights can tell is said by the job that checks them."""
    model = random_model("llama", len(tokenizer))
    save(tmp_path / "Good", model, tokenizer)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[2, 3] = torch.nan
    save(tmp_path / "NotANumber", model, tokenizer)
    config = write_study(tmp_path, ["NotANumber", "Good"])
    manifests = [tmp_path / f"results/bad/models/{name}.json" for name in ("NotANumber", "Good")]
    done = snakemake(
        *(str(path.relative_to(tmp_path)) for path in manifests), "--configfile", str(config), directory=tmp_path
    )
    assert done.returncode != 0
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("[check NotANumber] error: ")]
    assert "model.layers.1.mlp.up_proj.weight" in said
    log = (tmp_path / "results/bad/logs/check_model/NotANumber.log").read_text(encoding="utf-8")
    assert said.removeprefix("[check NotANumber] error: ") in log
    assert "Traceback" not in done.stderr
    assert not manifests[0].exists()
    assert read_json(manifests[1])["architecture"] == "LlamaForCausalLM"


def test_a_results_folder_without_results_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: no results yet; run snakemake first"):
        summarise_study(tmp_path / "nothing")


def test_a_refused_model_is_in_the_comparison_with_its_reason_and_stops_no_other(
    snakemake: Run, tmp_path: Path, planned_study: dict[str, Any]
) -> None:
    study = planned_study
    bad = tmp_path / "NotANumber"
    shutil.copytree(tmp_path / "model", bad)
    tensors = load_file(bad / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][2, 3] = torch.nan
    save_file(tensors, bad / "model.safetensors", {"format": "pt"})
    study["models"].append({"name": "Bad", "family": "Llama", "kind": "instruct", "path": "NotANumber"})
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    done = snakemake("--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode != 0
    results = tmp_path / "results/tiny"
    assert len(list((results / "experiments/A").glob("*/metrics.json"))) == 2  # A is evaluated all the same
    assert (results / "baseline/A/metrics.json").is_file()

    done = snakemake("partial_reports", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    weight = "model.layers.1.mlp.up_proj.weight"
    (said,) = [line for line in done.stderr.splitlines() if "could not be checked and has no report" in line]
    assert said.startswith("[analyse study] model 'Bad' could")
    assert weight in said
    (unchecked,) = read_json(results / "reports/cross_model/analysis_summary.json")["models_not_checked"]
    assert unchecked["model"] == "Bad"
    assert weight in unchecked["reason"]
    for name in ("report.html", "report.txt"):
        report = (results / "reports/cross_model" / name).read_text(encoding="utf-8")
        assert "Bad: could not be checked, so it has no report: " in report
        assert weight in report
    assert weight in summarise_study(results)
    table = pd.read_parquet(results / "consolidated/experiments.parquet")
    refused = table[table.model == "Bad"]
    assert set(refused.status) == {"failed"}
    assert all(note.startswith("model: ") and weight in note for note in refused.note)
    assert set(table[table.model == "A"].status) == {"ok"}

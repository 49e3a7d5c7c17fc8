"""What figures read besides tables: priors, and the style file of the user."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from espalier.config import load_study
from espalier.study.config_checks import style_problems
from espalier.study.lookups import Study

MODEL = {"name": "A", "family": "Llama", "kind": "base", "path": "a"}
PRIORS = "results/s/priors/A/c4-s0/seq64.parquet"


def study(**changes: Any) -> Study:
    grid = {"methods": ["taylor", "layerwise"], "taylor_seq_len": [64], "taylor_num_samples": [8]}
    return Study(load_study({"study": "s", "models": [MODEL], "grid": grid, **changes}), Path("src/espalier"))


def write(path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()


def test_figures_never_cause_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Priors that a plan still needs are an input, also before they exist; deleted ones of a finished study are not."""
    monkeypatch.chdir(tmp_path)
    tables, model = study().tables, SimpleNamespace(model="A")
    assert tables.prior_passes(model) == [("c4-s0", 64, 2, PRIORS)]  # priors are means of a fifth of 8 sequences
    configured = study(calibration={"prior_samples": 3}).tables
    assert configured.prior_passes(model) == [("c4-s0", 64, 3, PRIORS)]
    for name in study().sweep.names:
        write(f"results/s/experiments/A/{name}/metrics.json")
    assert tables.prior_files(model) == []
    write(PRIORS)
    assert tables.prior_files(model) == [PRIORS]
    assert tables.prior_files(SimpleNamespace(model="imported")) == []


def test_partial_reports_show_the_priors_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tables, model = study(report={"allow_missing": True}).tables, SimpleNamespace(model="A")
    assert tables.prior_files(model) == []
    write(PRIORS)
    assert tables.prior_files(model) == [PRIORS]


def test_a_missing_style_is_a_problem_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert style_problems(study().config) == []
    assert study().figure_styles == []
    styled = study(report={"style": "paper.mplstyle"})
    (line,) = style_problems(styled.config)
    assert line.startswith("report.style: got 'paper.mplstyle', but there is no such file")
    write("paper.mplstyle")
    assert style_problems(styled.config) == []
    assert styled.figure_styles == ["paper.mplstyle"]


def test_the_published_figures_are_those_of_the_workflow_a_file_or_none() -> None:
    assert study().literature == ["config/literature.yaml"]
    assert study(report={"literature": "mine.yaml"}).literature == ["mine.yaml"]
    assert study(report={"literature": None}).literature == []
    settings = study().literature_settings
    assert settings["models"] == {"A": "a"}
    assert (settings["window"], settings["stride"], settings["limit"], settings["calibration"]) == (
        2048,
        512,
        None,
        "c4",
    )
    # Params of an older version have none of these keys.
    assert set(settings) == {"models", "num_fewshot", "limit", "window", "stride", "texts", "calibration"}
    tasks = ["piqa", {"name": "boolq", "num_fewshot": 5}]
    perplexity = {"texts": [{"name": "own", "dataset": "a.txt", "max_tokens": 500}]}
    found = study(evaluation={"tasks": tasks, "chat_template": True, "perplexity": perplexity}).literature_settings
    assert found["task_fewshots"] == {"boolq": 5}
    assert found["chat_template"] is True
    assert found["max_tokens"] == {"own": 500}

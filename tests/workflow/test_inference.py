"""Measured inference of a tiny model: only when it is asked for, beside its unpruned model, and in the report."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from espalier.files import read_json
from tests.conftest import Run, job_counts

RESULTS = Path("results/tiny")


def write(tmp_path: Path, study: dict[str, Any], **inference: Any) -> None:
    settings = {"batch_sizes": [1, 2], "prompt_tokens": 16, "new_tokens": 4, "repeats": 6} | inference
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study | {"inference": settings}), encoding="utf-8")


@pytest.fixture
def weights_only(study: dict[str, Any]) -> dict[str, Any]:
    """The study with a method that looks at the weights alone: few jobs to a plan."""
    study["methods"] = [{"name": "magnitude", "criterion": "magnitude"}]
    study["grid"] = {"methods": ["magnitude"], "pruning_ratio": [0.2]}
    return study


@pytest.mark.long
def test_measured_when_asked_for_never_for_a_report_and_refused_in_one_line(
    snakemake: Run, tmp_path: Path, weights_only: dict[str, Any]
) -> None:
    write(tmp_path, weights_only, experiments=["magnitude-p20"])
    done = snakemake("inference", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = read_json(tmp_path / RESULTS / "inference/A/magnitude-p20.json")
    assert found["experiment"] == "magnitude-p20"
    assert len(found["runs"]) == 2 * 6 * 3
    n_params = {name: one["n_params"] for name, one in found["models"].items()}
    assert n_params["unpruned"] == read_json(tmp_path / RESULTS / "models/A.json")["n_params"]
    assert n_params["unpruned"] * (1 - found["removed_param_fraction"]) == pytest.approx(n_params["pruned"])
    assert n_params["pruned"] < n_params["padded"]

    write(tmp_path, weights_only, experiments=["magnitude-p20"], repeats=7)  # the measurement is now another one
    for targets, expected in ((["inference"], 1), (["all"], 0)):
        done = snakemake(*targets, "--configfile", "study.yaml", "-n", directory=tmp_path)
        assert job_counts(done.stdout).get("measure_inference", 0) == expected

    write(tmp_path, weights_only, experiments=["magnitude-p20"], batch_sizes=[1, 10**9])
    done = snakemake("inference", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    line = "[inference A magnitude-p20] error: inference.batch_sizes: got 1000000000, which needs "
    assert any(found.startswith(line) for found in done.stderr.splitlines()), done.stderr


@pytest.mark.parametrize(
    ("inference", "line"),
    [
        (
            {"experiments": ["blockwize-seq16-n3-p20"]},
            "  inference.experiments: got 'blockwize-seq16-n3-p20'; allowed: best and the 2 names of this study",
        ),
        ({"repeats": 5}, "  inference.repeats: got 5; allowed: greater than or equal to 6"),
        ({"batch_sizes": [2, 2]}, "  inference.batch_sizes: 2 is listed twice; list each value once"),
        (
            {"prompt_tokens": 126},
            "  model 'A': inference: prompt_tokens 126 and new_tokens 4 exceed the context of 128 tokens; give fewer",
        ),
    ],
    ids=["unknown name", "few repeats", "twice", "context"],
)
def test_what_the_driver_refuses(
    snakemake: Run, tmp_path: Path, study: dict[str, Any], inference: dict[str, Any], line: str
) -> None:
    write(tmp_path, study, **inference)
    done = snakemake("inference", "-n", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode != 0
    assert any(found.startswith(line) for found in done.stderr.splitlines()), done.stderr


def test_the_target_without_its_section(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    done = snakemake("inference", "-n", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode != 0
    assert "  inference: the target needs this section of the config; give `inference: {}`" in done.stderr.splitlines()

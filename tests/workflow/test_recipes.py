"""The recipes of CONTRIBUTING.md, carried out on a copy of the repository by the blocks that stand there.

Each is held to the tests that a contributor would run; then one tiny study uses what all of them added.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from espalier.files import write_parquet
from espalier.messages.catalogue import catalogue
from tests.conftest import HANG_S, REPOSITORY
from tests.documents import apply_edit, blocks, copy_repository

pytestmark = pytest.mark.long

RECIPES = [REPOSITORY / "CONTRIBUTING.md"]
# What shows that an edit is right, by the file that is edited; the others are proved by the study at the end.
PROOFS = {
    "architecture.py": "test_families.py::test_pruned_equals_masked[vaultgemma-layers]",
    "tasks.py": "test_sandbox.py::test_solved_text_is_what_lm_eval_builds[swag]",
    "en.yaml": "test_messages.py::test_both_catalogues_have_the_same_codes_in_the_same_order",
    "zh.yaml": "test_messages.py::test_a_template_uses_only_values_that_its_code_is_given[s.lost]",
}


def run(library: Path, *command: str, folder: Path | None = None) -> str:
    """Run a Python module with the library of a copy, in the copy or another folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder or library, env=environment | {"PYTHONPATH": str(library / "src")},
        capture_output=True, text=True, check=False, timeout=HANG_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with every recipe carried out."""
    folder = copy_repository(tmp_path_factory.mktemp("recipes"))
    paths = [apply_edit(block.text, folder) for block in blocks("diff", pages=RECIPES)]
    assert {path.name for path in paths} == {*PROOFS, "criteria.py", "model.py"}
    run(folder, "tools.config_options")
    run(folder, "tools.families")
    return folder


def test_edits_are_in_the_house_style(edited: Path) -> None:
    files = [block.text.split("\n")[0].removeprefix("+++ ") for block in blocks("diff", pages=RECIPES)]
    sources = [file for file in files if file.endswith(".py")]
    run(edited, "ruff", "check", *sources)
    run(edited, "ruff", "format", "--check", *sources)


def test_what_a_contributor_runs_passes(edited: Path) -> None:
    files = ("models/test_families.py", "sandbox/test_sandbox.py", "test_messages.py")
    chosen = ("-k", "vaultgemma or readme or swag or messages")
    said = run(edited, "pytest", "-v", "-p", "no:cacheprovider", *(f"tests/unit/{file}" for file in files), *chosen)
    passed = [line.split(" PASSED")[0] for line in said.splitlines() if " PASSED" in line]
    assert [proof for proof in PROOFS.values() if not any(name.endswith(proof) for name in passed)] == []


def test_options_name_the_new_criterion(edited: Path) -> None:
    for name in ("README.md", "schema.json"):
        assert "fisher" in (edited / "config" / name).read_text(encoding="utf-8")
        assert "fisher" not in (REPOSITORY / "config" / name).read_text(encoding="utf-8")


def sciq(n: int) -> pa.Table:
    """Documents in the schema of SciQ; the right answer is in the support."""
    colours = ["red", "green", "blue", "white", "black"]
    rows = [[colours[(i + k) % 5] for k in range(4)] for i in range(n)]
    return pa.Table.from_pylist(
        [
            {
                "support": f"Stone number {i} is {right}.", "question": f"Which colour is stone number {i}?",
                "distractor1": a, "distractor2": b, "distractor3": c, "correct_answer": right,
            }
            for i, (right, a, b, c) in enumerate(rows)
        ]
    )  # fmt: skip


@pytest.fixture
def finished(study: dict[str, Any], edited: Path, tmp_path: Path) -> Path:
    """Results of a tiny study that uses the new criterion, the methods and the task of the recipes."""
    methods, task = (yaml.safe_load(block.text) for block in blocks("yaml", pages=RECIPES))
    for split in ("train", "validation", "test"):
        write_parquet(tmp_path / f"tasks/sciq/{split}.parquet", sciq(6))
    Path(tmp_path / "my_tasks").symlink_to(tmp_path / "tasks")
    criteria = [{"name": name, "criterion": name} for name in ("taylor", "taylor2", "fisher")]
    study["methods"] = [*methods["methods"], *criteria]
    study["grid"]["methods"] = [method["name"] for method in study["methods"]]
    study["evaluation"] |= task["evaluation"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    command = ["--snakefile", str(edited / "Snakefile"), "--workflow-profile", str(edited / "profiles/default")]
    quicker = ["--config", "evaluation={experiments_per_job: 9}"]
    run(edited, "snakemake", *command, "--configfile", "study.yaml", *quicker, folder=tmp_path)
    return tmp_path / "results/tiny"


def test_a_study_uses_what_was_added(finished: Path) -> None:
    experiments = pd.read_parquet(finished / "consolidated/experiments.parquet")
    assert set(experiments.status) == {"ok"}
    assert set(experiments.method.dropna()) == {"gentle", "cosine", "even", "taylor", "taylor2", "fisher"}
    assert experiments.acc_sciq.notna().all()
    # taylor2 = taylor + w^2 F / 2, weight by weight, and so group by group.
    tables = {
        name: pd.read_parquet(finished / f"importance/A/{name}/calibration-s0/seq16.parquet")
        for name in ("taylor", "taylor2", "fisher")
    }
    by_group = {name: table.set_index(["n_samples", "layer", "block", "group"]) for name, table in tables.items()}
    found = by_group["taylor"].importance + by_group["fisher"].importance
    pd.testing.assert_series_equal(found, by_group["taylor2"].importance, rtol=1e-5)
    assert (by_group["fisher"].importance > 0).all()
    title = "What the best configuration lost, task by task"
    assert title not in catalogue("en").values()
    for name in ("report.txt", "report.html"):
        assert title in (finished / "reports/A" / name).read_text(encoding="utf-8")

"""What users install: the wheel has all that the library reads, and every place says the same version."""

import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from espalier import __version__
from tests.conftest import REPOSITORY
from tests.workflow.test_conventions import locked

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LIBRARY = REPOSITORY / "src/espalier"
# Run outside the repository, by the environment that the wheel is in.
USE = """
import pathlib, sys
import espalier
from espalier.config import load_study
from espalier.planning import select
from espalier.reports import page
from espalier.reports.figures.files import figure_style
from espalier.reports.messages import Texts
from importlib.metadata import version
assert pathlib.Path(espalier.__file__).is_relative_to(sys.prefix), espalier.__file__
assert version("espalier") == espalier.__version__
assert "data-listing" in page._source("page.js")
with figure_style():
    pass
assert Texts("zh")("seq_len") != Texts("en")("seq_len")
model = {"name": "A", "family": "Llama", "kind": "base", "path": "a"}
assert load_study({"study": "s", "models": [model]}).grid.pruning_ratio == (0.2,)
print(espalier.__version__)
"""
# Import all modules where Snakemake is missing. Those that need torch are left out: importing it takes long.
IMPORT_ALL = """
import importlib, pkgutil, sys
missing = {"snakemake", "torch", "transformers", "lm_eval", "datasets", "peft"}
class Missing:
    def find_spec(name, path=None, target=None):
        if name in missing:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing)
import espalier
for module in pkgutil.walk_packages(espalier.__path__, "espalier."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] not in missing - {"snakemake"}:
            raise
    else:
        print(module.name)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distribution, and the wheel, built without a network."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {path.name.removeprefix(f"espalier-{__version__}"): path for path in folder.iterdir()}


def tracked(folder: str) -> set[str]:
    """Files of a folder that git tracks, or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\n")
    return {name for name in listed if name and (REPOSITORY / name).is_file()}


def test_both_are_named_after_the_version(built: dict[str, Path]) -> None:
    assert set(built) == {".tar.gz", "-py3-none-any.whl"}


def test_the_wheel_has_every_file_of_the_library(built: dict[str, Path]) -> None:
    """Templates, messages, the style of the figures, and the mark that the library is typed."""
    with zipfile.ZipFile(built["-py3-none-any.whl"]) as wheel:
        names = set(wheel.namelist())
        about = Parser().parsestr(wheel.read(f"espalier-{__version__}.dist-info/METADATA").decode())
    assert {name for name in names if name.startswith("espalier/")} == {
        name.removeprefix("src/") for name in tracked("src/espalier")
    }
    assert {"espalier/py.typed", "espalier/reports/figures/figures.mplstyle"} <= names
    assert f"espalier-{__version__}.dist-info/licenses/LICENSE" in names
    assert about["License-Expression"] == "Apache-2.0"
    assert {re.split(r"[ ;>=<]", need)[0] for need in about.get_all("Requires-Dist")} >= {"torch", "snakemake"}


def test_the_source_distribution_can_run_the_workflow_and_its_tests(built: dict[str, Path]) -> None:
    with tarfile.open(built[".tar.gz"]) as source:
        names = {name.split("/", 1)[1] for name in source.getnames() if "/" in name}
    for folder in ("src", "rules", "workflow", "config", "profiles", "envs", "tests", "docs"):
        assert tracked(folder) <= names, folder
    assert {"Snakefile", "Makefile", "LICENSE", "CHANGELOG.md", "CITATION.cff", "requirements.lock"} <= names


@pytest.fixture(scope="module")
def python(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment that has the wheel and sees the dependencies of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    program = folder / "bin/python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    others = [path for path in sys.path if path.endswith("-packages")]
    (packages / "dependencies.pth").write_text("\n".join(others) + "\n", encoding="utf-8")
    pip = [str(program), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(built["-py3-none-any.whl"])]
    subprocess.run(pip, cwd=folder, env={"PIP_DISABLE_PIP_VERSION_CHECK": "1"}, check=True)
    return program


def run(python: Path, code: str, folder: Path) -> str:
    done = subprocess.run([str(python), "-c", code], cwd=folder, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_wheel_works_outside_the_repository(python: Path, tmp_path: Path) -> None:
    assert run(python, USE, tmp_path) == __version__


def test_modules_import_without_snakemake(python: Path, tmp_path: Path) -> None:
    assert len(run(python, IMPORT_ALL, tmp_path).split()) > 80


def test_every_place_says_the_same_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    released = re.search(r"^## (\S+) - (\S+)$", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released is not None
    assert (citation["version"], str(citation["date-released"])) == released.groups()
    assert citation["version"] == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_citation_has_what_its_format_asks_for() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["project"]["license"]
    assert all(author.get("name") or author.get("family-names") for author in citation["authors"])


def test_the_build_tool_is_the_locked_one() -> None:
    assert PROJECT["build-system"]["requires"] == [f"hatchling=={locked()['hatchling']}"]

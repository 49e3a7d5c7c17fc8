"""Who may import whom: rules name scripts, scripts call the library, and within it imports go one way.

pyproject.toml has the contracts (`[tool.importlinter]`); docs/architecture.md explains them.
"""

import ast
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import pytest

from espalier.models.architecture import ATTENTION, EMBEDDINGS, HEAD, LAYERS, LAYOUTS, NORM
from tests.conftest import REPOSITORY
from tests.workflow.test_conventions import CHEAP, RULE_FILES, SCRIPTS, WITHOUT_CODE, WITHOUT_OUTPUT, rules

LIBRARY = REPOSITORY / "src/espalier"
# How values are written and failures said, not what they are: no table or report changes with these.
WITHOUT_EFFECT = {
    "errors.py", "files.py", "jobs/input_checks.py", "jobs/interrupts.py", "jobs/log.py",
    "jobs/offline.py", "results/verify.py", "study/failure_records.py", "study/paths.py", "study/stopping.py",
}  # fmt: skip


def lint_imports(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Check the contracts of a copy of the library."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo", *arguments],
        cwd=repository, env={"PYTHONPATH": "src", "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_imports_keep_the_contracts() -> None:
    done = lint_imports(REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("layers", "planning/scores.py", "from espalier.scoring import tree"),
        ("layers", "odds_and_ends.py", ""),
        ("cycles", "scoring/tree.py", "from espalier.scoring import pack"),
        ("light", "planning/scores.py", "import torch"),
        ("rendering", "reports/text.py", "from espalier.statistics import ranking"),
        ("core", "scoring/pack.py", "def late():\n    import lm_eval"),
        ("library", "models/surgery.py", "from snakemake import script"),
        ("extras", "reports/text.py", "from espalier.serving import verdict"),
        ("network", "models/folder.py", "import huggingface_hub"),
    ],
)
def test_each_contract_can_be_broken(contract: str, module: str, line: str, tmp_path: Path) -> None:
    shutil.copytree(LIBRARY, tmp_path / "src/espalier", ignore=shutil.ignore_patterns("__pycache__", "vendor"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    with (tmp_path / "src/espalier" / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint_imports(tmp_path, "--contract", contract)
    assert done.returncode == 1, done.stderr
    assert "Contracts: 0 kept, 1 broken." in done.stdout


def test_the_page_lists_every_part() -> None:
    page = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w.]+)/?` \|", page, re.MULTILINE)
    parts = {path.relative_to(LIBRARY).parts[0] for path in LIBRARY.rglob("*.py")}
    assert sorted(listed) == sorted(parts - {"__init__.py"})


def test_the_page_names_files_that_exist() -> None:
    """A name without a folder lies in the folder of the name before it, or in the library's own."""
    page = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    folder = Path()
    for name in re.findall(r"`([\w/]+\.py)`", page[page.index("## One experiment") :]):
        if "/" in name:
            folder = Path(name).parent
        assert any((LIBRARY / place / name).is_file() for place in ("", folder)), name


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.stem)
def test_rules_only_name_things(path: Path) -> None:
    """What a rule works out is a method of `espalier.study`, where it is typed and tested."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(def|class|import|from|run:|shell:)\b|\blambda\b", text, re.MULTILINE)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_use_the_library_alone(path: Path) -> None:
    ours = {other.stem for other in SCRIPTS} | {"workflow", "tests", "benchmarks", "scripts"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} & (ours | {""}) == set()


@cache
def graph() -> grimp.ImportGraph:
    """Imports of the library, those for types alone left out."""
    return grimp.build_graph("espalier", cache_dir=None, exclude_type_checking_imports=True)


def sources_of(script: Path) -> set[str]:
    """Files of the library that a script imports, directly or indirectly, relative to the library."""
    modules = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "espalier":
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= (named & graph().modules) or {node.module}
    found = modules.union(*(graph().find_upstream_modules(module) for module in modules))
    paths = {module.removeprefix("espalier").lstrip(".").replace(".", "/") + ".py" for module in found}
    return {path for path in paths if (LIBRARY / path).is_file()}


@pytest.mark.parametrize("name", sorted(CHEAP - WITHOUT_OUTPUT - WITHOUT_CODE))
def test_a_cheap_rule_lists_every_source_of_its_script(name: str) -> None:
    """Or tables and reports would stay as they were when the code behind them changes."""
    listed = re.search(r"study\.source_files\((.*?)\)", rules()[name], re.DOTALL)
    assert listed is not None
    patterns = re.findall(r'"([^"]+)"', listed[1])
    by_pattern = {pattern: {str(path.relative_to(LIBRARY)) for path in LIBRARY.glob(pattern)} for pattern in patterns}
    used = sources_of(REPOSITORY / f"workflow/scripts/{name}.py") - WITHOUT_EFFECT
    assert used - set().union(*by_pattern.values()) == set(), "used, but not in input.code"
    superfluous = [pattern for pattern, files in by_pattern.items() if pattern.endswith(".py") and not files & used]
    assert superfluous == [], "in input.code, but used by nothing"


PROJECTIONS = {name for layouts in LAYOUTS.values() for layout in layouts for name in layout.names}
TENSOR_NAMES = {*PROJECTIONS, ATTENTION.path, LAYERS, NORM, HEAD, EMBEDDINGS}


def names_in(source: str) -> set[str]:
    """Find names of tensors in the strings of a source, f-strings among them; docstrings and messages do not count."""
    tree = ast.parse(source)
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    parts = {part for text in strings for part in re.split(r"[./]", text)}
    return {
        name for name in TENSOR_NAMES if name in parts or any(f"{text}.".startswith(f"{name}.") for text in strings)
    }


def test_only_the_table_of_architectures_names_tensors() -> None:
    """A family is added in one place."""
    found = {path.name: names_in(path.read_text(encoding="utf-8")) for path in LIBRARY.rglob("*.py")}
    assert found.pop("architecture.py") == TENSOR_NAMES
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize("line", ["x = f'model.layers.{i}'", "x = f'{prefix}self_attn.q_proj.bias'", "x = 'lm_head'"])
def test_a_name_elsewhere_is_found(line: str) -> None:
    assert names_in(line)


def test_only_jobs_read_the_object_of_a_script() -> None:
    """Scripts hand on values; a library class that takes the object itself belongs into `jobs/`."""
    reads = re.compile(r"\bsnakemake\.(input|output|params|config|wildcards|resources|log|threads|rule)\b")
    readers = {
        path.relative_to(LIBRARY).parts[0] for path in LIBRARY.rglob("*.py") if reads.search(path.read_text("utf-8"))
    }
    assert readers == {"jobs"}

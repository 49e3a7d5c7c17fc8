"""Every command in the documents runs.

Commands run in a fresh copy of the repository, whose `.venv/bin` has stand-ins for what takes long: Snakemake makes a
dry run (of the same Snakefile, config, profile and target), make prints what it would do for the targets that install,
train or test. What cannot run here at all is listed in `ELSEWHERE` with the reason.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from espalier.config.load import load_study
from tests.conftest import HANG_S, REPOSITORY
from tests.documents import PAGES, Block, blocks, copy_repository, inline_commands
from tests.published import write_model
from tests.unit.conftest import save_random_model
from tests.workflow.conftest import DefaultRun

LANGUAGES = {"sh", "bash", "text", "yaml", "json", "python", "diff", "mermaid"}
ELSEWHERE = {
    "squeue --me": "needs Slurm: tests/slurm/test_cluster.py runs this block there",
    "pre-commit install": "writes into .git; the linters that it runs are those of `make lint`",
    "snakemake inference": "needs a section of the config: tests/workflow/test_inference.py",
    "snakemake recovered": "the same: tests/workflow/test_recovery.py",
    "sh envs/install_llama_cpp.sh": "installs: `make test-all` does it",
    "CMAKE_ARGS=-DGGML_NATIVE=OFF pip install": "the same by hand",
    "from espalier.files": "of the tutorial: test_the_tutorial_prints_what_it_shows",
    "import pandas": "the same",
    "import matplotlib": "reads the table of a figure: test_a_figure_is_drawn_again",
    "snakemake --report": "needs a finished study: test_default_run.py",
    "from transformers import AutoModelForCausalLM": "needs an exported folder: tests/unit/export",
    "from espalier.recovery.load": "needs a trained adapter: tests/unit/recovery",
    "PYTHONPATH=src python benchmarks/": "measures for minutes: its options are looked up below",
    "PYTHONPATH=src python -m espalier.analysis.race_replay": "needs a finished study: tests/unit/analysis",
    "PYTHONPATH=src python -m espalier.results.verify": "needs a finished study: tests/unit/results/test_verify.py",
    "PYTHONPATH=src python -m tools.repeatability": "needs two finished runs: tests/workflow/test_repeatability.py",
}
# Printed by make, not run: each is covered by what is named.
LONG_TARGETS = {
    "run": "the fixture default_run",
    "test": "this very run",
    "test-all": "this very run in CI",
    "llama": "`make test-all` needs it; test_llama_cpp.py",
    "lint": "`.ci/run`",
    "lock": "needs the network",
    "audit": "needs the network",
    "coverage": "the unit tests",
    "mutation": "takes an hour",
    "pack": "test_what_reruns.py",
    "unpack": "test_what_reruns.py",
    "torture": "takes an hour",
}
SNAKEMAKE = """\
#!/bin/sh
# A dry run of the same command; one that was fine is not repeated.
key={done}/$(printf '%s\\n' "$@" | sha256sum | cut -c1-32)
if [ -e "$key" ]; then exit 0; fi
{python} -m snakemake "$@" --dry-run && touch "$key"
"""
MAKE = """\
#!/bin/sh
for word in "$@"; do
    case " {long} " in *" $word "*) exec /usr/bin/env -u MAKEFLAGS {make} --dry-run "$@" ;; esac
done
exec {make} "$@"
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with stand-ins, the studies of the documents, and folders that these name."""
    folder = copy_repository(tmp_path_factory.mktemp("clone"))
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    for installed in Path(sys.executable).parent.iterdir():
        if not installed.name.startswith(("python", "activate", "snakemake", "pip")):
            (programs / installed.name).symlink_to(installed)
    (folder / ".done").mkdir()
    make = subprocess.run(["which", "make"], capture_output=True, text=True, check=True).stdout.strip()
    stand_ins = {
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        "snakemake": SNAKEMAKE.format(done=folder / ".done", python=sys.executable),
        "make": MAKE.format(long=" ".join(LONG_TARGETS), make=make),
        "pip": "#!/bin/sh\necho 'tests install nothing: list this command in ELSEWHERE' >&2\nexit 1\n",
    }
    for name, text in stand_ins.items():
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    (folder / ".venv/.installed").touch()
    for block in blocks("yaml"):
        if name := named(block):
            (folder / name).write_text(block.text, encoding="utf-8")
    write_model(folder / "path/to", "Qwen", "20")
    save_random_model(folder / "models/Llama-3.2-1B")
    return folder


def named(block: Block) -> str | None:
    """The file that a block of YAML says it is: `# my_study.yaml` in its first line."""
    found = re.match(r"# (\w+\.yaml)\b", block.text)
    return found[1] if found else None


def elsewhere(block: Block) -> str | None:
    """Which entry of ELSEWHERE a block is."""
    return next((start for start in ELSEWHERE if block.text.startswith(start)), None)


def runnable(found: list[Block]) -> list[Block]:
    """What runs here."""
    return [block for block in found if elsewhere(block) is None]


def run(command: str, clone: Path, *, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run commands in the copy, or in another folder, with the stand-ins of the copy."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTEST", "PYTHONPATH"))},
        "PATH": f"{clone / '.venv/bin'}:{os.environ['PATH']}",
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder or clone, env=environment, capture_output=True, text=True, check=False, timeout=HANG_S,
    )  # fmt: skip


def test_every_block_says_what_it_is() -> None:
    """Commands are sh or bash, what a program prints and formulas are text; so nothing is overlooked below."""
    assert [block.place for block in blocks() if block.language not in LANGUAGES] == []
    prints = [block.place for block in blocks("text") if re.match(r"\$? ?(snakemake|make|python|pip) ", block.text)]
    assert prints == []


@pytest.mark.parametrize("block", runnable(blocks("sh", "bash")), ids=lambda block: block.place)
def test_block_of_commands_runs(block: Block, clone: Path) -> None:
    # Later blocks of a page use what earlier ones set.
    earlier = [one for one in blocks("sh", pages=[REPOSITORY / block.page]) if one.line < block.line]
    settings = re.findall(r"^\w+=.*$", "".join(one.text for one in earlier), re.MULTILINE)
    done = run("\n".join([*settings, block.text]), clone)
    assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"


@pytest.mark.parametrize("block", runnable(inline_commands()), ids=lambda block: block.place)
def test_command_in_the_text_runs(block: Block, clone: Path) -> None:
    done = run(block.text, clone)
    assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"


def test_nothing_is_listed_that_no_document_has() -> None:
    used = {elsewhere(block) for block in (*blocks("sh", "bash", "python"), *inline_commands())}
    assert set(ELSEWHERE) - used == set()


BENCHMARKS = [block for block in inline_commands() if "benchmarks/" in block.text]


@pytest.mark.parametrize("block", BENCHMARKS, ids=lambda block: block.place)
def test_benchmark_has_the_options_that_are_named(block: Block, clone: Path) -> None:
    script, *arguments = block.text.split("python ")[1].split()
    assert (clone / script).is_file()
    options = [word for word in arguments if word.startswith("--")]
    if options:
        shown = run(f"PYTHONPATH=src python {script} --help", clone).stdout
        assert [option for option in options if option not in shown] == []


def outline(text: str) -> list[str]:
    """The words of what a program printed: numbers and experiments, which differ between machines, are left out."""
    words = re.sub(r"\b(?:\w+-)+p\d+\b|-{3,}|\d+(?:\.\d+)?%?", "", text)
    return [" ".join(line.split()) for line in words.splitlines()]


@pytest.mark.run
def test_make_run_prints_what_the_readme_shows(default_run: DefaultRun, clone: Path) -> None:
    (shown,) = (block.text for block in blocks("text") if block.text.startswith("Best experiment of each model"))
    command = f"PYTHONPATH={clone / 'src'} python -m espalier.reports.summary results/sandbox"
    assert outline(run(command, clone, folder=default_run.directory).stdout) == outline(shown)


@pytest.mark.run
def test_the_tutorial_prints_what_it_shows(default_run: DefaultRun, clone: Path) -> None:
    found = blocks("python", "text", pages=[REPOSITORY / "docs/tutorial.md"])
    assert len(found) > 10
    for code, shown in zip(found[::2], found[1::2], strict=True):
        (clone / "tutorial.py").write_text(code.text, encoding="utf-8")
        done = run(f"PYTHONPATH={clone / 'src'} python {clone / 'tutorial.py'}", clone, folder=default_run.directory)
        assert done.returncode == 0, f"{code.place}\n{done.stderr[-2000:]}"
        assert outline(done.stdout) == outline(shown.text), code.place


@pytest.mark.run
def test_a_figure_is_drawn_again(default_run: DefaultRun, clone: Path, tmp_path: Path) -> None:
    """The ten lines of figures.md, in a folder of figures."""
    (code,) = (block.text for block in blocks("python") if "redrawn.pdf" in block.text)
    (table,) = sorted(default_run.results.glob("reports/Llama/**/intervals.csv"))[:1]
    shutil.copy(table, tmp_path)
    (tmp_path / "redraw.py").write_text(code, encoding="utf-8")
    done = run("python redraw.py", clone, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "redrawn.pdf").stat().st_size > 1000


@pytest.mark.run
def test_what_the_sandbox_shows_is_printed(default_run: DefaultRun, clone: Path) -> None:
    """The command of benchmarks.md that reads a finished run."""
    (command,) = (block.text for block in BENCHMARKS if "benchmarks/sandbox.py" in block.text)
    elsewhere_too = command.replace("=src", f"={clone / 'src'}").replace("benchmarks/", f"{clone / 'benchmarks'}/")
    printed = run(elsewhere_too, clone, folder=default_run.directory).stdout
    assert "| Mistral-Instruct |" in printed
    assert "- `evaluate`: 156 jobs" in printed


def studies() -> list[Block]:
    return [block for block in blocks("yaml") if re.search(r"^study:", block.text, re.MULTILINE)]


@pytest.mark.parametrize("block", studies(), ids=lambda block: block.place)
def test_study_in_the_documents_is_accepted(block: Block) -> None:
    assert load_study(yaml.safe_load(block.text)).study


@pytest.mark.parametrize(
    "block", [block for block in blocks("yaml") if block not in studies()], ids=lambda block: block.place
)
def test_part_of_a_study_is_accepted(block: Block) -> None:
    """A few keys, put into the smallest study."""
    part: dict[str, Any] = yaml.safe_load(block.text) or {}
    model = {"name": "A", "family": "Llama", "kind": "base", "path": "a"}
    assert load_study({"study": "s", "models": [model]} | part).study == "s"


def test_blocks_of_python_run(clone: Path) -> None:
    for block in runnable(blocks("python")):
        (clone / "block.py").write_text(block.text, encoding="utf-8")
        done = run("PYTHONPATH=src python block.py", clone)
        assert done.returncode == 0, f"{block.place}\n{block.text}\n{done.stderr[-3000:]}"


def test_pages_name_files_that_exist() -> None:
    """Paths in the repository that stand in the text as code."""
    folders = r"(?:src|docs|config|profiles|rules|workflow|tests|benchmarks|envs)"
    lost = [
        f"{page.name}: {path}"
        for page in PAGES
        for path in re.findall(rf"`({folders}/[\w./-]+)`", page.read_text(encoding="utf-8"))
        if not (REPOSITORY / path).exists()
    ]
    assert lost == []


def test_pages_name_modules_that_exist() -> None:
    """Modules of the library and their members, where the text names them as code."""

    def exists(name: str) -> bool:
        path = REPOSITORY / "src" / name.replace(".", "/")
        if path.with_suffix(".py").is_file() or path.is_dir():
            return True
        module, _, inside = name.rpartition(".")
        file = REPOSITORY / "src" / f"{module.replace('.', '/')}.py"
        return file.is_file() and bool(
            re.search(rf"^(?:def|class) {inside}\b|^{inside}\b", file.read_text(), re.MULTILINE)
        )

    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"`(espalier(?:\.\w+)+)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert [f"{page}: {name}" for page, name in sorted(named) if not exists(name)] == []

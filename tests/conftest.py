"""Fixtures shared by all tests: tiny random models, a private copy of the repository, no stray files."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.script_server import ScriptServer
from tests.snakemake_server import SnakemakeServer

REPOSITORY = Path(__file__).resolve().parents[1]
HANG_S = 1800  # after which a command hangs, on the slowest machine and beside other work


# Two processes take files in this order: the longest first, and nothing that waits for the default study before it is
# there. Unit tests come last, since they fill what time is left in small pieces.
ORDER = ("workflow/test_default_run", "slurm/test_cluster", "real/", "workflow/test_[!dw]", "slurm/", "workflow/")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark tests as long that need more than Python, or the finished tiny study, whose run takes a minute."""
    needs_more = any(item.get_closest_marker(name) for name in ("run", "slurm", "llama", "browser"))
    if needs_more or "tiny_run" in getattr(item, "fixturenames", ()):
        item.add_marker("long")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files into the order in which `--dist=loadfile --no-loadscope-reorder` hands them out."""

    def place(item: pytest.Item) -> int:
        file = item.path.relative_to(REPOSITORY / "tests").as_posix()
        return next((i for i, start in enumerate(ORDER) if fnmatch(file, f"{start}*")), len(ORDER))

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def no_stray_files() -> Iterator[None]:
    """Fail when a test leaves a file in the repository that git does not ignore; without git nothing is checked."""
    if not (REPOSITORY / ".git").exists() or shutil.which("git") is None:
        yield
        return
    before = _untracked()
    yield
    stray = _untracked() - before
    assert not stray, f"tests left files behind: {sorted(stray)}"


def _untracked() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.splitlines())


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture
def no_report_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lm-eval leave out its report on the machine, which starts programs such as pip and takes a second."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)


def job_counts(output: str) -> dict[str, int]:
    """Read the table of jobs that a dry run prints."""
    table = output[output.index("Job stats:") :].split("\n\n", maxsplit=1)[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def snakemake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run snakemake on the repository's Snakefile: `snakemake(arguments, directory=...)`.

    It gets one core unless the arguments say otherwise, because several processes run the tests.
    """
    scripts = ScriptServer(tmp_path_factory.mktemp("scripts"))
    server = SnakemakeServer(scripts.interpreter)
    output = tmp_path_factory.mktemp("snakemake") / "printed"

    def run(*arguments: str, directory: Path, timeout_s: int = HANG_S) -> subprocess.CompletedProcess[str]:
        cores = [] if "--cores" in arguments else ["--cores", "1"]
        command = ["--snakefile", str(REPOSITORY / "Snakefile"), *cores, *arguments]
        if not {"-n", "--dry-run", "--list"}.intersection(arguments):
            scripts.start()
        status = server.run(command, directory, output, timeout_s)
        printed = (Path(f"{output}.{name}").read_text(encoding="utf-8") for name in ("out", "err"))
        return subprocess.CompletedProcess(["snakemake", *command], status, *printed)

    yield run
    server.close()
    scripts.close()

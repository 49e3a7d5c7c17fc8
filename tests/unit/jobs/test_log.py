"""The record that a failed job leaves. Each job runs in its own process, as workflow scripts do."""

import ast
import io
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.errors import memory_line
from espalier.files import read_json, sha256_of, write_json
from espalier.jobs.log import job_log
from espalier.results.verify import record_file
from espalier.study.failure_records import failure_file, older_file, read_failure
from tests.conftest import REPOSITORY

JOB = """
import sys
from types import SimpleNamespace
from espalier.errors import UserError
from espalier.jobs.log import workflow_job
rule, *wildcards = sys.argv[1:]
snakemake = SimpleNamespace(
    rule=f"espalier_{{rule}}", wildcards=wildcards, config={{"study": "s"}},
    log=[f"results/s/logs/{{rule}}/{{'/'.join(wildcards)}}.log"], input=[], output=["results/s/out.txt"],
)
with workflow_job(snakemake, rule, " ".join([rule, *wildcards])):
    {body}
"""
SCRIPTS = sorted((REPOSITORY / "workflow/scripts").glob("*.py"))
STAGING = {"stage_model", "stage_dataset", "stage_text"}


def run(folder: Path, body: str, *job: str) -> tuple[int, str]:
    """Run a job in a folder, by default the plan of `x-p20` of model A; return its exit status and stderr."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(
        [sys.executable, "-c", JOB.format(body=body), *(job or ("plan", "A", "x-p20"))],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def recorded(folder: Path) -> dict[str, str]:
    """Return the recorded reasons by file, relative to `failures/`."""
    failures = folder / "results/s/failures"
    return {str(path.relative_to(failures)): read_json(path)["reason"] for path in sorted(failures.rglob("*.json"))}


def test_a_job_that_succeeds_records_the_checksums_of_its_outputs(tmp_path: Path) -> None:
    """A job that fails leaves no new record; one that succeeds later replaces the old one."""
    write = "from pathlib import Path; Path('results/s/out.txt').write_text({!r}); {}"
    record = record_file(tmp_path / "results/s", "plan", ("A", "x-p20"))
    for text, rest, status, expected in (("a", "[][0]", 1, None), ("ab", "", 0, 2), ("abc", "", 0, 3)):
        assert run(tmp_path, write.format(text, rest))[0] == status
        assert record.is_file() == (expected is not None)
        if expected:
            assert read_json(record)["outputs"] == {
                "out.txt": {".": {"bytes": expected, "sha256": sha256_of(tmp_path / "results/s/out.txt")}}
            }


@pytest.mark.parametrize(
    ("body", "reason", "line"),
    [
        ("raise UserError('too much; lower it')", "too much; lower it", "[plan A x-p20] error: too much; lower it"),
        ("raise UserError('\\none\\ntwo')", "one", "[plan A x-p20] error: two"),
        ("raise UserError('')", "UserError", "[plan A x-p20] error: UserError"),
        (
            "raise MemoryError",
            memory_line("MemoryError", "plan"),
            "[plan A x-p20] error: out of memory (MemoryError); give the job more",
        ),
        (  # whatever an error says that was raised only because a library had no memory
            "\n    try: raise OSError(12, 'no memory')\n    except OSError: raise UserError('mend the file')",
            memory_line("OSError: [Errno 12] no memory", "plan"),
            "[plan A x-p20] error: out of memory (OSError",
        ),
        (
            "\n    try: raise MemoryError\n    except MemoryError: raise UserError('no model (MemoryError); copy it')",
            memory_line("MemoryError", "plan"),
            "[plan A x-p20] error: out of memory (MemoryError",
        ),
        (
            "\n    try: raise MemoryError\n    except MemoryError: raise UserError('too little memory for 8 prompts')",
            "too little memory for 8 prompts",
            "[plan A x-p20] error: too little memory for 8 prompts",
        ),
        (
            "[][0]",
            "IndexError: list index out of range",
            "[plan A x-p20] failed: IndexError: list index out of range (trac",
        ),
        (
            "raise PermissionError(13, 'Permission denied', 'none/a')",
            "none/a: cannot be written (Permission denied); make it writable (`chmod u+w`) and run again",
            "[plan A x-p20] error: none/a: cannot be written",
        ),
        (
            "raise OSError('no \\udce9 here')",  # how Python decodes a file name that is not UTF-8
            "OSError: no \\udce9 here",
            "[plan A x-p20] failed: OSError: no ",
        ),
    ],
)
def test_a_failure_record_is_written_and_removed_by_a_later_success(
    tmp_path: Path, body: str, reason: str, line: str
) -> None:
    status, printed = run(tmp_path, body)
    assert status == 1
    assert line in printed
    assert "Traceback" not in printed
    assert recorded(tmp_path) == {"plan/A/x-p20.json": reason}
    content = read_json(tmp_path / "results/s/failures/plan/A/x-p20.json")
    assert content | {"reason": ""} == {
        "rule": "plan", "wildcards": ["A", "x-p20"], "reason": "", "log": "results/s/logs/plan/A/x-p20.log",
    }  # fmt: skip
    assert run(tmp_path, "pass")[0] == 0
    assert recorded(tmp_path) == {}


def test_a_success_removes_only_its_own_record(tmp_path: Path) -> None:
    """A plan that succeeds keeps the record of its failed evaluation; dots in names are not file suffixes."""
    jobs = [
        ("evaluate", "A", "v1.5-p20"), ("evaluate", "A", "v1.5-p20.x"), ("plan", "A", "v1.5-p20"), ("check_model", "A"),
        ("collect_gradients", "A", "c4-s0", "16"), ("collect_gradients", "A", "c4-s0", "32"), ("make_world",),
    ]  # fmt: skip
    for job in jobs:
        assert run(tmp_path, f"raise UserError({' '.join(job)!r})", *job)[0] == 1
    expected = {f"{'/'.join(job)}.json": " ".join(job) for job in jobs}
    assert recorded(tmp_path) == expected
    for job in jobs[2:]:
        assert run(tmp_path, "pass", *job)[0] == 0
        del expected[f"{'/'.join(job)}.json"]
        assert recorded(tmp_path) == expected


def test_a_record_of_version_0_1_0_is_removed_by_the_job_that_wrote_it(tmp_path: Path) -> None:
    """In version 0.1.0, plan and evaluation shared one record; the log in it shows which job failed."""
    older = tmp_path / "results/s/failures/A/x-p20.json"
    for rule, other in (("plan", "evaluate"), ("evaluate", "plan")):
        write_json(older, {"reason": "nan", "log": f"results/s/logs/{rule}/A/x-p20.log"})
        assert run(tmp_path, "pass", other, "A", "x-p20")[0] == 0
        assert older.exists()
        assert run(tmp_path, "pass", rule, "A", "x-p20")[0] == 0
        assert not older.exists()


@pytest.mark.parametrize(
    "body",
    ["raise KeyboardInterrupt", f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"],
    ids=["SIGINT", "SIGKILL"],
)
def test_an_interrupted_or_killed_job_keeps_the_earlier_record(tmp_path: Path, body: str) -> None:
    assert run(tmp_path, body)[0] in {130, -signal.SIGKILL}
    assert recorded(tmp_path) == {}
    run(tmp_path, "raise UserError('too much')")
    run(tmp_path, body)
    assert recorded(tmp_path) == {"plan/A/x-p20.json": "too much"}


def test_an_interrupt_is_logged_in_one_line(tmp_path: Path) -> None:
    assert run(tmp_path, "raise KeyboardInterrupt") == (130, "[plan A x-p20] interrupted\n")


def test_paths_of_failure_records() -> None:
    assert failure_file("results/s", "plan", ("A.1", "v1.5-p20")) == Path("results/s/failures/plan/A.1/v1.5-p20.json")
    assert failure_file("cache", "stage_model", ("a--b@main",)) == Path("cache/failures/stage_model/a--b@main.json")
    assert older_file("results/s", "evaluate_baseline", ("A",)) == Path("results/s/failures/A/baseline.json")
    assert older_file("results/s", "check_model", ("A",)) is None


def test_an_unreadable_record_does_not_hide_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert read_failure(path) is None
    assert read_failure(path / "y.json") is None
    for content in ("", "[]", "{}", "null", "\xff"):
        path.write_text(content, encoding="latin-1")
        found = read_failure(path)
        assert found is not None
        assert found["reason"].endswith("is not a complete record of a failure; see the log of the job")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_sets_its_environment_first_and_records_its_failures(path: Path) -> None:
    """Libraries read environment variables on import, and only staging scripts may access a hub."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    first = min(imports, key=lambda node: node.lineno)
    wanted = "espalier.jobs.online" if path.stem in STAGING else "espalier.jobs.offline"
    assert isinstance(first, ast.Import)
    assert [alias.name for alias in first.names] == [wanted]
    (block,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.With) and "workflow_job" in ast.unparse(node.items[0])
    ]
    call = block.items[0].context_expr
    assert isinstance(call, ast.Call)
    assert [ast.unparse(argument) for argument in call.args[:2]] == ["snakemake", repr(path.stem)]
    folders = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == "folder"]
    assert folders == (["'cache'"] if path.stem in STAGING | {"lock_cache"} else [])


@pytest.mark.parametrize(
    ("script", "offline"), [("train_sandbox_tokenizer", True), ("tokenize_requests", True), ("stage_model", False)]
)
def test_environment_variables_allow_or_forbid_the_network(script: str, offline: bool) -> None:
    """The setting of the script overrides the environment in which Snakemake was started."""
    path = str(REPOSITORY / f"workflow/scripts/{script}.py")
    code = (
        f"import runpy; runpy.run_path({path!r}, run_name='imported')\n"
        "import datasets.config, huggingface_hub.constants, os\n"
        "print(huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE, os.environ['TQDM_DISABLE'])"
    )
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY / "src"), "HF_HUB_OFFLINE": str(int(not offline)),
        "HF_DATASETS_OFFLINE": str(int(not offline)),
    }  # fmt: skip
    environment.pop("TQDM_DISABLE", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-3:] == [str(offline), str(offline), "1"]


def test_handlers_of_other_libraries_stay_open(tmp_path: Path) -> None:
    """The handler of absl closes the stream that was sys.stderr at its import, whatever sys.stderr is now."""

    class Closing(logging.StreamHandler[io.StringIO]):
        def close(self) -> None:
            super().close()
            self.stream.close()

    library = Closing(io.StringIO())
    logging.getLogger().addHandler(library)
    try:
        with job_log(tmp_path / "job.log", "job"):
            logging.getLogger("espalier").info("at work")
        assert library in logging.getLogger().handlers
        assert not library.stream.closed
    finally:
        logging.getLogger().removeHandler(library)
    assert "espalier: at work" in (tmp_path / "job.log").read_text(encoding="utf-8")

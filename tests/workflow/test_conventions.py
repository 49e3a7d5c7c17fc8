"""Rules of this workflow that no linter knows; `make lint` runs the linters."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from espalier.study.paths import PATTERNS, benchmark_pattern
from tests.conftest import REPOSITORY, Run

RULE_FILES = sorted((REPOSITORY / "rules").glob("*.smk"))
SCRIPTS = sorted((REPOSITORY / "workflow/scripts").glob("*.py"))
DIRECTIVES = ("log", "benchmark", "conda", "threads", "resources", "script")


def rules() -> dict[str, str]:
    """The text of each rule in rules/."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in RULE_FILES)
    parts = re.split(r"^(?:rule|checkpoint) (\w+):$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("name", list(rules()))
def test_rule_has_every_directive(name: str) -> None:
    for directive in DIRECTIVES if name not in WITHOUT_OUTPUT else ("log", "conda", "threads", "resources"):
        assert re.search(rf"^    {directive}:", rules()[name], re.MULTILINE), f"{name} has no {directive}"
    assert "mem_mb=" in rules()[name]
    assert "runtime=" in rules()[name]
    assert re.search(rf"scripts/{name}\.py", rules()[name]), f"{name} does not run its own script"


def test_snakemake_says_of_every_target_and_rule_what_it_is(snakemake: Run) -> None:
    """`snakemake --list`: one line each, from the docstrings, the public targets first."""
    titled, others = snakemake("--list", directory=REPOSITORY).stdout.split("\n\n")
    targets, single = titled.splitlines()[1:], others.splitlines()[1:]
    assert {line.split()[0] for line in targets} >= {"all", "stage", "reports", "forecast"}
    assert {line.split()[0] for line in single} == set(rules()) - WITHOUT_OUTPUT
    assert [line for line in targets + single if not re.fullmatch(r"  \w+ +[A-Z].+\.", line)] == []
    assert max(map(len, targets + single)) <= 110


@pytest.mark.parametrize("output", PATTERNS)
def test_rules_write_where_the_library_looks(output: str) -> None:
    """Rules spell their paths literally, so both spellings are compared."""
    name = output.partition(".")[0]
    written = rules()[name].split("    output:")[1].split("    log:")[0]
    assert f'"{PATTERNS[output]}"' in written.replace("{{", "{").replace("}}", "}")


@pytest.mark.parametrize("name", [output for output in PATTERNS if "." not in output])
def test_rules_measure_where_the_forecast_looks(name: str) -> None:
    assert f'"{benchmark_pattern(name)}"' in rules()[name]


# Tables and reports: nothing expensive follows them, so they depend on their sources. All other rules have a GPU rule
# downstream or are one, and carry a version.
WITHOUT_OUTPUT = {"forecast"}  # runs each time it is requested
WITHOUT_CODE = {"lock_cache", "choose_recovered"}  # copy values from one file to another
CHEAP = WITHOUT_OUTPUT | {
    "lock_cache", "consolidate_study", "consolidate", "analyse", "analyse_study", "draw_model", "draw_study",
    "report_model", "report_cross_model", "report_index",
    "compare_structures", "import_legacy", "describe_export", "choose_recovered", "consolidate_recovery",
    "analyse_recovery",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in rules() if name not in CHEAP])
def test_rule_before_a_gpu_rule_carries_a_version(name: str) -> None:
    expected = (
        "versions.EVALUATE" if name in {"evaluate_baseline", "evaluate_recovered"} else f"versions.{name.upper()}"
    )
    if name == "tokenize_requests":
        expected = "study.evaluation.request_version"  # which of its versions depends on the protocol
    assert f"version={expected}" in rules()[name]
    assert "study.source_files(" not in rules()[name]
    assert "ancient(" not in rules()[name]


@pytest.mark.parametrize("name", sorted(CHEAP - WITHOUT_OUTPUT - WITHOUT_CODE))
def test_cheap_rule_depends_on_its_sources(name: str) -> None:
    assert "code=study.source_files(" in rules()[name]


def test_no_expensive_rule_reads_what_a_cheap_one_writes() -> None:
    """So that an edited report can never make a GPU job stale."""
    for name in set(rules()) - CHEAP:
        inputs = rules()[name].split("    output:")[0]
        assert "consolidated/" not in inputs, name
        assert "reports/" not in inputs, name


def locked() -> dict[str, str]:
    """Versions in the lock file, and that of PyTorch."""
    text = "\n".join((REPOSITORY / f"requirements{name}").read_text() for name in (".lock", "-torch.txt"))
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in pairs}


def test_the_pins_that_users_rely_on() -> None:
    assert {name: locked()[name] for name in ("torch", "transformers", "lm-eval", "snakemake")} == {
        "torch": "2.13.0",
        "transformers": "5.23.0",
        "lm-eval": "0.4.13",
        "snakemake": "9.27.1",
    }


def test_everything_but_pytorch_is_locked_with_hashes() -> None:
    """`make install` installs with --require-hashes and --no-deps, so an entry without hash or a gap would stop it."""
    text = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 150
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert not [name for name in locked() if is_cuda(name)]
    needed = {
        canonicalize_name(need.name)
        for name in locked()
        for need in map(Requirement, metadata.requires(name) or ())
        if (need.marker is None or need.marker.evaluate({"extra": ""})) and not is_cuda(need.name)
    }
    assert needed - set(locked()) == set()


def is_cuda(name: str) -> bool:
    """Whether a package comes with PyTorch's CUDA build."""
    return name.startswith(("nvidia-", "cuda-", "triton"))


@pytest.mark.parametrize("path", sorted((REPOSITORY / "envs").glob("*.yaml")), ids=lambda path: path.stem)
def test_environment_pins_equal_the_lock_file(path: Path) -> None:
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    pins = [Requirement(line) for entry in entries if isinstance(entry, dict) for line in entry["pip"]]
    assert pins
    assert {pin.name: str(pin.specifier) for pin in pins} == {pin.name: f"=={locked()[pin.name]}" for pin in pins}


def test_every_environment_is_used_and_every_used_one_exists() -> None:
    used = set(re.findall(r"\.\./envs/(\w+)\.yaml", "\n".join(rules().values())))
    assert used == {path.stem for path in (REPOSITORY / "envs").glob("*.yaml")}


HEAVY = {"torch", "transformers", "lm_eval", "datasets", "pandas"}


@pytest.mark.parametrize(
    "module",
    [
        "espalier", "espalier.config", "espalier.study.driver", "espalier.versions", "espalier.reports.summary",
        "espalier.planning.make_plan", "espalier.jobs.evaluation", "espalier.results.store",
    ],
)  # fmt: skip
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "src", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_what_every_job_imports_is_lighter_still() -> None:
    """Each job reads the Snakefile again: a tenth of a second more is half a minute of the default study."""
    code = "import sys, espalier.study.driver; print(*({'numpy', 'pyarrow', 'safetensors'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "src", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


# Modules that scripts must not load when they are imported. Loading them costs seconds of processor time in every job.
_MODELS = {"transformers.modeling_utils", "torch._dynamo", "accelerate", "peft"}
_TASKS = {"lm_eval", "datasets"}
NOT_LOADED = {
    ("choose_recovered", "collect_gradients", "describe_export", "evaluate", "evaluate_baseline", "evaluate_recovered",
     "forecast", "lock_cache", "make_world", "measure_importance", "measure_priors", "measure_weights", "plan",
     "stage_model", "train_sandbox_tokenizer"): HEAVY | {"scipy"},
    ("compare_structures", "consolidate_recovery", "consolidate_study", "draw_model", "draw_study", "import_legacy",
     "report_cross_model", "report_index", "report_model"): HEAVY - {"pandas"} | {"scipy"},
    ("analyse", "analyse_recovery", "analyse_study", "consolidate"): HEAVY - {"pandas"},
    ("stage_dataset", "stage_text"): {"torch", "transformers", "scipy"},
    ("check_calibration", "check_model", "check_recovery"): _MODELS | _TASKS | {"pandas", "scipy"},
    ("tokenize_requests",): _MODELS | {"scipy"},
}  # fmt: skip
LOADING_MODELS = {
    "export_checkpoint", "export_gguf", "measure_inference", "recover", "recover_full", "train_sandbox_model",
}  # fmt: skip


@pytest.mark.parametrize("scripts", NOT_LOADED, ids=lambda scripts: scripts[0])
def test_scripts_load_only_what_they_need(scripts: tuple[str, ...]) -> None:
    """Scripts with the same row share a process, which is faster than one process each."""
    code = (
        "import runpy, sys\n"
        f"for name in {scripts}:\n"
        "    runpy.run_path(f'../workflow/scripts/{name}.py', run_name='imported')\n"
        f"    print(*(f'{{name}}:{{module}}' for module in sorted({NOT_LOADED[scripts]} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "src", capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_every_script_is_in_one_row() -> None:
    listed = [*LOADING_MODELS, *(name for scripts in NOT_LOADED for name in scripts)]
    assert sorted(listed) == [path.stem for path in SCRIPTS]


def test_the_core_loads_no_tables() -> None:
    """What no part of the library may import at all, test_architecture.py holds."""
    core = [
        "espalier.scoring.engine", "espalier.evaluation.perplexity", "espalier.models.loading",
        "espalier.calibration.priors", "espalier.models.surgery", "espalier.planning.select", "espalier.planning.plan",
        "espalier.calibration.importance",
    ]  # fmt: skip
    absent = "{'pandas', 'pyarrow'}"
    code = f"import sys, {', '.join(core)}; print(*({absent} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "src", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_modules_describe_themselves() -> None:
    for path in [*SCRIPTS, *(REPOSITORY / "src").rglob("*.py")]:
        assert path.read_text(encoding="utf-8").startswith(('"""', 'r"""')), path


def test_dependencies_are_explained() -> None:
    """Each direct requirement has its line in docs/dependencies.md."""
    page = (REPOSITORY / "docs/dependencies.md").read_text(encoding="utf-8")
    files = (REPOSITORY / f"requirements{name}" for name in (".in", "-torch.txt"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    names = [Requirement(line).name for line in lines if line and not line.startswith("#")]
    assert [name for name in names if f"`{name}`" not in page] == []

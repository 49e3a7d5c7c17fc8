"""Limit the memory of jobs, at several sizes each, so that they fail while they load, compute and evaluate."""

import re
from pathlib import Path

import pandas as pd
from benchmarks.torture.kills import count_losses
from benchmarks.torture.studies import RESULTS, TABLES, patched_python, run, run_to_end, table_hashes, write_study
from tests.unit.conftest import random_model
from transformers import AutoTokenizer

WHAT = {"check_model": "loading", "collect_gradients": "a pass", "evaluate_baseline": "evaluation"}
"""Rules whose jobs get too little memory."""
TARGETS = {
    "check_model": RESULTS / "models/A.json",
    "collect_gradients": RESULTS / "gradients/A/calibration-s0/seq16.parquet",
    "evaluate_baseline": RESULTS / "baseline/A/metrics.json",
}
"""An output of each rule."""
SHARES = (0.05, 0.3, 0.6, 0.9)
"""Limits, as shares of the address space that the job needs."""
CGROUP = Path("/sys/fs/cgroup/memory")
LIMIT = """
import os, resource, sys
rule, _, limit = os.environ.get("TORTURE_LIMIT", "").partition("=")
if rule and any(word.endswith(f".{rule}.py") for word in sys.orig_argv):
    if limit == "measure":
        import atexit
        atexit.register(lambda: sys.stderr.writelines(line for line in open("/proc/self/status") if "VmPeak" in line))
    elif limit.isdigit():
        resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
    else:
        with open(f"{limit}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
"""
NAMED = re.compile(r"out of memory|want of memory")


def limit_memory(folder: Path) -> pd.DataFrame:
    """Run a study again and again while the jobs of one rule have too little memory, then without limits.

    Args:
        folder: Folder for the studies.

    Returns:
        A row for each rule, and columns `limits`, `failed`, `named` (failed runs with a line that names memory),
        `tracebacks` (on the terminal), `lost` and `redone` (finished pieces of work); in the last row also `other
        tables` (that differ from those of a run without limits). The last row is a run whose job the kernel kills, if
        there are memory cgroups of version 1.
    """
    undisturbed, study = folder / "undisturbed", folder / "limited"
    for one in (undisturbed, study):
        write_study(one)
        _enlarge(one / "model")
    needed = {rule: _needed(undisturbed, rule) for rule in WHAT}
    run_to_end(undisturbed, TABLES)
    trials = [(rule, what, [str(int(needed[rule] * share)) for share in SHARES]) for rule, what in WHAT.items()]
    if CGROUP.is_dir():
        group = CGROUP / "espalier-torture"
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text("250M")
        trials.append(("evaluate_baseline", "evaluation, killed by the kernel", [str(group)]))
    rows, row, known = {}, dict[str, int](), dict[Path, int]()
    for rule, what, limits in trials:
        row = dict.fromkeys(("limits", "failed", "named", "tracebacks", "lost", "redone"), 0)
        for limit in limits:
            status, printed = _run_limited(study, rule, limit)
            row["limits"] += 1
            row["failed"] += status != 0
            row["named"] += status != 0 and bool(NAMED.search(printed))
            row["tracebacks"] += "Traceback" in printed
            (folder / f"{rule}-{Path(limit).name}.txt").write_text(printed, encoding="utf-8")
            known = count_losses(study, known, row)
        rows[what] = row
    run_to_end(study, TABLES)
    count_losses(study, known, row)
    found, expected = table_hashes(study), table_hashes(undisturbed)
    row["other tables"] = sum(found.get(name) != expected[name] for name in expected)
    return pd.DataFrame(rows).T


def _enlarge(model: Path) -> None:
    """Replace the model of a study by one of 200 MB, so that its tensors are allocated one by one."""
    size = len(AutoTokenizer.from_pretrained(model))
    random_model(
        "llama", size, hidden_size=768, intermediate_size=2048, num_hidden_layers=8, initializer_range=0.02
    ).save_pretrained(model)


def _needed(study: Path, rule: str) -> int:
    """Return the address space that a job of a rule needs, in bytes."""
    _, printed = _run_limited(study, rule, "measure")
    return int(re.findall(r"VmPeak:\s*(\d+) kB", printed)[-1]) * 1024


def _run_limited(study: Path, rule: str, limit: str) -> tuple[int, str]:
    environment = patched_python(study, LIMIT) | {"TORTURE_LIMIT": f"{rule}={limit}"}
    return run(study, str(TARGETS[rule]), environment=environment)

"""Make files and folders of a finished study read-only, run jobs that have to write them, and compare the results.

Permission bits do not bind root. So this process and the runs that it starts give up the two capabilities of root that
override them (`CAP_DAC_OVERRIDE` and `CAP_DAC_READ_SEARCH`).
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from benchmarks.torture.damage import TARGETS
from benchmarks.torture.kills import count_losses, entries
from benchmarks.torture.studies import RESULTS, copy_study, fast_runs, table_hashes

_DROP_FROM_BOUNDING_SET = 24  # PR_CAPBSET_DROP of prctl(2)
_OVERRIDES = (1, 2)
_EXPERIMENT = f"{RESULTS}/experiments/A/blockwise-seq16-n2-p20"
_STORE = f"{RESULTS}/experiments/A/.store"


class Case(NamedTuple):
    """What is read-only, and what runs. All paths are relative to the folder of the study.

    Attributes:
        read_only: Files and folders; `/**` takes a folder with all that is in it.
        rule: Rule that runs again; empty for a run of everything.
        output: An output of it.
        deleted: Files and folders that are deleted before.
    """

    read_only: tuple[str, ...]
    rule: str = ""
    output: str = ""
    deleted: tuple[str, ...] = ()


_PLAN = ("plan", f"{_EXPERIMENT}/plan.json")
_METRICS = ("evaluate", f"{_EXPERIMENT}/metrics.json")
_REQUESTS = ("tokenize_requests", f"{RESULTS}/requests/A.parquet")
_CHECKPOINT = ("export_checkpoint", f"{RESULTS}/checkpoints/A/best")
CASES = {
    "plan": Case((f"{_EXPERIMENT}/plan.json",), *_PLAN),
    "folder of a plan": Case((_EXPERIMENT,), *_PLAN),
    "metrics": Case((f"{_EXPERIMENT}/metrics.json",), *_METRICS),
    "samples": Case((f"{_EXPERIMENT}/samples.parquet",), *_METRICS),
    "store that has the result": Case((_STORE,), *_METRICS),
    "store that lacks the result": Case((_STORE,), *_METRICS, (f"{_STORE}/*",)),
    "entries of a store": Case((f"{_STORE}/*",), *_METRICS),
    "records of checksums": Case((f"{RESULTS}/checksums/**",), *_PLAN),
    "logs": Case((f"{RESULTS}/logs/**",), *_PLAN),
    "measured times": Case((f"{RESULTS}/benchmarks/**",), *_PLAN),
    "manifests": Case((f"{RESULTS}/models/**",), "check_model", f"{RESULTS}/models/A.json"),
    "gradients": Case(
        (f"{RESULTS}/gradients/**",), "collect_gradients", f"{RESULTS}/gradients/A/calibration-s0/seq16.parquet"
    ),
    "priors": Case((f"{RESULTS}/priors/**",), "measure_priors", f"{RESULTS}/priors/A/calibration-s0/seq16.parquet"),
    "requests": Case((f"{RESULTS}/requests/**",), *_REQUESTS),
    "folder of shared requests": Case((f"{RESULTS}/requests/.shared",), *_REQUESTS, (f"{RESULTS}/requests/.shared/*",)),
    "tables": Case((f"{RESULTS}/consolidated/**",), "consolidate_study", f"{RESULTS}/consolidated/experiments.parquet"),
    "pages": Case((f"{RESULTS}/reports/**",), "report_index", f"{RESULTS}/reports/index.html"),
    "figures": Case((f"{RESULTS}/reports/A/figures/**",), "draw_model", f"{RESULTS}/reports/A/figures"),
    "exported model": Case((f"{RESULTS}/checkpoints/A/best/**",), *_CHECKPOINT),
    "folder of exported models": Case((f"{RESULTS}/checkpoints/A",), *_CHECKPOINT),
    "GGUF file": Case(
        (f"{RESULTS}/checkpoints/A/best.F16.gguf",), "export_gguf", f"{RESULTS}/checkpoints/A/best.F16.gguf"
    ),
    "fine-tuned weights": Case((f"{RESULTS}/recovered/**",), "check_recovery", f"{RESULTS}/recovered/A/checked.json"),
    "calibration checks": Case(
        (f"{RESULTS}/calibration/**",), "check_calibration", f"{RESULTS}/calibration/A/calibration-s0.json"
    ),
    "descriptions of exports": Case((f"{RESULTS}/exports/**",), "describe_export", f"{RESULTS}/exports/A/best.json"),
    "fine-tuned experiments": Case(
        (f"{RESULTS}/recovered/**",), "recover", f"{RESULTS}/recovered/A/blockwise-seq16-n2-p20/training.json"
    ),
    "Snakemake's folder": Case((".snakemake",), *_PLAN),
    "Snakemake's folder, with nothing to do": Case((".snakemake/**",)),
    "Snakemake's records": Case((".snakemake/metadata",), *_PLAN),
    "Snakemake's copies of scripts": Case((".snakemake/scripts",), *_PLAN),
    "folder of the study, without Snakemake's": Case((".",), *_PLAN, (".snakemake",)),
    "folder of all results, without this study's": Case(("results",), deleted=(f"{RESULTS}",)),
    "results folder": Case((f"{RESULTS}",), *_PLAN),
    "results folder, with nothing to do": Case((f"{RESULTS}/**",)),
    "models, data and config": Case(
        ("model/**", "model-b/**", "tasks/**", "*.parquet", "study.yaml"),
        deleted=(f"{RESULTS}/models", f"{RESULTS}/requests", f"{RESULTS}/checkpoints"),
    ),
}


def make_read_only(finished: Path, folder: Path, names: Sequence[str] = tuple(CASES)) -> pd.DataFrame:
    """Run each case in a copy of a finished study; then make all writable, and run everything.

    Args:
        finished: A finished study with recovery, exports and GGUF files; it is not changed.
        folder: Folder for the copies.
        names: Keys of `CASES`.

    Returns:
        A row for each case, and columns `outcome` (`succeeded`; `one line`, which names a read-only path and the
        remedy; or `unclear`), `said` (that line), `tracebacks`, `exit status` (of the run after all was made writable),
        `lost` and `redone` (finished pieces of work) and `other tables`.
    """
    _bind_root()
    rows, expected = {}, table_hashes(finished)
    study = folder / "study"
    with fast_runs() as run:
        for name in names:
            case = CASES[name]
            copy_study(finished, study)
            for path in _matching(study, case.deleted):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            known = entries(study)
            closed = _matching(study, case.read_only)
            for path in sorted(closed, reverse=True):
                path.chmod(path.stat().st_mode & ~0o222)
            status, printed = run(study, *((case.output, "--forcerun", case.rule) if case.rule else TARGETS))
            (folder / f"{name}.txt").write_text(printed, encoding="utf-8")
            subprocess.run(["chmod", "-R", "u+w", study], check=True)
            before_the_list, _, _ = printed.partition("Failed jobs:")  # which repeats the line of each job
            said = [line for line in before_the_list.splitlines() if "`chmod u+w`" in line]
            named = len(said) == 1 and any(str(path.relative_to(study)) in said[0] for path in closed)
            healed, _ = run(study, *TARGETS)
            found, losses = table_hashes(study), {"lost": 0, "redone": 0}
            count_losses(study, known, losses)
            rows[name] = {
                "outcome": "succeeded" if status == 0 else "one line" if named else "unclear",
                "said": "".join(said)[:200], "tracebacks": printed.count("Traceback"), "exit status": healed,
                **losses,
                "other tables": sum(found.get(key) != value for key, value in expected.items()),
            }  # fmt: skip
            shutil.rmtree(study)
            pd.DataFrame(rows).T.to_csv(folder / "outcomes.csv")
    return pd.DataFrame(rows).T


def _bind_root() -> None:
    """Drop the capabilities that override permission bits from all programs that this process starts, if it has them.

    This process keeps them, so it can delete what is read-only.
    """
    if os.geteuid() == 0:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        for capability in _OVERRIDES:
            if prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl: a capability could not be dropped")


def _matching(study: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files and folders of a study that match a pattern."""
    tops = [
        (top, pattern)
        for pattern in patterns
        for top in ([study] if pattern == "." else study.glob(pattern.removesuffix("/**")))
    ]
    found = [path for top, pattern in tops for path in (top, *(top.rglob("*") if pattern.endswith("/**") else ()))]
    return [path for path in found if not path.is_symlink()]

"""What a page needs besides tables and analyses: where its numbers come from, and its finished figures.

Nothing here depends on the time of the build, so a page that is built again from the same results is the same.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from espalier.errors import UserError
from espalier.files import read_json
from espalier.naming import BASELINE
from espalier.reports.provenance import Provenance
from espalier.study.paths import Paths, results_folder


def collect_provenance(experiments: pd.DataFrame, config: Mapping[str, Any], models: Iterable[str]) -> Provenance:
    """Collect the provenance of the results of some models.

    Args:
        experiments: The experiments table.
        config: Config of the study, as the user gave it.
        models: Models whose results the page shows.
    """
    names = list(models)
    paths = Paths(results_folder(str(config["study"])))
    rows = experiments[experiments["model"].isin(names) & (experiments["status"] == "ok")]
    results = [
        Path(_metrics_file(paths, str(model), str(name)))
        for model, name in zip(rows["model"], rows["experiment"], strict=True)
    ]
    times = [path.stat().st_mtime for path in results if path.is_file()]
    unpruned = [
        metrics
        for name in names
        if Path(paths.of("evaluate_baseline", name)).is_file()
        if (metrics := read_json(paths.of("evaluate_baseline", name))).get("recipe")
    ]
    return Provenance(
        date=datetime.fromtimestamp(max(times), UTC).date().isoformat() if times else None,
        commit=_commit(),
        versions=_joined(metrics["recipe"].get("versions") or {} for metrics in unpruned),
        settings=_joined(_settings(metrics, config) for metrics in unpruned),
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
    )


def _metrics_file(paths: Paths, model: str, experiment: str) -> str:
    if experiment == BASELINE:
        return paths.of("evaluate_baseline", model)
    return paths.of("evaluate", model, experiment)


def _settings(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    settings = metrics["recipe"].get("settings") or {}
    protocol = settings.get("protocol") or {}
    found = {
        "dtype": settings.get("dtype"),
        "hardware": metrics.get("hardware"),
        "tasks": ", ".join(protocol.get("tasks") or ()),
        "few-shot examples": _solved_examples(protocol),
        "documents longer than the context": protocol.get("too_long"),
        "documents per task": protocol.get("limit") or "all",
        "chat template": protocol.get("chat_template"),
        "perplexity window, stride": f"{protocol.get('window')}, {protocol.get('stride')}",
        "calibration seeds": ", ".join(map(str, (config.get("calibration") or {}).get("seeds") or (0,))),
    }
    return {name: str(value) for name, value in found.items() if value not in {None, ""}}


def _solved_examples(protocol: Mapping[str, Any]) -> str | None:
    """Return the number of solved examples, and that of each task with a number of its own; None if it is unknown."""
    if "num_fewshot" not in protocol:
        return None
    own = [f"{name}: {number}" for name, number in protocol.get("task_fewshots", {}).items()]
    return ", ".join([str(protocol["num_fewshot"]), *own])


def _joined(records: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Join the values of several records. A name whose values differ has all of them."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record.items():
            values.setdefault(name, {})[value] = None
    return {name: "; ".join(found) for name, found in values.items()}


def _commit() -> str | None:
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():  # an installed wheel
        return None
    command = ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (no user input)
    except OSError:
        return None
    return done.stdout.strip() or None


def read_drawn(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Read the SVG of figures.

    Args:
        folder: Folder of the figures.
        names: Names of the figures.

    Raises:
        UserError: If a figure is missing.
    """
    drawn = {}
    for name in names:
        path = folder / f"{name}.svg"
        if not path.is_file():
            raise UserError(f"{path} is missing; delete {folder}.json, so that the figures are drawn again")
        drawn[name] = path.read_text(encoding="utf-8")
    return drawn

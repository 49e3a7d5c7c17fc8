"""Checks before any job runs: input files exist, and the config fits every model whose sizes are known."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from espalier.config.base import REPOSITORY_PATTERN
from espalier.config.data import HUB, SANDBOX, TextSource
from espalier.config.literature import SHIPPED, read_literature
from espalier.config.models import ModelEntry, SandboxModel
from espalier.config.sandbox import Sandbox
from espalier.config.study import StudyConfig
from espalier.errors import UserError
from espalier.evaluation.definitions import packaged_tasks
from espalier.models.architecture import (
    ATTENTION,
    ATTENTION_NORM,
    EMBEDDINGS,
    FINAL_NORM,
    LAYERS,
    MLP,
    MLP_NORM,
    OUTPUT_EMBEDDINGS,
)  # fmt: skip
from espalier.models.folder import IncompleteConfigError, inspect_folder
from espalier.models.sizes import ModelSizes, sizes_from_shapes
from espalier.models.wrappers import read_text_config
from espalier.planning.feasible import check_request
from espalier.planning.select import SelectionOptions
from espalier.planning.stock import stock_kv_group_counts
from espalier.study.experiments import experiments_of
from espalier.study.paths import Paths
from espalier.study.sweep import Sweep
from espalier.study.table_sources import TableSources
from espalier.text_files import check_text_field


@dataclass(frozen=True)
class KnownSizes:
    """Sizes of a model.

    Attributes:
        sizes: Sizes of the layers.
        context_length: Longest input in tokens; None if the model's config does not give it.
        kv_group_counts: Numbers of KV groups that the model's stock config accepts; None if this is not known.
    """

    sizes: ModelSizes
    context_length: int | None
    kv_group_counts: tuple[int, ...] | None = None


def known_sizes(model: ModelEntry, folder: str, sandbox: Sandbox) -> KnownSizes | None:
    """Return the sizes of a model; None if they are not known yet.

    Sizes of a sandbox model follow from the config. Sizes of other models are read from the folder if it exists. An
    unusable folder also gives None: `folder_problems` or the job `check_model` reports what is wrong with it. So does a
    wrapper whose config.json leaves sizes of its text model to the defaults of transformers.
    """
    if model.sandbox:
        return _sandbox_sizes(model.sandbox, sandbox.vocab_size)
    if model.legacy is not None or not (Path(folder) / "config.json").is_file():
        return None
    try:
        sizes = inspect_folder(folder, trust_remote_code=model.trust_remote_code).sizes
    except UserError:
        return None
    config = read_text_config(folder)
    counts = stock_kv_group_counts(sizes.layers[0].n_kv_groups, config) if "num_attention_heads" in config else None
    return KnownSizes(sizes, config.get("max_position_embeddings"), counts)


def folder_problems(model: ModelEntry, manifest: str) -> list[str]:
    """Return the problem of a local model folder, if it has one.

    Skipped if the manifest exists: the folder was valid when it was checked, and may have been deleted since.
    """
    if model.path is None or Path(manifest).exists():
        return []
    try:
        inspect_folder(model.path, trust_remote_code=model.trust_remote_code)
    except IncompleteConfigError:
        return []  # `check_model` fills in the defaults of transformers, which takes too long here
    except UserError as error:
        return [f"model {model.name!r}: {error}{_folder_hint(model.path)}"]
    return []


def _folder_hint(path: str) -> str:
    """Return a hint for a folder that does not exist, if its path suggests one."""
    if Path(path).is_dir():
        return ""
    if path.startswith("~"):
        return "; `~` is not expanded"
    is_repository = re.match(REPOSITORY_PATTERN, path) and not Path(path).parent.is_dir()
    return f" (`hub: {path}`)" if is_repository else ""


def data_problems(study: StudyConfig, paths: Paths, sweep: Sweep) -> list[str]:
    """Return a problem if the folder of the task documents does not exist, or one for each task that it lacks.

    Skipped once all requests and evaluations exist: the folder may have been deleted since. The names of the tasks must
    be known to lm-eval. Reading their definitions takes a second, so only folders of the user are searched.
    """
    data = study.evaluation.data
    if data in {SANDBOX, HUB}:
        return []
    models = [model.name for model in study.models if model.legacy is None]
    outputs = [paths.of("tokenize_requests", name) for name in models]
    outputs += [paths.of("evaluate_baseline", name) for name in models]
    outputs += [paths.of("evaluate", one.model, one.name) for one in sweep.experiments]
    if all(map(os.path.exists, outputs)):
        return []
    if not Path(data).is_dir():
        holds = "one that holds {task}/{split}.parquet, .json or .jsonl"
        return [f"evaluation.data: got {data!r}, but there is no such folder; give {holds}, or {HUB!r} or {SANDBOX!r}"]
    if not packaged_tasks():  # lm-eval is not installed where Snakemake runs; the jobs check the folder
        return []
    from espalier.evaluation.tasks import document_problems

    return document_problems(study.evaluation.task_names, Path(data))


def case_problems(study: StudyConfig, results: str) -> list[str]:
    """Return a problem for names that differ only in case, if the file system takes them for one file.

    Args:
        study: The config.
        results: `results/{study}`, which need not exist.
    """
    problems = []
    for section, entries in (("models", study.models), ("methods", study.methods)):
        first: dict[str, str] = {}
        for entry in entries:
            other = first.setdefault(entry.name.casefold(), entry.name)
            if other != entry.name and _ignores_case(Path(results)):
                problems.append(
                    f"{section}: the names {other!r} and {entry.name!r} differ only in case, which the file system of "
                    f"{results} ignores; rename one"
                )
    return problems


def _ignores_case(folder: Path) -> bool:
    """Return whether the file system of a folder, or of the nearest one above that exists, ignores case."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    swapped = existing.with_name(existing.name.swapcase()) if existing.name else existing
    return swapped != existing and swapped.exists() and swapped.samefile(existing)


def style_problems(study: StudyConfig) -> list[str]:
    """Return a problem if the style file of the figures does not exist."""
    style = study.report.style
    if style is None or Path(style).is_file():
        return []
    return [f"report.style: got {style!r}, but there is no such file; give a style file of matplotlib"]


def literature_problems(study: StudyConfig) -> list[str]:
    """Return the problems of the study's own file of published figures, one line each."""
    path = study.report.literature
    if path is None or path == SHIPPED:
        return []
    try:
        read_literature(path)
    except UserError as error:
        return [f"report.literature: {line}" for line in str(error).splitlines()]
    return []


def text_problems(study: StudyConfig, paths: Paths, sweep: Sweep) -> list[str]:
    """Return one problem for each local text file that does not exist, or that lacks the column of the text.

    A text is skipped once everything that is made from it exists: the file may have been deleted since.
    """
    models = [model.name for model in study.models if model.legacy is None]
    requests = [paths.of("tokenize_requests", model) for model in models]
    checks = [paths.of("check_recovery", model) for model in models] if study.recovery else []
    own = study.recovery.text if study.recovery else None
    texts: list[tuple[str, TextSource | None, Callable[[], list[str]]]] = [
        (
            "calibration",
            study.calibration,
            lambda: [*_calibration_outputs(study, paths, sweep), *([] if own else checks)],
        ),
        ("recovery.text", own, lambda: checks),
    ]
    texts += [
        (f"evaluation.perplexity.texts[{number}]", text, lambda: requests)
        for number, text in enumerate(study.evaluation.perplexity.texts)
    ]
    return [
        problem
        for key, text, outputs in texts
        if text and text.is_local and (problem := _file_problem(key, text)) and not all(map(os.path.exists, outputs()))
    ]


def _file_problem(key: str, text: TextSource) -> str | None:
    """Return what is wrong with a local text file, as far as its schema or first line shows."""
    if not Path(text.dataset).is_file():
        return f"{key}.dataset: got {text.dataset!r}, but there is no such file; give one, or a hub repository"
    try:
        check_text_field(text.dataset, text.text_field)
    except UserError as error:
        return f"{key}: {error}"
    return None


def _calibration_outputs(study: StudyConfig, paths: Paths, sweep: Sweep) -> list[str]:
    outputs = [*TableSources(study, paths, sweep).calibration_checks(None), *sweep.gradient_tables]
    for experiment in sweep.experiments:
        names = SimpleNamespace(model=experiment.model, experiment=experiment.name)
        outputs += sweep.importance_table(names) if experiment.criterion.reads_text else []
        outputs += sweep.prior_table(names)
    return list(dict.fromkeys(outputs))


def infeasible_problems(study: StudyConfig, sizes: Mapping[str, KnownSizes | None]) -> list[str]:
    """Return one line for each setting that a model cannot meet: longer than its context, or an impossible ratio.

    Models whose sizes are not known are skipped.
    """
    found = (
        problem
        for model in study.models
        if (known := sizes[model.name])
        for problem in _setting_problems(study, model, known)
    )
    return list(dict.fromkeys(found))


def _setting_problems(study: StudyConfig, model: ModelEntry, known: KnownSizes) -> Iterator[str]:
    experiments = experiments_of(study, model)
    longest = max((e.seq_len for e in experiments if e.seq_len), default=0)
    if known.context_length and longest > known.context_length:
        yield (
            f"grid.taylor_seq_len: got {longest}, but the context of model {model.name!r} is {known.context_length} "
            f"tokens; give at most {known.context_length}"
        )
    perplexity = study.evaluation.perplexity
    if known.context_length and perplexity.texts and perplexity.window > known.context_length:
        yield (
            f"evaluation.perplexity.window: got {perplexity.window}, but the context of model {model.name!r} is "
            f"{known.context_length} tokens; give at most {known.context_length}"
        )
    run = study.inference
    if run and known.context_length and run.prompt_tokens + run.new_tokens > known.context_length:
        yield (
            f"model {model.name!r}: inference: prompt_tokens {run.prompt_tokens} and new_tokens {run.new_tokens} "
            f"exceed the context of {known.context_length} tokens; give fewer"
        )
    fine_tuned = study.recovery.seq_len if study.recovery else 0
    if known.context_length and fine_tuned > known.context_length:
        yield (
            f"recovery.seq_len: got {fine_tuned}, but the context of model {model.name!r} is {known.context_length} "
            f"tokens; give at most {known.context_length}"
        )
    options = SelectionOptions(**study.selection.model_dump(exclude={"stock_shape"}))
    requests = ((e.pruning_ratio, e.method.allocation, e.method.units) for e in experiments)
    for ratio, allocation, units in dict.fromkeys(requests):
        try:
            check_request(known.sizes, ratio, options, allocation, units, known.kv_group_counts)
        except UserError as error:
            yield f"model {model.name!r}: {error}"


def _sandbox_sizes(model: SandboxModel, vocab_size: int) -> KnownSizes:
    """Compute the sizes of a sandbox model, given that its tokenizer has exactly `vocab_size` tokens."""
    hidden, head_dim = model.hidden_size, model.hidden_size // model.num_attention_heads
    kv = model.num_key_value_heads * head_dim
    queries, keys, values = (f"{ATTENTION.path}.{name}" for name in ATTENTION.readers)
    rows = {queries: hidden, keys: kv, values: kv}
    layer = {
        **{f"{name}.weight": (size, hidden) for name, size in rows.items()},
        **({f"{name}.bias": (size,) for name, size in rows.items()} if model.architecture == "qwen2" else {}),
        f"{ATTENTION.writer_path}.weight": (hidden, hidden),
        **{f"{MLP.path}.{name}.weight": (model.intermediate_size, hidden) for name in MLP.readers},
        f"{MLP.writer_path}.weight": (hidden, model.intermediate_size),
        f"{ATTENTION_NORM}.weight": (hidden,),
        f"{MLP_NORM}.weight": (hidden,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        f"{LAYERS}.{number}.{name}": shape for number in range(model.num_hidden_layers) for name, shape in layer.items()
    }
    shapes |= {EMBEDDINGS: (vocab_size, hidden), FINAL_NORM: (hidden,)}
    if not model.tie_word_embeddings:
        shapes[OUTPUT_EMBEDDINGS] = (vocab_size, hidden)
    config: dict[str, Any] = {"head_dim": head_dim, "tie_word_embeddings": model.tie_word_embeddings}
    sizes = sizes_from_shapes(shapes, config)
    config |= {
        "model_type": model.architecture,
        "hidden_size": hidden,
        "num_attention_heads": model.num_attention_heads,
    }
    counts = stock_kv_group_counts(model.num_key_value_heads, config)
    return KnownSizes(sizes, model.max_position_embeddings, counts)

"""Parse the folder names of legacy results.

Search folders are named `search_{model}[_{method}]_{percent}`. Experiment folders are named
`exp_*_taylor_seq_len{L}_taylor_num_samples{N}`.

Ambiguous names are refused with a reason; nothing is guessed. Imports only the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

TAYLOR = "taylor"
_SEARCH = re.compile(r"search_(?P<middle>.+)_(?P<percent>\d{1,2}(?:\.\d{1,6})?)")
_EXPERIMENT = re.compile(
    r"exp_[A-Za-z0-9._+-]+?_taylor_seq_len(?P<seq_len>\d{1,7})_taylor_num_samples(?P<n_samples>\d{1,7})"
)
SEARCH_FORM = "search_{model}_20 or search_{model}_{method}_20"
EXPERIMENT_FORM = "exp_{anything}_taylor_seq_len{L}_taylor_num_samples{N}"


class FolderNameError(Exception):
    """A folder name that cannot be parsed without ambiguity. The message gives the reason."""


@dataclass(frozen=True)
class SearchName:
    """Parsed name of a search folder.

    Attributes:
        model: Name of the model in the folder name; the config may use another name.
        method: Pruning method; `taylor` if the folder name has none.
        pruning_ratio: Requested fraction of all parameters to remove.
    """

    model: str
    method: str
    pruning_ratio: float


class ExperimentName(NamedTuple):
    """Parsed name of an experiment folder.

    Attributes:
        seq_len: Tokens per calibration sequence.
        n_samples: Number of calibration sequences.
    """

    seq_len: int
    n_samples: int


def parse_search(name: str, methods: Collection[str], model_names: Collection[str]) -> SearchName:
    """Parse the name of a search folder.

    Args:
        name: Folder name, such as `search_Qwen_layerwise_20`.
        methods: Known methods.
        model_names: Names of the model. With them, `Llama_Instruct` in `search_Llama_Instruct_20` is read as a model
            and not as a model with an unknown method.

    Raises:
        FolderNameError: If the method or the ratio cannot be read, or if the name has several methods.
    """
    match = _SEARCH.fullmatch(name)
    if not match or not 0 < float(match["percent"]) < 100:
        raise FolderNameError(f"its name is not of the form {SEARCH_FORM} (20: percent of all parameters)")
    ratio = float(match["percent"]) / 100
    middle = match["middle"]
    if normalised_name(middle) in {normalised_name(model) for model in model_names}:
        return SearchName(middle, TAYLOR, ratio)
    first, *rest = middle.split("_")
    if not rest:
        return SearchName(first, TAYLOR, ratio)
    known = {method.lower(): method for method in methods}
    named = [part for part in rest if part.lower() in known]
    if len(named) > 1:
        raise FolderNameError(f"its name has several methods ({', '.join(named)})")
    if not named or rest[-1] != named[0]:
        raise FolderNameError(
            f"its name has {rest[-1]!r} where a method may stand; known methods: {', '.join(sorted(methods))}"
        )
    return SearchName("_".join([first, *rest[:-1]]), known[named[0].lower()], ratio)


def parse_experiment(name: str) -> ExperimentName:
    """Parse the name of an experiment folder.

    Raises:
        FolderNameError: If the name has another form, or if a value is too small (`seq_len` < 2, `n_samples` < 1).
    """
    match = _EXPERIMENT.fullmatch(name)
    if not match or name.count("taylor_seq_len") > 1:
        raise FolderNameError(f"its name is not of the form {EXPERIMENT_FORM}")
    seq_len, n_samples = int(match["seq_len"]), int(match["n_samples"])
    if seq_len < 2 or n_samples < 1:
        raise FolderNameError(f"its name has taylor_seq_len {seq_len} and taylor_num_samples {n_samples}")
    return ExperimentName(seq_len, n_samples)


def normalised_name(name: str) -> str:
    """Return the lower-case letters and digits of a name, so that `Llama-Instruct` and `llama_instruct` are equal."""
    return re.sub(r"[^a-z0-9]", "", name.lower())

"""What the names of folders say.

Search folders: `search_{model}[_{method}]_{percent}`; experiments: `exp_*_taylor_seq_len{L}_taylor_num_samples{N}`.

A name that does not say it plainly is refused with a reason; nothing is guessed. Imports nothing heavy.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

TAYLOR = "taylor"
_SEARCH = re.compile(r"search_(?P<middle>.+)_(?P<percent>\d{1,2}(?:\.\d{1,6})?)")
_EXPERIMENT = re.compile(
    r"exp_[A-Za-z0-9._+-]+?_taylor_seq_len(?P<seq_len>\d{1,7})_taylor_num_samples(?P<n_samples>\d{1,7})"
)
SEARCH_FORM = "search_{model}_20 or search_{model}_{method}_20"
EXPERIMENT_FORM = "exp_{anything}_taylor_seq_len{L}_taylor_num_samples{N}"


class UnclearNameError(Exception):
    """A name that does not say what it must; the message is the reason."""


@dataclass(frozen=True)
class Search:
    """What the name of a search folder says.

    Attributes:
        model: The model as the name has it, which need not be the config's name.
        method: Pruning method; `taylor` where none is named.
        pruning_ratio: Requested share of all parameters.
    """

    model: str
    method: str
    pruning_ratio: float


def parse_search(name: str, methods: Collection[str], model_names: Collection[str]) -> Search:
    """Read the name of a search folder.

    Args:
        name: Such as `search_Qwen_layerwise_20`.
        methods: Methods that are known.
        model_names: Names of the model, so that `search_Llama_Instruct_20` is a model's name and no unknown method.

    Raises:
        UnclearNameError: If method or ratio cannot be read, or two methods are named.
    """
    found = _SEARCH.fullmatch(name)
    if not found or not 0 < float(found["percent"]) < 100:
        raise UnclearNameError(f"its name is not of the form {SEARCH_FORM} (20: percent of all parameters)")
    ratio = float(found["percent"]) / 100
    middle = found["middle"]
    if plain(middle) in {plain(model) for model in model_names}:
        return Search(middle, TAYLOR, ratio)
    first, *rest = middle.split("_")
    if not rest:
        return Search(first, TAYLOR, ratio)
    known = {method.lower(): method for method in methods}
    named = [part for part in rest if part.lower() in known]
    if len(named) > 1:
        raise UnclearNameError(f"its name has several methods ({', '.join(named)})")
    if not named or rest[-1] != named[0]:
        raise UnclearNameError(
            f"its name has {rest[-1]!r} where a method may stand; known methods: {', '.join(sorted(methods))}"
        )
    return Search("_".join([first, *rest[:-1]]), known[named[0].lower()], ratio)


def parse_experiment(name: str) -> tuple[int, int]:
    """Read sequence length and number of samples from the name of an experiment's folder.

    Raises:
        UnclearNameError: If the name is of another form or names a setting that cannot be.
    """
    found = _EXPERIMENT.fullmatch(name)
    if not found or name.count("taylor_seq_len") > 1:
        raise UnclearNameError(f"its name is not of the form {EXPERIMENT_FORM}")
    seq_len, n_samples = int(found["seq_len"]), int(found["n_samples"])
    if seq_len < 2 or n_samples < 1:
        raise UnclearNameError(f"its name has taylor_seq_len {seq_len} and taylor_num_samples {n_samples}")
    return seq_len, n_samples


def plain(name: str) -> str:
    """Reduce a name to its letters and digits, so that `Llama-Instruct` and `llama_instruct` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())

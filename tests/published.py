"""A study as others publish it: search folders with JSON files, whose numbers can be worked out by hand.

Experiment (method m, sequence length s, sample count c, counted from 0) answers 400 + 50 m + 10 s + c of 1000 questions
of both tasks rightly. So its mean accuracy is 0.400 + 0.050 m + 0.010 s + 0.001 c.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

METHODS = ("taylor", "layerwise", "blockwise")
SEQ_LENS = (16, 32, 64, 128, 256)
COUNTS = (128, 256, 512)
N_DOCUMENTS = 1000
REAL = Path(__file__).parent / "data/legacy/search_Llama_20"
CHANNELS = 96
HEAD_PARAMS, CHANNEL_PARAMS, FIXED_PARAMS, OTHER_PARAMS, N_LAYERS = 1000, 100, 20, 400, 4
LAYER_PARAMS = 4 * HEAD_PARAMS + CHANNELS * CHANNEL_PARAMS + FIXED_PARAMS
TOTAL_PARAMS = N_LAYERS * LAYER_PARAMS + OTHER_PARAMS


def n_right(m: int, s: int, c: int) -> int:
    """How many of 1000 questions an experiment answers rightly."""
    return 400 + 50 * m + 10 * s + c


def search_name(model: str, method: str, percent: str = "20") -> str:
    """Name a search folder; taylor is not named."""
    return f"search_{model}_{percent}" if method == "taylor" else f"search_{model}_{method}_{percent}"


def experiment_folder(number: int, seq_len: int, n_samples: int) -> str:
    """Name the folder of an experiment."""
    return f"exp_{number:03d}_taylor_seq_len{seq_len}_taylor_num_samples{n_samples}"


def settings() -> Iterator[tuple[int, int, int]]:
    """All (method, sequence length, sample count), as numbers."""
    return ((m, s, c) for m in range(3) for s in range(5) for c in range(3))


def stderr(right: int) -> float:
    """lm-eval's standard error of an accuracy."""
    p = right / N_DOCUMENTS
    return float((p * (1 - p) / (N_DOCUMENTS - 1)) ** 0.5)


def evaluation(right: int, *, ppl: float, n_params: int, model_path: str) -> dict[str, Any]:
    """Make an evaluation_results.json; piqa has an acc_norm, boolq has not."""
    p, lower = right / N_DOCUMENTS, right - 50
    boolq = {"acc,none": p, "acc_stderr,none": stderr(right), "alias": "boolq"}
    piqa = {
        "acc,none": lower / N_DOCUMENTS, "acc_stderr,none": stderr(lower),
        "acc_norm,none": p, "acc_norm_stderr,none": stderr(right), "alias": "piqa",
    }  # fmt: skip
    texts = {"wikitext2 (wikitext-2-raw-v1)": ppl, "ptb": 2 * ppl}
    return {
        "model_path": model_path,
        "timestamp": "2025-11-30T17:42:00",
        "metrics": {
            "model_info": {"total_params": n_params},
            "ppl_quick_128": {text: 3 * value for text, value in texts.items()},
            "ppl_standard_2048_512": texts,
            "ppl": texts,
            "zeroshot": {
                "boolq": {"accuracy": p, "full_results": boolq},
                "piqa": {"accuracy": p, "full_results": piqa},
            },
            "avg_zeroshot_acc": p,
        },
    }


def diagnosis(*, ratio: float, extreme: int, as_text: bool = False) -> dict[str, Any]:
    """Make a gradient_diagnosis.json; ranges are lists of two or text."""
    mean = "0.5 ~ 1.75" if as_text else [0.5, 1.75]
    return {
        "extreme_pruning_layers": [{"layer_idx": i, "pruning_rate": 0.6} for i in range(extreme)],
        "num_extreme_layers": extreme,
        "gradient_statistics": {
            "mean_range": mean, "mean_ratio": ratio, "norm_range": [2.0, 10.0], "norm_ratio": ratio + 1,
        },
        "diagnosis": [],
    }  # fmt: skip


def comparison(channels: tuple[int, ...] = (96, 40, 60, 35)) -> dict[str, Any]:
    """Make a model_comparison.json: MLP widths of four layers; the attention loses one of four heads in layer 3.

    96 of 96, 40, 60 and 35 channels stay: 153 x 100 + 1000 of 54,880 parameters go, 29.7%.
    """

    def sizes(before: int, after: int) -> dict[str, Any]:
        return {
            "original": before, "pruned": after, "reduced": before - after, "reduction_ratio": (before - after) / before
        }  # fmt: skip

    layers = []
    for number, kept in enumerate(channels):
        attention = sizes(4 * HEAD_PARAMS, (3 if number == 3 else 4) * HEAD_PARAMS)
        mlp = sizes(CHANNELS * CHANNEL_PARAMS, kept * CHANNEL_PARAMS)
        total = sizes(LAYER_PARAMS, attention["pruned"] + mlp["pruned"] + FIXED_PARAMS)
        widths = {"intermediate_size": {"original": CHANNELS, "pruned": kept}}
        layers.append(
            {"layer_idx": number, "total": total, "attention": attention, "mlp": mlp | widths, "is_zero_layer": False}
        )
    after = sum(layer["total"]["pruned"] for layer in layers)
    return {
        "total_params": sizes(TOTAL_PARAMS, after + OTHER_PARAMS),
        "layer_params": sizes(N_LAYERS * LAYER_PARAMS, after),
        "layers": layers,
    }


def write(path: Path, content: Any) -> None:
    """Write JSON, NaN included, as Python's json does it by default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit(path: Path, **changes: Any) -> None:
    """Change values of a JSON file; `a__b=1` sets b in a."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for keys, value in changes.items():
        *outer, last = keys.split("__")
        inner = content
        for key in outer:
            inner = inner[key]
        inner[last] = value
    write(path, content)


def write_experiment(folder: Path, setting: tuple[int, int, int], *, as_text: bool = False) -> None:
    """Write the three files of an experiment, whose removed share is within half a percent of the 30 in `_30`."""
    m, s, c = setting
    path = f"results/{folder.parent.name}/{folder.name}/pruned_model.bin"
    compared = comparison()
    n_params = compared["total_params"]["pruned"]
    content = evaluation(n_right(m, s, c), ppl=20.0 - s, n_params=n_params, model_path=path)
    write(folder / "evaluation/evaluation_results.json", content)
    write(folder / "analysis/gradient_diagnosis.json", diagnosis(ratio=2.0 + s, extreme=2, as_text=as_text))
    write(folder / "analysis/model_comparison.json", compared)


def write_model(root: Path, model: str, percent: str = "30") -> list[Path]:
    """Write all search folders of a model: 3 methods x 5 sequence lengths x 3 sample counts.

    Returns:
        The search folders, in the order of METHODS.
    """
    for m, s, c in settings():
        search = root / search_name(model, METHODS[m], percent)
        folder = search / experiment_folder(3 * s + c + 1, SEQ_LENS[s], COUNTS[c])
        write_experiment(folder, (m, s, c), as_text=c == 1)
    return [root / search_name(model, method, percent) for method in METHODS]

"""Host memory that jobs ask for, computed from the size of their model.

On the CPU a job holds the weights in host memory, and what it computes from them. On a GPU weights go straight from the
file to the device, so the size of the model does not matter. `benchmarks/memory.py` compares with what jobs take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

PROCESS_MB = 3000
"""Python with torch, transformers and lm-eval, the Snakemake processes around it, requests, and activations."""
GPU_PROCESS_MB = 6000
"""The same with CUDA and its pinned memory, beside a GPU."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Held:
    """What a kind of job holds for each parameter of its model, beside what its process takes.

    Attributes:
        weights: Copies of the weights in the dtype that they are loaded in.
        float32: Further bytes, for what is float32 whatever that dtype is.
        dtype: Which dtype that is: the evaluation's, the recovery's, or the stored one.
        may_use_gpu: Whether the job runs on a GPU where the study does.
    """

    weights: float
    float32: int = 0
    dtype: Literal["evaluation", "recovery", "stored"] = "evaluation"
    may_use_gpu: bool = True


HELD = {
    "evaluation": Held(weights=2),  # pruning copies the weights of a layer before the old ones go
    "priors": Held(weights=1),
    "gradients": Held(weights=2, float32=8),  # weights and gradients; a sum and, for some criteria, a sum of squares
    "weights": Held(weights=1, float32=4),
    "inference": Held(weights=3),  # the unpruned, the pruned and the padded model
    "recovery": Held(weights=2, float32=4, dtype="recovery"),
    # Cast to float32 to be compared, and loaded again by another process.
    "export": Held(weights=1, float32=8, dtype="stored", may_use_gpu=False),
}


class Memory:
    """Look-ups for `mem_mb`.

    Args:
        dtypes: Types of the weights as configured, for `evaluation` and `recovery`; `auto` is as stored.
        uses_gpu: Whether jobs that run models may ask for a GPU.
    """

    def __init__(self, dtypes: Mapping[str, str], *, uses_gpu: bool) -> None:
        self._dtypes = dtypes
        self._uses_gpu = uses_gpu

    def of(self, kind: str) -> Callable[..., int]:
        """Make a resource for a kind of job that runs a model: `mem_mb=study.memory.of("evaluation")`.

        It reads the manifest among the job's inputs. Before there is one, a dry run shows `<TBD>`.
        """
        held = HELD[kind]

        def resource(_wildcards: Any, input: Any, attempt: int) -> int:  # noqa: A002 (Snakemake's name)
            if held.may_use_gpu and self._uses_gpu:
                return GPU_PROCESS_MB * attempt
            dtype = self._dtypes.get(held.dtype, "auto")
            return on_cpu(_manifest(input.manifest), held, dtype) * attempt

        return resource


def on_cpu(manifest: Mapping[str, Any], held: Held, dtype: str) -> int:
    """Compute the megabytes of host memory that a job needs on the CPU.

    Args:
        manifest: Manifest of the model.
        held: What this kind of job holds.
        dtype: Type of the weights; `auto` is as stored.
    """
    n_bytes = held.weights * DTYPE_BYTES[stored_dtype(manifest) if dtype == "auto" else dtype] + held.float32
    return PROCESS_MB + int(manifest["n_params"] * n_bytes / 1e6)


def _manifest(path: str) -> Mapping[str, Any]:
    return _read(path, Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(path: str, _mtime_ns: int) -> Mapping[str, Any]:
    """Read a manifest once, however many experiments of its model ask for memory."""
    from espalier.files import read_json  # with pyarrow, which reading the Snakefile does without

    manifest: Mapping[str, Any] = read_json(path)
    return manifest


def stored_dtype(manifest: Mapping[str, Any]) -> str:
    """Return the dtype that weights are stored in; float32, the largest, where config.json does not say."""
    config = manifest.get("config", {})
    dtype = config.get("dtype") or config.get("torch_dtype")
    return dtype if dtype in DTYPE_BYTES else "float32"

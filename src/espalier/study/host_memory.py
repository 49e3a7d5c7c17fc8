"""Host memory that jobs request, computed from the size of their model.

On the CPU, a job holds the weights in host memory, and the tensors that it computes from them. On a GPU, weights are
loaded directly from the file to the device, so the size of the model does not matter. `benchmarks/memory.py` compares
these numbers with the memory that jobs use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from espalier.errors import UserError

PROCESS_MB = 3000
"""Memory of a job besides weights, in MB: Python and its libraries, Snakemake's processes, requests, activations."""
GPU_PROCESS_MB = 6000
"""Host memory of a job on a GPU, in MB: `PROCESS_MB`, and CUDA with its pinned memory."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class MemoryPerParam:
    """Memory of a kind of job for each parameter of its model, in addition to `PROCESS_MB`.

    Attributes:
        weights: Number of copies of the weights in the dtype in which they are loaded.
        float32: Further bytes, for tensors that are always float32.
        dtype: The dtype in which weights are loaded: the one of the evaluation or the recovery, or the stored one.
        may_use_gpu: Whether the job runs on a GPU if the study uses GPUs.
    """

    weights: float
    float32: int = 0
    dtype: Literal["evaluation", "recovery", "stored"] = "evaluation"
    may_use_gpu: bool = True


MEMORY_PER_PARAM = {
    "evaluation": MemoryPerParam(weights=2),  # the unpruned weights, which are read once, and the cut ones
    "priors": MemoryPerParam(weights=1),
    # Weights and gradients; a sum and, for some criteria, a sum of squares.
    "gradients": MemoryPerParam(weights=2, float32=8),
    "weights": MemoryPerParam(weights=1, float32=4),
    "inference": MemoryPerParam(weights=3),  # the unpruned, the pruned and the padded model
    "recovery": MemoryPerParam(weights=2, float32=4, dtype="recovery"),
    "recovery_distillation": MemoryPerParam(weights=3, float32=4, dtype="recovery"),  # and the unpruned model
    # The loaded weights; weights, gradients and both moments of AdamW in float32.
    "recovery_full": MemoryPerParam(weights=1, float32=16, dtype="recovery"),
    "recovery_full_distillation": MemoryPerParam(weights=2, float32=16, dtype="recovery"),
    # Weights are cast to float32 for the comparison, and another process loads them again.
    "export": MemoryPerParam(weights=1, float32=8, dtype="stored", may_use_gpu=False),
}


class Memory:
    """Look-ups for the resource `mem_mb`.

    Args:
        dtypes: Configured dtypes of the weights for `evaluation` and `recovery`; `auto` is the stored dtype.
        uses_gpu: Whether jobs that run models may request a GPU.
    """

    def __init__(self, dtypes: Mapping[str, str], *, uses_gpu: bool) -> None:
        self._dtypes = dtypes
        self._uses_gpu = uses_gpu

    def mem_mb(self, job: str) -> Callable[..., int]:
        """Return a function that computes `mem_mb` for a job that runs a model.

        The function reads the manifest among the inputs of the job. A dry run shows `<TBD>` until the manifest exists.

        Args:
            job: Kind of the job, a key of `MEMORY_PER_PARAM`.
        """
        memory = MEMORY_PER_PARAM[job]

        def resource(_wildcards: Any, input: Any, attempt: int) -> int:  # noqa: A002 (Snakemake's name)
            if memory.may_use_gpu and self._uses_gpu:
                return GPU_PROCESS_MB * attempt
            dtype = self._dtypes.get(memory.dtype, "auto")
            try:
                manifest = read_manifest(input.manifest)
            except UserError:  # the manifest is damaged; the job says so in one line
                return PROCESS_MB * attempt
            return cpu_mb(manifest, memory, dtype) * attempt

        return resource


def cpu_mb(manifest: Mapping[str, Any], memory: MemoryPerParam, dtype: str) -> int:
    """Compute the host memory that a job needs on the CPU, in MB.

    Args:
        manifest: Manifest of the model.
        memory: Memory per parameter of this kind of job.
        dtype: Dtype of the loaded weights; `auto` is the stored dtype.
    """
    n_bytes = memory.weights * DTYPE_BYTES[stored_dtype(manifest) if dtype == "auto" else dtype] + memory.float32
    return PROCESS_MB + int(manifest["n_params"] * n_bytes / 1e6)


def read_manifest(path: str) -> Mapping[str, Any]:
    """Read a manifest, or return it as it was read before if it has not changed."""
    return _read_manifest(path, Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read_manifest(path: str, _mtime_ns: int) -> Mapping[str, Any]:
    from espalier.files import read_json  # imports pyarrow, which parsing the Snakefile does not need

    manifest: Mapping[str, Any] = read_json(path)
    return manifest


def stored_dtype(manifest: Mapping[str, Any]) -> str:
    """Return the dtype of the stored weights; float32, the largest, if config.json does not give it."""
    config = manifest.get("config", {})
    dtype = config.get("dtype") or config.get("torch_dtype")
    return dtype if dtype in DTYPE_BYTES else "float32"

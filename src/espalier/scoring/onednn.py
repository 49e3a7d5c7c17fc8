"""Linear layers of float32 models on the CPU through oneDNN.

PyTorch gives float32 products to MKL, which leaves AVX-512 unused on processors that are not Intel's. oneDNN, which
comes with PyTorch too, asks what a processor can do, not who made it (docs/benchmarks.md). Inductor calls the same
operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

_CPU_INFO = Path("/proc/cpuinfo")


def fast_linear(model: PreTrainedModel) -> AbstractContextManager[object]:
    """Return a context in which linear layers run as fast as the machine allows; for inference only.

    Sums are made in another order, so results differ in the last digits. `torch.backends.mkldnn.flags(enabled=False)`
    leaves everything as it is.
    """
    is_float32_on_cpu = model.device.type == "cpu" and model.dtype == torch.float32
    if is_float32_on_cpu and torch.backends.mkldnn.enabled and mkl_is_slow():
        return _Linear()
    return nullcontext()


@cache
def mkl_is_slow() -> bool:
    """Whether MKL leaves AVX-512 unused on this machine and oneDNN is there instead."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and vendor(_CPU_INFO) not in {None, "GenuineIntel"}
    )


def vendor(cpu_info: Path) -> str | None:
    """Read who made the processor; None where the system does not say."""
    try:
        lines = cpu_info.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), None)


class _Linear(TorchFunctionMode):  # type: ignore[misc]  # torch gives it no type
    """Replaces `torch.nn.functional.linear` where oneDNN can stand in for it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        if func is functional.linear:
            return _linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear(
    input: torch.Tensor,  # noqa: A002 (callers may give it by this name)
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    parameters = [weight] if bias is None else [weight, bias]
    is_float32_on_cpu = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (input, *parameters))
    # A bias with strides is read wrongly, and nothing is asked of empty tensors.
    is_plain = all(t.is_contiguous() for t in parameters) and input.numel() > 0 and weight.numel() > 0
    if torch.is_grad_enabled() or not (is_float32_on_cpu and is_plain):
        return functional.linear(input, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")  # noqa: SLF001 (no other name)

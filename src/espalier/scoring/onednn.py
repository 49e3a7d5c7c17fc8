"""Faster linear layers for float32 models on CPUs that are not made by Intel, through oneDNN.

PyTorch computes float32 matrix products with MKL. MKL does not use AVX-512 on processors of other makers than Intel.
oneDNN, which PyTorch also contains, uses it wherever the processor supports it (docs/benchmarks.md). PyTorch's compiler
backend Inductor calls the same operator as this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CPU_INFO = Path("/proc/cpuinfo")


def fast_linear(model: PreTrainedModel) -> AbstractContextManager[object]:
    """Return a context manager inside which linear layers use oneDNN if it is faster than MKL. For inference only.

    oneDNN adds in another order than MKL, so results differ in the last digits. With
    `torch.backends.mkldnn.flags(enabled=False)`, the context manager has no effect.
    """
    is_float32_on_cpu = model.device.type == "cpu" and model.dtype == torch.float32
    if is_float32_on_cpu and torch.backends.mkldnn.enabled and mkl_is_slow():
        return _Linear()
    return nullcontext()


@cache
def mkl_is_slow() -> bool:
    """Return whether MKL does not use this machine's AVX-512 and oneDNN is available."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and vendor(_CPU_INFO) not in {None, "GenuineIntel"}
    )


def vendor(cpu_info: Path) -> str | None:
    """Read the maker of the processor, such as `GenuineIntel`, or None if the system does not report it."""
    try:
        lines = cpu_info.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), None)


class _Linear(TorchFunctionMode):  # type: ignore[misc]  # torch does not type this class
    """Replaces calls of `torch.nn.functional.linear` by oneDNN where oneDNN supports the tensors."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        if func is functional.linear:
            return _linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear(
    input: torch.Tensor,  # noqa: A002 (callers may pass it by this name)
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    parameters = [weight] if bias is None else [weight, bias]
    is_float32_on_cpu = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (input, *parameters))
    # oneDNN reads a non-contiguous bias wrongly. Empty tensors go to PyTorch, too.
    is_plain = all(t.is_contiguous() for t in parameters) and input.numel() > 0 and weight.numel() > 0
    if torch.is_grad_enabled() or not (is_float32_on_cpu and is_plain):
        return functional.linear(input, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")  # noqa: SLF001 (no other name)

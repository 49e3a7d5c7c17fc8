"""Decoder layers through `torch.compile`, which joins their element-wise operations into few kernels.

Norms, rotary embeddings, activations and residual sums read and write all activations several times, in small kernels.
They took 38% of the GPU time of an evaluation (docs/benchmarks.md). The matrix products stay as they are.

Pruned layers have different widths. All of them share one compiled function per type of layer, because the sizes of
weights are symbols in it. PyTorch keeps what it compiled on the disk for the next process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from espalier.models.architecture import LAYERS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

Forward = Callable[..., Any]

_SETTINGS = {
    # The sizes of weights and the integers of a layer (its number of heads, its index) are symbols, not constants.
    "force_parameter_static_shapes": False,
    "force_nn_module_property_static_shapes": False,
    "allow_unspec_int_on_nn_module": True,
    # Versions of one function: with and without a mask, one row or several, one KV group or several, ...
    "recompile_limit": 64,
}
"""Options of `torch._dynamo.config`."""

_functions: dict[tuple[type[nn.Module], str], LayerFunction] = {}


class LayerFunction:
    """The compiled `forward` of a class of layers. If it cannot be compiled, the layers run without.

    Args:
        layer_class: Class of the layers.
        backend: Backend of `torch.compile`.
    """

    def __init__(self, layer_class: type[nn.Module], backend: str) -> None:
        self._plain: Forward = layer_class.forward
        self._compiled: Forward | None = torch.compile(self._plain, dynamic=True, backend=backend)

    @property
    def is_compiled(self) -> bool:
        """Whether the compiler has not failed so far."""
        return self._compiled is not None

    def __call__(self, layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run a layer.

        A layer with a KV cache runs without the compiler, because it reads the cache by its index, so each layer would
        be compiled on its own.
        """
        if self._compiled is None or kwargs.get("past_key_values") is not None:
            return self._plain(layer, *args, **kwargs)
        try:
            with torch._dynamo.config.patch(_SETTINGS):  # noqa: SLF001 (documented, no other name)
                return self._compiled(layer, *args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # all errors of the compiler; others come again from the plain layer
            self._compiled = None
            cause = str(getattr(error, "inner_exception", error)) or type(error).__name__
            reason = cause.strip().splitlines()[0]
            logger.warning("evaluation.compile: %s; layers run without the compiler", reason[:200])
            return self._plain(layer, *args, **kwargs)


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Let the decoder layers of a model run compiled, in place. Other models of the same class are not changed.

    The first batches are slow, because they compile (docs/benchmarks.md). Results differ by rounding.

    Args:
        model: A causal language model, pruned or not. Layers whose `forward` another library has replaced are left
            alone, such as those of a model on several GPUs.
        backend: Backend of `torch.compile`.
    """
    for layer in model.get_submodule(LAYERS):
        if "forward" not in vars(layer):
            key = (type(layer), backend)
            if key not in _functions:
                _functions[key] = LayerFunction(*key)
                logger.info("layers run through torch.compile; the first batches are slow, because they compile")
            layer.forward = partial(_functions[key], layer)

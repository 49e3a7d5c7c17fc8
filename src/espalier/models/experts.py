"""Access to the experts of a decoder layer, and surgery on them.

The MLP of a layer with experts is a router and the experts. The router computes one logit per expert for each token,
and chooses the k experts with the largest. Their outputs are added, weighted by the router:

    mlp(x) = sum over the chosen experts e of g_e(x) * down_e (act(gate_e x) * up_e x)

`espalier.models.architecture` has the names. An expert is its slices of the two tensors of all experts, and its row of
the router. Without this row, the router chooses among the other experts, as if the logit were minus infinity.

All experts of a layer are in one tensor, so they keep equally many channels, but each expert has its own. transformers
multiplies these tensors with a kernel for which rows must begin at multiples of 16 bytes, on the CPU and on GPUs. So
plans keep a multiple of 8 channels (`espalier.planning.experts`), or all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from espalier.models.architecture import EXPERTS
from espalier.models.kept_experts import KeptExperts

_COUNTS = ("num_experts", "num_local_experts")  # attributes of modules that count experts
_WIDTHS = ("intermediate_dim", "intermediate_size", "moe_intermediate_size")  # attributes that count channels


def has_experts(layer: nn.Module) -> bool:
    """Return whether the MLP of a layer is a mixture of experts in the known layout."""
    experts = find_experts(layer)
    return experts is not None and isinstance(getattr(experts, EXPERTS.reader, None), nn.Parameter)


def find_experts(layer: nn.Module) -> nn.Module | None:
    """Return the module of all experts of a layer; None if the layer has none."""
    return _find(layer, EXPERTS.path)


def get_experts(layer: nn.Module) -> nn.Module:
    """Return the module of all experts of a layer that has some."""
    return layer.get_submodule(EXPERTS.path)


def get_router(layer: nn.Module) -> nn.Module:
    """Return the router of a layer that has experts."""
    return layer.get_submodule(EXPERTS.router)


def n_experts(layer: nn.Module) -> int:
    """Return the number of experts of a layer; 0 if its MLP is dense."""
    return int(_reader(layer).shape[0]) if has_experts(layer) else 0


def n_expert_channels(layer: nn.Module) -> int:
    """Return the number of channels of each expert of a layer."""
    return int(_writer(layer).shape[2])


def experts_per_token(layer: nn.Module) -> int:
    """Return how many experts the router chooses for each token."""
    return int(get_router(layer).top_k)


def params_per_expert(layer: nn.Module) -> int:
    """Return the parameters of one expert with its row of the router."""
    total = _reader(layer).numel() + _writer(layer).numel() + get_router(layer).weight.numel()
    return int(total) // n_experts(layer)


def experts_problem(layer: nn.Module) -> str | None:
    """Return the reason why the experts of a layer cannot be pruned, to follow "layer 3"; None if they can be."""
    experts, router = get_experts(layer), _find(layer, EXPERTS.router)
    reader, writer = getattr(experts, EXPERTS.reader, None), getattr(experts, EXPERTS.writer, None)
    if not (isinstance(reader, nn.Parameter) and isinstance(writer, nn.Parameter)):
        return f"has no {EXPERTS.reader} and {EXPERTS.writer} of all experts in {EXPERTS.path}"
    if router is None:
        return f"has experts, but no router {EXPERTS.router}; pruning them would need an entry in the table of layouts"
    weight = getattr(router, "weight", None)
    shapes = [None if each is None else tuple(each.shape) for each in (reader, writer, weight)]
    n, hidden, width = writer.shape if writer.dim() == 3 else (0, 0, 0)
    if shapes != [(n, 2 * width, hidden), (n, hidden, width), (n, hidden)]:
        return f"has experts and a router of shapes {shapes}, which do not form gate, up, down and one row per expert"
    extra = [f"{EXPERTS.path}.{name}" for name in _tensors(experts) if name not in {EXPERTS.reader, EXPERTS.writer}]
    extra += [f"{EXPERTS.router}.{name}" for name in _tensors(router) if name != "weight"]
    if extra:
        return f"has {extra[0]}, which the table of layouts does not have; pruning experts would need an entry there"
    if not isinstance(getattr(router, "top_k", None), int):
        return "has a router that does not say how many experts it chooses (top_k)"
    return None


def cut_experts(layer: nn.Module, kept: KeptExperts) -> None:
    """Keep the given experts and channels of a layer and remove all others, in place.

    Tensors that change become new parameters with their own memory. `check_kept` says what is allowed.
    """
    experts, router = get_experts(layer), get_router(layer)
    device = _reader(layer).device
    if len(kept.experts) < n_experts(layer):
        chosen = torch.tensor(kept.experts, device=device)
        for name, parameter in ((EXPERTS.reader, _reader(layer)), (EXPERTS.writer, _writer(layer))):
            setattr(experts, name, _new(parameter, parameter.detach().index_select(0, chosen)))
        router.weight = _new(router.weight, router.weight.detach().index_select(0, chosen.to(router.weight.device)))
        for module in (experts, router, layer.get_submodule(EXPERTS.path.rpartition(".")[0])):
            _set(module, _COUNTS, len(kept.experts))
    if kept.channels is not None and len(kept.channels[0]) < n_expert_channels(layer):
        channels = torch.tensor(kept.channels, dtype=torch.long, device=device)  # (experts, kept channels)
        rows = torch.cat([channels, channels + n_expert_channels(layer)], dim=1)
        reader, writer = _reader(layer), _writer(layer)
        read = reader.detach().gather(1, rows[:, :, None].expand(-1, -1, reader.shape[2]))
        written = writer.detach().gather(2, channels[:, None, :].expand(-1, writer.shape[1], -1))
        setattr(experts, EXPERTS.reader, _new(reader, read))
        setattr(experts, EXPERTS.writer, _new(writer, written))
        _set(experts, _WIDTHS, channels.shape[1])
        if channels.shape[1] == 0:
            experts.forward = _no_output


def mask_experts(layer: nn.Module, kept: KeptExperts) -> None:
    """Make a layer compute what it computes without the experts and channels that `cut_experts` removes, in place.

    The router computes minus infinity for removed experts, and the weights of removed channels become zero. Shapes do
    not change.
    """
    removed = sorted(set(range(n_experts(layer))) - set(kept.experts))
    router = get_router(layer)
    if removed:
        router.forward = partial(_masked_forward, router, type(router).forward, removed)
    if kept.channels is None:
        return
    width = n_expert_channels(layer)
    with torch.no_grad():
        for expert, channels in zip(kept.experts, kept.channels, strict=True):
            gone = torch.tensor(sorted(set(range(width)) - set(channels)), dtype=torch.long)
            _reader(layer)[expert].index_fill_(0, torch.cat([gone, gone + width]), 0)
            _writer(layer)[expert].index_fill_(1, gone, 0)


def check_kept(what: str, kept: KeptExperts, layer: nn.Module) -> str | None:
    """Describe what is wrong with the experts to keep of a layer; None if nothing is."""
    n, least, width = n_experts(layer), experts_per_token(layer), n_expert_channels(layer)
    if problem := _indices_problem(kept.experts, n):
        return f"{what}: experts {problem}"
    if len(kept.experts) < least:
        return f"{what}: keeps {len(kept.experts)} experts, but each token is routed to {least}; keep at least {least}"
    if kept.channels is None:
        return None
    if len(kept.channels) != len(kept.experts) or len(set(map(len, kept.channels))) > 1:
        return f"{what}: the experts of a layer keep equally many channels; give as many indices for each expert"
    problems = (_indices_problem(channels, width) for channels in kept.channels)
    return next((f"{what}: channels {problem}" for problem in problems if problem), None)


def _indices_problem(indices: Sequence[int], n: int) -> str | None:
    if any(following <= index for index, following in itertools.pairwise(indices)):
        return "must increase, each given once; sort them and drop duplicates"
    if indices and (indices[0] < 0 or indices[-1] >= n):
        return f"are numbered from 0 to {n - 1}; make the plan from this model"
    return None


def _no_output(hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Return the output of experts without channels, zero for each token."""
    return torch.zeros_like(hidden_states)


class _MaskedLogits(TorchFunctionMode):  # type: ignore[misc]  # torch does not type this class
    """Set the logits of some experts to minus infinity where the router multiplies with its weight."""

    def __init__(self, weight: nn.Parameter, removed: list[int]) -> None:
        super().__init__()
        self._weight, self._removed = weight, removed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is functional.linear and args[1] is self._weight:
            output[..., self._removed] = -torch.inf
        return output


def _masked_forward(router: nn.Module, forward: Any, removed: list[int], *args: Any, **kwargs: Any) -> Any:
    with _MaskedLogits(router.weight, removed):
        return forward(router, *args, **kwargs)


def _find(layer: nn.Module, path: str) -> nn.Module | None:
    try:
        return layer.get_submodule(path)
    except AttributeError:
        return None


def _tensors(module: nn.Module) -> list[str]:
    return [name for name, _ in (*module.named_parameters(), *module.named_buffers())]


def _reader(layer: nn.Module) -> nn.Parameter:
    return getattr(get_experts(layer), EXPERTS.reader)


def _writer(layer: nn.Module) -> nn.Parameter:
    return getattr(get_experts(layer), EXPERTS.writer)


def _new(parameter: nn.Parameter, values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=parameter.requires_grad)


def _set(module: nn.Module, names: Sequence[str], size: int) -> None:
    for name in names:
        if isinstance(getattr(module, name, None), int):
            setattr(module, name, size)

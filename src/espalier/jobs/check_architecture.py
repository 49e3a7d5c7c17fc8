"""Check that an architecture supports pruning, packed scoring and priors. Runs before all expensive jobs.

These three rely on assumptions about the decoder. Groups are slices of projections. A block adds its output to the
residual stream. Position ids and masks fully determine which tokens a token attends to. A list of names cannot show
whether an architecture meets these assumptions.

The check therefore creates a small model of the same class with random float32 weights, and compares three results with
a plain computation: a pruned model with a masked model, packed requests with single requests, and priors with runs of
the whole model without the block. For experiments that remove whole layers, it also compares models without some layers
with a model that skips them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from espalier.calibration.gradients import sequence_losses
from espalier.calibration.priors import SCOPES, measure_priors
from espalier.errors import UserError
from espalier.models.architecture import DIFFERING_LAYERS
from espalier.models.decoder import BLOCK_PATHS, Block, decoder_layers, get_block, n_groups
from espalier.models.experts import experts_per_token, has_experts, n_experts
from espalier.models.kept_experts import KeptExperts
from espalier.models.surgery import mask, prune
from espalier.models.text_config import load_config
from espalier.planning.experts import WIDTH_MULTIPLE
from espalier.scoring.attention import Attention
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

LARGEST_DIFFERENCE = 2e-3
"""Largest allowed difference of float32 log-likelihoods (nats), losses (nats) or logits.

Differences from rounding are less than a tenth of it.
"""
_VOCABULARY, _CONTEXT, _THRESHOLD, _WINDOW = 64, 188, 45, 24
_LENGTHS = (3, 17, 30, 43, 45, 46, 62, 100, 130, 188)
"""Input tokens of requests: below and above `_WINDOW` and `_THRESHOLD`, and up to `_CONTEXT`.

`_THRESHOLD` and `_CONTEXT` are not multiples of 8, the number to which rows are padded, so padding exceeds both.
"""
_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")
_PIECE = 7  # tokens that are read at once with a KV cache
_LARGEST = {
    "sliding_window": _WINDOW, "attention_chunk_size": _WINDOW, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 48,
}  # fmt: skip
logger = logging.getLogger(__name__)


def check_architecture(folder: str | Path, *, trust_remote_code: bool = False) -> None:
    """Check that the architecture of a model supports pruning of groups, packed scoring and priors.

    If no small model can be created from the config, the check is skipped, and one line of the log says so. If it can
    be created but cannot read a text, and neither can a model of the same widths, the model is refused. Another line
    says if whole layers cannot be removed; this is an error only for experiments that remove some
    (`check_layers_removable`).

    Args:
        folder: A model folder whose tensors are known to fit its config.
        trust_remote_code: Whether code in the folder may run.

    Raises:
        UserError: If the architecture is not supported. The message names the architecture and what does not work.
    """
    model = _try_small_copy(folder, trust_remote_code=trust_remote_code)
    if model is None:
        return
    name = type(model).__name__
    try:
        Attention.from_model(model)
        _check_surgery(model)
        _check_scoring(model)
        _check_priors(model)
    except UserError as error:
        reason = str(error).removeprefix(f"architecture {name} is not supported: ")
        raise UserError(f"{folder}: architecture {name} is not supported: {reason}") from None
    except Exception as error:
        logger.exception("a small copy of %s failed", name)
        raise UserError(
            f"{folder}: architecture {name} is not supported: a small copy of it failed with "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}; leave the model out"
        ) from None
    if problem := _layers_problem(model):
        logger.warning("%s: methods with units: [layer] will fail: %s", folder, problem)


def check_layers_removable(folder: str | Path, *, trust_remote_code: bool = False) -> None:
    """Check that a model of which whole layers are removed computes what a model computes that skips them.

    The check is skipped if no small model can be created; `check_architecture` has said so.

    Args:
        folder: A model folder that has passed `check_architecture`.
        trust_remote_code: Whether code in the folder may run.

    Raises:
        UserError: If it does not.
    """
    model = _try_small_copy(folder, trust_remote_code=trust_remote_code)
    if model is not None and (problem := _layers_problem(model)):
        raise UserError(f"{folder}: {problem}; leave out the model, or the methods with units: [layer]")


def _try_small_copy(folder: str | Path, *, trust_remote_code: bool) -> PreTrainedModel | None:
    """Return a small copy of a model; None, and a line in the log, if there is none.

    Raises:
        UserError: If neither a small copy nor one with the model's own widths can read a text: the model cannot either.
    """
    config = load_config(folder, trust_remote_code=trust_remote_code)
    try:
        model = small_copy(config, trust_remote_code=trust_remote_code)
        problem = _forward_problem(model)
    except Exception as error:  # noqa: BLE001 (code of unknown architectures may raise anything)
        problem = error
    else:
        if problem is None:
            return model
        if own := _problem_at_own_widths(config, trust_remote_code=trust_remote_code):
            raise UserError(
                f"{folder}: {type(model).__name__} as config.json describes it cannot read a text "
                f"({type(own).__name__}: {' '.join(str(own).split())[:150]}); correct config.json, or copy or stage "
                "the model again"
            )
    logger.warning(
        "%s: its architecture was not checked, because no small copy of the model could be made (%r)", folder, problem
    )
    return None


def _forward_problem(model: PreTrainedModel) -> Exception | None:
    """Return the exception of a forward pass over a few tokens; None if it works."""
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros((1, 4), dtype=torch.long), use_cache=False)
    except Exception as error:  # noqa: BLE001 (code of unknown architectures may raise anything)
        return error
    return None


def _problem_at_own_widths(config: PretrainedConfig, *, trust_remote_code: bool) -> Exception | None:
    """Return why a model of the same class and widths, with few layers, cannot read a text.

    Returns:
        None if it can, or if no such model can be made: its vocabulary is smaller, so this proves nothing.
    """
    values = copy.deepcopy(config.to_dict())
    _keep_first_layers(values)
    values["vocab_size"] = _VOCABULARY
    values |= {key: 0 for key in _SPECIAL if values.get(key) is not None}
    try:
        shallow = type(config).from_dict(values)
        model = AutoModelForCausalLM.from_config(shallow, dtype=torch.bfloat16, trust_remote_code=trust_remote_code)
    except Exception:  # noqa: BLE001 (code of unknown architectures may raise anything)
        return None
    return _forward_problem(model)


def _keep_first_layers(values: dict[str, Any]) -> None:
    """Keep in the values of a config as many first layers as include every type of layer."""
    n_layers = values["num_hidden_layers"]
    n_kept = _layers_to_keep(values.get("layer_types"), n_layers)
    for key, value in values.items():
        if isinstance(value, list) and len(value) == n_layers:
            values[key] = value[:n_kept]
    if by_layer := values.get(DIFFERING_LAYERS):
        values[DIFFERING_LAYERS] = {number: sizes for number, sizes in by_layer.items() if int(number) < n_kept}
    values["num_hidden_layers"] = n_kept


def small_copy(config: PretrainedConfig, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Return a float32 model of the same class with random weights, small sizes, a short context and few layers.

    Every type of layer in the config occurs at least once.

    Args:
        config: Config of the model.
        trust_remote_code: Whether code in the model folder may run.
    """
    values = copy.deepcopy(config.to_dict())
    n_heads, n_kv = values["num_attention_heads"], values.get("num_key_value_heads") or values["num_attention_heads"]
    head_dim = values.get("head_dim") or values["hidden_size"] // n_heads
    # The config of an exported model has head_dim although the stock config derives it from the hidden size.
    derives_head_dim = not values.get("head_dim") or (
        DIFFERING_LAYERS in values and head_dim * n_heads == values["hidden_size"]
    )
    _keep_first_layers(values)
    values |= {
        "num_attention_heads": 4,
        "num_key_value_heads": 1 if n_kv == 1 else 4 if n_kv == n_heads else 2,
        "head_dim": head_dim,
        "hidden_size": 4 * head_dim if derives_head_dim else 64,
        "intermediate_size": 48,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": _CONTEXT,
    }
    values = {key: value for key, value in values.items() if key in config.to_dict()}
    values |= {key: 0 for key in _SPECIAL if values.get(key) is not None}
    for key, largest in _LARGEST.items():
        if values.get(key):
            values[key] = min(values[key], largest)
    _shrink_differing_layers(values)
    _lower_rope_threshold(values)
    small = type(config).from_dict(values)
    small._attn_implementation = config._attn_implementation  # noqa: SLF001 (not part of the dictionary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(small, dtype=torch.float32, trust_remote_code=trust_remote_code)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=2 / parameter.shape[-1] ** 0.5)
            elif name.endswith("bias"):
                nn.init.normal_(parameter, std=0.2)
    return model.eval()


def _shrink_differing_layers(values: dict[str, Any]) -> None:
    """Give layers whose sizes the config lists one by one at most the sizes of the small copy.

    Each KV head keeps as many query heads as in the other layers.
    """
    n_query = values["num_attention_heads"] // (values.get("num_key_value_heads") or values["num_attention_heads"])
    for sizes in (values.get(DIFFERING_LAYERS) or {}).values():
        for key in ("num_key_value_heads", "intermediate_size"):
            if sizes.get(key):
                sizes[key] = min(sizes[key], values[key])
        if sizes.get("num_attention_heads"):
            n_kv = sizes.get("num_key_value_heads") or values.get("num_key_value_heads")
            sizes["num_attention_heads"] = n_kv * n_query if n_kv else values["num_attention_heads"]


def _layers_to_keep(layer_types: Sequence[str] | None, n_layers: int) -> int:
    """Return how many first layers include every type of layer, at least two."""
    last_new = (
        max((list(layer_types).index(layer_type) for layer_type in set(layer_types)), default=0) if layer_types else 0
    )
    return min(n_layers, max(2, last_new + 1))


def _lower_rope_threshold(values: dict[str, Any]) -> None:
    """Set `original_max_position_embeddings` to `_THRESHOLD` wherever it occurs in the config, nested or not."""
    for key, value in values.items():
        if key == "original_max_position_embeddings" and value:
            values[key] = _THRESHOLD
        elif isinstance(value, dict):
            _lower_rope_threshold(value)


def _check_surgery(model: PreTrainedModel) -> None:
    layers = decoder_layers(model)
    kept = {block: [list(range(0, n_groups(layer, block), 2)) for layer in layers] for block in ("attention", "mlp")}
    kept["attention"][-1] = []
    kept["mlp"][0] = []
    experts = {number: _some_experts(layer, number) for number, layer in enumerate(layers) if has_experts(layer)}
    for number, of_layer in experts.items():
        kept["mlp"][number] = list(range(len((of_layer.channels or ((),))[0])))
    masked, pruned = copy.deepcopy(model), copy.deepcopy(model)
    mask(masked, kept["attention"], kept["mlp"], (), experts)
    prune(pruned, kept["attention"], kept["mlp"], (), experts)
    tokens = _random_tokens(2, 30)
    difference = _largest_difference(_logits(pruned, tokens), _logits(masked, tokens))
    if difference is not None:
        raise UserError(
            f"a pruned copy computes other logits than one whose groups are set to zero (by up to {difference:.2g}), "
            "so what is removed is not all that a group does"
        )


def _some_experts(layer: nn.Module, number: int) -> KeptExperts:
    """Return what the check keeps of the experts of a layer: the last ones, with other channels in each.

    In the first layer, they lose all channels.
    """
    experts = range(n_experts(layer))[-max(experts_per_token(layer), n_experts(layer) // 2) :]
    width = WIDTH_MULTIPLE if number and n_groups(layer, "mlp") > WIDTH_MULTIPLE else 0
    step = max(1, n_groups(layer, "mlp") // WIDTH_MULTIPLE)
    channels = (range(place % step, n_groups(layer, "mlp"), step)[:width] for place in range(len(experts)))
    return KeptExperts(tuple(experts), tuple(map(tuple, channels)))


def _layers_problem(model: PreTrainedModel) -> str | None:
    """Describe what goes wrong when layers are removed from a model; None if nothing does.

    Copies without some layers are compared with a model that skips them, in one pass and piece by piece with a cache.
    """
    n_layers, tokens = len(decoder_layers(model)), _random_tokens(2, 30)
    # Without every second layer, models whose types of layer alternate have lost one type.
    for removed in ([0], [n_layers - 1], list(range(0, n_layers, 2))) if n_layers > 1 else ():
        try:
            problem = _removal_problem(model, removed, tokens)
        except Exception as error:  # code of unknown architectures may raise anything
            logger.exception("a small copy without layers %s failed", removed)
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if problem:
            layers = ", ".join(map(str, removed))
            return (
                f"layers of architecture {type(model).__name__} cannot be removed (a small copy without layers "
                f"{layers}: {problem})"
            )
    return None


def _removal_problem(model: PreTrainedModel, removed: list[int], tokens: torch.Tensor) -> str | None:
    """Describe how a copy without layers differs from a model that skips them; None if it does not."""
    layers = decoder_layers(model)
    kept = {
        block: [[] if number in removed else list(range(n_groups(layer, block))) for number, layer in enumerate(layers)]
        for block in BLOCK_PATHS
    }
    shorter = copy.deepcopy(model)
    prune(shorter, kept["attention"], kept["mlp"], removed)
    with _skipping([layers[number] for number in removed]):
        expected = _logits(model, tokens)
    difference = _largest_difference(_logits(shorter, tokens), expected)
    if difference is not None:
        return f"its logits differ by up to {difference:.2g} from those of a model that skips these layers"
    difference = _largest_difference(_logits_with_cache(shorter, tokens), expected)
    if difference is not None:
        return f"its logits differ by up to {difference:.2g} with a KV cache"
    return None


def _logits(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits


def _logits_with_cache(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        pieces = [
            model(input_ids=piece, past_key_values=cache, use_cache=True).logits
            for piece in tokens.split(_PIECE, dim=1)
        ]
    return torch.cat(pieces, dim=1)


def _largest_difference(found: torch.Tensor, expected: torch.Tensor) -> float | None:
    """Return the largest difference of logits if it is larger than rounding explains, otherwise None."""
    if torch.allclose(found, expected, atol=LARGEST_DIFFERENCE, rtol=LARGEST_DIFFERENCE):
        return None
    return float((found - expected).abs().max())


def _check_scoring(model: PreTrainedModel) -> None:
    shared = _random_tokens(1, max(_LENGTHS) + 1)[0].tolist()
    requests = [Request(shared[: n - 2], shared[n - 2 : n + 1]) for n in _LENGTHS]
    requests += [Request([*shared[: n - 3], 1], [5, 7, 9]) for n in _LENGTHS[1:]]
    # Requests without a common prefix run without a mask, as plain causal attention.
    requests += [Request([number, *shared[-n + 1 :]], [6]) for number, n in enumerate(_LENGTHS)]
    found = np.array([score.loglikelihood for score in score_requests(model, requests, token_budget=2048)])
    expected = np.array([_score_alone(model, request) for request in requests])
    if not np.allclose(found, expected, atol=LARGEST_DIFFERENCE, rtol=0):
        worst = int(np.abs(found - expected).argmax())
        raise UserError(
            f"requests that are scored together get other log-likelihoods than alone (by up to "
            f"{abs(found - expected)[worst]:.2g} nats, at {len(requests[worst].context)} tokens), so results would "
            "depend on which requests share a batch"
        )


def _score_alone(model: PreTrainedModel, request: Request) -> float:
    tokens = [*request.context, *request.continuation]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens[:-1]]), use_cache=False).logits[0]
    n = len(request.continuation)
    log_probs = logits[-n:].double().log_softmax(dim=-1)
    return float(log_probs.gather(1, torch.tensor(request.continuation)[:, None]).sum())


def _check_priors(model: PreTrainedModel) -> None:
    sequences = _random_tokens(2, 30)
    measured = measure_priors(model, sequences, token_budget=64)
    with torch.no_grad():
        intact = sequence_losses(model, sequences)
        for number, layer in enumerate(decoder_layers(model)):
            for position, scope in enumerate(SCOPES):
                blocks: list[Block] = ["attention", "mlp"] if scope == "layer" else [scope]  # type: ignore[list-item]
                with _without(layer, blocks):
                    expected = (sequence_losses(model, sequences) - intact).numpy()
                if not np.allclose(
                    measured.loss_increase[:, number, position], expected, atol=LARGEST_DIFFERENCE, rtol=0
                ):
                    raise UserError(f"the prior of {scope} {number} is not the loss of the model without it")


@contextmanager
def _without(layer: nn.Module, blocks: Sequence[Block]) -> Iterator[None]:
    """Set the output of blocks to zero inside the context."""

    def zero_output(_module: nn.Module, _args: object, output: Any) -> Any:
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    with ExitStack() as stack:
        for block in blocks:
            stack.callback(get_block(layer, block).register_forward_hook(zero_output).remove)
        yield


@contextmanager
def _skipping(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Make layers return their input inside the context."""

    def skip(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        hidden_states = args[0] if args else kwargs["hidden_states"]
        return (hidden_states, *output[1:]) if isinstance(output, tuple) else hidden_states

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(skip, with_kwargs=True).remove)
        yield


def _random_tokens(n_rows: int, n_tokens: int) -> torch.Tensor:
    return torch.randint(_VOCABULARY, (n_rows, n_tokens), generator=torch.Generator().manual_seed(1))

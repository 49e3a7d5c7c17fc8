"""Measured memory and speed of recovery with random weights, and the computed memory.

    PYTHONPATH=src python benchmarks/recovery.py                                   50 M parameters, on the CPU
    PYTHONPATH=src python benchmarks/recovery.py --shape sandbox
    PYTHONPATH=src python benchmarks/recovery.py --shape llama-3-8b --device cuda  an 8B model on a GPU
    PYTHONPATH=src python benchmarks/recovery.py --shape llama-3-8b --computed     computed memory only, no weights

The same fraction of KV groups and MLP channels is removed from each layer. On the CPU the peak is that of the whole
process, including Python and its libraries.
"""

import argparse
import copy

import torch
import transformers
from calibration import describe, random_sequences, report, reset_peak
from random_models import SHAPES, random_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from espalier.calibration.gradients import sequence_losses
from espalier.calibration.pass_size import GIB
from espalier.config.recovery import Recovery
from espalier.jobs.recovery import peak_memory
from espalier.models.architecture import PROJECTION_NAMES
from espalier.models.decoder import ROLES, decoder_layers, get_projection, n_kv_groups, n_mlp_channels
from espalier.models.surgery import prune
from espalier.recovery.fine_tuning import TrainingSchedule, fine_tune
from espalier.recovery.lora import LoraSettings, attach

DEFAULTS = Recovery()
LORA = LoraSettings(DEFAULTS.rank, DEFAULTS.alpha, DEFAULTS.dropout, PROJECTION_NAMES, 0)


def main() -> None:
    options = parse_options()
    device = torch.device("meta" if options.computed else options.device)
    dtype = torch.float32 if options.device == "cpu" and not options.computed else torch.bfloat16
    with device:
        model = (
            AutoModelForCausalLM.from_config(SHAPES[options.shape], dtype=dtype)
            if options.computed
            else random_model(options.shape, device, dtype)
        )
    n_unpruned = model.num_parameters()
    pruned = cut(model, options.ratio)
    where = "nowhere: computed, not measured" if options.computed else describe(device)
    print(f"## {options.shape} on {where}\n")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {str(dtype).removeprefix('torch.')}, ")
    print(f"{pruned['n_params']:,} of {n_unpruned:,} parameters, {options.token_budget:,} tokens at once\n")
    print("| what | found |\n|---|---|")
    print_budget(model, pruned, options.token_budget, checkpointing=not options.no_checkpointing)
    if not options.computed:
        measure(model, options)
    if options.device == "cpu" and not options.computed:
        count_saved(options.shape)


def cut(model: PreTrainedModel, ratio: float) -> dict[str, int]:
    """Prune the last groups of each layer; return the sizes that determine memory.

    A model on the device `meta` is not changed; only its sizes are computed.
    """
    layers = decoder_layers(model)
    groups = [range(max(1, round(n_kv_groups(layer) * (1 - ratio)))) for layer in layers]
    channels = [range(max(1, round(n_mlp_channels(layer) * (1 - ratio)))) for layer in layers]
    shares = {
        "attention": len(groups[0]) / n_kv_groups(layers[0]),
        "mlp": len(channels[0]) / n_mlp_channels(layers[0]),
    }
    shapes = []
    for role in ROLES:
        shape = list(get_projection(layers[0], role).weight.shape)
        shape[role.group_dim] = round(shape[role.group_dim] * shares[role.block])
        shapes.append(shape)
    per_layer = sum(rows * columns for rows, columns in shapes)
    n_removed = len(layers) * (sum(get_projection(layers[0], role).weight.numel() for role in ROLES) - per_layer)
    if model.device.type != "meta":
        prune(model, groups, channels)
    return {
        "n_params": model.num_parameters() - (n_removed if model.device.type == "meta" else 0),
        "n_layers": len(layers),
        "n_weights": len(layers) * per_layer,
        "adapters": len(layers) * LORA.rank * sum(rows + columns for rows, columns in shapes),
        "inputs": sum(columns for _, columns in shapes),
        "attention": sum(shapes[number][0] for number in (0, 1, 2)) + shapes[3][1],
        "mlp": 3 * shapes[4][0],
    }


def print_budget(model: PreTrainedModel, sizes: dict[str, int], tokens: int, *, checkpointing: bool) -> None:
    """Print the computed memory of each part, and their sum. docs/recovery.md has the formulas."""
    config, width = model.config, model.dtype.itemsize
    layer = layer_bytes(sizes, config.hidden_size, width, mask=1)
    kept = layer if checkpointing else sizes["n_layers"] * layer
    parts = {
        f"frozen weights, {width} B each": sizes["n_params"] * width,
        f"{sizes['adapters']:,} adapter parameters, 16 B each": sizes["adapters"] * 16,
        "inputs of all layers": tokens * sizes["n_layers"] * config.hidden_size * width,
        "activations of one layer" if checkpointing else "activations of all layers": tokens * kept,
        "logits, their softmax and gradients": tokens * config.vocab_size * 12,
    }
    for name, size in parts.items():
        report(f"computed: {name}", f"{size / GIB:.3g} GiB")
    report("computed: sum", f"{sum(parts.values()) / GIB:.3g} GiB")
    head = config.vocab_size * config.hidden_size
    flops = (6 if checkpointing else 4) * sizes["n_weights"] + 4 * head
    total = DEFAULTS.n_sequences * DEFAULTS.seq_len * DEFAULTS.epochs
    report("computed: operations per token", f"{flops / 1e9:.1f} x 10^9")
    report(f"computed: operations of {total:,} tokens", f"{total * flops:.2e}")


def layer_bytes(sizes: dict[str, int], hidden: int, width: int, *, mask: int) -> int:
    """Return the bytes that a layer stores per token for the backward pass: dropout, projections and norms.

    Args:
        sizes: Result of `cut`.
        hidden: Hidden size.
        width: Bytes of a value.
        mask: Bytes of an element of a dropout mask.
    """
    return sizes["inputs"] * (4 + mask) + (sizes["attention"] + sizes["mlp"]) * width + 2 * hidden * (4 + width)


def count_saved(shape: str) -> None:
    """Count the bytes that one layer stores for the backward pass in bfloat16, and print the computed number beside it.

    The count is the difference between a model of two layers and a model of one layer.
    """
    saved = []
    for n_layers in (1, 2):
        config = copy.deepcopy(SHAPES[shape])
        config.num_hidden_layers, config.layer_types, config.vocab_size = n_layers, None, 100
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        sizes = cut(model, 0.0)
        adapted = attach(model, LORA).train()
        weights = {parameter.untyped_storage().data_ptr() for parameter in adapted.parameters()}
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(
            tensor: torch.Tensor, weights: set[int] = weights, kept: dict[int, torch.UntypedStorage] = kept
        ) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            sequence_losses(adapted, torch.zeros(1, 128, dtype=torch.long))
        saved.append(sum(storage.nbytes() for storage in kept.values()) / 128)
    on_cpu = layer_bytes(sizes, config.hidden_size, 2, mask=4)  # masks: 4 bytes on the CPU, 1 on the GPU
    report("computed: kept of a token by a layer in bfloat16, CPU dropout", f"{on_cpu:,} bytes")
    report("counted: the same", f"{saved[1] - saved[0]:,.0f} bytes")


def measure(model: PreTrainedModel, options: argparse.Namespace) -> None:
    """Measure some training steps. The first two steps, which allocate memory, are not timed."""
    adapted = attach(model, LORA)
    rows = max(1, options.token_budget // options.seq_len)
    schedule = TrainingSchedule(1, rows, DEFAULTS.learning_rate, 0.0, DEFAULTS.max_grad_norm, 0)
    how = {"token_budget": options.token_budget, "checkpointing": not options.no_checkpointing}
    fine_tune(adapted, random_sequences(model, 2 * rows, options.seq_len), schedule, **how)
    reset_peak(model)
    trained = fine_tune(adapted, random_sequences(model, options.steps * rows, options.seq_len), schedule, **how)
    report("measured: peak", f"{peak_memory(model.device) / GIB:.2f} GiB")
    report(
        f"measured: {options.steps} steps of {rows} x {options.seq_len} tokens, "
        f"{trained.micro_batch_size} sequences at once",
        f"{trained.seconds:.2f} s, {trained.n_tokens / trained.seconds:,.0f} tokens/s",
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="50m")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--ratio", type=float, default=0.25, help="share of groups that every layer loses")
    parser.add_argument("--seq-len", type=int, help="tokens of a sequence")
    parser.add_argument("--token-budget", type=int, help="tokens of a forward and backward pass")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--computed", action="store_true", help="print the arithmetic and stop")
    options = parser.parse_args()
    big = options.device == "cuda" or options.computed
    options.seq_len = options.seq_len or (DEFAULTS.seq_len if big else 128)
    options.token_budget = options.token_budget or (DEFAULTS.token_budget if big else 256)
    return options


if __name__ == "__main__":
    main()

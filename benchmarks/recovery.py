"""Measured memory and speed of recovery with random weights, and the computed memory.

    PYTHONPATH=src python benchmarks/recovery.py                                   50 M parameters, on the CPU
    PYTHONPATH=src python benchmarks/recovery.py --shape sandbox
    PYTHONPATH=src python benchmarks/recovery.py --shape llama-3-8b --device cuda  an 8B model on a GPU
    PYTHONPATH=src python benchmarks/recovery.py --shape llama-3-8b --computed     computed memory only, no weights

`--method full` trains all weights, and `--distillation` holds the unpruned model beside the pruned one. The same
fraction of KV groups and MLP channels is removed from each layer. On the CPU the peak is that of the whole process,
including Python and its libraries.
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
from espalier.recovery.distillation import DistillationLosses
from espalier.recovery.fine_tuning import SequenceLosses, TrainingRecord, TrainingSchedule, fine_tune
from espalier.recovery.full import prepare_full, products_in
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
    print_budget(model, pruned, n_unpruned, options)
    if not options.computed:
        measure(model, options, dtype)
    if options.device == "cpu" and not options.computed and options.method == "lora":
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


def print_budget(model: PreTrainedModel, sizes: dict[str, int], n_unpruned: int, options: argparse.Namespace) -> None:
    """Print the computed memory of each part, and their sum. docs/recovery.md has the formulas."""
    config, width, tokens = model.config, model.dtype.itemsize, options.token_budget
    full, checkpointing = options.method == "full", not options.no_checkpointing
    layer = full_layer_bytes(sizes, config.hidden_size, width) if full else layer_bytes(
        sizes, config.hidden_size, width, mask=1
    )  # fmt: skip
    kept = layer if checkpointing else sizes["n_layers"] * layer
    weights = {"weights, gradients and moments, 16 B each": sizes["n_params"] * 16} if full else {
        f"frozen weights, {width} B each": sizes["n_params"] * width,
        f"{sizes['adapters']:,} adapter parameters, 16 B each": sizes["adapters"] * 16,
    }  # fmt: skip
    parts = {
        **weights,
        **({f"unpruned model, {width} B each": n_unpruned * width} if options.distillation else {}),
        # The residual stream of a model with float32 weights is float32.
        "inputs of all layers": tokens * sizes["n_layers"] * config.hidden_size * (4 if full else width),
        "activations of one layer" if checkpointing else "activations of all layers": tokens * kept,
        "logits, their softmax and gradients": tokens * config.vocab_size * (24 if options.distillation else 12),
    }
    for name, size in parts.items():
        report(f"computed: {name}", f"{size / GIB:.3g} GiB")
    report("computed: sum", f"{sum(parts.values()) / GIB:.3g} GiB")
    head = config.vocab_size * config.hidden_size
    per_weight, per_head = (8 if checkpointing else 6, 6) if full else (6 if checkpointing else 4, 4)
    flops = per_weight * sizes["n_weights"] + per_head * head
    if options.distillation:
        flops += 2 * (n_unpruned - head)  # one forward pass; embeddings are looked up
    total = DEFAULTS.n_sequences * DEFAULTS.seq_len * DEFAULTS.epochs
    report("computed: operations per token", f"{flops / 1e9:.1f} x 10^9")
    report(f"computed: operations of {total:,} tokens", f"{total * flops:.2e}")


def full_layer_bytes(sizes: dict[str, int], hidden: int, width: int) -> int:
    """Return the bytes that a layer stores per token for the backward pass if all weights are trained, without dropout.

    They are the inputs of the projections that are not stored already (of o and down), queries, keys, values, gate, up
    and their product, the normed inputs of both blocks, and for each norm its float32 input and result.
    """
    return (sizes["attention"] + sizes["mlp"] + 2 * hidden) * width + 2 * hidden * (4 + 4)


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
    saved, sizes = [], dict[str, int]()
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
    on_cpu = layer_bytes(sizes, SHAPES[shape].hidden_size, 2, mask=4)  # masks: 4 bytes on the CPU, 1 on the GPU
    report("computed: kept of a token by a layer in bfloat16, CPU dropout", f"{on_cpu:,} bytes")
    report("counted: the same", f"{saved[1] - saved[0]:,.0f} bytes")


def measure(model: PreTrainedModel, options: argparse.Namespace, dtype: torch.dtype) -> None:
    """Measure some training steps. The first two steps, which allocate memory, are not timed."""
    losses_of: SequenceLosses | None = None
    if options.distillation:
        teacher = random_model(options.shape, model.device, dtype)
        losses_of = DistillationLosses(teacher, temperature=1.0, weight=1.0)
    if options.method == "full":
        prepare_full(model)
    trainable = attach(model, LORA) if options.method == "lora" else model
    rows = max(1, options.token_budget // options.seq_len)
    schedule = TrainingSchedule(1, rows, DEFAULTS.learning_rate, 0.0, DEFAULTS.max_grad_norm, 0)

    def steps(n: int) -> TrainingRecord:
        return fine_tune(
            trainable, random_sequences(model, n * rows, options.seq_len), schedule, token_budget=options.token_budget,
            checkpointing=not options.no_checkpointing, losses_of=losses_of,
        )  # fmt: skip

    with products_in(model, dtype if options.method == "full" else torch.float32):
        steps(2)
        reset_peak(model)
        trained = steps(options.steps)
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
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--distillation", action="store_true", help="hold the unpruned model and learn its logits")
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

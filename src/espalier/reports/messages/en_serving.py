"""English texts on serving. The messages of verdicts are in `espalier.analysis.serving_messages`."""

SERVING = {
    "s.deployment": "Which programs load it",
    "deployment.none": "No verdict: {reason}.",
    "deployment.about": "For {experiment}.",
    "deployment.target": "Target",
    "deployment.verdict": "Loads it",
    "deployment.basis": "Known by",
    "deployment.stock": (
        "All remaining layers have one shape, so the export is a stock checkpoint: programs load it without code of"
        " Espalier."
    ),
    "deployment.not_stock": "No stock checkpoint, which programs would load without code of Espalier: {details}.",
    "deployment.details": "{target}: {details}.",
    "deployment.multiple": "Multiple of",
    "deployment.n_layers": "Layers affected",
    "deployment.added": "Added parameters",
    "deployment.left": "Still removed",
    "deployment.rounding": "MLP widths padded with zeros (exact); the plan removes {fraction}",
    "deployment.basis_about": (
        "Known by: a run of an export against the pruned model, reading the code of the target, or a rule of thumb"
        " (docs/serving.md)."
    ),
    "target.transformers": "transformers (exported folder)",
    "target.vllm": "vLLM (Transformers backend)",
    "target.gguf_f16": "llama.cpp, GGUF F16",
    "target.gguf_q8_0": "llama.cpp, GGUF Q8_0 or Q4_0",
    "target.gguf_k": "llama.cpp, GGUF k-quants",
    "target.decilm": "vLLM (DeciLM, Nemotron-NAS)",
    "target.tensorrt": "One shape for all layers (TensorRT-LLM style)",
    "verdict.as_is": "as it is",
    "verdict.needs_rounding": "rounded",
    "verdict.needs_stub": "with stubs",
    "verdict.needs_rounding_and_stub": "rounded, with stubs",
    "verdict.cannot": "no",
    "basis.run": "run",
    "basis.read": "reading",
    "basis.rule": "rule of thumb",
    "s.inference": "Measured inference of {experiment}",
    "inference.about": (
        "On {device} ({name}{threads}), {dtype}, transformers' own generation: prompts of {prompt_tokens:,} tokens,"
        " {new_tokens:,} new ones, {repeats} repeats of each version in turn. Medians, with lowest and highest in"
        " parentheses."
    ),
    "inference.threads": ", threads: {n}",
    "inference.sizes": "Sizes",
    "inference.speeds": "Speeds (tokens/s over all sequences of a batch) and time to the first token",
    "inference.gains": (
        "Ratios of speeds within a repeat, with an interval of at least 95% for their median (each for itself: of"
        " twenty ratios of equals, one may lie beside 1)"
    ),
    "inference.version": "Version",
    "inference.weights": "Weights (bytes)",
    "inference.batch": "Batch",
    "inference.prefill": "Prefill (tokens/s)",
    "inference.decode": "Decode (tokens/s)",
    "inference.first": "First token (s)",
    "inference.cache": "KV cache (bytes)",
    "inference.peak": "Peak beyond weights (bytes)",
    "inference.compared": "Compared",
    "inference.speed": "Speed",
    "inference.ratio": "Ratio",
    "inference.interval": "Interval",
    "inference.outcome": "Outcome",
    "inference.pair": "{of} to {to}",
    "version.unpruned": "unpruned",
    "version.pruned": "pruned",
    "version.padded": "pruned, MLP widths padded to multiples of {multiple}",
    "version.short.unpruned": "unpruned",
    "version.short.pruned": "pruned",
    "version.short.padded": "padded",
    "speed.prefill_tokens_per_s": "prefill",
    "speed.decode_tokens_per_s": "decode",
    "outcome.gain": "faster",
    "outcome.loss": "slower",
    "outcome.not_told": "cannot be told apart",
    "inference.pruned.gain": "Batch {batch}, {speed}: pruning makes it {ratio} times as fast ({low} to {high}).",
    "inference.pruned.loss": (
        "Batch {batch}, {speed}: no gain: the pruned model is slower, {ratio} times as fast ({low} to {high})."
    ),
    "inference.pruned.not_told": (
        "Batch {batch}, {speed}: no gain can be told: {ratio} times as fast ({low} to {high})."
    ),
    "inference.padded.gain": (
        "Batch {batch}, {speed}: padded widths are {ratio} times as fast as the plan's own ({low} to {high})."
    ),
    "inference.padded.loss": (
        "Batch {batch}, {speed}: padded widths are slower than the plan's own, {ratio} times as fast ({low} to {high})."
    ),
    "inference.padded.not_told": (
        "Batch {batch}, {speed}: padded widths cannot be told from the plan's own: {ratio} times as fast"
        " ({low} to {high})."
    ),
    "inference.aligned": "All MLP widths are multiples of 8 already, so none were padded.",
}

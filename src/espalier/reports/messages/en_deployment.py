"""English: serving pruned models. What verdicts say stands in `espalier.deployment.messages`."""

DEPLOYMENT = {
    "s.deployment": "Which programs load it",
    "deployment.none": "No verdict: {reason}.",
    "deployment.about": "For {experiment}.",
    "deployment.target": "Target",
    "deployment.verdict": "Loads it",
    "deployment.basis": "Known by",
    "deployment.details": "{target}: {details}.",
    "deployment.multiple": "Multiple of",
    "deployment.n_layers": "Layers affected",
    "deployment.added": "Added parameters",
    "deployment.left": "Still removed",
    "deployment.rounding": "MLP widths padded with zeros (exact); the plan removes {fraction}",
    "deployment.basis_about": (
        "Known by: a run of an export against the pruned model, reading the code of the target, or a rule of thumb"
        " (docs/deployment.md)."
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
}

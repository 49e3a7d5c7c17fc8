"""What each target accepts of a pruned model, as data. `docs/deployment.md` says how each line is known.

A stub is a block of zeros where the plan leaves none: it changes nothing that is computed and gives the target the
tensors that it asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FOLDER_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Types in the transformers config whose layers may differ in an exported folder."""
GGUF_TYPES = ("llama", "mistral", "qwen2")
"""Types whose GGUF files were compared with the pruned model."""


@dataclass(frozen=True)
class Target:
    """A format with the program that loads it.

    Attributes:
        name: Name in reports.
        basis: How its rules are known: `run` (measured), `read` (its code was read, not run), `rule` (neither).
        model_types: Types in the transformers config that its export knows; empty for any.
        multiple_of: What MLP widths are multiples of; 1 for any.
        attention_stub: Which layers without attention need a stub: none, the first layer, or every one.
        mlp_stub: Channels of the stub that a layer without MLP needs; 0 where it needs none.
        leaves_out: Whether layers with neither block are left out and the others renumbered.
        quantised: Whether the inputs of o_proj are blocks of `multiple_of` numbers too.
        block_norms: Whether it takes norms inside attention, over queries and keys.
        lone_biases: Whether the bias of an output projection may stay where its block is gone; else that needs a stub.
        sliding: Whether it takes a sliding window shorter than the context.
        uniform: Whether all layers must have the same shapes.
        all_query_heads: Whether each layer with attention must have all query heads.
    """

    name: str
    basis: Literal["run", "read", "rule"]
    model_types: tuple[str, ...] = ()
    multiple_of: int = 1
    attention_stub: Literal["none", "first", "every"] = "none"
    mlp_stub: int = 0
    leaves_out: bool = False
    quantised: bool = False
    block_norms: bool = True
    lone_biases: bool = False
    sliding: bool = True
    uniform: bool = False
    all_query_heads: bool = False


def _gguf(name: str, multiple_of: int) -> Target:
    return Target(
        name, "run", GGUF_TYPES, multiple_of, attention_stub="first", mlp_stub=max(32, multiple_of),
        leaves_out=True, quantised=multiple_of > 1, block_norms=False, sliding=False,
    )  # fmt: skip


TARGETS = (
    Target("transformers", "run", FOLDER_TYPES, lone_biases=True),
    Target("vllm", "read", FOLDER_TYPES, attention_stub="every", mlp_stub=32),
    _gguf("gguf_f16", 1),
    _gguf("gguf_q8_0", 32),
    _gguf("gguf_k", 256),
    Target("decilm", "read", ("llama",), attention_stub="first", block_norms=False, sliding=False,
           all_query_heads=True),
    Target("tensorrt", "rule", uniform=True),
)  # fmt: skip

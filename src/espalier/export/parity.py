"""Parity check: a loaded checkpoint must compute and generate the same as the evaluated model.

The reference is the model that was pruned in memory, in float32 and without a KV cache. The check compares

- the logits of one forward pass,
- the logits of the same tokens, passed in pieces with a cache,
- the tokens generated greedily with a dynamic cache and with a static cache, by beam search, and from a left-padded
  batch.

Generated tokens must be equal. Different tokens are a `tie`, and pass, if a forward pass without a cache confirms them
within the tolerance: each generated token has the largest logit, or, in beam search, both sequences have the same
log-probability.

The export job calls `reference`. A new process, which loads only the exported folder, calls `compare`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

LOGIT_TOLERANCE = 1e-3
"""Largest allowed difference of float32 logits, and of log-probabilities in beam search."""
N_ROWS, N_PROMPT, N_NEW, N_BEAMS = 3, 24, 12, 3
Tensors = dict[str, torch.Tensor]


def make_prompts(vocab_size: int, max_tokens: int) -> torch.Tensor:
    """Return seeded random tokens, (rows, tokens). A model with a short context gets fewer tokens."""
    n_tokens = max(N_ROWS + 1, min(N_PROMPT, max_tokens - N_NEW))
    return torch.randint(vocab_size, (N_ROWS, n_tokens), generator=torch.Generator().manual_seed(0))


def reference(model: PreTrainedModel, prompts: torch.Tensor) -> Tensors:
    """Compute, without a cache, the logits and tokens that a loaded checkpoint must reproduce.

    Returns:
        `prompts` (rows, tokens), their `logits` (rows, tokens, vocabulary), and prompts with generated tokens: `greedy`
        and `beam` for all prompts, and `padded_{row}` for the prompt in row `row` without its first `row` tokens, as it
        is in the left-padded batch.
    """
    forget_generation_config(model)
    prompts = prompts.to(model.device)
    cut = {f"padded_{row}": _greedy(model, tokens[None, row:]) for row, tokens in enumerate(prompts)}
    tensors = {
        "prompts": prompts,
        "logits": logits_of(model, prompts),
        "greedy": _greedy(model, prompts),
        "beam": _generate(model, prompts, num_beams=N_BEAMS, use_cache=False),
        **cut,
    }
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def compare(model: PreTrainedModel, expected: Tensors) -> dict[str, Any]:
    """Compare a loaded checkpoint with the reference.

    Returns:
        The content of `parity.json`: `passed`, the `reason` if it did not pass, and the results of the comparisons.
    """
    forget_generation_config(model)
    prompts = expected["prompts"].to(model.device)
    logits = logits_of(model, prompts).cpu()
    difference = float((logits - expected["logits"]).abs().max())
    argmax_equal = bool(torch.equal(logits.argmax(dim=-1), expected["logits"].argmax(dim=-1)))
    generation = {
        "greedy_cached": _same_choices(model, _generate(model, prompts), expected["greedy"]),
        "greedy_static_cache": _same_choices(
            model, _generate(model, prompts, cache_implementation="static"), expected["greedy"]
        ),
        "beam_cached": _same_score(model, _generate(model, prompts, num_beams=N_BEAMS), expected["beam"]),
        "left_padded": _padded(model, prompts, expected),
    }
    cached = float((_cached_logits(model, prompts).cpu() - expected["logits"]).abs().max())
    problems = [
        f"{what} differ by {found:.2g} (allowed: {LOGIT_TOLERANCE:g})"
        for what, found in (("logits", difference), ("logits with a cache", cached))
        if not found <= LOGIT_TOLERANCE  # `not <=` instead of `>`: NaN must not pass
    ]
    problems += [] if argmax_equal else ["another token is the most probable one"]
    problems += [f"generation {name} differs" for name, result in generation.items() if result == "different"]
    return {
        "passed": not problems,
        "reason": "; ".join(problems) or None,
        "tolerance": LOGIT_TOLERANCE,
        "dtype": "float32",
        "logits": {
            "n_tokens": prompts.numel(),
            "vocabulary": logits.shape[-1],
            "max_abs_difference": _finite(difference),
            "max_abs_difference_cached": _finite(cached),
            "argmax_equal": argmax_equal,
        },
        "generation": {"prompts": len(prompts), "new_tokens": N_NEW, "beams": N_BEAMS, **generation},
    }


def logits_of(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Return the logits of one forward pass without a cache, (rows, tokens, vocabulary), float32."""
    with torch.no_grad():
        return model(input_ids=tokens, use_cache=False).logits.float()


def _cached_logits(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Return the logits of three forward passes with a cache: all but three tokens, then one, then two."""
    cache, pieces = None, []
    with torch.no_grad():
        for piece in tokens.split([tokens.shape[1] - 3, 1, 2], dim=1):
            output = model(input_ids=piece, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            pieces.append(output.logits.float())
    return torch.cat(pieces, dim=1)


def forget_generation_config(model: PreTrainedModel) -> None:
    """Reset the generation config: sampling settings, penalties and end tokens would hide differences."""
    model.generation_config = GenerationConfig(pad_token_id=0)


def _finite(value: float) -> float | None:
    """Replace infinity and NaN by None, since JSON has neither. The `reason` contains the value."""
    return value if value < float("inf") else None


def _greedy(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Generate tokens greedily, with a full forward pass without a cache for each token."""
    for _ in range(N_NEW):
        tokens = torch.cat([tokens, logits_of(model, tokens)[:, -1:].argmax(dim=-1)], dim=1)
    return tokens


def _generate(model: PreTrainedModel, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
    attention_mask = options.pop("attention_mask", torch.ones_like(tokens))
    with torch.no_grad():
        generated: torch.Tensor = model.generate(
            tokens, attention_mask=attention_mask, max_new_tokens=N_NEW, do_sample=False, **options
        )
    return generated


def _padded(model: PreTrainedModel, prompts: torch.Tensor, expected: Tensors) -> str:
    """Generate from a left-padded batch of rows of different lengths; compare each row with the row alone."""
    rows = [nn.functional.pad(row[index:], (index, 0)) for index, row in enumerate(prompts)]
    mask = torch.stack([(torch.arange(len(row)) >= index).long() for index, row in enumerate(prompts)])
    generated = _generate(model, torch.stack(rows), attention_mask=mask.to(prompts.device))
    results = {
        _same_choices(model, row[None, index:], expected[f"padded_{index}"]) for index, row in enumerate(generated)
    }
    return max(results, key=("equal", "tie", "different").index)


def _same_choices(model: PreTrainedModel, generated: torch.Tensor, expected: torch.Tensor) -> str:
    """Compare greedily generated tokens; return `equal`, `tie` or `different`.

    The result is `tie` if, without a cache, each generated token has the largest logit within the tolerance.
    """
    if torch.equal(generated.cpu(), expected):
        return "equal"
    if generated.shape != expected.shape:
        return "different"
    logits = logits_of(model, generated)[:, -N_NEW - 1 : -1]
    chosen = logits.gather(-1, generated[:, -N_NEW:, None])[..., 0]
    return "tie" if bool((logits.amax(dim=-1) - chosen <= LOGIT_TOLERANCE).all()) else "different"


def _same_score(model: PreTrainedModel, generated: torch.Tensor, expected: torch.Tensor) -> str:
    """Compare tokens generated by beam search; return `equal`, `tie` or `different`.

    The result is `tie` if, without a cache, the log-probabilities of both sequences are equal within the tolerance.
    """
    if torch.equal(generated.cpu(), expected):
        return "equal"
    if generated.shape != expected.shape:
        return "different"

    def score(tokens: torch.Tensor) -> torch.Tensor:
        logprobs = logits_of(model, tokens)[:, -N_NEW - 1 : -1].log_softmax(dim=-1)
        return logprobs.gather(-1, tokens[:, -N_NEW:, None]).sum(dim=(1, 2))

    gap = (score(generated) - score(expected.to(model.device))).abs()
    return "tie" if bool((gap <= LOGIT_TOLERANCE).all()) else "different"

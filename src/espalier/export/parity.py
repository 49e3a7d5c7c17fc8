"""Parity: does a loaded checkpoint compute and generate what the evaluated model does?

The reference is the model that was pruned in memory, in float32 and without a cache. Compared are the logits of one
pass, those of the same tokens fed in pieces with a cache, and what is generated greedily with a dynamic and with a
static cache, by beam search, and from a left-padded batch. Tokens must be the same; where they are not, both must be
the best choice of the uncached model within the tolerance (a tie, counted).

Runs in the job that exports (`reference`) and in a process of its own that knows only the folder (`compare`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

LOGIT_TOLERANCE = 1e-3
"""Largest difference of float32 logits that passes."""
N_ROWS, N_PROMPT, N_NEW, N_BEAMS = 3, 24, 12, 3
Tensors = dict[str, torch.Tensor]


def make_prompts(vocab_size: int, max_tokens: int) -> torch.Tensor:
    """Draw seeded random tokens: (rows, tokens); fewer where the model's context is short."""
    n_tokens = max(N_ROWS + 1, min(N_PROMPT, max_tokens - N_NEW))
    return torch.randint(vocab_size, (N_ROWS, n_tokens), generator=torch.Generator().manual_seed(0))


def reference(model: PreTrainedModel, prompts: torch.Tensor) -> Tensors:
    """Compute without a cache what a loaded checkpoint must reproduce.

    Returns:
        `prompts`, `logits` (rows, tokens, vocabulary), and tokens: `greedy`, `beam`, `padded_{row}` of each row cut to
        the length that it has in the left-padded batch.
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
        The content of `parity.json`: `passed`, `reason` if not, and what was compared.
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
        if not found <= LOGIT_TOLERANCE  # nor is NaN
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
    """Compute logits in one pass without a cache: (rows, tokens, vocabulary), float32."""
    with torch.no_grad():
        return model(input_ids=tokens, use_cache=False).logits.float()


def _cached_logits(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Compute the same with a cache: all but three tokens, then one, then two."""
    cache, pieces = None, []
    with torch.no_grad():
        for piece in tokens.split([tokens.shape[1] - 3, 1, 2], dim=1):
            output = model(input_ids=piece, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            pieces.append(output.logits.float())
    return torch.cat(pieces, dim=1)


def forget_generation_config(model: PreTrainedModel) -> None:
    """Drop sampling settings, penalties and end tokens, which would hide differences."""
    model.generation_config = GenerationConfig(pad_token_id=0)


def _finite(value: float) -> float | None:
    """JSON has no NaN; the reason says what happened."""
    return value if value < float("inf") else None


def _greedy(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Decode greedily, computing everything anew for each token."""
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
    """Generate from rows of different lengths at once; each must come out as it does alone."""
    rows = [nn.functional.pad(row[index:], (index, 0)) for index, row in enumerate(prompts)]
    mask = torch.stack([(torch.arange(len(row)) >= index).long() for index, row in enumerate(prompts)])
    generated = _generate(model, torch.stack(rows), attention_mask=mask.to(prompts.device))
    results = {
        _same_choices(model, row[None, index:], expected[f"padded_{index}"]) for index, row in enumerate(generated)
    }
    return max(results, key=("equal", "tie", "different").index)


def _same_choices(model: PreTrainedModel, generated: torch.Tensor, expected: torch.Tensor) -> str:
    """Say whether tokens are `equal`, differ by a `tie` in the uncached model, or are `different`."""
    if torch.equal(generated.cpu(), expected):
        return "equal"
    if generated.shape != expected.shape:
        return "different"
    logits = logits_of(model, generated)[:, -N_NEW - 1 : -1]
    chosen = logits.gather(-1, generated[:, -N_NEW:, None])[..., 0]
    return "tie" if bool((logits.amax(dim=-1) - chosen <= LOGIT_TOLERANCE).all()) else "different"


def _same_score(model: PreTrainedModel, generated: torch.Tensor, expected: torch.Tensor) -> str:
    """The same for beam search, whose result is judged by the log-probability of the whole sequence."""
    if torch.equal(generated.cpu(), expected):
        return "equal"
    if generated.shape != expected.shape:
        return "different"

    def score(tokens: torch.Tensor) -> torch.Tensor:
        logprobs = logits_of(model, tokens)[:, -N_NEW - 1 : -1].log_softmax(dim=-1)
        return logprobs.gather(-1, tokens[:, -N_NEW:, None]).sum(dim=(1, 2))

    gap = (score(generated) - score(expected.to(model.device))).abs()
    return "tie" if bool((gap <= LOGIT_TOLERANCE).all()) else "different"

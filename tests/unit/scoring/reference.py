"""A reference implementation of scoring: one request at a time."""

import torch
from transformers import PreTrainedModel

from espalier.scoring.requests import Request


@torch.inference_mode()
def plain_score(model: PreTrainedModel, request: Request) -> tuple[float, bool]:
    """Return the log-likelihood of one request, cut at the left as by lm-eval, and whether it is greedy."""
    limit = model.config.max_position_embeddings
    tokens = [*request.context, *request.continuation][-(limit + 1) :]
    log_probs = model(torch.tensor([tokens[:-1]]), use_cache=False).logits[0].float().log_softmax(-1)
    scored = range(len(tokens) - len(request.continuation), len(tokens))
    total = sum(log_probs[i - 1, tokens[i]].item() for i in scored)
    return total, all(log_probs[i - 1].argmax().item() == tokens[i] for i in scored)

"""Losses for distillation: a pruned model learns the next-token distributions of the unpruned model.

Let z and u be the logits of the pruned and the unpruned model at a position, T the temperature, w the weight:

    p = softmax(u / T),  q = softmax(z / T)
    KL = sum over the vocabulary of p (log p - log q)                                     (nats)
    loss of a sequence = mean over its positions of  w T^2 KL + (1 - w) next-token loss

T^2 keeps the size of the gradients when T changes (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").
The last position of a sequence has no next token and is left out of both terms.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from espalier.calibration.gradients import losses_from_logits


class DistillationLosses:
    """Function that computes the loss of each sequence for `fine_tune`.

    Args:
        teacher: The unpruned model. It is not trained.
        temperature: Temperature T of both distributions.
        weight: Weight w of the divergence, above 0 and at most 1.
    """

    def __init__(self, teacher: PreTrainedModel, *, temperature: float, weight: float) -> None:
        self._teacher = teacher.eval().requires_grad_(False)
        self._temperature, self._weight = temperature, weight

    def __call__(self, model: PreTrainedModel, batch: torch.Tensor) -> torch.Tensor:
        """Return the loss of each sequence, float32, (n_sequences,).

        Args:
            model: The pruned model.
            batch: Token ids, (n_sequences, seq_len).
        """
        with torch.no_grad():
            wanted = self._teacher(input_ids=batch.to(self._teacher.device), use_cache=False).logits
        logits = model(input_ids=batch, use_cache=False).logits
        losses = self._weight * divergences(logits, wanted.to(logits.device), self._temperature)
        if self._weight < 1:
            losses = losses + (1 - self._weight) * losses_from_logits(logits, batch)
        return losses


def divergences(logits: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean of T^2 KL over the positions of each sequence, without the last position.

    Args:
        logits: Logits of the trained model, (n_sequences, seq_len, vocabulary).
        wanted: Logits of the teacher, in the same shape.
        temperature: Temperature T.

    Returns:
        Divergences in nats, float32, (n_sequences,).
    """
    log_q = nn.functional.log_softmax(logits.float() / temperature, dim=-1)
    log_p = nn.functional.log_softmax(wanted.float() / temperature, dim=-1)
    of_positions = nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)
    return temperature**2 * of_positions[:, :-1].mean(dim=1)

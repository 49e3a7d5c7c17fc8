"""Distillation: its divergence and gradient against sums over the vocabulary, and what training does with it."""

import math

import pytest
import torch

from espalier.calibration.gradients import sequence_losses
from espalier.recovery.distillation import DistillationLosses, divergences
from espalier.recovery.fine_tuning import fine_tune
from espalier.recovery.full import prepare_full
from espalier.recovery.lora import attach
from tests.unit.conftest import random_model
from tests.unit.recovery.conftest import LORA, SCHEDULE, Pruned


def softmax(row: list[float], temperature: float) -> list[float]:
    exps = [math.exp(value / temperature) for value in row]
    return [value / sum(exps) for value in exps]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_divergence_is_the_sum_over_the_vocabulary(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, wanted = (3 * torch.randn(2, 4, 5, generator=generator) for _ in range(2))
    found = divergences(logits, wanted, temperature)
    for sequence in range(2):
        total = 0.0
        for position in range(3):  # the last of four positions is left out
            p = softmax(wanted[sequence, position].tolist(), temperature)
            q = softmax(logits[sequence, position].tolist(), temperature)
            total += sum(one * math.log(one / other) for one, other in zip(p, q, strict=True))
        assert found[sequence] == pytest.approx(temperature**2 * total / 3, rel=1e-5)


def test_a_divergence_worked_by_hand() -> None:
    """With p = (3/4, 1/4), q = (1/2, 1/2), T = 1: KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.1308."""
    wanted = torch.tensor([[[math.log(3.0), 0.0], [9.0, 9.0]]])
    found = divergences(torch.zeros(1, 2, 2), wanted, 1.0)
    assert found.tolist() == pytest.approx([0.75 * math.log(1.5) + 0.25 * math.log(0.5)])
    assert found.item() == pytest.approx(0.1308, abs=5e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_gradient_is_t_times_the_difference_of_the_distributions(temperature: float) -> None:
    """The derivative of T^2 KL to the logits z is T (q - p); over two positions with a next token, half of it."""
    generator = torch.Generator().manual_seed(1)
    logits, wanted = (torch.randn(1, 3, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()
    divergences(logits, wanted, temperature).sum().backward()
    difference = torch.softmax(logits / temperature, -1) - torch.softmax(wanted / temperature, -1)
    expected = temperature * difference / 2
    expected[:, -1] = 0
    torch.testing.assert_close(logits.grad, expected.detach(), rtol=1e-5, atol=1e-7)


def test_the_unpruned_model_itself_has_no_divergence(sequences: torch.Tensor) -> None:
    losses = DistillationLosses(random_model("llama", 64), temperature=2.0, weight=1.0)
    found = losses(random_model("llama", 64), sequences)
    assert found.shape == (len(sequences),)
    assert found.abs().max() < 1e-6


def test_the_weight_mixes_both_losses(pruned: Pruned, sequences: torch.Tensor) -> None:
    model, teacher = pruned("whole"), pruned("emptied")
    only = DistillationLosses(teacher, temperature=2.0, weight=1.0)(model, sequences)
    mixed = DistillationLosses(teacher, temperature=2.0, weight=0.25)(model, sequences)
    torch.testing.assert_close(mixed, 0.25 * only + 0.75 * sequence_losses(model, sequences))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_approaches_the_teacher_and_leaves_it_alone(sequences: torch.Tensor, method: str) -> None:
    """The loss of the last steps is well below that of the first, and the weights of the teacher do not change."""
    teacher, before = random_model("llama", 64), random_model("llama", 64)
    torch.manual_seed(3)
    model = random_model("llama", 64)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(0.2)
    losses_of = DistillationLosses(teacher, temperature=1.0, weight=1.0)
    if method == "lora":
        model = attach(model, LORA)
    else:
        prepare_full(model)
    trained = fine_tune(model, sequences, SCHEDULE, token_budget=64, checkpointing=True, losses_of=losses_of)
    # Adapters of rank 4 with dropout come less near than all weights.
    assert trained.losses[-1] < {"lora": 2 / 3, "full": 1 / 2}[method] * trained.losses[0]
    weights = dict(before.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in teacher.named_parameters())
    assert not any(weight.requires_grad for weight in teacher.parameters())

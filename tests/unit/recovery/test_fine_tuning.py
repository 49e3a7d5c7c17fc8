"""The training loop: it lowers the loss, two runs give equal results, and failures have clear messages."""

import logging

import pytest
import torch
from transformers import PreTrainedModel

from espalier.calibration.gradients import sequence_losses
from espalier.errors import UserError
from espalier.recovery import fine_tuning
from espalier.recovery.fine_tuning import TrainingRecord, TrainingSchedule, batches_of, fine_tune
from espalier.recovery.lora import attach
from tests.unit.conftest import random_model
from tests.unit.recovery.conftest import LORA, SCHEDULE, Pruned


def train(
    model: PreTrainedModel, sequences: torch.Tensor, *, token_budget: int = 128, checkpointing: bool = False
) -> TrainingRecord:
    return fine_tune(attach(model, LORA), sequences, SCHEDULE, token_budget=token_budget, checkpointing=checkpointing)


def mean_loss(model: PreTrainedModel, sequences: torch.Tensor) -> float:
    with torch.no_grad():
        return float(sequence_losses(model, sequences).mean())


@pytest.mark.parametrize("kept", ["whole", "emptied"])
def test_recovery_lowers_the_loss_and_leaves_the_base_alone(pruned: Pruned, sequences: torch.Tensor, kept: str) -> None:
    model, untouched = pruned(kept), pruned(kept)
    before = mean_loss(model, sequences)
    adapted = attach(model, LORA)
    trained = fine_tune(adapted, sequences, SCHEDULE, token_budget=128, checkpointing=False)
    assert mean_loss(adapted, sequences) < before - 0.5
    assert (len(trained.losses), trained.n_tokens) == (4 * 4, 4 * 32 * 16)
    assert trained.losses[-1] < trained.losses[0]
    base = {name.replace(".base_layer", ""): weight for name, weight in adapted.get_base_model().named_parameters()}
    for name, weight in untouched.named_parameters():
        assert torch.equal(base[name], weight), name


def test_two_runs_are_equal(pruned: Pruned, sequences: torch.Tensor) -> None:
    torch.manual_seed(1)
    first = train(pruned(), sequences)
    torch.manual_seed(2)  # the global seed has no effect
    assert train(pruned(), sequences).losses == first.losses
    state = torch.get_rng_state()
    train(pruned(), sequences)
    assert torch.equal(torch.get_rng_state(), state)


def test_checkpointing_changes_nothing(pruned: Pruned, sequences: torch.Tensor) -> None:
    """Checkpointing gives the same losses, so recomputed activations use the same dropout."""
    losses = [train(pruned("emptied"), sequences, checkpointing=value).losses for value in (False, True)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_parts_of_a_batch_add_up_to_the_batch(sequences: torch.Tensor) -> None:
    """Without dropout, the gradients of 8 sequences in one pass equal the sum of passes of 3, 3 and 2."""
    gradients = []
    for micro_batch_size in (8, 3):
        model = random_model("llama", 64)
        assert fine_tuning._gradient(model, sequences[:8], micro_batch_size, 0)[1] == micro_batch_size
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_out_of_memory_halves_what_is_held_and_keeps_the_batch(
    sequences: torch.Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Out of memory halves the sequences in one pass; the batch and the losses stay the same."""
    losses_of = fine_tuning.sequence_losses

    def small_gpu(model: PreTrainedModel, part: torch.Tensor) -> torch.Tensor:
        if len(part) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses_of(model, part)

    with_room = train(random_model("llama", 64), sequences, token_budget=32)
    monkeypatch.setattr(fine_tuning, "sequence_losses", small_gpu)
    with caplog.at_level(logging.WARNING):
        found = train(random_model("llama", 64), sequences, token_budget=10_000)
    assert (with_room.micro_batch_size, found.micro_batch_size) == (2, 2)
    assert found.losses == with_room.losses  # a repeated step starts from its own seed, so dropout is the same
    assert [record.args for record in caplog.records] == [(4,), (2,)]


def test_one_sequence_that_does_not_fit_is_refused(sequences: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu(_model: PreTrainedModel, _part: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(fine_tuning, "sequence_losses", no_gpu)
    with pytest.raises(UserError, match=r"GPU memory exhausted by one sequence of 16 tokens; use a shorter"):
        train(random_model("llama", 64), sequences)


def test_a_loss_that_is_not_finite_names_its_step(sequences: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    losses_of, calls = fine_tuning.sequence_losses, []

    def overflowing(model: PreTrainedModel, part: torch.Tensor) -> torch.Tensor:
        calls.append(part)
        return losses_of(model, part) * (float("inf") if len(calls) == 3 else 1)

    monkeypatch.setattr(fine_tuning, "sequence_losses", overflowing)
    with pytest.raises(UserError, match=r"the loss is not finite at step 3 of 16; give a smaller recovery.learning_"):
        train(random_model("llama", 64), sequences)


def test_sequences_longer_than_the_context_are_refused() -> None:
    with pytest.raises(UserError, match=r"recovery.seq_len: got 129, but the model's context is 128 tokens"):
        train(random_model("llama", 64), torch.zeros(2, 129, dtype=torch.long))


def test_every_epoch_sees_every_sequence_once_in_its_own_order() -> None:
    schedule = TrainingSchedule(epochs=2, batch_size=4, learning_rate=1.0, warmup_fraction=0, max_grad_norm=1.0, seed=3)
    batches = [batch.tolist() for batch in batches_of(10, schedule)]
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    first, second = ([number for batch in part for number in batch] for part in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_the_mode_of_the_model_is_restored(sequences: torch.Tensor) -> None:
    model = random_model("llama", 64)
    train(model, sequences, checkpointing=True)
    assert not model.training
    assert not torch.are_deterministic_algorithms_enabled()
    assert all("forward" not in layer.__dict__ for layer in model.model.layers)

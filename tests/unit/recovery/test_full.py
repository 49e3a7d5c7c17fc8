"""Training of all weights: one step against AdamW written by hand, padded widths, and saved weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.models.from_manifest import load_from_manifest
from espalier.models.manifest import make_manifest
from espalier.models.padding import pad_widths
from espalier.models.surgery import prune
from espalier.recovery.fine_tuning import TrainingSchedule, fine_tune
from espalier.recovery.fingerprint import TRAINED_WEIGHTS, recovered_fingerprint
from espalier.recovery.full import load_weights, prepare_full, products_in, save_weights
from espalier.recovery.load import apply_recovered, load_recovered
from tests.unit.conftest import random_model
from tests.unit.recovery.conftest import PLANS, SCHEDULE, Pruned

ONE_STEP = TrainingSchedule(epochs=1, batch_size=32, learning_rate=1e-3, warmup_fraction=0, max_grad_norm=0.5, seed=0)


def train(model: PreTrainedModel, sequences: torch.Tensor, schedule: TrainingSchedule = ONE_STEP) -> list[float]:
    prepare_full(model)
    return fine_tune(model, sequences, schedule, token_budget=128, checkpointing=False).losses


def logits(model: nn.Module, sequences: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=sequences).logits.float()


def test_one_step_is_clipped_adamw(sequences: torch.Tensor) -> None:
    """The first step of AdamW, with m = g and v = g^2 after bias correction: w - lr g / (|g| + 1e-8).

    The gradient g is that of the mean next-token loss over all sequences, computed here with log-probabilities of
    float64 and scaled to the norm 0.5.
    """
    model, reference = (random_model("llama", 64) for _ in range(2))
    losses = train(model, sequences)

    reference.double()
    predicted = reference(input_ids=sequences).logits[:, :-1].log_softmax(-1)
    loss = -predicted.gather(-1, sequences[:, 1:, None]).mean()
    loss.backward()
    weights = dict(reference.named_parameters())
    norm = torch.sqrt(sum((weight.grad**2).sum() for weight in weights.values()))
    assert norm > 0.5  # so that clipping matters
    for name, weight in model.named_parameters():
        gradient = weights[name].grad * 0.5 / (norm + 1e-6)  # the constant of clip_grad_norm_
        expected = weights[name] - 1e-3 * gradient / (gradient.abs() + 1e-8)
        # Where |g| is near 1e-8, rounding of the gradient in float32 changes the size of the step.
        known = gradient.abs() > 1e-6
        torch.testing.assert_close(weight.double()[known], expected[known], rtol=0, atol=2e-6)
    assert losses == [pytest.approx(loss.item(), rel=1e-5)]


@pytest.mark.parametrize("kept", ["whole", "emptied"])
def test_all_weights_are_trained_and_two_runs_are_equal(pruned: Pruned, sequences: torch.Tensor, kept: str) -> None:
    model, again, untouched = pruned(kept), pruned(kept), pruned(kept)
    losses = train(model, sequences, SCHEDULE)
    assert losses[-1] < losses[0] - 0.5
    assert train(again, sequences, SCHEDULE) == losses
    before = dict(untouched.named_parameters())
    trained = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    # The norms of blocks without groups have no influence on the output.
    norms = {name for name in before if name.startswith("model.layers.1.") and "norm" in name}
    assert set(before) - trained == (norms if kept == "emptied" else set())


def test_padded_widths_change_no_result(pruned: Pruned, sequences: torch.Tensor, tmp_path: Path) -> None:
    """A model whose widths are padded with zero channels has the same losses, and its zeros stay zeros."""
    model, padded = pruned("whole"), pruned("whole")
    assert pad_widths(padded, 16) == 2  # 20 and 30 channels become 32
    losses = train(model, sequences, SCHEDULE)
    assert train(padded, sequences, SCHEDULE) == pytest.approx(losses, rel=1e-4)
    up, wide = (one.model.layers[0].mlp.up_proj.weight for one in (model, padded))
    assert not wide[20:].any()
    # Adam divides by |g|, so rounding of a small gradient changes a step by up to the learning rate.
    assert (wide[:20] - up).abs().mean() < 1e-4

    save_weights(model, tmp_path / "trained", PLANS["whole"], torch.float32)
    loaded = load_weights(pruned("whole"), tmp_path / "trained", PLANS["whole"])
    pad_widths(loaded, 16)
    torch.testing.assert_close(logits(loaded, sequences), logits(model, sequences), rtol=1e-4, atol=1e-4)


def test_saved_weights_give_the_trained_model(pruned: Pruned, sequences: torch.Tensor, tmp_path: Path) -> None:
    model = pruned("emptied")
    train(model, sequences, SCHEDULE)
    save_weights(model, tmp_path / "trained", PLANS["emptied"], torch.float32)
    loaded = apply_recovered(pruned("emptied"), tmp_path / "trained", PLANS["emptied"])
    assert torch.equal(logits(loaded, sequences), logits(model, sequences))
    assert not loaded.training
    assert list(recovered_fingerprint(tmp_path / "trained")) == ["trained_weights"]


def test_weights_are_float32_in_training_and_rounded_once(sequences: torch.Tensor, tmp_path: Path) -> None:
    """A bfloat16 model is trained in float32, with products in bfloat16, and stored in bfloat16."""
    model = random_model("llama", 64, torch.bfloat16)
    before = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    with products_in(model, torch.bfloat16):
        losses = train(model, sequences)
    exact = random_model("llama", 64, torch.bfloat16)
    assert losses == pytest.approx(train(exact, sequences), rel=1e-2)
    assert losses != train(random_model("llama", 64, torch.bfloat16), sequences)  # so products were rounded
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.dtype == torch.float32
    assert (weight - before).abs().max() <= 1.01e-3  # one step of the learning rate
    with products_in(model, torch.bfloat16):
        more = train(model, sequences, SCHEDULE)
    assert more == pytest.approx(train(exact, sequences, SCHEDULE), rel=2e-2)  # steps reach the rounded weights
    save_weights(model, tmp_path / "trained", PLANS["whole"], torch.bfloat16)
    stored = load_file(tmp_path / "trained" / TRAINED_WEIGHTS)
    assert torch.equal(stored["model.layers.0.mlp.up_proj.weight"], weight.to(torch.bfloat16))


def test_tied_embeddings_stay_tied(model_folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """`load_recovered` prunes the base model and loads the weights; both sides of tied embeddings are the same."""
    manifest = make_manifest("A", model_folder, trust_remote_code=False, commit=None)
    plan = PLANS["whole"]
    model = load_from_manifest(manifest, dtype="float32", device="cpu")
    prune(model, plan.kept_kv_groups, plan.kept_mlp_channels, plan.removed_layers)
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    sequences = torch.randint(0, len(tokenizer), (4, 16), generator=torch.Generator().manual_seed(0))
    train(model, sequences, SCHEDULE)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    save_weights(model, tmp_path / "trained", plan, torch.float32)
    assert "lm_head.weight" not in load_file(tmp_path / "trained" / TRAINED_WEIGHTS)
    with pytest.raises(UserError, match=r"do not fit the model \(lm_head.weight is only in one\)"):
        load_recovered(manifest, plan, tmp_path / "trained", dtype="float32", device="cpu")  # its head is not tied


def test_weights_of_another_plan_or_shape_are_refused(pruned: Pruned, tmp_path: Path) -> None:
    save_weights(pruned("whole"), tmp_path / "trained", PLANS["whole"], torch.float32)
    other = replace(PLANS["whole"], kept_kv_groups=((1,), (0, 1)))
    with pytest.raises(
        UserError, match=r"trained_weights.safetensors: the weights were trained on another plan; delete"
    ):
        load_weights(pruned("whole"), tmp_path / "trained", other)
    wide = pruned("whole")
    pad_widths(wide, 16)
    with pytest.raises(
        UserError, match=r"mlp.\w+_proj.weight has shape \(\d+, \d+\) instead of \(\d+, \d+\)\); delete"
    ):
        load_weights(wide, tmp_path / "trained", PLANS["whole"])

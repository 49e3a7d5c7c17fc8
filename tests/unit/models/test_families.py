"""Tests that every model family in `CONFIGS` must pass, from its folder to its scores."""

import copy
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from tools.families import README, families_table, insert_families
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

import espalier.models.pruned  # noqa: F401 (registers the classes of pruned models)
from espalier.calibration.gradients import sequence_losses
from espalier.calibration.importance import measure_importance
from espalier.calibration.pass_size import PassSettings
from espalier.export.build import export_model, stock_model
from espalier.models.architecture import FAMILIES
from espalier.models.decoder import decoder_layers, n_groups, params_per_group, projections
from espalier.models.folder import inspect_folder
from espalier.models.loading import load_model
from espalier.models.surgery import mask, prune
from espalier.planning.plan import Plan
from espalier.planning.stock import StockShape, stock_kv_group_counts
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request
from tests.unit.calibration.test_priors import assert_priors_equal_whole_runs
from tests.unit.conftest import CONFIGS, random_model, with_biases
from tests.unit.scoring.reference import plain_score

# Layer 0 loses its attention and layer 1 its MLP; the other two blocks are kept in part.
PLAN = ([[], [1]], [[3, 7, 11, 30], []])
# Layer 0 is removed whole.
DEPTH = ([[], [0, 1]], [[], list(range(48))], [0])


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return with_biases(random_model(request.param, 50))


@pytest.fixture
def sequences() -> torch.Tensor:
    return torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name in CONFIG_MAPPING_NAMES])
def test_the_table_names_the_classes_of_transformers(name: str) -> None:
    """A family with a wrong name would not be in `CONFIGS`, so no other test would cover it."""
    family = FAMILIES[name]
    assert family.config == CONFIG_MAPPING_NAMES[name]
    assert family.model == MODEL_MAPPING_NAMES[name]
    assert family.causal == MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]
    assert name in CONFIGS


def test_folder_says_what_the_modules_hold(
    model: PreTrainedModel, plain_tokenizer: object, tmp_path: Path, sequences: torch.Tensor
) -> None:
    model.save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer).save_pretrained(tmp_path)
    sizes = inspect_folder(tmp_path).sizes
    assert sizes.total_params == sum(parameter.numel() for parameter in model.parameters())
    for layer, layer_sizes in zip(decoder_layers(model), sizes.layers, strict=True):
        assert layer_sizes.n_kv_groups == n_groups(layer, "attention")
        assert layer_sizes.n_mlp_channels == n_groups(layer, "mlp")
        assert layer_sizes.kv_group_params == params_per_group(layer, "attention")
        assert layer_sizes.mlp_channel_params == params_per_group(layer, "mlp")
    loaded = load_model(tmp_path, dtype="auto", device=torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(sequences).logits, model(sequences).logits)


@pytest.mark.parametrize("plan", [PLAN, DEPTH], ids=["groups", "layers"])
def test_pruned_equals_masked(
    model: PreTrainedModel, plan: tuple[list[list[int]], ...], sequences: torch.Tensor
) -> None:
    masked, pruned = copy.deepcopy(model), copy.deepcopy(model)
    mask(masked, *plan)
    prune(pruned, *plan)
    with torch.no_grad():
        expected, found = masked(sequences).logits, pruned(sequences).logits
        assert (expected - model(sequences).logits).abs().max() > 0.01  # something was removed
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_model_without_a_layer_is_a_stock_model(
    model: PreTrainedModel, tmp_path: Path, sequences: torch.Tensor
) -> None:
    """Stock code loads it, and generates with a KV cache what full passes give."""
    layer = sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    n_params = model.num_parameters()
    prune(model, *DEPTH)
    assert model.num_parameters() == n_params - layer
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(sequences).logits, model(sequences).logits)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert torch.equal(loaded.generate(sequences, **options), model.generate(sequences, use_cache=False, **options))


@pytest.mark.parametrize("stubs", [False, True], ids=["removed", "stubs"])
def test_layers_of_different_sizes_are_exported(
    model: PreTrainedModel, tmp_path: Path, sequences: torch.Tensor, stubs: bool
) -> None:
    """The class for pruned models loads the export, and generates with a KV cache what full passes give."""
    prune(model, *PLAN)
    plan = Plan((2, 2), (48, 48), *(tuple(map(tuple, kept)) for kept in PLAN))
    export_model(model, plan, stubs=stubs).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded).__name__ == f"Pruned{type(model).__name__}"
    with torch.no_grad():
        torch.testing.assert_close(loaded(sequences).logits, model(sequences).logits)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert torch.equal(loaded.generate(sequences, **options), model.generate(sequences, use_cache=False, **options))


@pytest.mark.parametrize("n_kv_groups", [1, 2, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_stock_checkpoints_have_the_heads_of_the_table(
    name: str, n_kv_groups: int, tmp_path: Path, sequences: torch.Tensor
) -> None:
    """A stock class loads a pruned model of one shape exactly if the table says that it accepts the number of heads."""
    model = with_biases(random_model(name, 50, num_key_value_heads=4))
    config = model.config.to_dict()
    accepts = n_kv_groups in stock_kv_group_counts(4, config)
    prune(model, [range(n_kv_groups)] * 2, [[3, 7, 11, 30]] * 2)
    try:
        stock_model(model, StockShape(2, n_kv_groups, 4)).save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path)
    except (StrictDataclassClassValidationError, ValueError, RuntimeError):
        assert not accepts
        return
    assert accepts
    with torch.no_grad():
        torch.testing.assert_close(loaded(sequences).logits, model(sequences).logits)


@pytest.mark.parametrize("plan", [None, PLAN, DEPTH], ids=["unpruned", "groups", "layers"])
def test_packed_scores_equal_one_request_at_a_time(
    model: PreTrainedModel, plan: tuple[list[list[int]], ...] | None
) -> None:
    if plan:
        prune(model, *plan)
    context = [5, 9, 2, 17, 3]
    requests = [Request(context, [1, 4]), Request(context, [8]), Request([*context, 1], [4, 4, 6]), Request([7], [9])]
    for request, score in zip(requests, score_requests(model, requests, token_budget=64), strict=True):
        expected, greedy = plain_score(model, request)
        assert score.loglikelihood == pytest.approx(expected, abs=1e-4)
        assert score.is_greedy == greedy


def test_the_readme_lists_the_families_of_the_table() -> None:
    """`python -m tools.families` writes the table; the tests of this file hold for each of its rows."""
    page = README.read_text(encoding="utf-8")
    assert insert_families(page) == page
    rows = [line.split(" | ") for line in families_table().splitlines()[2:]]
    assert [row[1] for row in rows] == [f"`{name}`" for name in FAMILIES]
    assert set(CONFIGS) <= set(FAMILIES)
    assert {"llama", "mistral", "qwen2", "qwen3", "gemma3_text"} <= set(CONFIGS)


def test_importance_of_all_groups_is_that_of_their_weights(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    """Groups do not overlap and leave nothing out: the sum of their importance equals that of all |w g|."""
    found = measure_importance(
        model, sequences, [len(sequences)], criterion="taylor", settings=PassSettings(token_budget=24)
    )
    table = pd.DataFrame(found.importance)
    model.requires_grad_(requires_grad=True)
    (sequence_losses(model, sequences).sum() / len(sequences)).backward()
    for block in ("attention", "mlp"):
        found_in = [projection for projection in projections(model) if projection.block == block]
        grouped = [projection.weight for projection in found_in]
        # The bias of a projection that writes to the residual stream belongs to no group.
        grouped += [one.bias for one in found_in if one.bias is not None and one.name not in {"o_proj", "down_proj"}]
        expected = sum(float((weight.detach() * weight.grad).abs().double().sum()) for weight in grouped)
        assert table[table.block == block].importance.sum() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_importance_of_a_group_is_a_finite_difference(name: str, sequences: torch.Tensor) -> None:
    """The sum of |w g| over a group is the slope of the loss along the direction |w| sign(g).

    `mask` tells which weights belong to the group: those that it changes.
    """
    model = with_biases(random_model(name, 50, dtype=torch.float64))
    found = measure_importance(
        model, sequences, [len(sequences)], criterion="taylor", settings=PassSettings(token_budget=24)
    )
    table = pd.DataFrame(found.importance).set_index(["layer", "block", "group"]).importance
    model.requires_grad_(requires_grad=True)
    (sequence_losses(model, sequences).sum() / len(sequences)).backward()
    directions = [each.detach().abs() * each.grad.sign() for each in model.parameters()]
    everything = {"attention": list(range(2)), "mlp": list(range(48))}
    for block, group in (("attention", 0), ("attention", 1), ("mlp", 0), ("mlp", 17), ("mlp", 47)):
        without = {each: [groups] * 2 for each, groups in everything.items()}
        without[block] = [everything[block], [each for each in everything[block] if each != group]]
        masked = copy.deepcopy(model)
        mask(masked, without["attention"], without["mlp"])
        losses = []
        for step in (1e-3, -1e-3):
            moved = copy.deepcopy(model)
            with torch.no_grad():
                parameters = zip(moved.parameters(), masked.parameters(), directions, strict=True)
                for parameter, other, direction in parameters:
                    parameter.add_(step * direction * (parameter != other))
                losses.append(float(sequence_losses(moved, sequences).double().mean()))
        assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(table[1, block, group], rel=5e-3, abs=1e-3), (
            block,
            group,
        )


def test_priors_equal_whole_runs_without_the_block(model: PreTrainedModel, sequences: torch.Tensor) -> None:
    assert_priors_equal_whole_runs(model, sequences)

"""LoRA adapters: the adapted projections, saving and loading, and equality of merged and unmerged models."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.files import read_json
from espalier.models.decoder import ROLES
from espalier.models.from_manifest import load_from_manifest
from espalier.models.manifest import make_manifest
from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from espalier.recovery.fine_tuning import fine_tune
from espalier.recovery.fingerprint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_fingerprint
from espalier.recovery.load import load_recovered
from espalier.recovery.lora import (
    LoraSettings,
    attach,
    merge_adapter,
    remaining_projections,
    save_adapter,
)
from tests.conftest import REPOSITORY
from tests.unit.recovery.conftest import LORA, PLANS, SCHEDULE, SEVEN, Pruned


def trained(pruned: Pruned, sequences: torch.Tensor, kept: str, dtype: torch.dtype = torch.float32) -> PeftModel:
    adapted = attach(pruned(kept, dtype), LORA)
    fine_tune(adapted, sequences, SCHEDULE, token_budget=128, checkpointing=False)
    return adapted


def logits(model: nn.Module, sequences: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=sequences).logits.float()


def test_emptied_blocks_have_nothing_to_adapt(pruned: Pruned) -> None:
    """Only projections with weights are adapted; the remaining output bias of an empty block does not count as one."""
    whole, emptied = remaining_projections(pruned("whole"), SEVEN), remaining_projections(pruned("emptied"), SEVEN)
    assert whole == [f"model.layers.{number}.{role.path}" for number in range(2) for role in ROLES]
    assert emptied == whole[:7]
    assert remaining_projections(pruned("emptied"), ("up_proj",)) == ["model.layers.0.mlp.up_proj"]


def test_adapters_have_the_shapes_of_what_is_left(pruned: Pruned) -> None:
    """Rank r adds r * (rows + columns) parameters to each projection, and only those are trained."""
    model = pruned("whole")
    shapes = [model.get_submodule(name).weight.shape for name in remaining_projections(model, SEVEN)]
    adapted = attach(model, LORA)
    found = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in found.values()) == sum(4 * (rows + columns) for rows, columns in shapes)
    assert all("lora_" in name for name in found)


def test_an_untrained_adapter_changes_nothing(pruned: Pruned, sequences: torch.Tensor) -> None:
    before = logits(pruned("emptied"), sequences)
    assert torch.equal(logits(attach(pruned("emptied"), LORA).eval(), sequences), before)


@pytest.mark.parametrize("kept", ["whole", "emptied"])
def test_merged_from_disk_equals_unmerged_in_memory(
    pruned: Pruned, sequences: torch.Tensor, kept: str, tmp_path: Path
) -> None:
    adapted = trained(pruned, sequences, kept)
    unmerged = logits(adapted, sequences)
    assert (unmerged - logits(pruned(kept), sequences)).abs().max() > 0.1  # training changed the model
    save_adapter(adapted, tmp_path / "adapter", PLANS[kept])
    merged = merge_adapter(pruned(kept), tmp_path / "adapter", PLANS[kept])
    # Logits of these models are of the order of 10; float32 keeps 7 digits.
    torch.testing.assert_close(logits(merged, sequences), unmerged, rtol=1e-4, atol=1e-4)


def test_a_merged_model_has_no_trace_of_peft(pruned: Pruned, sequences: torch.Tensor, tmp_path: Path) -> None:
    save_adapter(trained(pruned, sequences, "emptied"), tmp_path / "adapter", PLANS["emptied"])
    base = pruned("emptied")
    merged = merge_adapter(pruned("emptied"), tmp_path / "adapter", PLANS["emptied"])
    assert type(merged) is type(base)
    assert [name for name, _ in merged.named_parameters()] == [name for name, _ in base.named_parameters()]
    assert not any("peft" in type(module).__module__ for module in merged.modules())
    assert not merged.training


def test_the_sum_is_rounded_once_in_bfloat16(pruned: Pruned, sequences: torch.Tensor, tmp_path: Path) -> None:
    """Adapters are float32; W + (alpha / r) B A is computed in float32 and then rounded to the dtype of W."""
    save_adapter(trained(pruned, sequences, "whole", torch.bfloat16), tmp_path / "adapter", PLANS["whole"])
    tensors = load_file(tmp_path / "adapter" / ADAPTER_WEIGHTS)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    merged = merge_adapter(pruned("whole", torch.bfloat16), tmp_path / "adapter", PLANS["whole"])
    name = "model.layers.0.self_attn.q_proj"
    a, b = (tensors[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
    weight = pruned("whole", torch.bfloat16).get_submodule(name).weight
    expected = (weight.float() + 8 / 4 * (b @ a)).to(torch.bfloat16)
    assert torch.equal(merged.get_submodule(name).weight, expected)


@pytest.mark.long
def test_an_adapter_is_the_same_file_in_every_process(tmp_path: Path) -> None:
    """Peft stores module names in a set, whose order differs between processes; the saved files must not differ."""
    code = (
        "import sys; from pathlib import Path; from tests.unit.conftest import random_model; "
        "from espalier.recovery.lora import *; from tests.unit.recovery.conftest import PLANS; "
        "from espalier.recovery.fingerprint import adapter_fingerprint; "
        f"names = {SEVEN!r}; folder = Path(sys.argv[1]); "
        "save_adapter(attach(random_model('llama', 64), LoraSettings(4, 8, 0.0, names, 0)), folder, PLANS['whole']); "
        "print(adapter_fingerprint(folder))"
    )
    prints = set()
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / seed)], cwd=REPOSITORY, check=True, capture_output=True,
            text=True, env={"PYTHONHASHSEED": seed, "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}"},
        )  # fmt: skip
        prints.add(done.stdout)
    assert len(prints) == 1


def test_the_fingerprint_knows_weights_and_scaling(pruned: Pruned, tmp_path: Path) -> None:
    """Adapters with another alpha, other weights or other modules have different fingerprints."""
    settings = [
        LORA, LoraSettings(4, 16, 0.05, SEVEN, 0), LoraSettings(4, 8, 0.05, SEVEN, 1),
        LoraSettings(4, 8, 0.05, ("q_proj",), 0),
    ]  # fmt: skip
    for number, one in enumerate(settings):
        save_adapter(attach(pruned(), one), tmp_path / str(number), PLANS["whole"])
    assert len({adapter_fingerprint(tmp_path / str(number)) for number in range(len(settings))}) == len(settings)
    assert read_json(tmp_path / "0" / ADAPTER_CONFIG)["base_model_name_or_path"] is None  # no path of this machine


def test_an_adapter_of_another_model_is_refused(pruned: Pruned, tmp_path: Path) -> None:
    save_adapter(attach(pruned("whole"), LORA), tmp_path / "adapter", PLANS["whole"])
    with pytest.raises(UserError, match=r"adapter: the adapter does not fit the model \(.+\); delete it and run again"):
        merge_adapter(pruned("emptied"), tmp_path / "adapter", PLANS["whole"])
    other = pruned("whole")
    other.model.layers[0].mlp.up_proj = nn.Linear(32, 21)
    with pytest.raises(UserError, match=r"adapter: the adapter does not fit the model \(.+\); delete it and run again"):
        merge_adapter(other, tmp_path / "adapter", PLANS["whole"])


def test_an_adapter_of_other_groups_of_the_same_number_is_refused(pruned: Pruned, tmp_path: Path) -> None:
    """The shapes fit the model, so only the stored plan shows that the adapter is a wrong one."""
    save_adapter(attach(pruned("whole"), LORA), tmp_path / "adapter", PLANS["whole"])
    other = replace(PLANS["whole"], kept_kv_groups=((1,), (0, 1)))
    with pytest.raises(UserError, match=r"adapter: the adapter was trained on another plan; delete it and run"):
        merge_adapter(pruned("whole"), tmp_path / "adapter", other)


def test_plans_with_an_emptied_and_with_a_removed_layer_differ(pruned: Pruned, tmp_path: Path) -> None:
    removed = without_first_layer(PLANS["whole"])
    save_adapter(attach(pruned("whole"), LORA), tmp_path / "adapter", removed)
    with pytest.raises(UserError, match=r"adapter: the adapter was trained on another plan"):
        merge_adapter(pruned("whole"), tmp_path / "adapter", replace(removed, removed_layers=()))


def test_an_incomplete_folder_is_refused(pruned: Pruned, tmp_path: Path) -> None:
    save_adapter(attach(pruned("whole"), LORA), tmp_path / "adapter", PLANS["whole"])
    (tmp_path / "adapter" / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"has no adapter_model.safetensors; run `snakemake recovered` again"):
        merge_adapter(pruned("whole"), tmp_path / "adapter", PLANS["whole"])


def test_no_projection_is_left(pruned: Pruned) -> None:
    model = pruned("emptied")
    model.model.layers = model.model.layers[1:]
    with pytest.raises(UserError, match=r"recovery.target_modules: no layer of the pruned model has q_proj, o_proj;"):
        remaining_projections(model, ("q_proj", "o_proj"))


def without_first_layer(plan: Plan) -> Plan:
    """Return a plan that removes layer 0 whole and keeps the groups of layer 1."""
    kept = (plan.kept_kv_groups, plan.kept_mlp_channels)
    return replace(plan, kept_kv_groups=((), kept[0][1]), kept_mlp_channels=((), kept[1][1]), removed_layers=(0,))


@pytest.mark.parametrize("removes_layer", [False, True])
def test_load_recovered_is_prune_and_merge(
    model_folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, *, removes_layer: bool
) -> None:
    """`load_recovered` returns a pruned model with the logits of the fine-tuned model."""
    manifest = make_manifest("A", model_folder, trust_remote_code=False, commit=None)
    plan = without_first_layer(PLANS["whole"]) if removes_layer else PLANS["emptied"]
    sequences = torch.randint(0, len(tokenizer), (4, 16), generator=torch.Generator().manual_seed(0))
    model = load_from_manifest(manifest, dtype="float32", device="cpu")
    prune(model, plan.kept_kv_groups, plan.kept_mlp_channels, plan.removed_layers)
    adapted = attach(model, LORA)
    fine_tune(adapted, sequences, SCHEDULE, token_budget=128, checkpointing=False)
    save_adapter(adapted, tmp_path / "adapter", plan)
    loaded = load_recovered(manifest, plan, tmp_path / "adapter", dtype="float32", device="cpu")
    torch.testing.assert_close(logits(loaded, sequences), logits(adapted, sequences), rtol=1e-4, atol=1e-4)

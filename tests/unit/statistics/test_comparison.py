"""Base against Instruct models, pruned against unpruned models, and the inference costs of a plan."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.errors import UserError
from espalier.statistics.bootstrap import bootstrap
from espalier.statistics.comparison import accuracy_kept, base_vs_instruct, paired_draws, perplexity_ratio
from espalier.statistics.costs import Costs, CostSizes, costs
from espalier.statistics.counts import draw_from_counts
from tests.unit.statistics.studies import study

GENERATOR = np.random.default_rng(0)
RIGHT = GENERATOR.random((2, 300)) < 0.6


def test_base_and_instruct_on_common_settings_by_hand() -> None:
    # Common: s and t; differences 0.7 - 0.5 = 0.2 and 0.3 - 0.4 = -0.1; mean 0.05, deviation 0.15. 0.5 / 0.45 = 10/9.
    found = base_vs_instruct(["r", "s", "t"], [0.9, 0.5, 0.4], ["t", "s", "u"], [0.3, 0.7, 0.1])
    assert found.settings == ("s", "t")
    assert (found.n, found.n_instruct_higher, found.interval) == (2, 1, None)
    assert (found.base, found.instruct) == (pytest.approx(0.45), pytest.approx(0.5))
    assert (found.difference, found.std) == (pytest.approx(0.05), pytest.approx(0.15))
    assert found.relative_change == pytest.approx(1 / 9)


def test_two_models_on_the_same_documents_have_joint_draws() -> None:
    one, same = bootstrap(study({"a": RIGHT}), seed=0), bootstrap(study({"a": RIGHT}), seed=0)
    found = base_vs_instruct("xy", one.accuracy, "xy", same.accuracy, paired_draws(one, same))
    assert found.interval == (0, 0)  # equal on every document
    better = np.array(RIGHT)
    better[:, :30] = True
    other = bootstrap(study({"a": better}), seed=0)
    found = base_vs_instruct("xy", one.accuracy, "xy", other.accuracy, paired_draws(one, other))
    # Only answers that were wrong among the first 30 documents differ. The interval depends on these differences alone.
    gained = (better.astype(float) - RIGHT).mean(axis=0)
    stderr = gained.std() / np.sqrt(300)
    assert found.difference == pytest.approx(gained.mean())
    assert found.interval == pytest.approx((gained.mean() - 1.96 * stderr, gained.mean() + 1.96 * stderr), abs=0.003)


def test_draws_that_are_not_joint_are_refused_or_independent() -> None:
    one = bootstrap(study({"a": RIGHT}), seed=0, n_draws=100)
    for other in (bootstrap(study({"a": RIGHT}), seed=1, n_draws=100), replace(one, draws=one.draws[:50])):
        with pytest.raises(UserError, match="their documents, seeds or numbers of draws differ"):
            paired_draws(one, other)
    counts = draw_from_counts(["x"], [[0.5]], [300], model="m", seed=0, n_draws=100)
    assert len(paired_draws(one, counts)[1]) == 100


def test_base_and_instruct_where_undefined() -> None:
    nothing = base_vs_instruct(["s"], [0.5], ["t"], [0.5])
    assert (nothing.n, nothing.difference) == (0, None)
    assert nothing.reason is not None
    assert nothing.reason.code == "no_common_settings"
    zero = base_vs_instruct(["s"], [0.0], ["s"], [0.5])
    assert (zero.difference, zero.relative_change) == (0.5, None)
    assert zero.reason is not None
    assert zero.reason.code == "zero_base"
    with pytest.raises(UserError, match="base model has setting s twice"):
        base_vs_instruct(["s", "s"], [0.5, 0.6], ["s"], [0.5])
    with pytest.raises(UserError, match="accuracy of Instruct are missing"):
        base_vs_instruct(["s"], [0.5], ["s"], [math.nan])


def test_accuracy_kept_by_hand() -> None:
    # Draws of the experiment 0.3, 0.4, 0.5 and of the unpruned model 0.6, 0.8, 1.0: always a half.
    found = accuracy_kept([0.4], 0.8, [[0.3], [0.4], [0.5]], [0.6, 0.8, 1.0])
    assert found.kept == pytest.approx([0.5])
    assert found.intervals == pytest.approx(np.array([[0.5, 0.5]]))
    assert found.reason is None
    assert accuracy_kept([0.4], 0.8).intervals is None


@pytest.mark.parametrize(
    ("baseline", "code"), [(None, "no_baseline"), (math.nan, "no_baseline"), (0.0, "zero_baseline")]
)
def test_accuracy_kept_without_a_baseline(baseline: float | None, code: str) -> None:
    found = accuracy_kept([0.4], baseline)
    assert (found.kept, found.intervals) == (None, None)
    assert found.reason is not None
    assert found.reason.code == code


def test_accuracy_kept_of_a_baseline_that_may_be_zero() -> None:
    found = accuracy_kept([0.4], 0.1, [[0.4], [0.4]], [0.2, 0.0])
    assert found.kept == pytest.approx([4])
    assert found.intervals is None
    assert found.reason is not None
    with pytest.raises(ValueError, match="2 draws of the experiments, 3"):
        accuracy_kept([0.4], 0.1, [[0.4], [0.4]], [0.2, 0.1, 0.1])


def test_perplexity_ratio() -> None:
    assert perplexity_ratio(30.0, 12.0) == (2.5, None)
    for perplexity, baseline, code in (
        (30.0, None, "no_baseline"), (math.inf, 12.0, "not_finite"), (None, 12.0, "not_finite"),
        (30.0, math.inf, "not_finite"), (30.0, 0.0, "zero_baseline"),
    ):  # fmt: skip
        ratio, reason = perplexity_ratio(perplexity, baseline)
        assert ratio is None
        assert reason is not None
        assert reason.code == code


def llama_3_8b(kv_groups: list[int], mlp_channels: list[int]) -> Costs:
    # KV group: head size 128 * hidden 4,096 * (4 query heads * 2 for q and o + k + v) = 5,242,880; channel: 3 * 4,096.
    attention = [5_242_880 * n for n in kv_groups]
    mlp = [12_288 * n for n in mlp_channels]
    other = 2 * 128_256 * 4_096 + 65 * 4_096
    return costs(
        CostSizes(head_dim=128, lm_head_params=128_256 * 4_096, dtype="bfloat16"), kv_groups=kv_groups,
        attention_params=attention, mlp_channels=mlp_channels, mlp_params=mlp,
        n_params=sum(attention) + sum(mlp) + other,
    )  # fmt: skip


def test_costs_of_llama_3_8b() -> None:
    unpruned = llama_3_8b([8] * 32, [14_336] * 32)
    assert unpruned.n_params == 8_030_261_248  # as published
    # 2 * 8 groups * 128 * 2 bytes * 32 layers = 131,072.
    assert unpruned.kv_cache_bytes_per_token == 131_072
    # 2 * (32 * (8 * 5,242,880 + 14,336 * 12,288) + 128,256 * 4,096) = 2 * (6,979,321,856 + 525,336,576).
    assert unpruned.flops_per_token == 15_009_316_864
    # Half of the groups and a layer without MLP.
    pruned = llama_3_8b([4] * 32, [14_336] * 31 + [0])
    ratios = pruned.relative_to(unpruned)
    assert ratios["kv_cache_bytes_per_token"] == 0.5
    saved = 2 * (32 * 4 * 5_242_880 + 14_336 * 12_288)
    assert pruned.flops_per_token == unpruned.flops_per_token - saved
    assert ratios["flops_per_token"] == pytest.approx(1 - saved / 15_009_316_864)


def test_biases_are_no_matrix() -> None:
    sizes = CostSizes(head_dim=4, lm_head_params=50, dtype="float32", kv_group_biases=12, mlp_channel_biases=2)
    given_costs = costs(
        sizes, kv_groups=[2], attention_params=[2 * 100], mlp_channels=[3], mlp_params=[3 * 30], n_params=400,
    )  # fmt: skip
    # 2 * (200 - 24 + 90 - 6 + 50) = 620; cache 2 * 2 * 4 * 4 bytes = 64.
    assert given_costs == Costs(400, 64, 620)


def test_emptied_model_and_bad_counts() -> None:
    empty = {"kv_groups": [0], "attention_params": [0], "mlp_channels": [0], "mlp_params": [0]}
    sizes = CostSizes(head_dim=4, lm_head_params=0, dtype="float16")
    nothing = costs(sizes, **empty, n_params=10)
    assert nothing == Costs(10, 0, 0)
    assert nothing.relative_to(nothing) == {"n_params": 1, "kv_cache_bytes_per_token": None, "flops_per_token": None}
    with pytest.raises(UserError, match=r"int3.*float32, bfloat16, float16"):
        costs(replace(sizes, dtype="int3"), **empty, n_params=10)
    with pytest.raises(UserError, match="kv_groups must be one count"):
        costs(sizes, **empty | {"kv_groups": [-1]}, n_params=10)
    with pytest.raises(UserError, match="more biases than parameters"):
        costs(replace(sizes, kv_group_biases=1), **empty | {"kv_groups": [1]}, n_params=10)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 14_336)), min_size=32, max_size=32))
def test_pruning_never_costs_more(layers: list[tuple[int, int]]) -> None:
    ratios = llama_3_8b(*map(list, zip(*layers, strict=True))).relative_to(llama_3_8b([8] * 32, [14_336] * 32))
    assert all(ratio is not None and 0 <= ratio <= 1 for ratio in ratios.values())

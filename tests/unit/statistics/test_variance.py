"""Which axis explains the variance: decomposition, calibration seeds, settings with equal numbers of tokens."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.errors import UserError
from espalier.statistics.seeds import seed_errors
from espalier.statistics.tokens import compare_at_equal_tokens
from espalier.statistics.variance import decompose

TWO_BY_TWO: dict[str, list[Any]] = {"method": ["x", "x", "y", "y"], "taylor_seq_len": [16, 64, 16, 64]}


def code(reason: Any) -> str | None:
    return None if reason is None else str(reason.code)


def test_two_by_two_by_hand() -> None:
    # y = 0.1, 0.2, 0.3, 0.4: mean 0.25. Methods 0.15 and 0.35: SS = 4 * 0.1**2 = 0.04; lengths 0.2 and 0.3:
    # 4 * 0.05**2 = 0.01; total 2 * (0.15**2 + 0.05**2) = 0.05; nothing is left over.
    found = decompose([0.1, 0.2, 0.3, 0.4], TWO_BY_TWO)
    method, length = found.axes["method"], found.axes["taylor_seq_len"]
    assert (method.sum_of_squares, length.sum_of_squares) == (pytest.approx(0.04), pytest.approx(0.01))
    assert (method.share, length.share) == (pytest.approx(0.8), pytest.approx(0.2))
    assert found.interaction.share == pytest.approx(0)
    assert (method.df, length.df, found.interaction.df, found.within.df, found.total.df) == (1, 1, 1, 0, 3)
    assert (code(found.within.reason), found.within.share) == ("no_replicates", None)
    assert found.balanced
    assert found.noise_share == 0


def test_evaluation_noise_is_subtracted_by_hand() -> None:
    # Independent errors of variance 0.001 add df * 0.001: 0.001 to both axes and to the interaction, 0.003 in all.
    # Left: 0.039, 0.009, -0.001 -> 0 of 0.047; scaled to sum to 1: 0.039 / 0.048 = 0.8125, 0.009 / 0.048 = 0.1875.
    found = decompose([0.1, 0.2, 0.3, 0.4], TWO_BY_TWO, 0.001 * np.eye(4))
    assert found.axes["method"].noise == pytest.approx(0.001)
    assert found.axes["method"].share == pytest.approx(0.8125)
    assert found.axes["taylor_seq_len"].share == pytest.approx(0.1875)
    assert found.interaction.share == 0
    assert found.noise_share == pytest.approx(0.003 / 0.05)
    # Errors that all experiments share do not change differences.
    assert decompose([0.1, 0.2, 0.3, 0.4], TWO_BY_TWO, np.full((4, 4), 0.7)).noise_share == pytest.approx(0, abs=1e-12)


def grid(n_replicates: int = 1) -> dict[str, list[Any]]:
    cells = list(itertools.product(["x", "y", "z"], [16, 32, 64, 128], [32, 128, 512], range(n_replicates)))
    names = ("method", "taylor_seq_len", "taylor_num_samples")
    return {name: [cell[place] for cell in cells] for place, name in enumerate(names)}


def test_known_components_are_found_under_noise() -> None:
    """Sums of squares without noise, averaged over 300 noisy studies, equal those of the noiseless study."""
    axes, generator = grid(), np.random.default_rng(0)
    effects = {"x": 0.0, "y": 0.01, "z": 0.03, 16: 0.0, 32: 0.01, 64: 0.01, 128: 0.02}
    signal = np.array([effects[m] + effects[s] for m, s in zip(axes["method"], axes["taylor_seq_len"], strict=True)])
    signal += 0.01 * np.outer([1, -1, 0], [1, -1, -1, 1]).repeat(3)  # method x length
    true = decompose(signal, axes)
    # Sums of squares: method 12 runs each at -0.0133, -0.0033, 0.0167: 0.0056; length 9 runs at -0.01 and 0.01 each:
    # 0.0018; interaction 24 runs off by 0.01: 0.0024; total 0.0098.
    shares = [true.axes["method"].share, true.axes["taylor_seq_len"].share, true.interaction.share]
    assert shares == pytest.approx([0.0056 / 0.0098, 0.0018 / 0.0098, 0.0024 / 0.0098])
    covariance = 0.01**2 * (np.eye(36) + 5)  # the shared error is large and has no effect
    noisy = [
        decompose(signal + generator.multivariate_normal(np.zeros(36), covariance, method="cholesky"), axes, covariance)
        for _ in range(300)
    ]
    means = [
        np.mean([one.axes[name].sum_of_squares - one.axes[name].noise for one in noisy])
        for name in ("method", "taylor_seq_len", "taylor_num_samples")
    ]
    assert means == pytest.approx([0.0056, 0.0018, 0], abs=2e-4)
    left = [one.interaction.sum_of_squares - one.interaction.noise for one in noisy]
    assert np.mean(left) == pytest.approx(0.0024, abs=2e-4)
    # 35 degrees of freedom of 0.0001 each: 0.0035 of 0.0133 observed.
    assert np.median([one.noise_share for one in noisy]) == pytest.approx(0.0035 / 0.0133, rel=0.1)


def test_replicates_are_told_from_interaction() -> None:
    # Two runs of each of 2 x 2 settings, -+0.01 about 0.1, 0.2, 0.3, 0.4: within = 8 * 0.0001; no interaction.
    axes = {name: [value for value in values for _ in range(2)] for name, values in TWO_BY_TWO.items()}
    y = np.repeat([0.1, 0.2, 0.3, 0.4], 2) + np.tile([-0.01, 0.01], 4)
    found = decompose(y, axes)
    assert found.within.sum_of_squares == pytest.approx(0.0008)
    assert found.within.df == 4
    assert found.interaction.sum_of_squares == pytest.approx(0, abs=1e-15)
    assert found.within.share == pytest.approx(0.0008 / 0.1008)


def test_incomplete_grid_by_hand() -> None:
    # y has no run at 64. x: 0.1, 0.3; y: 0.4. The method alone would give 2/3 * (0.4 - 0.2)**2 = 0.0267. Beyond the
    # length: at 16 the methods differ by 0.3 with one run each, 0.3**2 / 2 = 0.045; the length: 0.2**2 / 2 = 0.02.
    found = decompose([0.1, 0.3, 0.4], {"method": ["x", "x", "y"], "taylor_seq_len": [16, 64, 16]})
    assert found.axes["method"].sum_of_squares == pytest.approx(0.045)
    assert found.axes["taylor_seq_len"].sum_of_squares == pytest.approx(0.02)
    assert not found.balanced  # total is 0.0467
    assert sum(part.share or 0 for part in found.axes.values()) <= 1 + 1e-12


def test_undefined_parts_say_why() -> None:
    equal = decompose([0.5] * 4, TWO_BY_TWO)
    assert (code(equal.total.reason), code(equal.axes["method"].reason), equal.noise_share) == ("no_spread",) * 2 + (
        None,
    )
    noise = decompose([0.1, 0.2, 0.3, 0.4], TWO_BY_TWO, np.eye(4))
    assert (code(noise.axes["method"].reason), noise.noise_share) == ("all_noise", 1)
    one = decompose([0.1, 0.2], {"method": ["x", "y"], "taylor_seq_len": [16, 16]})
    assert code(one.axes["taylor_seq_len"].reason) == "one_level"
    aliased = decompose([0.1, 0.2, 0.4], {"method": ["x", "y", "z"], "taylor_seq_len": [16, 32, 64]})
    assert {code(part.reason) for part in aliased.axes.values()} == {"aliased"}
    alone = decompose([0.5], {"method": ["x"]})
    assert alone.total.share is None
    assert decompose([0.5, 0.6], {}).axes == {}
    with pytest.raises(UserError, match="missing or infinite"):
        decompose([0.1, np.nan], {"method": ["x", "y"]})
    with pytest.raises(UserError, match="no experiment"):
        decompose([], {})


def test_a_method_without_an_axis() -> None:
    axes = {"method": ["x", "x", "magnitude"], "taylor_seq_len": [16, 64, None]}
    found = decompose([0.1, 0.2, 0.5], axes)
    # The length explains the difference within x: 2 * 0.05**2. Only their missing length separates the methods.
    assert found.axes["taylor_seq_len"].sum_of_squares == pytest.approx(0.005)
    assert code(found.axes["method"].reason) == "aliased"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.1), st.sets(st.integers(0, 35), max_size=20))
def test_shares_are_shares(seed: int, noise: float, left_out: set[int]) -> None:
    axes, generator = grid(), np.random.default_rng(seed)
    kept = [row for row in range(36) if row not in left_out]
    axes = {name: [values[row] for row in kept] for name, values in axes.items()}
    found = decompose(generator.random(len(kept)), axes, noise * np.eye(len(kept)))
    parts = [*found.axes.values(), found.interaction, found.within]
    for part in parts:
        assert (part.share is None) == (part.reason is not None)
        assert part.share is None or 0 <= part.share <= 1
    if not left_out and found.total.share is not None:
        assert sum(part.share or 0 for part in parts) == pytest.approx(1)


def test_seed_errors_by_hand() -> None:
    # Method y - x is 0.1 with seed 0, 0.2 with seed 1: effects of y 0.05 and 0.1, mean 0.075, standard error 0.025.
    # Interval 0.075 -+ t(1) 12.7062 * 0.025. F = (0.075 / 0.025)**2 = 9 with 1 and 1 degrees of freedom: p = 0.2048.
    found = seed_errors([0.5, 0.6, 0.6, 0.8], {"method": ["x", "y", "x", "y"]}, [0, 0, 1, 1])
    effect = found.axes["method"]
    assert effect.values == ("x", "y")
    assert effect.effect == pytest.approx([-0.075, 0.075])
    assert effect.stderr == pytest.approx([0.025, 0.025])
    assert effect.intervals is not None
    assert effect.intervals[1] == pytest.approx([0.075 - 0.317655, 0.075 + 0.317655], abs=1e-5)
    assert (effect.f, effect.df, effect.p) == (pytest.approx(9), (1, 1), pytest.approx(0.204833, abs=1e-5))
    # Seeds differ by 0.1 at x and by 0.2 at y: variances 0.005 and 0.02, mean 0.0125.
    assert found.setting_std == pytest.approx(np.sqrt(0.0125))


def test_what_a_seed_does_to_all_settings_is_no_error() -> None:
    generator = np.random.default_rng(0)
    cells = list(itertools.product([0, 1, 2], ["x", "y"], [16, 32, 64]))
    axes = {"method": [cell[1] for cell in cells], "taylor_seq_len": [cell[2] for cell in cells]}
    y = generator.random(len(cells))
    seeds = [cell[0] for cell in cells]
    plain, moved = (seed_errors(y + shift * np.array(seeds), axes, seeds) for shift in (0, 5))
    for name in axes:
        assert moved.axes[name].f == pytest.approx(plain.axes[name].f)
        assert moved.axes[name].effect == pytest.approx(plain.axes[name].effect)


def test_f_of_axes_without_effect_rejects_in_5_percent() -> None:
    """1,000 simulated studies with 4 seeds; the binomial standard error is 0.7 points."""
    generator = np.random.default_rng(1)
    cells = list(itertools.product(range(4), ["x", "y", "z"], [16, 64]))
    axes = {"method": [cell[1] for cell in cells], "taylor_seq_len": [cell[2] for cell in cells]}
    seeds = [cell[0] for cell in cells]
    p = [
        [effect.p for effect in seed_errors(generator.standard_normal(len(cells)), axes, seeds).axes.values()]
        for _ in range(1_000)
    ]
    rejected = (np.array(p, dtype=np.float64) < 0.05).mean(axis=0)
    assert (rejected > 0.03).all()
    assert (rejected < 0.07).all()


def test_seed_errors_where_undefined() -> None:
    assert code(seed_errors([0.1, 0.2], {"method": ["x", "y"]}, [0, 0]).reason) == "one_seed"
    assert code(seed_errors([0.1, 0.2], {"method": ["x", "y"]}, [None, None]).reason) == "one_seed"
    assert code(seed_errors([0.1, 0.2], {"method": ["x", "y"]}, [0, 1]).reason) == "no_setting_at_every_seed"
    one = seed_errors([0.1, 0.2], {"method": ["x", "x"]}, [0, 1])
    assert code(one.axes["method"].reason) == "one_level"
    same = seed_errors([0.1, 0.2, 0.1, 0.2], {"method": ["x", "y"] * 2}, [0, 0, 1, 1])
    assert code(same.axes["method"].reason) == "no_seed_variation"
    assert same.axes["method"].f is None
    assert same.axes["method"].effect == pytest.approx([-0.05, 0.05])
    assert (same.axes["method"].stderr, same.axes["method"].intervals) == (None, None)
    aliased = seed_errors(
        [0.1, 0.2, 0.1, 0.3], {"method": ["x", "y"] * 2, "taylor_seq_len": [16, 64] * 2}, [0, 0, 1, 1]
    )
    assert code(aliased.axes["method"].reason) == "aliased"
    # y has no result with seed 1 and m uses no seed: both are left out.
    left = seed_errors([0.1, 0.2, 0.3, 0.9], {"method": ["x", "y", "x", "m"]}, [0, 0, 1, None])
    assert (left.n_settings, left.n_left_out) == (1, 2)
    with pytest.raises(UserError, match="given twice with seed 0"):
        seed_errors([0.1, 0.2, 0.3], {"method": ["x", "x", "x"]}, [0, 0, 1])


def test_settings_at_equal_tokens() -> None:
    # 16 x 128 = 64 x 32 = 2,048 tokens. Method x has both (0.5, 0.7), y both (0.4, 0.8), z only one: left out.
    accuracy = [0.5, 0.7, 0.4, 0.8, 0.1, 0.9]
    lengths, counts = [16, 64, 16, 64, 16, 64], [128, 32, 128, 32, 128, 128]
    methods = ["x", "x", "y", "y", "z", "z"]
    (group,) = compare_at_equal_tokens(accuracy, lengths, counts, methods)
    assert (group.tokens, group.blocks, group.interval) == (2048, ("x", "y"), None)
    assert [(one.taylor_seq_len, one.taylor_num_samples) for one in group.settings] == [(16, 128), (64, 32)]
    assert [one.mean for one in group.settings] == pytest.approx([0.45, 0.75])
    assert group.difference == pytest.approx(0.3)
    # Draws that shift all experiments equally do not change the difference.
    draws = np.array(accuracy) + np.linspace(-0.05, 0.05, 101)[:, None]
    (drawn,) = compare_at_equal_tokens(accuracy, lengths, counts, methods, draws)
    assert drawn.interval == pytest.approx((0.3, 0.3))
    assert drawn.settings[0].interval == pytest.approx((0.4025, 0.4975))


def test_no_settings_at_equal_tokens() -> None:
    assert compare_at_equal_tokens([0.5, 0.6], [16, None], [128, None], ["x", "magnitude"]) == []
    assert compare_at_equal_tokens([0.5, 0.6], [16, 64], [128, 32], ["x", "y"]) == []
    with pytest.raises(UserError, match="16 tokens x 128 sequences: given twice"):
        compare_at_equal_tokens([0.5, 0.6], [16, 16], [128, 128], ["x", "x"])

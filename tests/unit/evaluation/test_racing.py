"""Racing: hand-worked decisions, brute-force allocation, and promises in simulated races."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import hypergeom

from espalier.errors import UserError
from espalier.evaluation.racing import Decision, Race, RaceRules, RaceTask, race_order, rung_sizes
from espalier.evaluation.replay import promised_experiments, race_tasks, replay
from espalier.statistics.bootstrap import bootstrap
from espalier.statistics.correctness import Correctness, TaskDocuments
from espalier.statistics.set_margin import set_margin
from espalier.statistics.validation import BoolArray

TWO = (RaceTask("a", 200, 0.5, 10.0), RaceTask("b", 400, 0.5, 40.0))
HALF = RaceRules(rungs=(0.5, 1.0))


def answers(*n_right: int, n: int) -> BoolArray:
    """Experiment i answers the first `n_right[i]` of n documents correctly."""
    return np.arange(n) < np.array(n_right)[:, None]


def test_orders_are_permutations_that_depend_on_seed_and_task_and_grow_at_random_places() -> None:
    def order_of(name: str, n_documents: int, seed: int) -> list[int]:
        return race_order(RaceTask(name, n_documents, 1.0, 1.0), seed).tolist()

    order = order_of("piqa", 500, 3)
    assert sorted(order) == list(range(500))
    assert order != order_of("piqa", 500, 4)
    assert order != order_of("boolq", 500, 3)
    more = order_of("piqa", 700, 3)
    assert [number for number in more if number < 500] == order
    assert order_of("t", 5, 0) == [1, 3, 4, 2, 0]


def group_of(*sizes: int, weight: float = 1.0) -> RaceTask:
    strata = tuple((f"s{number}", n) for number, n in enumerate(sizes))
    return RaceTask("group", sum(sizes), weight, 10.0, strata)


@pytest.mark.parametrize("sizes", [(100, 1534, 265, 112), (7,), (1, 1000), (40, 40, 40)])
def test_a_group_takes_documents_from_all_its_tasks_in_proportion(sizes: tuple[int, ...]) -> None:
    task = group_of(*sizes)
    for seed in range(20):
        order = race_order(task, seed)
        assert sorted(order.tolist()) == list(range(sum(sizes)))
        member = np.repeat(np.arange(len(sizes)), sizes)[order]
        # (place, stratum): documents of the stratum up to the place, against its share.
        taken = np.cumsum(member[:, None] == np.arange(len(sizes))[None], axis=0)
        share = np.arange(1, len(order) + 1)[:, None] * np.array(sizes) / sum(sizes)
        assert np.abs(taken - share).max() <= len(sizes)
        assert (taken[task.min_documents - 1] >= 1).all()


def test_the_first_rung_of_a_group_reaches_its_smallest_task() -> None:
    """The first of 5 documents comes within 200 / 5 places, and one more for each of three tasks."""
    assert group_of(5, 100, 95).min_documents == 43


def test_the_order_of_a_group_favours_no_document() -> None:
    task = group_of(5, 20)
    first = np.array([race_order(task, seed)[:10] for seed in range(4000)])
    counts = np.bincount(first.ravel(), minlength=25) / 4000
    np.testing.assert_allclose(counts, 0.4, atol=5 * np.sqrt(0.4 * 0.6 / 4000))


def test_the_tasks_of_a_group_have_orders_of_their_own() -> None:
    task = group_of(40, 40, 40)
    first = [int(race_order(task, seed)[0]) // 40 for seed in range(200)]
    assert np.bincount(first, minlength=3).min() > 40  # of about 67
    order = race_order(task, 0)
    own = [(order[order // 40 == number] % 40).tolist() for number in range(3)]
    assert own[0] != own[1] != own[2] != own[0]


def test_strata_change_only_the_hash_of_a_race_that_has_a_group() -> None:
    # The hash of a race without groups, before groups could be raced.
    before = "ea0560523aa0d538"
    assert Race(["a", "b"], TWO, RaceRules()).fingerprint[:16] == before
    plain, split = RaceTask("group", 60, 1.0, 10.0), group_of(30, 30)
    assert Race(["a", "b"], [plain], RaceRules()).fingerprint != Race(["a", "b"], [split], RaceRules()).fingerprint


def test_sizes_by_hand() -> None:
    # All documents cost 200 * 10 + 400 * 40 = 18,000 tokens, half is 9,000. n_a : n_b = 1/sqrt(10) : 1/sqrt(40) = 2.
    # At n_b = 100, n_a = 200 is complete: 2,000 + 4,000. The other 3,000 buy 75 documents of b.
    assert rung_sizes(TWO, HALF).tolist() == [[200, 175], [200, 400]]
    # 2% is 360 tokens, less than 30 documents of each (1,500), so the first rung has 30 of each. 1,800 tokens at 10%:
    # 2 n : n would be 60 : 30 and cost 1,800.
    rules = RaceRules(rungs=(0.02, 0.1, 1.0))
    assert rung_sizes(TWO, rules).tolist() == [[30, 30], [60, 30], [200, 400]]


def test_rungs_that_add_nothing_are_left_out() -> None:
    assert rung_sizes(TWO, RaceRules(rungs=(0.01, 0.02, 0.03, 1.0))).tolist() == [[30, 30], [200, 400]]
    small = (RaceTask("a", 20, 1.0, 5.0),)
    assert rung_sizes(small, RaceRules()).tolist() == [[20]]
    assert Race(["x", "y"], small, RaceRules()).n_rungs == 1


def test_no_allocation_of_the_same_cost_has_a_smaller_variance() -> None:
    tasks = (RaceTask("a", 60, 0.2, 4.0), RaceTask("b", 90, 0.5, 9.0), RaceTask("c", 50, 0.3, 1.0))
    rules = RaceRules(rungs=(0.6, 1.0))
    n = rung_sizes(tasks, rules)[0]

    def variance(sizes: tuple[int, ...]) -> float:
        return sum(t.weight**2 / k for t, k in zip(tasks, sizes, strict=True))

    budget = 0.6 * sum(t.n_documents * t.tokens for t in tasks)
    possible = itertools.product(*(range(30, t.n_documents + 1) for t in tasks))
    best = min(variance(s) for s in possible if sum(k * t.tokens for t, k in zip(tasks, s, strict=True)) <= budget)
    assert variance(tuple(n.tolist())) <= best * 1.01  # whole documents: the last few tokens may stay unused


def test_comparisons_take_a_first_rung_that_bounds_the_intervals() -> None:
    def half_width(n: list[int]) -> float:  # the variance of an answer is at most 1/4
        return 1.96 * float(np.sqrt(sum(0.25 / 4 / k for k in n)))

    sizes = rung_sizes(TWO, RaceRules("comparisons", rungs=(0.02, 0.9, 1.0), half_width=0.07))
    first = sizes[0].tolist()
    assert first[0] > 30 < first[1]
    assert half_width(first) <= 0.07 < half_width([first[0] - 1, first[1] - 1])
    assert sizes[1:].tolist() == [[200, 355], [200, 400]]
    # All documents give 0.0424: a narrower interval takes all of them at once.
    assert half_width([200, 400]) > 0.04
    assert rung_sizes(TWO, RaceRules("comparisons", half_width=0.04)).tolist() == [[200, 400]]


def test_the_interval_of_the_reports_is_as_narrow_as_the_first_rung_promises() -> None:
    sizes = rung_sizes(TWO, RaceRules("comparisons", half_width=0.07))[0]
    rng = np.random.default_rng(0)
    tasks = (TaskDocuments(task.name, 0.5, rng.random((3, n)) < 0.5) for task, n in zip(TWO, sizes, strict=True))
    ends = bootstrap(Correctness(("x", "y", "z"), tuple(tasks), "f"), seed=0, n_draws=4_000).intervals()
    assert ((ends[:, 1] - ends[:, 0]) / 2).tolist() == pytest.approx([0.07] * 3, abs=0.003)


def test_a_decision_by_hand() -> None:
    # Task a is complete, so it has no error. x and y differ on 30 of 175 documents of b, and on 20 of 200 of a.
    race = Race(["x", "y"], TWO, HALF)
    decision = race.advance([answers(120, 100, n=200), answers(100, 70, n=175)])
    lead = 0.5 * 20 / 200 + 0.5 * 30 / 175
    p = 30 / 175
    variance = 0.25 * (1 / 175 - 1 / 400) * (p * (1 - p) * 175 / 174 + 1 / 175)
    assert race.z == pytest.approx(2.3263, abs=1e-4)  # 0.01 for one decision and one comparison
    assert lead > 2.33 * variance**0.5
    assert decision.stopped == {"y": {"by": "x", "lead": pytest.approx(lead), "stderr": pytest.approx(variance**0.5)}}
    assert decision.live == race.live == ("x",)
    assert decision.accuracy == {"x": pytest.approx(0.3 + 100 / 350), "y": pytest.approx(0.25 + 0.2)}
    assert decision.n_documents == {"a": 200, "b": 175}
    last = race.advance([answers(0, n=0), answers(100, n=225)])
    assert last.stopped == {}
    assert last.accuracy == {"x": pytest.approx(0.3 + 200 / 800)}


def test_a_lead_within_the_errors_stops_nobody() -> None:
    race = Race(["x", "y"], TWO, HALF)
    # On b they disagree on 20 documents in both directions; the lead of 2 documents is well within the error.
    b = answers(100, 98, n=175)
    b[0, 150:160], b[1, 160:170] = True, True
    assert race.advance([answers(100, 100, n=200), b]).stopped == {}


def test_experiments_that_always_agreed_may_still_differ() -> None:
    """No disagreement yet is not a standard error of 0: one document ahead stops nobody."""
    tasks = (RaceTask("a", 1000, 1.0, 1.0),)
    race = Race(["x", "y"], tasks, RaceRules(rungs=(0.1, 1.0)))
    assert race.advance([answers(51, 50, n=100)]).stopped == {}


def test_the_rule_at_its_boundary() -> None:
    """Task a is complete, so it counts neither in the standard error nor in the step. The weights differ."""
    tasks = (RaceTask("a", 50, 0.8, 100.0), RaceTask("b", 4000, 0.2, 1.0))
    rules = RaceRules(rungs=(0.6, 1.0))
    n = int(rung_sizes(tasks, rules)[0, 1])
    assert rung_sizes(tasks, rules)[0].tolist() == [50, n]
    assert n < 4000
    seen = set()
    for ahead in range(30):  # x is ahead by `ahead` documents of b; both answer another 40 alone
        b = np.zeros((2, n), dtype=bool)
        b[0, : 40 + ahead], b[1, 200:240] = True, True
        race = Race(["x", "y"], tasks, rules)
        difference = b[0].astype(float) - b[1]
        lead, variance = 0.2 * difference.mean(), 0.04 * (1 / n - 1 / 4000) * (difference.var(ddof=1) + 1 / n)
        is_stopped = race.advance([answers(20, 20, n=50), b]).live == ("x",)
        assert is_stopped == (lead > race.z * variance**0.5 + race.z**2 / 3 * 0.2 / n)
        seen.add(is_stopped)
    assert seen == {True, False}


def test_the_step_is_that_of_the_document_that_counts_most() -> None:
    tasks = (RaceTask("a", 1000, 0.8, 1.0), RaceTask("b", 1000, 0.2, 25.0))
    rules, seen = RaceRules(rungs=(0.05, 1.0)), set()
    n = rung_sizes(tasks, rules)[0].tolist()
    assert n == [550, 30]
    for ahead in range(60):
        race = Race(["x", "y"], tasks, rules)
        given = [answers(50 + ahead, 50, n=n[0]), answers(9, 9, n=n[1])]
        variance = 0.04 * (1 / n[1] - 1 / 1000) / n[1]
        difference = given[0][0].astype(float) - given[0][1]
        variance += 0.64 * (1 / n[0] - 1 / 1000) * (difference.var(ddof=1) + 1 / n[0])
        is_stopped = race.advance(given).live == ("x",)
        assert is_stopped == (0.8 * ahead / n[0] > race.z * variance**0.5 + race.z**2 / 3 * 0.2 / n[1])
        seen.add(is_stopped)
    assert seen == {True, False}


def probability_of_a_stop(first: RaceTask, second: RaceTask, only_best: int, rules: RaceRules) -> float:
    """Exact probability that the better of two experiments is stopped.

    Of the first task, which is complete, it answers one document less. Of the second it answers `only_best` more.
    """
    assert only_best / second.n_documents * second.weight > first.weight / first.n_documents
    n = rung_sizes([first, second], rules)[0]
    assert n[0] == first.n_documents
    total = 0.0
    for sampled in range(min(only_best, n[1]) + 1):
        race = Race(["best", "other"], [first, second], rules)
        decision = race.advance([answers(10, 11, n=n[0]), answers(sampled, 0, n=n[1])])
        if "best" in decision.stopped:
            total += float(hypergeom(second.n_documents, only_best, n[1]).pmf(sampled))
    return total


def test_the_promise_holds_if_the_best_is_ahead_on_few_documents() -> None:
    """A sample without these documents shows neither its lead nor the variance of its lead."""
    first, second = RaceTask("a", 66, 0.5, 1.0), RaceTask("b", 2000, 0.5, 1.0)
    worst = max(
        probability_of_a_stop(first, second, only_best, RaceRules(rungs=(share, 1.0)))
        for only_best in (31, 35, 45, 60, 100)
        for share in (0.08, 0.13, 0.3, 0.6)
    )
    assert worst <= 0.01


def test_a_rung_that_leaves_a_few_documents_stops_nobody_who_can_win_on_them() -> None:
    # The best answers a document alone, and the other one of the first task. With 10 documents left, the first is
    # among them in 2.5% of the orders.
    first, second = RaceTask("a", 450, 0.5, 0.1), RaceTask("b", 400, 0.5, 1.0)
    rules = RaceRules(rungs=(0.978, 1.0))
    assert rung_sizes([first, second], rules)[0].tolist() == [450, 390]
    assert probability_of_a_stop(first, second, 1, rules) <= 0.01


def test_equal_answers_stop_nobody() -> None:
    names = [f"e{i}" for i in range(20)]
    for keep in ("best", "set"):
        race = Race(names, TWO, RaceRules(keep, rungs=(0.1, 0.5, 0.9, 1.0)))  # type: ignore[arg-type]
        for rung in range(1, race.n_rungs + 1):
            sizes = [place.stop - place.start for place in (race.documents(0, rung), race.documents(1, rung))]
            assert race.advance([np.ones((20, n), dtype=bool) for n in sizes]).stopped == {}
        assert race.live == tuple(names)


def test_a_recorded_decision_is_final() -> None:
    """By the rule y is stopped. A record in which z was stopped instead is followed."""
    tasks, names = (RaceTask("a", 1000, 1.0, 1.0),), ("x", "y", "z")
    rules, given = RaceRules(rungs=(0.1, 0.5, 1.0)), [answers(90, 10, 90, n=100)]
    decided = Race(names, tasks, rules).advance(given)
    assert decided.live == ("x", "z")
    race = Race(names, tasks, rules)
    race.follow(given, replace(decided, stopped={"z": decided.stopped["y"]}))
    assert (race.live, race.rung) == (("x", "y"), 1)
    after = race.advance([answers(360, 40, n=400)])
    assert after.accuracy == {"x": pytest.approx(0.9), "y": pytest.approx(0.1)}
    assert after.live == ("x",)


def test_the_correction_counts_decisions_and_all_experiments() -> None:
    names = [f"e{i}" for i in range(45)]
    tasks = (RaceTask("a", 10_000, 1.0, 1.0),)
    best, whole = (Race(names, tasks, RaceRules(keep=keep)).z for keep in ("best", "set"))
    assert best == pytest.approx(3.914, abs=1e-3)  # normal quantile at 0.01 / (5 * 44)
    assert whole == pytest.approx(4.751, abs=1e-3)  # at 0.01 / (5 * 44 * 45)
    # After 35 experiments have been stopped, at most 10 can be members: at 0.01 / (5 * 44 * 10).
    assert Race(names, tasks, RaceRules("set"))._critical(10) == pytest.approx(4.438, abs=1e-3)
    assert Race(names, tasks, RaceRules())._critical(10) == pytest.approx(best)
    with_control = Race([*names, "random"], tasks, RaceRules(), controls=["random"])
    assert with_control.z == pytest.approx(best)


def test_without_confidence_everything_behind_is_stopped_and_the_leader_goes_on() -> None:
    race = Race(["x", "y"], TWO, RaceRules(confidence=0.01, rungs=(0.5, 1.0)))
    assert race.z == 0
    race.advance([answers(100, 101, n=200), answers(90, 90, n=175)])
    assert race.live == ("y",)


@pytest.mark.parametrize("controls", [(), ("z",)])
def test_a_set_corrects_for_the_experiments_that_may_still_be_members(controls: tuple[str, ...]) -> None:
    """Z is far behind and stopped first. Then at most 2 of 3 experiments are members. A control never is one."""
    tasks = (RaceTask("a", 100_000, 1.0, 1.0),)
    n, seen = 1000, set()
    for n_second in range(600, 560, -1):
        race = Race(["x", "y", "z"], tasks, RaceRules("set", rungs=(0.01, 1.0)), controls=controls)
        decision = race.advance([answers(600, n_second, 10, n=n)])
        p = (600 - n_second) / n
        stderr = ((1 / n - 1 / 100_000) * (p * (1 - p) * n / (n - 1) + 1 / n)) ** 0.5
        z = race._critical(2)
        assert ("y" in decision.stopped) == (p - decision.margin > z * stderr + z**2 / 3 / n)
        assert "z" in decision.stopped
        seen.add("y" in decision.stopped)
    assert seen == {True, False}
    assert race._critical(1) < race._critical(2) <= race.z == race._critical(2 if controls else 3)


def test_a_later_rung_uses_the_answers_of_all_rungs() -> None:
    """The standard error after two rungs, from all answers at once."""
    rng = np.random.default_rng(5)
    right = rng.random((2, 900)) < np.array([[0.8], [0.6]])
    tasks = (RaceTask("a", 1000, 1.0, 1.0),)
    race = Race(["x", "y"], tasks, RaceRules(confidence=0.9999999999, rungs=(0.1, 0.9, 1.0)))
    assert race.advance([right[:, :100]]).stopped == {}
    found = race.advance([right[:, 100:]]).stopped["y"]
    difference = right[0].astype(float) - right[1]
    assert found["lead"] == pytest.approx(difference.mean())
    variance = (1 / 900 - 1 / 1000) * (difference.var(ddof=1) + 1 / 900)
    assert found["stderr"] == pytest.approx(variance**0.5)


def test_nobody_is_stopped_after_the_last_rung() -> None:
    race = Race(["x", "y"], (RaceTask("a", 100, 1.0, 1.0),), RaceRules(rungs=(0.99, 1.0)))
    race.advance([answers(50, 50, n=99)])
    last = race.advance([np.array([[True], [False]])])
    assert (last.stopped, last.live) == ({}, ("x", "y"))


def test_a_control_is_stopped_but_stops_nobody() -> None:
    tasks = (RaceTask("a", 1000, 1.0, 1.0),)
    far = [answers(250, 100, n=300)]
    rules = RaceRules(rungs=(0.3, 1.0))
    assert list(Race(["x", "y"], tasks, rules, controls=["y"]).advance(far).stopped) == ["y"]
    assert list(Race(["x", "y"], tasks, rules, controls=["x"]).advance(far).stopped) == []


def test_the_margin_of_a_set_is_that_of_the_full_grid() -> None:
    """Equal experiments with independent answers: the range of k normal errors with known standard deviation."""
    rng = np.random.default_rng(0)
    tasks = (RaceTask("a", 20_000, 1.0, 1.0),)
    race = Race([f"e{i}" for i in range(10)], tasks, RaceRules("set", rungs=(0.5, 1.0)))
    margin = race.advance([rng.random((10, 10_000)) < 0.7]).margin
    exact = 4.474 * (0.21 / 20_000) ** 0.5  # 95% point of the range of 10 standard normal values (tables of Tukey's q)
    assert exact < margin < 1.06 * exact
    names = list("xyz")
    assert Race(names, tasks, RaceRules(rungs=(0.5, 1.0))).advance([rng.random((3, 10_000)) < 0.7]).margin == 0


def margin_of(task: RaceTask, rules: RaceRules, right: Sequence[BoolArray]) -> float:
    return Race([f"e{i}" for i in range(len(right))], [task], rules).advance([np.array(right)]).margin


def test_a_set_has_a_margin_before_experiments_have_disagreed() -> None:
    rules, task = RaceRules("set", rungs=(0.1, 1.0)), RaceTask("a", 1000, 1.0, 1.0)
    same = np.arange(100) < 60
    # As if they had disagreed on one of 100 documents, V (half the squared difference) is 0.005, and the margin that
    # of a difference of variance 2 V / 1000. The standard error of V has 100 documents without and one with 1/2.
    error = (np.append(np.zeros(100), 0.5).var(ddof=1) * (1 / 100 - 1 / 1000)) ** 0.5
    expected = 1.96 * (2 * 0.005 / 1000) ** 0.5 * (1 + 4 * error / (2 * 0.005))
    assert margin_of(task, rules, [same, same]) == pytest.approx(expected, rel=0.05)
    # The quantile is the same for any number of documents; the standard error of V has the finite-population factor.
    scaled = [set_margin(np.ones(1), np.array([n]), [np.array([same, same])]) * n**0.5 for n in (1000, 10**12)]
    relative = 4 * np.append(np.zeros(100), 0.5).std(ddof=1) / 10 / (2 * 0.005)
    assert scaled[0] / scaled[1] == pytest.approx((1 + relative * 0.9**0.5) / (1 + relative), rel=1e-6)
    # A task of one document is complete, and shows no variation.
    assert margin_of(RaceTask("a", 1, 1.0, 1.0), rules, [same[:1], same[:1]]) == 0


def test_a_control_does_not_enter_the_margin() -> None:
    rng = np.random.default_rng(2)
    right, rules = rng.random((3, 100)) < 0.5, RaceRules("set", rungs=(0.1, 1.0))
    task = RaceTask("a", 1000, 1.0, 1.0)
    with_control = Race(["x", "y", "random"], [task], rules, controls=["random"]).advance([right])
    assert with_control.margin == Race(["x", "y"], [task], rules).advance([right[:2]]).margin > 0


def test_a_margin_from_all_documents_is_the_critical_value_itself() -> None:
    rng = np.random.default_rng(1)
    right = rng.random((2, 400)) < 0.5
    difference = right[0].astype(float) - right[1]
    expected = 1.96 * (difference.var(ddof=1) / 400) ** 0.5
    assert set_margin(np.ones(1), np.array([400]), [right]) == pytest.approx(expected, rel=0.05)
    assert set_margin(np.ones(1), np.array([4000]), [right]) > 1.05 * expected / 10**0.5


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"confidence": 0.0}, r"confidence 0\.0 of a race: give a number between 0 and 1"),
        ({"confidence": 1.0}, r"confidence 1\.0 of a race: give a number between 0 and 1"),
        ({"rungs": (0.1, 0.1, 1.0)}, r"rungs of a race: got 0\.1, 0\.1, 1\.0; each rung must be larger"),
        (
            {"rungs": (0.0, 1.0)},
            r"rungs of a race: got 0\.0, 1\.0; each rung must be larger than the one before, and above",
        ),
        ({"rungs": (0.1, 0.5)}, r"rungs of a race: got 0\.1, 0\.5; the last rung must be 1"),
        ({"rungs": (0.1, 1.5)}, r"rungs of a race: got 0\.1, 1\.5; the last rung must be 1"),
        ({"rungs": ()}, "rungs of a race: got none; the last rung must be 1"),
        ({"half_width": 0.1}, "needs a half-width for its first rung if it keeps comparisons, and only then"),
        ({"keep": "comparisons"}, "needs a half-width"),
        ({"keep": "comparisons", "half_width": 0.0}, r"half-width 0\.0 of a race"),
        ({"keep": "comparisons", "half_width": 1.0}, r"half-width 1\.0 of a race"),
    ],
)
def test_wrong_rules_are_refused(rules: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RaceRules(**rules)  # type: ignore[arg-type]


def test_wrong_tasks_experiments_and_answers_are_refused() -> None:
    with pytest.raises(UserError, match="task a of a race has no documents or no tokens"):
        rung_sizes([RaceTask("a", 0, 1.0, 1.0)], RaceRules())
    with pytest.raises(UserError, match="task a of a race has no documents or no tokens"):
        rung_sizes([RaceTask("a", 10, 1.0, 0.0)], RaceRules())
    with pytest.raises(UserError, match="task s1 of a race has no documents"):
        rung_sizes([group_of(40, 0)], RaceRules())
    assert rung_sizes([RaceTask("a", 1, 1.0, 1.0)], RaceRules()).tolist() == [[1]]
    with pytest.raises(UserError, match="a race needs at least one task"):
        rung_sizes([], RaceRules())
    with pytest.raises(UserError, match="at least one experiment, and each only once"):
        Race(["x", "x"], TWO, HALF)
    with pytest.raises(
        UserError, match="rung 1 of a race needs 175 documents of task b from 2 experiments, and got 174"
    ):
        Race(["x", "y"], TWO, HALF).advance([answers(1, 2, n=200), answers(1, 2, n=174)])


def test_a_decision_of_another_race_is_refused() -> None:
    race = Race(["x", "y"], TWO, HALF)
    content = race.advance([answers(120, 100, n=200), answers(100, 70, n=175)]).to_dict()
    assert Decision.from_dict(content, Race(["x", "y"], TWO, HALF)).live == ("x",)
    others = (
        Race(["x", "y"], TWO, HALF, seed=1),
        Race(["x", "y", "z"], TWO, HALF),
        Race(["x", "y"], TWO, replace(HALF, confidence=0.9)),
        Race(["x", "y"], (TWO[0], replace(TWO[1], n_documents=401)), HALF),
    )
    for other in others:
        with pytest.raises(UserError, match="after rung 1 was made for another order of documents, other rules or"):
            Decision.from_dict(content, other)


def study(advantage: float, n_experiments: int, seed: int) -> Correctness:
    """Experiment 0 is better by `advantage`; the answers of experiments to a document are alike."""
    generator = np.random.default_rng(seed)
    tasks = []
    for name, n in (("a", 400), ("b", 1600)):
        easy = generator.random(n) * 0.9
        chance = np.repeat(easy[None], n_experiments, axis=0)
        chance[0] += advantage
        tasks.append(TaskDocuments(name, 0.5, generator.random(chance.shape) < chance))
    return Correctness(tuple(f"e{i}" for i in range(n_experiments)), tuple(tasks), "simulated")


@pytest.mark.parametrize(("advantage", "keep", "most"), [(0.0, "best", 1.0), (0.1, "best", 0.5), (0.1, "set", 0.7)])
def test_simulated_races_keep_their_promise(advantage: float, keep: str, most: float) -> None:
    """150 studies with 8 experiments; `most` is the mean cost that they may have. Four failures are unlikely at 1%."""
    rules, failed, costs = RaceRules(keep, rungs=(0.1, 0.2, 0.4, 1.0)), 0, []  # type: ignore[arg-type]
    for seed in range(150):
        documents = study(advantage, 8, seed)
        tasks = race_tasks(documents, {"a": 20.0, "b": 60.0})
        best = int(documents.acc_mean.argmax())
        if keep == "set":
            accuracy = documents.acc_mean
            # Errors that all share cancel in a range, so only what is left of the variance counts. Tukey's q is 4.286.
            own = [np.cov(t.correct) for t in documents.tasks]
            own = [(c.diagonal().mean() - c[~np.eye(8, dtype=bool)].mean()) for c in own]
            variance = sum(t.weight**2 * v / t.n_documents for t, v in zip(documents.tasks, own, strict=True))
            promised = [f"e{i}" for i in np.flatnonzero(accuracy.max() - accuracy <= 4.286 * variance**0.5)]
        else:
            promised = [f"e{best}"]
        found = replay(documents, tasks, rules, promised=promised, n_orders=1, first_seed=seed)
        failed += 1 - found.kept
        costs.append(found.cost[0])
    assert failed <= 3
    assert np.mean(costs) < most


def grouped_study(advantage: float, n_experiments: int, seed: int) -> Correctness:
    """A task, and a group whose tasks differ in size, in difficulty and in what experiments lose on them."""
    generator = np.random.default_rng(seed)
    sizes = {"a": 600, "g0": 60, "g1": 90, "g2": 150, "g3": 400, "g4": 500}
    tasks = []
    for name, n in sizes.items():
        weight, group = (0.5, None) if name == "a" else (0.5 * n / 1200, "g")
        chance = generator.uniform(0.3, 0.8) * generator.uniform(0.5, 1.5, n) + generator.normal(
            0, 0.05, (n_experiments, 1)
        )
        chance[0] += advantage
        correct = generator.random(chance.shape) < chance
        tasks.append(TaskDocuments(name, weight, correct, group))
    return Correctness(tuple(f"e{i}" for i in range(n_experiments)), tuple(tasks), "simulated")


@pytest.mark.parametrize(("advantage", "most"), [(0.0, 1.0), (0.15, 0.45)])
def test_simulated_races_with_a_group_keep_their_promise(advantage: float, most: float) -> None:
    failed, costs = 0, []
    for seed in range(150):
        documents = grouped_study(advantage, 8, seed).with_whole_groups()
        assert [task.task for task in documents.tasks] == ["a", "g"]
        tasks = race_tasks(documents, {"a": 20.0} | {f"g{i}": 10.0 * i + 20 for i in range(5)})
        assert tasks[1].tokens == pytest.approx((60 * 20 + 90 * 30 + 150 * 40 + 400 * 50 + 500 * 60) / 1200)
        best = documents.experiments[int(documents.acc_mean.argmax())]
        found = replay(documents, tasks, RaceRules(), promised=[best], n_orders=1, first_seed=seed)
        failed += 1 - found.kept
        costs.append(found.cost[0])
    assert failed <= 3
    assert np.mean(costs) < most


def test_a_race_with_too_little_confidence_breaks_its_promise() -> None:
    """The simulation can fail: with a confidence of 5%, equal experiments lose their best in many studies."""
    rules, kept = RaceRules(confidence=0.05, rungs=(0.1, 0.2, 0.4, 1.0)), 0
    for seed in range(60):
        documents = study(0.0, 8, seed)
        best = documents.experiments[int(documents.acc_mean.argmax())]
        tasks = race_tasks(documents, {"a": 20.0, "b": 60.0})
        kept += replay(documents, tasks, rules, promised=[best], n_orders=1, first_seed=seed).kept
    assert kept <= 56  # Four failures are unlikely at 1%


def test_a_replay_counts_orders_costs_and_kept_promises() -> None:
    # x is right everywhere and y nowhere, so y stops after the first rung in every order.
    right = {"a": np.array([[True] * 200, [False] * 200]), "b": np.array([[True] * 400, [False] * 400])}
    documents = Correctness(("x", "y"), tuple(TaskDocuments(t, 0.5, one) for t, one in right.items()), "f")
    tasks = race_tasks(documents, {"a": 10.0, "b": 40.0})
    assert tuple(tasks) == TWO
    assert promised_experiments(documents, HALF, ["x", "y"]) == ("x",)
    assert promised_experiments(documents, RaceRules("set"), ["x", "y"]) == ("x",)
    found = replay(documents, tasks, HALF, promised=["x"], n_orders=7)
    assert found.n_orders == found.kept == 7
    assert found.rungs.tolist() == [375, 600]
    assert found.live.tolist() == [[2, 1]] * 7
    assert found.cost == pytest.approx([(2 * 9_000 + 9_000) / 36_000] * 7)
    assert replay(documents, tasks, HALF, promised=["x", "y"], n_orders=3).kept == 0

"""Which documents an experiment answered correctly."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.errors import UserError
from espalier.statistics.correctness import Correctness, check_means, correctness
from tests.unit.statistics.studies import samples

# Choice 1 is right. -4 / 2 = -2 and -5 / 5 = -1 per character: acc takes choice 0 (wrong), acc_norm choice 1 (right).
LONGER_IS_RIGHT = ("a", 0, 1, [-4, -5], [2, 5])
# The same per character, -2 and -2, so the first is taken (wrong); by sums, -4 > -6, too.
TIE_PER_CHARACTER = ("a", 1, 1, [-4, -6], [2, 3])
RIGHT = ("b", 7, 0, [-1, -2, -3], [1, 1, 1])
TIE_OF_SUMS = ("b", 9, 2, [-3, -2, -2], [1, 1, 1])  # choice 1 comes first: wrong


def of(*frames: pd.DataFrame, norm: tuple[str, ...] = (), groups: dict[str, str] | None = None) -> Correctness:
    return correctness(((f"x{k}", frame) for k, frame in enumerate(frames)), acc_norm_tasks=norm, groups=groups)


def test_accuracy_by_hand() -> None:
    frame = samples([LONGER_IS_RIGHT, TIE_PER_CHARACTER, RIGHT, TIE_OF_SUMS])
    by_sum, by_length = of(frame), of(frame, norm=("a",))
    assert [task.correct.tolist() for task in by_sum.tasks] == [[[False, False]], [[True, False]]]
    assert [task.correct.tolist() for task in by_length.tasks] == [[[True, False]], [[True, False]]]
    # Tasks a and b: (1/2 + 1/2) / 2; without acc_norm (0 + 1/2) / 2.
    assert by_length.acc_mean.tolist() == [0.5]
    assert by_sum.acc_mean.tolist() == [0.25]
    # One of two right: sqrt(0.5 * 0.5 / (2 - 1)) = 0.5.
    assert by_length.tasks[0].stderr == pytest.approx([0.5])


def test_acc_norm_is_only_for_the_tasks_that_have_it() -> None:
    both = [LONGER_IS_RIGHT, ("b", *LONGER_IS_RIGHT[1:])]
    assert [task.accuracy[0] for task in of(samples(both), norm=("b",)).tasks] == [0, 1]


def test_several_right_choices_and_none() -> None:
    frame = samples([("a", 0, 0, [-2, -1], [1, 1]), ("a", 1, 9, [-2, -1], [1, 1])])
    assert of(frame).acc_mean.tolist() == [0]
    frame.loc[1, "gold"] = True  # now both choices of document 0 are right; document 1 has no right one
    assert of(frame).acc_mean.tolist() == [0.5]


def test_an_empty_choice_counts_as_in_lm_eval() -> None:
    # numpy: -1 / 0 = -inf, which is never the largest.
    assert of(samples([("a", 0, 1, [-1, -2], [0, 1])]), norm=("a",)).acc_mean.tolist() == [1]


def test_an_impossible_choice_is_never_beaten_by_a_missing_one() -> None:
    # Document 1 has two choices, both impossible. The first is taken, not the padding in place of a third.
    frame = samples([RIGHT, ("b", 1, 0, [-np.inf, -np.inf], [1, 1])])
    assert of(frame).acc_mean.tolist() == [1]


def test_members_of_a_group_count_by_their_documents() -> None:
    # Task a: 0 of 2 right, b: 1 of 2, c: 1 of 1. Group g = (b, c): 2 of 3. Mean of a and g = 1/3.
    frame = samples([LONGER_IS_RIGHT, TIE_PER_CHARACTER, RIGHT, TIE_OF_SUMS, ("c", 0, 0, [-1, -2], [1, 1])])
    grouped = of(frame, groups={"b": "g", "c": "g"})
    assert grouped.acc_mean == pytest.approx([1 / 3])
    assert [task.weight for task in grouped.tasks] == pytest.approx([1 / 2, 1 / 3, 1 / 6])


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_rows_may_come_in_any_order(random: object) -> None:
    frame = samples([LONGER_IS_RIGHT, TIE_PER_CHARACTER, RIGHT, TIE_OF_SUMS])
    order = list(range(len(frame)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = of(frame, frame.iloc[order], norm=("a",))
    assert shuffled.acc_mean.tolist() == [0.5, 0.5]
    assert (shuffled.tasks[0].correct[0] == shuffled.tasks[0].correct[1]).all()


def test_different_documents_are_refused() -> None:
    frame = samples([LONGER_IS_RIGHT, TIE_PER_CHARACTER, RIGHT])
    with pytest.raises(UserError, match=r"x0 and x1 .* different documents \(first difference: task a, document 1\)"):
        of(frame, samples([LONGER_IS_RIGHT, ("a", 2, *TIE_PER_CHARACTER[2:]), RIGHT]))
    with pytest.raises(UserError, match=r"different documents \(first difference: task b, document 7\)"):
        of(frame, samples([LONGER_IS_RIGHT, TIE_PER_CHARACTER, RIGHT, TIE_OF_SUMS]).iloc[:-4])
    with pytest.raises(UserError, match=r"different documents .* document 9"):
        of(frame, samples([LONGER_IS_RIGHT, TIE_PER_CHARACTER, RIGHT, TIE_OF_SUMS]))
    with pytest.raises(UserError, match="different tasks: x1 has no b"):
        of(frame, samples([LONGER_IS_RIGHT, TIE_PER_CHARACTER]))
    other_answer = frame.assign(gold=~frame["gold"])
    with pytest.raises(UserError, match="different documents"):
        of(frame, other_answer)


def test_unusable_tables_are_refused() -> None:
    frame = samples([RIGHT])
    with pytest.raises(UserError, match="no column gold"):
        of(frame.drop(columns="gold"))
    with pytest.raises(UserError, match="no document"):
        of(frame.iloc[:0])
    with pytest.raises(UserError, match="log-likelihood is missing"):
        of(frame.assign(loglikelihood=np.nan))
    with pytest.raises(UserError, match="not 0, 1, 2"):
        of(frame.iloc[[0, 0, 1, 2]])
    with pytest.raises(UserError, match="no experiment"):
        of()
    with pytest.raises(UserError, match="given twice"):
        correctness([("x", frame), ("x", frame)], acc_norm_tasks=())


def test_selection_and_fingerprint() -> None:
    frame = samples([RIGHT, TIE_OF_SUMS])
    wrong = frame.assign(loglikelihood=-frame["loglikelihood"] - 9)
    both = of(frame, wrong)
    assert both.acc_mean.tolist() == [0.5, 0.0]
    assert both.select(["x1"]).acc_mean.tolist() == [0.0]
    assert both.fingerprint == of(wrong).fingerprint
    assert both.fingerprint != of(samples([RIGHT])).fingerprint
    assert both.n_documents == 2
    with pytest.raises(UserError, match="x9"):
        both.select(["x9"])


def test_means_must_follow_from_the_documents() -> None:
    one = of(samples([RIGHT, TIE_OF_SUMS]))
    check_means(one, {"x0": 0.5})
    for wrong in ({"x0": 0.6}, {}, {"x0": float("nan")}):
        with pytest.raises(UserError, match=r"x0: its documents give acc_mean 0\.500000"):
            check_means(one, wrong)


def test_one_document_has_no_standard_error() -> None:
    assert of(samples([RIGHT])).tasks[0].stderr is None

"""Statements about results as data: a code with values, which a message catalogue renders in any language.

`STATISTICS_ENGLISH` is the catalogue of this package. A template may use only the values that its message carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

Value = Union[str, int, float, "Message"]


@dataclass(frozen=True)
class Message:
    """A statement about a result.

    Attributes:
        code: Key of the statement in a catalogue such as `STATISTICS_ENGLISH`.
        values: Names and numbers of the statement, at full precision. A value may be a message, such as a reason.
    """

    code: str
    values: Mapping[str, Value] = field(default_factory=dict)


def render_message(message: Message, catalogue: Mapping[str, str]) -> str:
    """Render a message, and the messages among its values, with a catalogue (code to template)."""
    values = {
        name: render_message(value, catalogue) if isinstance(value, Message) else value
        for name, value in message.values.items()
    }  # fmt: skip
    return catalogue[message.code].format(**values)


STATISTICS_ENGLISH = {
    # Reasons why a value is undefined.
    "no_values": "no experiment has {name}",
    "too_few": "only {n} of at least {needed} experiments",
    "constant": "all values of {name} are equal",
    "too_close": "the values of {name} differ by less than can be computed with",
    "no_spread": "all experiments have the same accuracy",
    "one_level": "only one value of {axis}",
    "aliased": "{axis} cannot be told apart from the other axes",
    "all_noise": "the spread is no larger than the evaluation noise",
    "axes_in_noise": "what each explains is no larger than its evaluation noise",
    "no_replicates": "each setting was run once",
    "no_interaction": "the axes leave nothing over to interact",
    "no_windows": "the losses of single windows were not kept",
    "too_few_windows": "{n} windows make fewer than {needed} blocks",
    "no_baseline": "the unpruned model has no result",
    "zero_baseline": "the value of the unpruned model is 0",
    "not_finite": "{name} is not finite",
    "no_common_settings": "no setting was run for both models",
    "zero_base": "the accuracy of the base model is 0",
    "one_seed": "only {n} calibration seed; at least 2 are needed",
    "no_setting_at_every_seed": "no setting was run with every calibration seed",
    "no_seed_variation": "the effects are the same at every calibration seed",
    # Source of the intervals.
    "from_documents": "Intervals at {level:.0%} from {n_draws:,} bootstrap draws over documents.",
    "from_counts": (
        "There are no results of single documents: intervals at {level:.0%} come from the numbers of documents, as if"
        " each experiment had answered documents of its own. Differences between experiments look less certain than"
        " they are."
    ),
    # The confidence set of the best experiment.
    "set_alone": "Only {best} is in the set: every other one ({others}) can be told from the best at {level:.0%}.",
    "set_all": (
        "None of the {total} experiments can be told from the best at {level:.0%}: {best} is not shown to be better."
    ),
    "set_some": "{members} of {total} experiments cannot be told from the best ({best}) at {level:.0%}.",
    "set_one_experiment": "There is one experiment, so there is nothing to compare.",
    "set_simultaneous": (
        "{members} of {total} must be kept so that in {level:.0%} of studies no truly best experiment is left out."
    ),
    "every_method_in_set": "Every method has an experiment in the set: which method gives the best one is open.",
    "one_method": "There is one method, so methods cannot be compared.",
    "method_in_set": "{method} cannot be told from the best: in the set are {members} of its {total} experiments.",
    "method_not_in_set": "{method} can be told from the best: none of its {total} experiments is in the set.",
    # Optimism of the best experiment's accuracy.
    "optimism_shrinkage": (
        "Picked as the best of {n}, {best} probably looks {optimism:.4f} better than it is; less that, its accuracy"
        " is {corrected:.4f}."
    ),
    "optimism_split_half": (
        "Chosen on half of the documents, the best scores {optimism:.4f} less on the other half (mean over {n_splits:,}"
        " splits, at half the documents); {best} is chosen in {share:.0%} of them."
    ),
    "optimism_undefined": "The winner's optimism is undefined: {reason}.",
    # Correlations.
    "correlation_none": "{name}: no linear relation within methods (mean r {r:.2f} over {n_methods} methods).",
    "correlation_moderate": (
        "{name}: moderate linear relation within methods (mean r {r:.2f} over {n_methods} methods)."
    ),
    "correlation_strong": "{name}: strong linear relation within methods (mean r {r:.2f} over {n_methods} methods).",
    "correlation_undefined": "{name}: no correlation within methods: {reason}.",
    "correlation_sign_differs": (
        "{name}: pooled over methods r is {pooled:.2f}, of the opposite sign: that compares methods."
    ),
    "correlation_mixed": "{name}: the sign is not the same in every method ({lowest:.2f} to {highest:.2f}).",
    # Axes of the grid.
    "axis_largest": "{axis} explains the largest share of the spread: {share:.0%}, evaluation noise subtracted.",
    "axis_none": "No axis is shown to explain any of the spread: {reason}.",
    "axis_interaction": "{share:.0%} of the spread is interaction: the effect of one axis depends on the others.",
    "axis_noise": "{share:.0%} of the observed spread is evaluation noise.",
    "axis_beyond_seeds": (
        "{axis} makes a difference beyond that between calibration seeds (F {f:.1f}, p {p:.2g}, {n_seeds} seeds)."
    ),
    "axis_within_seeds": (
        "{axis} is not shown to make a difference beyond that between calibration seeds (F {f:.1f}, p {p:.2g},"
        " {n_seeds} seeds)."
    ),
    "one_seed_only": "One calibration seed: how far the effects of the axes depend on the sample drawn is unknown.",
    # Base against Instruct.
    "kinds_differ": (
        "On the {n} settings both have, Instruct differs from Base by {difference:+.4f} ({lower:+.4f} to {upper:+.4f})."
    ),
    "kinds_not_told": (
        "On the {n} settings both have, Instruct cannot be told from Base: {difference:+.4f} ({lower:+.4f} to"
        " {upper:+.4f})."
    ),
    "kinds_undefined": "Instruct cannot be compared with Base: {reason}.",
}  # fmt: skip

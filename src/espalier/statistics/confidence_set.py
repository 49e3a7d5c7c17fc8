"""The confidence set of the best: all experiments that are statistically indistinguishable from the best experiment.

theta_i          observed accuracy of experiment i;  theta*_i: its accuracy in a joint bootstrap draw over documents
deficit_i        = max_j (theta_j - theta_i)
critical_i       = 95th percentile over draws of  max_j [(theta*_j - theta_j) - (theta*_i - theta_i)]
i is in the set  if  deficit_i <= critical_i

Justification: If experiment i is truly the best, every true difference theta_j - theta_i is at most 0. Then deficit_i
is at most the largest error of a difference, and the draws estimate the distribution of that error. A truly best
experiment is therefore kept in at least 95% of studies (exactly 95% if all experiments are equally good).

The guarantee holds for each truly best experiment separately. If many experiments are equally good, the set excludes at
least one of them in many more studies. The simultaneous set avoids this. It uses a single critical value, the 95th
percentile of max_j error_j - min_i error_i with error = theta* - theta (or a higher one). It keeps all truly best
experiments in 95% of studies. In the same studies every experiment outside is truly worse than the observed best.

This is the bootstrap form of Gupta's subset selection, without standardisation; see Mogstad, Romano, Shaikh and Wilhelm
(2024), "Inference for ranks".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from espalier.statistics.bootstrap import CONFIDENCE_LEVEL
from espalier.statistics.validation import TIE, BoolArray, FloatArray, accuracy_and_draws


@dataclass(frozen=True)
class ConfidenceSet:
    """The confidence set of the best experiment; arrays are (n_experiments,).

    Attributes:
        level: Share of studies in which a truly best experiment is kept.
        deficit: Accuracy of the best experiment minus the accuracy of each experiment.
        critical: Largest deficit of each experiment that the sampling of documents alone explains.
        members: Whether each experiment is in the set.
        simultaneous_critical: Critical value of the simultaneous set; one number for all experiments.
        simultaneous_members: Whether each experiment is in the simultaneous set, which contains all `members`.
        simultaneous_level: Share of studies in which the simultaneous set keeps all truly best experiments.
    """

    level: float
    deficit: FloatArray
    critical: FloatArray
    members: BoolArray
    simultaneous_critical: float
    simultaneous_members: BoolArray
    simultaneous_level: float = CONFIDENCE_LEVEL

    @property
    def n_members(self) -> int:
        """Number of experiments in the set."""
        return int(self.members.sum())


def confidence_set(
    accuracy: Any, draws: Any, *, level: float = CONFIDENCE_LEVEL, simultaneous_level: float | None = None
) -> ConfidenceSet:
    """Compute the confidence set of the best experiment.

    Pass candidates only: leave out the unpruned model and the controls.

    Args:
        accuracy: Observed accuracies, (n_experiments,).
        draws: Joint bootstrap draws, (n_draws, n_experiments).
        level: Share of studies in which a truly best experiment must be kept.
        simultaneous_level: The same for all truly best experiments together; None means `level`.

    Raises:
        UserError: If a value is missing or infinite, or there is no experiment.
    """
    theta, drawn = accuracy_and_draws(accuracy, draws)
    error = drawn - theta
    highest = error.max(axis=1)
    critical = np.quantile(highest[:, None] - error, level, axis=0)
    together = level if simultaneous_level is None else simultaneous_level
    simultaneous = float(np.quantile(highest - error.min(axis=1), together))
    deficit = theta.max() - theta
    members, simultaneous_members = deficit <= critical + TIE, deficit <= simultaneous + TIE
    return ConfidenceSet(level, deficit, critical, members, simultaneous, simultaneous_members, together)

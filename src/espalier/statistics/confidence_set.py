"""The experiments that cannot be told from the best.

theta_i          observed accuracy of experiment i;  theta*_i  the same in a bootstrap draw (documents drawn jointly)
deficit_i        = max_j (theta_j - theta_i)
critical_i       = 95th percentile over draws of  max_j [(theta*_j - theta_j) - (theta*_i - theta_i)]
i is in the set  if  deficit_i <= critical_i

Why: if i is truly best, every true difference theta_j - theta_i is at most 0, so deficit_i is at most the largest error
of a difference, whose distribution the draws show. A truly best experiment is therefore kept in at least 95% of
studies (exactly 95% where all are equal). The guarantee is for each truly best experiment by itself; where many are
equal, that *some* of them falls out is much more frequent. `simultaneous` answers that: its one critical value is the
95th percentile of max_j error_j - min_i error_i, so that all truly best ones stay together in 95% of studies.

Without standardisation this is the bootstrap form of Gupta's subset selection; see Mogstad, Romano, Shaikh and Wilhelm
(2024), "Inference for ranks".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from espalier.statistics.bootstrap import LEVEL
from espalier.statistics.checks import TIE, BoolArray, FloatArray, accuracy_and_draws


@dataclass(frozen=True)
class ConfidenceSet:
    """What cannot be told from the best; arrays are (n_experiments,).

    Attributes:
        level: Share of studies in which a truly best experiment is kept.
        deficit: How far each experiment lies under the best one.
        critical: Largest deficit that the choice of documents alone explains.
        members: Whether each experiment is in the set.
        simultaneous_critical: The same for all experiments at once; one number.
        simultaneous_members: Who is in the set with that critical value; contains `members`.
    """

    level: float
    deficit: FloatArray
    critical: FloatArray
    members: BoolArray
    simultaneous_critical: float
    simultaneous_members: BoolArray

    @property
    def n_members(self) -> int:
        """Experiments in the set."""
        return int(self.members.sum())


def confidence_set(accuracy: Any, draws: Any, *, level: float = LEVEL) -> ConfidenceSet:
    """Find the experiments that cannot be told from the best.

    Leave the unpruned model and controls out of the arrays: they are not candidates.

    Args:
        accuracy: Observed accuracies, (n_experiments,).
        draws: Joint bootstrap draws, (n_draws, n_experiments).
        level: Share of studies in which a truly best experiment is to be kept.

    Raises:
        UserError: If a value is missing or there is no experiment.
    """
    theta, drawn = accuracy_and_draws(accuracy, draws)
    error = drawn - theta
    highest = error.max(axis=1)
    critical = np.quantile(highest[:, None] - error, level, axis=0)
    simultaneous = float(np.quantile(highest - error.min(axis=1), level))
    deficit = theta.max() - theta
    members, together = deficit <= critical + TIE, deficit <= simultaneous + TIE
    return ConfidenceSet(level, deficit, critical, members, simultaneous, together)

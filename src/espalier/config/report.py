"""The section `report`: presentation of the results."""

from __future__ import annotations

from typing import Literal

from espalier.config.base import Fraction, Section
from espalier.config.literature import SHIPPED


class Report(Section):
    """Presentation of the results. Changes rerun tables and reports, and jobs that use the best experiment."""

    language: Literal["en", "zh"] = "en"
    """Language of the reports: English, or Chinese with the headings of the published reports."""
    ratio: Fraction | None = None
    """Headline pruning ratio; none means the largest of the grid."""
    allow_missing: bool = False
    """Whether tables and reports take what is finished and list the rest; target `partial_reports` switches it on."""
    acc_mean_rule: Literal["acc_norm_else_acc", "acc"] = "acc_norm_else_acc"
    """Which accuracy of each task enters the mean. A race ranks by it, too, so a change runs races again."""
    style: str | None = None
    """File with settings of matplotlib (`*.mplstyle`) that figures take on top of their own; none adds nothing."""
    literature: str | None = SHIPPED
    """File of published figures that the cross-model report shows beside the study's; `shipped` is
    `config/literature.yaml` of the workflow, none shows no figures."""

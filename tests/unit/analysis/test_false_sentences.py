"""At most 5% of simulated studies print a false sentence, all pages together.

`benchmarks/false_sentences.py` simulates; docs/statistics.md has its results over more studies.
"""

import pytest
from benchmarks.false_sentences import SCENARIOS, simulate

N_STUDIES = 5


@pytest.mark.long
def test_few_simulated_studies_print_a_false_sentence() -> None:
    """Three or more of fifteen happen in 3.6% of runs if 5% of studies are wrong, and in 99.6% if half of them are."""
    studies = [(scenario, seed) for scenario in SCENARIOS for seed in range(N_STUDIES)]
    wrong = [found for scenario, seed in studies if (found := simulate(scenario, 60, 1_000, seed))]
    assert len(wrong) <= 2, wrong


def test_sentences_that_hold_one_by_one_would_be_false_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation finds false sentences: at levels that are not divided, all studies have some."""
    monkeypatch.setattr("espalier.statistics.levels.ERROR", 0.9)
    wrong = [bool(simulate(SCENARIOS[0], 60, 1_000, seed)) for seed in range(3)]
    assert sum(wrong) >= 2

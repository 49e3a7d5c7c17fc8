"""The zero-shot benchmark: its replacement for lm-eval scores correctly, and the printed table is complete."""

import sys
from types import ModuleType

import pytest

from espalier.scoring import onednn
from tests.unit.conftest import random_model
from tests.unit.scoring.reference import plain_score


def test_the_plain_loop_scores_as_the_definition(benchmark: ModuleType) -> None:
    model = random_model("llama", 50, max_position_embeddings=1024)
    requests = [r for r in benchmark.draw_requests(30, 50) if len(r.context) < 60]
    answers = benchmark.plain_backend(model, requests, batch_size=4)
    for request, (loglikelihood, is_greedy) in zip(requests, answers, strict=True):
        expected, greedy = plain_score(model, request)
        assert loglikelihood == pytest.approx(expected, abs=1e-3)
        assert is_greedy == greedy


@pytest.mark.parametrize(("has_lm_eval", "two_libraries"), [(True, False), (False, False), (True, True)])
def test_it_prints_a_row_for_each_setting(
    benchmark: ModuleType,
    has_lm_eval: bool,
    two_libraries: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    monkeypatch.setattr(benchmark, "CPU_SHAPE", benchmark.CPU_SHAPE | small)
    monkeypatch.setattr(sys, "argv", ["zeroshot.py", "--documents", "8", "--repeats", "1", "--threads", "1"])
    if not has_lm_eval:
        monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)
    monkeypatch.setattr(onednn, "mkl_is_slow", lambda: two_libraries)
    benchmark.main()
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    name = "lm-eval hf" if has_lm_eval else "plain loop (lm-eval is not installed)"
    expected = ["espalier"] * 3 + [name] * 4
    expected += ["espalier, MKL"] * 3 + [f"{name}, oneDNN"] * 4 if two_libraries else []
    assert [row[0].strip() for row in rows[1:]] == expected
    assert all(float(row[-1]) < 1e-3 for row in rows[1:])
    assert {len(row) for row in rows} == {8}

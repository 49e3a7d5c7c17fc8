"""Texts about verdicts and measured inference, in both languages; a gain is claimed only if there is one."""

from dataclasses import asdict
from typing import Any

import pytest

from espalier.reports.html import model_html
from espalier.reports.messages import Texts
from espalier.reports.structure import compare_structure, structure_sections, structure_text
from espalier.reports.text import model_text
from espalier.serving.inference_summary import TimedRun, Workload, summarise_runs
from espalier.serving.verdict_json import serving_verdicts
from tests.unit.reports.test_reports import contents, layers

# The sizes of Llama-3-8B, with only the two layers of the table.
MANIFEST: dict[str, Any] = {
    "model_type": "llama", "biases": [], "block_norms": [],
    "config": {"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4_096, "head_dim": 128,
               "max_position_embeddings": 8_192},
    "structure": {
        "layers": [{"n_kv_groups": 8, "kv_group_params": 5_242_880, "n_mlp_channels": 14_336,
                    "mlp_channel_params": 12_288, "fixed_params": 8_192}] * 2,
        "other_params": 1_000,
    },
}  # fmt: skip


def measured(factor: list[float]) -> dict[str, Any]:
    """Return a measurement with one speed-up of the pruned model per repeat. Padding has no effect on it."""
    runs = [
        TimedRun(1, repeat, version, 0.5 / speed, 2.0 / speed, cache_bytes=1_000, beyond_weights_bytes=None)
        for repeat, one in enumerate(factor)
        for version, speed in (("unpruned", 1.0), ("pruned", one), ("padded", one))
    ]
    workload = Workload([1], prompt_tokens=10, new_tokens=5, repeats=len(factor))
    sizes = {"n_params": 436_225_000, "weights_bytes": 872_450_000, "kv_cache_bytes_per_token": 8_192}
    return {
        "experiment": "x-4", "pruning_ratio": 0.5, "padded_to": 64,
        "machine": {"device": "cpu", "name": "x86_64", "threads": 2, "dtype": "float32"},
        "load": asdict(workload),
        "models": dict.fromkeys(("unpruned", "pruned", "padded"), sizes),
        "batches": summarise_runs(runs, ["unpruned", "pruned", "padded"], workload),
        "runs": [asdict(run) for run in runs],
    }  # fmt: skip


def with_measurement(factor: list[float]) -> tuple[dict[str, Any], Any, Any]:
    analysis, rows, kept = contents("M", "x")
    return analysis | {"inference": [measured(factor)]}, rows, kept


@pytest.mark.parametrize(
    ("factor", "line"),
    [
        ([1.5] * 6, "Batch 1, prefill: pruning makes it 1.50 times as fast (1.50 to 1.50)."),
        ([0.8] * 6, "Batch 1, decode: no gain: the pruned model is slower, 0.80 times as fast (0.80 to 0.80)."),
        ([1.5] * 5 + [0.9], "Batch 1, decode: no gain can be told: 1.50 times as fast (0.90 to 1.50)."),
    ],
    ids=["gain", "loss", "not told"],
)
def test_a_gain_is_claimed_only_where_there_is_one(factor: list[float], line: str) -> None:
    analysis, rows, kept = with_measurement(factor)
    text = model_text(analysis)
    assert line in text.splitlines()
    assert (
        "Batch 1, decode: padded widths cannot be told from the plan's own: 1.00 times as fast (1.00 to 1.00)." in text
    )
    assert line in model_html(analysis, rows, kept)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_measurement_stands_with_its_own_ratio_only(language: str) -> None:
    """A measurement is reported in the section of its own pruning ratio and in no other."""
    analysis, rows, kept = with_measurement([1.5] * 6)
    title = Texts(language)("s.inference", experiment="x-4")
    assert len(analysis["by_ratio"]) == 2
    assert model_text(analysis, language).count(title) == 1
    assert model_html(analysis, rows, kept, language).count(f"{title}<") >= 1
    assert title not in model_text(contents("M", "x")[0], language)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_verdicts_of_the_best(language: str) -> None:
    analysis, _, _ = contents("M", "x")
    verdicts = serving_verdicts(layers(), "M", "x-4", MANIFEST)
    text = model_text(analysis | {"deployment": {"x-4": verdicts}}, language)
    texts = Texts(language)
    assert texts("target.gguf_k") in text
    # Widths 3,388 and 3,254 need 4 and 2 channels more to be multiples of 8.
    assert texts.message(verdicts["advice"]) in text
    assert verdicts["advice"]["values"]["added"] == (4 + 2) * 12_288
    assert f"{6 * 12_288:,}" in text


def test_verdicts_in_the_comparison_of_layers() -> None:
    comparison = compare_structure(layers(), 436_225_000, "x-4", "M", widths_before=[(8, 14_336)] * 2)
    assert "Which programs load it" not in structure_text(comparison)
    comparison["deployment"] = serving_verdicts(layers(), "M", "x-4", MANIFEST)
    lines = structure_text(comparison).splitlines()
    sections = structure_sections(Texts(), comparison)
    assert any(item.startswith("vLLM (Transformers backend): attention of") for item in sections[-1].items)
    assert not any("•" in remark for remark in sections[-1].remarks)
    vllm = "  • vLLM (Transformers backend): attention of zeros (layer 1);"
    (line,) = (line for line in lines if line.startswith(vllm))
    assert "slow on GPUs: MLP widths that are no multiples of 8, in 2 layers." in line
    assert any(line.split() == ["64", "2", "172,032", *line.split()[-1:]] for line in lines)


def test_an_imported_experiment_has_a_reason_instead() -> None:
    comparison = compare_structure(layers(), 436_225_000, "x-4", "M")
    comparison["deployment"] = serving_verdicts(layers(), "M", "x-4", None)
    assert "No verdict: the sizes of the unpruned model are not known." in structure_text(comparison).splitlines()

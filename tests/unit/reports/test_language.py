"""Both languages have the same messages, and the Chinese headings equal those of the reference documents."""

from typing import Any

import pytest

from espalier.analysis.cross_model import analyse_study
from espalier.analysis.model import analyse_model
from espalier.errors import UserError
from espalier.reports.messages import Texts
from espalier.reports.structure import compare_structure, structure_text
from espalier.reports.text import cross_model_text, model_text
from tests.unit.analysis.test_uncertainty import evidence
from tests.unit.analysis.test_uncertainty import experiments as with_documents
from tests.unit.reports.test_reports import experiments, layers, page

# Headings from search_analysis_report.txt.
MODEL_HEADINGS = [
    "M 模型分析", "1. 剪枝方法对比", "2. Taylor 参数影响分析", "按 taylor_seq_len 分组:", "按 taylor_num_samples 分组:",
    "3. 梯度指标与 ACC 的相关性", "4. 极端剪枝层数影响", "按极端剪枝层数分组:", "5. PPL 与 ACC 的关系",
    "6. 最佳配置详情", "各任务详细 ACC:",
]  # fmt: skip
MODEL_LINES = [
    "总实验数: 7, 有效结果: 6, 无效实验: 1", "✓ 最佳剪枝方法: x (ACC: 0.5400)", "✓ 最佳 seq_len: 64 (平均 ACC: 0.5400)",
    "与 ACC 的相关系数: 1.0000", "PPL 与 ACC 的相关系数: -1.0000",
]  # fmt: skip
# Headings from search_analysis_report.txt and analysis_scripts_readme.md.
CROSS_HEADINGS = [
    "跨模型对比", "1. 所有模型最佳配置总览", "2. Base vs Instruct 对比", "3. 剪枝方法偏好统计", "4. 参数分布统计",
    "5. 模型架构对比", "✓ 总体最佳: I 模型", "  - 剪枝方法: y", "  - ACC: 0.6000", "  - PPL: 10.00",
]  # fmt: skip
# Lines from pruning_comparison_50.txt.
STRUCTURE_LINES = [
    "模型剪枝对比分析报告", "原始模型: M", "剪枝模型: x-4", "总体参数统计", "每层参数详细对比",
    "每层 Attention 和 MLP 详细对比", "Layer 22:", "    参数: 41,943,040 → 10,485,760 (-75.00%)",
    "    参数: 176,160,768 → 39,985,152 (-77.30%)", "    中间维度: 14336 → 3254",
]  # fmt: skip


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UserError, match=r"report.language: 'fr' is unknown; known are en, zh"):
        Texts("fr")


def test_headings_of_a_model() -> None:
    lines = model_text(analyse_model(experiments(), "M", headline_ratio=None), "zh").splitlines()
    assert [line for line in lines if line in MODEL_HEADINGS][: len(MODEL_HEADINGS)] == MODEL_HEADINGS
    for line in MODEL_LINES:
        assert any(one.startswith(line) for one in lines), line
    header = next(line for line in lines if line.startswith("方法 ")).split()
    assert header[:6] == ["方法", "平均ACC", "标准差", "最小值", "最大值", "实验数"]
    assert any(line.split()[:4] == ["Seq", "Len", "平均ACC", "标准差"] for line in lines)
    assert any(line.split()[:3] == ["层数", "平均ACC", "实验数"] for line in lines)


def test_headings_of_the_cross_model_report() -> None:
    lines = cross_model_text(analyse_study(experiments()), "zh").splitlines()
    assert [line for line in lines if line in CROSS_HEADINGS][: len(CROSS_HEADINGS)] == [
        *CROSS_HEADINGS[:2], *CROSS_HEADINGS[6:], *CROSS_HEADINGS[2:6],
    ]  # fmt: skip


def test_headings_of_the_structure_comparison() -> None:
    comparison = compare_structure(layers(), 436_225_000, "x-4", "M", widths_before=[(8, 14_336)] * 2)
    lines = structure_text(comparison, "zh").splitlines()
    assert [line for line in STRUCTURE_LINES if line not in lines] == []
    header = next(line for line in lines if line.lstrip().startswith("Layer  "))
    assert header.split() == [
        "Layer", "总参数(原始)", "总参数(剪枝)", "保留比例%", "剪枝率%", "Attn剪枝%", "MLP剪枝%", "状态",
    ]  # fmt: skip
    assert next(line for line in lines if line.lstrip().startswith("23 ")).endswith("[Attn剪空]")
    assert next(line for line in lines if line.startswith("项目")).split() == [
        "项目", "原始", "剪枝后", "减少", "剪枝比例",
    ]  # fmt: skip


def test_statements_and_reasons_are_translated() -> None:
    analysis: dict[str, Any] = analyse_model(with_documents(), "M", headline_ratio=None, evidence=evidence())
    text = model_text(analysis, "zh")
    assert "以下方法的所有实验都不如最佳: y。" in text
    assert "只有一个校准种子" in text
    assert "未剪枝模型没有结果" in cross_model_text(analyse_study(experiments()), "zh")
    assert "该系列没有带结果的 Instruct 模型" in cross_model_text(analyse_study(experiments()), "zh")


def test_page_in_chinese() -> None:
    text = page(language="zh")
    assert '<html lang="zh-Hans">' in text
    assert "<h3>1. 剪枝方法对比 <a" in text

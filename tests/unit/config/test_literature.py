"""The file of published figures: the shipped one, and files that are refused, each with one line."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from espalier.config import load_study
from espalier.config.literature import read_literature
from espalier.errors import UserError
from espalier.files import read_json
from espalier.study.config_checks import literature_problems
from tests.conftest import REPOSITORY

SHIPPED = REPOSITORY / "config/literature.yaml"
SOURCE = {"title": "A paper", "url": "https://example.org", "table": "Table 1", "leaves_out": "the stride"}
FIGURE = {"source": "paper", "model": "org/model", "method": "cut", "ratio": 0.2, "accuracy": {"piqa": 0.7}}


def content(**figure: Any) -> dict[str, Any]:
    return {"sources": {"paper": dict(SOURCE)}, "figures": [FIGURE | figure]}


def write(folder: Path, value: Any) -> Path:
    path = folder / "literature.yaml"
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value), encoding="utf-8")
    return path


def without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def test_the_shipped_figures_have_the_means_that_their_sources_print() -> None:
    """The means are typed from the sources apart from the accuracies of the tasks (rounded to 4 or 2 decimals)."""
    printed = {
        ("search-report", "meta-llama/Meta-Llama-3-8B"): [0.5980],
        ("search-report", "Qwen/Qwen2.5-7B"): [0.6161],
        ("search-report", "mistralai/Mistral-7B-v0.3"): [0.5947],
        ("finetuning-summary", "meta-llama/Meta-Llama-3-8B"): [0.6997, 0.5946, 0.6492],
        ("finetuning-summary", "meta-llama/Meta-Llama-3-8B-Instruct"): [0.6990, 0.6318, 0.6477],
        ("finetuning-summary", "mistralai/Mistral-7B-v0.3"): [0.7047, 0.5861, 0.6246],
        ("finetuning-summary", "mistralai/Mistral-7B-Instruct-v0.3"): [0.7348, 0.6552, 0.6653],
        ("finetuning-summary", "Qwen/Qwen2.5-7B"): [0.7022, 0.6094, 0.6476],
        ("finetuning-summary", "Qwen/Qwen2.5-7B-Instruct"): [0.7174, 0.6202, 0.6504],
        ("summary-table", "meta-llama/Meta-Llama-3-8B-Instruct"): [
            0.6970, 0.5375, 0.6077, 0.5618, 0.6191, 0.6205, 0.3823, 0.4064, 0.4025,
        ],
    }  # fmt: skip
    figures = read_literature(SHIPPED).figures
    for (source, model), means in printed.items():
        found = [sum(one.accuracy.values()) / 7 for one in figures if (one.source, one.model) == (source, model)]
        assert found == pytest.approx(means, abs=1.6e-4), (source, model)


def test_the_figure_of_the_result_file_is_in_that_file() -> None:
    literature = read_literature(SHIPPED)
    (figure,) = (one for one in literature.figures if one.source == "result-file")
    metrics = read_json(REPOSITORY / literature.sources["result-file"].url)["metrics"]
    assert figure.accuracy == {
        task: pytest.approx(one["accuracy"], abs=1e-9) for task, one in metrics["zeroshot"].items()
    }
    assert set(figure.perplexity.values()) == set(metrics["ppl_standard_2048_512"].values())


def test_a_figure_without_a_source_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, {"sources": {"paper": SOURCE}, "figures": [without(FIGURE, "source")]})
    with pytest.raises(UserError) as error:
        read_literature(path)
    assert str(error.value) == f"{path}: figures[0].source: missing. Key of `sources`."


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (content(source="other"), r"figures\[0\].source: got 'other', which is not in sources; allowed: paper"),
        (content(year=2024), r"figures\[0\].year: unknown key; allowed here: source, model, .*protocol"),
        (content(accuracy={"piqa": 70.1}), r"figures\[0\].accuracy.piqa: got 70.1; allowed: .*mean 0.701\?\)"),
        (content(ratio=20), r"figures\[0\].ratio: got 20; allowed: less than 1"),
        (content(model="model"), r"figures\[0\].model: got 'model'; allowed: a hub repository, 'owner/name'"),
        (content(perplexity={"ptb": 0}), r"figures\[0\].perplexity.ptb: got 0; allowed: greater than 0"),
        (content(accuracy={}), r"figures\[0\]: has no value; give accuracy, acc_mean or perplexity"),
        (content(acc_mean=0.7), r"figures\[0\]: acc_mean is computed from accuracy; give one of the two"),
        (content(protocol={"window": 2048}), r"figures\[0\].protocol.window: unknown key.*ppl_window"),
        (content(protocol={"accuracy": "accnorm"}), r"protocol.accuracy: got 'accnorm'; allowed: acc, acc_norm, acc_"),
        ({"figures": [FIGURE, FIGURE], "sources": {"paper": SOURCE}}, r"paper, org/model, cut, ratio 0.2 is listed tw"),
        ({"figures": [], "sources": {"paper": without(SOURCE, "url")}}, r"sources.paper.url: missing. Address of the"),
        ({"figures": [], "sources": {"paper": SOURCE | {"leaves_out": ""}}}, r"sources.paper.leaves_out: is empty"),
        ({"figures": []}, r"literature.yaml: sources: missing. Documents, by a short name."),
        ("[", r"literature.yaml: is not a YAML file \(.*\); correct it"),
        ("&a [*a]", r"literature.yaml: is not a YAML file \(Circular reference detected\); correct it"),
        ("[" * 3000, r"literature.yaml: is not a YAML file \(.*recursion.*\); correct it"),
        ("a: 2024-13-45", r"literature.yaml: is not a YAML file \(month must be in 1..12\); correct it"),
        ("2024-01-01: 1", r"literature.yaml: is not a YAML file \(keys must be str, int.*\); correct it"),
        ("figures: []\nsources: {}\nfigures: []\n", r"literature.yaml: figures is given twice, in lines 1 and 3; keep"),
        ("", r"literature.yaml: .*got .*; allowed: a mapping of keys to values"),
    ],
)  # fmt: skip
def test_an_unusable_file_is_refused_in_one_line(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_literature(write(tmp_path, value))
    assert len(str(error.value).splitlines()) == 1


def test_problems_of_a_studys_own_file_name_the_key(tmp_path: Path) -> None:
    def problems(path: str | None) -> list[str]:
        model = {"name": "A", "family": "Llama", "kind": "base", "path": "a"}
        return literature_problems(load_study({"study": "s", "models": [model], "report": {"literature": path}}))

    assert problems(None) == problems("shipped") == problems(str(write(tmp_path, content()))) == []
    (line,) = problems(str(write(tmp_path, content(source="other"))))
    assert line.startswith("report.literature: ")
    assert "which is not in sources" in line
    (line,) = problems("none.yaml")
    assert line == "report.literature: none.yaml: cannot be read; give a file like config/literature.yaml"


def test_the_example_of_the_documents_is_accepted(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/literature.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```text\n(sources:.*?)```", page, re.DOTALL)
    assert [one.method for one in read_literature(write(tmp_path, block)).figures] == ["cut"]

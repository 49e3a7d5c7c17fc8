"""The command that replays races on a finished study."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from espalier.analysis.race_replay import main
from espalier.evaluation.document_cost import tokens_per_document
from espalier.evaluation.tokenised_requests import RequestKey, TokenisedRequests
from espalier.files import write_table
from espalier.scoring.requests import Request
from tests.unit.statistics.studies import samples

CHANCE = {"good": 0.8, "bad": 0.3, "random": 0.3, "none": 0.0}
N = {"boolq": 200, "piqa": 400}


def requests() -> dict[RequestKey, Request]:
    """Two choices of each document. Contexts have 4 tokens of their own, continuations 2; one is only predicted."""
    return {
        RequestKey(task, document, choice): Request([document + 10] * 4, [choice, 1])
        for task, n in N.items()
        for document in range(n)
        for choice in range(2)
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A finished study of one model at two ratios, of which the second has one experiment."""
    rows, evaluations = [], []
    generator = np.random.default_rng(0)
    for name, ratio in (("good", 0.2), ("bad", 0.2), ("random", 0.2), ("good", 0.5)):
        experiment = f"{name}-p{round(100 * ratio)}"
        right = {task: generator.random(n) < CHANCE[name] for task, n in N.items()}
        answers = [
            (task, document, 0, [-1.0, -2.0] if is_right else [-2.0, -1.0], [1, 1])
            for task, n in N.items()
            for document, is_right in zip(range(n), right[task], strict=True)
        ]
        folder = tmp_path / "experiments/M" / experiment
        folder.mkdir(parents=True)
        write_table(folder / "samples.parquet", samples(answers))
        accuracy = {f"acc_{task}": one.mean() for task, one in right.items()}
        criterion = "random" if name == "random" else "taylor"
        rows.append({
            "study": "s", "model": "M", "family": "F", "kind": "base", "experiment": experiment, "method": name,
            "criterion": criterion, "pruning_ratio": ratio, "acc_mean": np.mean(list(accuracy.values())),
            "acc_mean_rule": "acc_norm_else_acc", **accuracy, "status": "ok", "source": "run",
        })  # fmt: skip
        evaluations += [{"model": "M", "experiment": experiment, "task": task, "metric": "acc"} for task in N]
    (tmp_path / "consolidated").mkdir()
    write_table(tmp_path / "consolidated/experiments.parquet", pd.DataFrame(rows))
    write_table(tmp_path / "consolidated/evaluations.parquet", pd.DataFrame(evaluations))
    (tmp_path / "requests").mkdir()
    TokenisedRequests(requests(), {}, {}).write(tmp_path / "requests/M.parquet")
    return tmp_path


def test_shared_tokens_count_once() -> None:
    # 4 tokens of context, which both choices share, and 1 token of each continuation.
    assert tokens_per_document(requests()) == {"boolq": 6.0, "piqa": 6.0}


def test_the_table_of_a_study(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(results), "--orders", "5", "--rungs", "0.25", "1"])
    lines = capsys.readouterr().out.splitlines()
    # Three experiments answer the first rung, and one the rest: (3 * 0.25 + 0.75) / 3. No race at 0.5.
    assert lines[2].split() == ["M", "0.2", "3", "5", "5", "(100.0%)", "0.50", "0.50", "to", "0.50", "1.0"]
    assert lines[3].split() == ["all", "5", "5", "(100.0%)", "0.50"]
    assert len(lines) == 4
    main([str(results), "--orders", "2", "--keep", "set", "--models", "M"])
    assert "2 (100.0%)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "N"], "has no model 'N'; its models are M"),
        (["--rungs", "0.5"], "the last rung must be 1"),
        (["--confidence", "1"], "confidence 1.0 of a race"),
    ],
)
def test_wrong_arguments_are_one_line(results: Path, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message) as stopped:
        main([str(results), *words])
    assert "\n" not in str(stopped.value)


def test_imported_models_are_left_out_of_a_replay(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = results / "consolidated/experiments.parquet"
    computed = pd.read_parquet(table)
    imported = computed.assign(model="I", source="search_I_20")
    write_table(table, pd.concat([imported, computed], ignore_index=True))
    main([str(results), "--orders", "1"])
    found = capsys.readouterr()
    assert found.out.splitlines()[2].split()[0] == "M"
    assert found.err == "model I: imported results have no single documents, so they are left out\n"


def test_a_raced_study_cannot_be_replayed(results: Path) -> None:
    table = results / "consolidated/experiments.parquet"
    write_table(table, pd.read_parquet(table).assign(race_keep="best"))
    with pytest.raises(SystemExit, match=r"model M: it was raced, so some experiments have not answered all documents"):
        main([str(results)])


def test_wrong_numbers_of_orders_are_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(results), "--orders", "0"])
    assert "'0' is not a whole number above 0" in capsys.readouterr().err


def test_a_study_without_tables_or_with_imported_models_cannot_be_replayed(results: Path) -> None:
    table = results / "consolidated/experiments.parquet"
    write_table(table, pd.read_parquet(table).assign(source="search_M_20"))
    with pytest.raises(SystemExit, match="model M: a race is impossible, because imported results have no single"):
        main([str(results)])
    computed = pd.read_parquet(table).assign(source="run", model="N")
    write_table(table, pd.concat([pd.read_parquet(table), computed], ignore_index=True))
    with pytest.raises(SystemExit, match="model M: a race is impossible"):
        main([str(results), "--models", "M"])
    table.unlink()
    with pytest.raises(SystemExit, match="has no consolidated tables; run snakemake first"):
        main([str(results)])

"""Reading of the JSON files: accepted values, values that are ignored, and contradictions between files."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from espalier.results.legacy.evaluation_results import Metric, TaskResult, read_evaluation
from espalier.results.legacy.gradient_diagnosis import read_gradients
from espalier.results.legacy.model_comparison import read_comparison
from espalier.results.legacy.read import LegacyExperiment, read_experiment
from espalier.results.legacy.scan import COMPARISON, EVALUATION, FILES, GRADIENTS, SearchFacts, scan
from espalier.results.legacy.values import Notes
from tests.published import REAL, comparison, diagnosis, edit, evaluation, experiment_folder, write, write_experiment

METHODS = ("taylor", "layerwise", "blockwise")


def read(search: Path, model: str = "Qwen") -> list[LegacyExperiment]:
    found = scan([str(search)], METHODS, [model])[0]
    search = SearchFacts(model, found.name, found.method, "taylor", found.pruning_ratio)
    return [read_experiment(one, search, methods=METHODS, model_names=[model]) for one in found.experiments]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write an experiment: layerwise, 32 tokens, 256 samples, 461 of 1000 documents right."""
    path = tmp_path / "search_Qwen_layerwise_30" / experiment_folder(5, 32, 256)
    write_experiment(path, (1, 1, 1))
    return path


def test_the_real_folder() -> None:
    """Values equal those in the files; document counts are computed from standard errors and equal the real counts."""
    (experiment,) = read(REAL, "Llama")
    assert (experiment.status, experiment.notes) == ("ok", ())
    tasks = experiment.evaluation.tasks
    counts = {name: task.n_samples for name, task in tasks.items()}
    assert counts == {
        "boolq": 3270, "piqa": 1838, "hellaswag": 10042, "winogrande": 1267, "arc_easy": 2376, "arc_challenge": 1172,
        "openbookqa": 500,
    }  # fmt: skip
    assert tasks["piqa"].metrics["acc_norm"] == Metric(0.6566920565832427, 0.011078175207348986)
    assert experiment.evaluation.perplexity == {"wikitext2": 32.902137756347656, "ptb": 70.01080322265625}
    assert experiment.diagnosis.metrics == {
        "grad_mean_ratio": 7.120711985108012,
        "grad_mean_range": pytest.approx(0.012250897371106677 - 0.0017204595108826954),
        "grad_norm_ratio": 9.91245777549908,
        "grad_norm_range": pytest.approx(79.39739312065973 - 8.009859402974447),
    }
    assert experiment.removed_param_fraction == pytest.approx(1606049792 / 8030261248, abs=1e-15)
    assert experiment.extreme_pruning_layers == experiment.comparison.extreme_pruning_layers == 6
    assert len(experiment.comparison.layers) == 32


def test_a_made_up_folder(folder: Path) -> None:
    (experiment,) = read(folder.parent)
    assert (experiment.status, experiment.notes) == ("ok", ())
    stderr = pytest.approx(math.sqrt(0.461 * 0.539 / 999))
    assert experiment.evaluation.tasks["boolq"] == TaskResult({"acc": Metric(0.461, stderr)}, 1000)
    assert experiment.removed_param_fraction == pytest.approx(16300 / 54880)
    assert experiment.extreme_pruning_layers == 2


@pytest.mark.parametrize(
    "value", ["0.5 ~ 1.75", "0.5~1.75", " 5e-1 ~ 1.75 ", "0.5 \uff5e 1.75", [0.5, 1.75], ["0.5", 1.75]]
)
def test_ranges_as_list_or_text(value: Any) -> None:
    notes = Notes("g")
    found = read_gradients({"gradient_statistics": {"mean_range": value}}, notes)
    assert found.metrics["grad_mean_range"] == 1.25
    assert notes == []


@pytest.mark.parametrize(
    ("value", "note"),
    [
        ([0.5], "is neither a list of two numbers nor text"),
        ("0.5 - 1.75", "is neither a list"),
        ({"min": 0}, "is neither a list"),
        ([0.5, math.inf], "is not finite"),
        ("nan ~ 1", "is not finite"),
        ("a ~ b", "is not made of numbers"),
        ([2.0, 1.0], "goes from 2 down to 1"),
    ],
)
def test_ranges_that_say_nothing(value: Any, note: str) -> None:
    notes = Notes("g")
    assert read_gradients({"gradient_statistics": {"norm_range": value}}, notes).metrics["grad_norm_range"] is None
    assert len(notes) == 1
    assert note in notes[0]


@pytest.mark.parametrize("value", [math.nan, math.inf, "nan", "inf", -1.0, True, [1]])
def test_ratios_that_are_no_numbers_are_null_with_a_reason(value: Any, folder: Path) -> None:
    edit(folder / GRADIENTS, gradient_statistics__norm_ratio=value)
    (experiment,) = read(folder.parent)
    assert experiment.status == "ok"
    assert experiment.diagnosis.metrics["grad_norm_ratio"] is None
    assert experiment.diagnosis.metrics["grad_mean_ratio"] == 3.0
    assert experiment.notes[0].startswith(f"{GRADIENTS}: norm_ratio is ")


def test_extreme_layers_that_disagree() -> None:
    notes = Notes("g")
    assert (
        read_gradients(diagnosis(ratio=2, extreme=2) | {"num_extreme_layers": 3}, notes).extreme_pruning_layers is None
    )
    assert notes == ["g: num_extreme_layers is 3, but 2 are listed; neither is used"]


@pytest.mark.parametrize("missing", FILES)
def test_any_file_may_be_missing(missing: str, folder: Path) -> None:
    (folder / missing).unlink()
    (experiment,) = read(folder.parent)
    assert experiment.status == ("failed" if missing == EVALUATION else "ok")
    assert f"{missing}: is missing" in experiment.notes
    # Without the diagnosis file, extreme layers are counted from the widths.
    assert experiment.extreme_pruning_layers == 2
    assert (experiment.removed_param_fraction is None) == (missing == COMPARISON)


def test_what_a_failure_says_of_itself_is_kept(folder: Path) -> None:
    write(folder / EVALUATION, {"error": "CUDA out of memory\ntraceback", "metrics": {}})
    (experiment,) = read(folder.parent)
    assert experiment.status == "failed"
    assert experiment.notes == (f"{EVALUATION}: has no results", f"{EVALUATION}: says 'CUDA out of memory'")


@pytest.mark.parametrize("content", ["{", "[]", "null", "\udcff", "1" * 5000, '{"metrics": {}}', '{"metrics": 3}'])
def test_files_without_results_are_failures(content: str, folder: Path) -> None:
    (folder / EVALUATION).write_bytes(content.encode("utf-8", "surrogateescape"))
    (experiment,) = read(folder.parent)
    assert experiment.status == "failed"
    assert any(note.startswith(EVALUATION) for note in experiment.notes)


def test_deep_nesting_is_refused(folder: Path) -> None:
    (folder / GRADIENTS).write_text("[" * 200_000, encoding="utf-8")
    (experiment,) = read(folder.parent)
    assert f"{GRADIENTS}: is not JSON" in experiment.notes[0]


@pytest.mark.parametrize(
    ("path", "claim"),
    [
        ("results/search_Qwen_layerwise_30/exp_005_taylor_seq_len64_taylor_num_samples256/pruned_model.bin", "exp_005"),
        ("results/search_Qwen_blockwise_30/exp_005_taylor_seq_len32_taylor_num_samples256/m.bin", "search_Qwen_block"),
        ("results/search_Qwen_layerwise_50/exp_005_taylor_seq_len32_taylor_num_samples256/m.bin", "search_Qwen_l"),
        (r"C:\runs\search_Llama_layerwise_30\exp_5_taylor_seq_len32_taylor_num_samples256\m.bin", "search_Llama"),
    ],
)  # fmt: skip
def test_files_about_another_folder_are_contradictory(path: str, claim: str, folder: Path) -> None:
    edit(folder / EVALUATION, model_path=path)
    (experiment,) = read(folder.parent)
    assert experiment.status == "contradictory"
    assert experiment.notes[0].startswith(f"{EVALUATION}: is about {claim}")


@pytest.mark.parametrize(
    "path",
    [
        None, 7, "", "pruned_model.bin", "prune_log/pruned/model.bin",
        # The number of the experiment and the parent folders are not compared.
        "/data/old/search_qwen_layerwise_30/exp_5_taylor_seq_len32_taylor_num_samples256/pruned_model.bin",
    ],
)  # fmt: skip
def test_paths_that_do_not_contradict(path: Any, folder: Path) -> None:
    edit(folder / EVALUATION, model_path=path)
    assert read(folder.parent)[0].status == "ok"


def test_what_disagrees_is_listed(folder: Path) -> None:
    edit(
        folder / EVALUATION,
        metrics__avg_zeroshot_acc=0.5,
        metrics__zeroshot__piqa__accuracy=0.411,
        metrics__model_info__total_params=38000,
        metrics__ppl={"wikitext2 (x)": 30.0, "ptb": 38.0},
    )
    edit(folder / COMPARISON, total_params__reduction_ratio=0.2)
    edit(folder / GRADIENTS, num_extreme_layers=1, extreme_pruning_layers=[{}])
    renamed = folder.parent.rename(folder.parent.with_name("search_Qwen_layerwise_50"))
    edit(renamed / folder.name / EVALUATION, model_path="pruned_model.bin")
    (experiment,) = read(renamed)
    assert experiment.status == "ok"
    assert list(experiment.notes) == [
        f"{EVALUATION}: piqa accuracy is 0.411, its full_results say 0.461; these are used",
        f"{EVALUATION}: ppl and ppl_standard_2048_512 of wikitext2 differ; neither is used",
        f"{EVALUATION}: avg_zeroshot_acc is 0.5, the mean of its tasks is 0.461; the latter is used",
        f"{COMPARISON}: total_params.reduction_ratio is 0.2, its counts say 0.297012; these are used",
        f"{COMPARISON}: 29.70% of the parameters were removed, but the folder's name says 50%",
        f"{EVALUATION}: the model has 38,000 parameters, but 38,580 in {COMPARISON}",
        f"{GRADIENTS}: num_extreme_layers is 1, {COMPARISON} has 2; the former is used",
    ]
    assert experiment.evaluation.perplexity == {"ptb": 38.0}


def evaluated(**zeroshot: Any) -> tuple[Any, Notes]:
    notes = Notes("e")
    content = evaluation(461, ppl=9.0, n_params=10, model_path="")
    content["metrics"]["zeroshot"] = zeroshot
    del content["metrics"]["avg_zeroshot_acc"]
    return read_evaluation(content, notes), notes


def test_odd_tasks() -> None:
    found, notes = evaluated(
        boolq={"error": "out of memory"},
        piqa={"accuracy": 0.5},
        rte={"full_results": {"acc": 0.5, "acc_stderr": "N/A", "f1,none": 0.2}},
        copa={"full_results": {"acc,none": 51.0}},
        sst={"full_results": {"acc,none": 0.5, "acc_stderr,none": 0.05, "sample_len": 77}},
        **{"<b>": {"accuracy": 0.5}, "x": 3},
    )
    assert {name: task.metrics for name, task in found.tasks.items()} == {
        "piqa": {"accuracy": Metric(0.5, None)},
        "rte": {"acc": Metric(0.5, None)},
        "sst": {"acc": Metric(0.5, 0.05)},
    }
    assert found.tasks["sst"].n_samples == 77
    assert notes == [
        "e: boolq has no accuracy",
        "e: piqa has an accuracy without full_results; taken for the one that enters the mean",
        "e: copa acc is 51; allowed: from 0 to 1",
        "e: copa has no accuracy",
        "e: zeroshot has '<b>', which is no result of a task, not read",
        "e: zeroshot has 'x', which is no result of a task, not read",
    ]


def test_counts_are_taken_only_where_standard_errors_imply_them() -> None:
    found, notes = evaluated(
        all_right={"full_results": {"acc,none": 1.0, "acc_stderr,none": 0.0}},
        # sqrt(0.25 / 99.3), which implies no whole number of documents
        bootstrapped={"full_results": {"acc,none": 0.503, "acc_stderr,none": 0.0502}},
        two={"full_results": {
            "acc,none": 0.5, "acc_stderr,none": (0.25 / 99) ** 0.5,
            "acc_norm,none": 0.5, "acc_norm_stderr,none": (0.25 / 199) ** 0.5,
        }},
    )  # fmt: skip
    assert [task.n_samples for task in found.tasks.values()] == [None, None, None]
    assert notes == ["e: two has standard errors of 100 and 200 documents; none taken"]


def test_quick_perplexities_never_stand_in() -> None:
    """A perplexity of the quick protocol never replaces a missing standard perplexity."""
    content = {"metrics": {"ppl_quick_128": {"ptb": 9.0}, "zeroshot": {}}}
    assert read_evaluation(content, Notes("e")).perplexity == {}
    content["metrics"]["ppl_standard_2048_512"] = {"ptb": math.inf, "c4 (en)": 8.0}
    notes = Notes("e")
    assert read_evaluation(content, notes).perplexity == {"c4": 8.0}
    assert notes == ["e: ppl_standard_2048_512 of ptb is not finite"]


def test_texts_that_only_the_standard_perplexities_have_are_read() -> None:
    """Both keys follow one protocol. A text whose value under `ppl` is not valid is not read from the other key."""
    notes = Notes("e")
    metrics = {
        "ppl": {"ptb": 9.0, "wikitext2 (x)": math.nan},
        "ppl_standard_2048_512": {"c4 (en)": 8.0, "ptb": 9.0, "wikitext2": 7.0},
    }
    assert read_evaluation({"metrics": metrics}, notes).perplexity == {"ptb": 9.0, "c4": 8.0}
    assert notes == ["e: ppl of wikitext2 is not finite"]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"mlp": {}}, "a layer is incomplete, so no layer is read"),
        ({"layer_idx": 1}, "two layers have the same layer_idx"),
        ({"layer_idx": 0.5}, "layer_idx of layer 0 is 0.5; allowed: whole numbers"),
        ({"attention": {"original": 10, "pruned": 20}}, "attention of layer 0 grew from 10 to 20"),
        ({"total": {"original": 13620, "pruned": 13610}}, "the layers lost 16,310 parameters, the model 16,300"),
    ],
)
def test_layers_that_cannot_be(change: dict[str, Any], note: str) -> None:
    content = comparison()
    content["layers"][0] |= change
    notes = Notes("c")
    found = read_comparison(content, notes)
    assert any(note in one for one in notes)
    assert found.removed_param_fraction == pytest.approx(16300 / 54880)
    assert bool(found.layers) == ("total" in change)


@pytest.mark.parametrize(
    ("layers", "note"),
    [
        ({"0": {}}, "layers is not a list, not read"),
        (["x"], "a layer is incomplete, so no layer is read"),
        ([comparison()["layers"][0]] * 2, "two layers have the same layer_idx, so no layer is read"),
    ],
)
def test_layers_are_read_all_or_none(layers: Any, note: str) -> None:
    notes = Notes("c")
    assert read_comparison(comparison() | {"layers": layers}, notes).layers == []
    assert any(note in one for one in notes)


def test_the_copy_of_the_real_folder_is_whole() -> None:
    found = sorted(path.name for path in REAL.rglob("*.json"))
    assert found == ["evaluation_results.json", "gradient_diagnosis.json", "model_comparison.json"]
    assert all(json.loads(path.read_text(encoding="utf-8")) for path in REAL.rglob("*.json"))

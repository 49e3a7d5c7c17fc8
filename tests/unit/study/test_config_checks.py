"""Infeasible settings and missing inputs are refused before any job runs."""

import gzip
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from espalier.config import load_study
from espalier.config.models import ModelEntry
from espalier.files import read_json, write_json, write_parquet
from espalier.models.folder import inspect_folder
from espalier.study.config_checks import (
    _ignores_case,
    case_problems,
    data_problems,
    folder_problems,
    infeasible_problems,
    known_sizes,
    text_problems,
)
from espalier.study.driver import open_study
from espalier.study.evaluation import EvaluationSettings
from espalier.study.paths import Paths
from espalier.study.sweep import Sweep
from tests.unit.conftest import random_model
from tests.unit.wrappers import random_wrapper

SANDBOX = {"name": "A", "family": "Llama", "kind": "base", "sandbox": {"architecture": "llama"}}


def study(model: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    grid = {"taylor_seq_len": [16], "taylor_num_samples": [8], "pruning_ratio": [0.35]} | changes.pop("grid", {})
    evaluation = {"evaluation": {"perplexity": {"window": 128, "stride": 64}}}
    known = {"study": "s", "models": [model or SANDBOX], "grid": grid, "calibration": {"dataset": "sandbox"}}
    return known | evaluation | changes


def problems(config: dict[str, Any], folder: str = "nowhere") -> list[str]:
    parsed = load_study(config)
    sizes = {model.name: known_sizes(model, folder, parsed.sandbox) for model in parsed.models}
    return infeasible_problems(parsed, sizes)


def test_what_can_be_done_is_not_refused() -> None:
    assert problems(study()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"taylor_seq_len": [16, 512]}}, "grid.taylor_seq_len: got 512, but the context of model 'A' is 256"),
        ({"evaluation": {}}, "evaluation.perplexity.window: got 2048, but the context of model 'A' is 256 tokens"),
        ({"grid": {"pruning_ratio": [0.35, 0.8]}}, "model 'A': pruning_ratio 0.8 means removing 230,041 of 287,552 "),
        ({"selection": {"freeze_first_layers": 3, "freeze_last_layers": 3}}, "at most 0 can go with freeze_first_laye"),
        (
            {"methods": [{"name": "d", "units": ["layer"]}], "grid": {"methods": ["d"], "pruning_ratio": [0.9]}},
            "model 'A': pruning_ratio 0.9 means removing 258,796 of 287,552 parameters, but at most 5 of 6 layers can",
        ),
        (
            {"methods": [{"name": "c", "units": ["kv_group"]}], "grid": {"methods": ["c"], "pruning_ratio": [0.6]}},
            "model 'A': pruning_ratio 0.6 means removing 172,531 of 287,552 parameters, but at most 73,728 can go; low",
        ),
        (
            {
                "methods": [{"name": "s", "allocation": "same_shape"}],
                "grid": {"methods": ["s"]},
                "selection": {"freeze_last_layers": 1},
            },
            "model 'A': selection.freeze_last_layers 1 gives layers different shapes, which allocation same_shape",
        ),
        ({"selection": {"max_layer_ratio": 0.3}}, "lower pruning_ratio to at most 0.1922 or relax these options"),
    ],
)
def test_what_cannot_is_one_line(changes: dict[str, Any], message: str) -> None:
    (line,) = problems(study(**changes))
    assert message in line


def test_methods_without_text_may_name_any_length() -> None:
    magnitude = [{"name": "magnitude", "criterion": "magnitude"}]
    assert problems(study(methods=magnitude, grid={"methods": ["magnitude"], "taylor_seq_len": [512]})) == []


def test_a_folder_is_read_when_it_is_there(model_folder: Path) -> None:
    """Sizes are known only from a readable folder; other checks report a folder that is missing or broken."""
    model = {"name": "A", "family": "Llama", "kind": "base", "path": str(model_folder)}
    assert problems(study(model, grid={"taylor_seq_len": [200]}), str(model_folder))[0].endswith("give at most 128")
    assert problems(study(model, grid={"taylor_seq_len": [200]}), str(model_folder / "absent")) == []
    (model_folder / "model.safetensors").write_bytes(b"broken")  # reported by the job that checks models
    assert problems(study(model, grid={"taylor_seq_len": [200]}), str(model_folder)) == []


def test_of_a_wrapper_the_text_model_is_checked(tmp_path: Path, plain_tokenizer: Tokenizer) -> None:
    """If config.json leaves sizes to transformers, which is not imported here, the job `check_model` checks them."""
    folder = tmp_path / "wrapper"
    random_wrapper("gemma3").save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer).save_pretrained(folder)
    (model,) = load_study(config := study({"name": "A", "family": "Gemma", "kind": "base", "path": str(folder)})).models
    assert folder_problems(model, "nowhere") == []
    assert problems(config | {"evaluation": {}}, str(folder))[0].endswith("give at most 128")
    content = read_json(folder / "config.json")
    del content["text_config"]["num_attention_heads"]
    write_json(folder / "config.json", content)
    assert folder_problems(model, "nowhere") == []
    assert problems(config | {"evaluation": {}}, str(folder)) == []
    write_json(folder / "config.json", content | {"model_type": "mllama"})
    assert "units for layers that attend to images" in folder_problems(model, "nowhere")[0]


def test_a_folder_that_cannot_be_pruned_is_refused_until_it_was_checked(model_folder: Path, tmp_path: Path) -> None:
    config = study({"name": "A", "family": "Llama", "kind": "base", "path": str(model_folder)})
    (model,) = load_study(config).models
    manifest = tmp_path / "A.json"
    assert folder_problems(model, str(manifest)) == []
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
    (line,) = folder_problems(model, str(manifest))
    assert line.startswith("model 'A': ")
    assert "has only .bin weights, which are pickles" in line
    with pytest.raises(SystemExit, match=r"config has problems:\n  model 'A': .* has only \.bin weights"):
        open_study(config, is_driver=True)
    shutil.rmtree(model_folder)
    assert "no such model folder" in folder_problems(model, str(manifest))[0]
    manifest.touch()
    assert folder_problems(model, str(manifest)) == []


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("Qwen/Qwen2.5-7B", "or a hub repository (`hub: Qwen/Qwen2.5-7B`)"),
        ("~/models/A", "or a hub repository; `~` is not expanded"),
        ("here/A", "or a hub repository"),
        ("A", "or a hub repository"),
    ],
)
def test_a_missing_model_folder_gets_a_hint(
    path: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    model = ModelEntry(name="A", family="Llama", kind="base", path=path)
    (line,) = folder_problems(model, "absent.json")
    assert line.endswith(end)


def test_a_run_in_another_folder_is_told_where_paths_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = [{"name": "A", "family": "Llama", "kind": "base", "path": "absent"}]
    with pytest.raises(SystemExit, match=rf"paths start in the folder where Snakemake runs, {tmp_path}"):
        open_study(study(models=models), is_driver=True)
    (tmp_path / "Snakefile").touch()
    with pytest.raises(SystemExit, match=r"a hub repository$"):
        open_study(study(models=models), is_driver=True)


def test_a_checked_folder_that_is_gone_does_not_turn_other_problems_into_errors(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Folder A was deleted after its check, and B has no weights, so the study goes on without B."""
    monkeypatch.chdir(tmp_path)
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
    write_json("results/s/models/A.json", {})
    models = [
        {"name": name, "family": "Llama", "kind": "base", "path": path}
        for name, path in (("A", "deleted"), ("B", str(model_folder)))
    ]
    open_study(study(models=models), is_driver=True)
    assert "warning: model 'B': " in caplog.text
    Path("results/s/models/A.json").unlink()
    with pytest.raises(SystemExit, match="model 'A': deleted: no such model folder"):
        open_study(study(models=models), is_driver=True)


DOCUMENTS = [f"{task}/{split}.parquet" for task in ("piqa", "boolq") for split in ("train", "validation")]


@pytest.mark.parametrize(
    ("tasks", "removed", "added", "problems"),
    [
        (["piqa", "boolq"], [], [], []),
        (
            ["piqa", "boolq", "sciq"], [], [],
            ["no documents of task 'sciq' in my/sciq; it needs one .parquet, .json.* file per split, named after"],
        ),
        (
            ["piqa", {"name": "boolq", "num_fewshot": 2}], ["piqa/train.parquet", "piqa/validation.parquet"],
            ["piqa/validation.csv"], ["no documents of task 'piqa' in my/piqa; it needs one"],
        ),
        (
            ["piqa", "boolq"], ["piqa/validation.parquet", "boolq/train.parquet"], [],
            [
                "task 'piqa' needs the split 'validation', but my/piqa has only train; add validation.parquet",
                "task 'boolq' needs the split 'train', but my/boolq has only validation; add train.parquet",
            ],
        ),
        (["piqa"], ["piqa/train.parquet"], ["piqa/train.jsonl"], ["my/piqa has train.jsonl, validation.parquet; give"]),
        (["piqa"], [], ["piqa/train.json"], ["my/piqa has both train.json and train.parquet for the split 'train'"]),
        (["piqa", "mmlu_stem"], [], [], [*["no documents of task 'mmlu_\\w+' in my/mmlu_"] * 10, "9 more tasks lack"]),
    ],
    ids=["complete", "task", "no-documents", "splits", "formats", "twice", "group"],
)  # fmt: skip
def test_missing_documents_of_tasks_are_refused_before_any_job(
    tasks: list[Any], removed: list[str], added: list[str], problems: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for file in sorted({*DOCUMENTS, *added} - set(removed)):
        (Path("my") / file).parent.mkdir(parents=True, exist_ok=True)
        (Path("my") / file).touch()
    evaluation = {"data": "my", "tasks": tasks, "perplexity": {"window": 128, "stride": 64}}
    config = study(evaluation=evaluation)
    if not problems:
        open_study(config, is_driver=True)
        return
    with pytest.raises(SystemExit) as error:
        open_study(config, is_driver=True)
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == len(problems)
    for line, problem in zip(lines, problems, strict=True):
        assert re.match(rf"  evaluation\.data: {problem}", line), line
    parsed = load_study(config)
    for path in ("requests/A.parquet", "baseline/A/metrics.json"):
        write_json(f"results/{parsed.study}/{path}", {})
    paths = Paths(f"results/{parsed.study}")
    for experiment in Sweep(parsed, paths).experiments:
        write_json(paths.of("evaluate", experiment.model, experiment.name), {})
    assert data_problems(parsed, paths, Sweep(parsed, paths)) == []  # all was made of them


def test_a_missing_folder_of_tasks_is_refused_until_all_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in DOCUMENTS:
        (Path("tasks") / file).parent.mkdir(parents=True, exist_ok=True)
        (Path("tasks") / file).touch()

    def missing(data: str, *made: str) -> list[str]:
        for path in made:
            write_json(f"results/s/{path}", {})
        tasks = ["piqa", "boolq"]
        config = study(evaluation={"data": data, "tasks": tasks}, methods=[{"name": "t"}], grid={"methods": ["t"]})
        parsed = load_study(config)
        return data_problems(parsed, Paths("results/s"), Sweep(parsed, Paths("results/s")))

    assert [missing(data) for data in ("hub", "sandbox", "tasks")] == [[], [], []]
    (line,) = missing("taskz", "requests/A.parquet", "baseline/A/metrics.json")  # the experiment still needs it
    assert line.startswith("evaluation.data: got 'taskz', but there is no such folder; give one that holds")
    assert missing("taskz", "experiments/A/t-seq16-n8-p35/metrics.json") == []
    # The missing folder stays an input: a job with other inputs than before would run again.
    deleted = load_study(study(evaluation={"data": "taskz/"}))
    assert EvaluationSettings(deleted, Paths("results/s")).data == ["taskz"]
    config = study(evaluation={"data": "tasky", "perplexity": {"window": 128, "stride": 64}}, study="x")
    with pytest.raises(SystemExit, match=r"config has problems:\n  evaluation\.data: got"):
        open_study(config, is_driver=True)


def test_texts_that_are_not_there_are_named_until_all_was_made_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text file may be missing only if every file that is made from it exists."""
    monkeypatch.chdir(tmp_path)
    Path("there.txt").touch()
    texts = [{"name": "a", "dataset": "there.txt"}, {"name": "b", "dataset": "missing.txt"}]
    config = study(
        calibration={"dataset": "calibration.txt"}, recovery={"text": {"dataset": "recovery.txt"}},
        evaluation={"perplexity": {"texts": texts, "window": 128, "stride": 64}},
        methods=[{"name": "t"}, {"name": "b", "scope": "block"}, {"name": "m", "criterion": "magnitude"}],
        grid={"methods": ["t", "b", "m"], "taylor_seq_len": [16], "taylor_num_samples": [8]},
    )  # fmt: skip
    parsed = load_study(config)

    def missing(*made: str) -> list[str]:
        for path in made:
            write_json(f"results/s/{path}", {})
        lines = text_problems(parsed, Paths("results/s"), Sweep(parsed, Paths("results/s")))
        return [line.partition(".dataset: got ")[0] for line in lines]

    assert missing() == ["calibration", "recovery.text", "evaluation.perplexity.texts[1]"]
    tables = ["calibration/A/calibration-s0.json", "gradients/A/calibration-s0/seq16.parquet"]
    assert missing(*tables) == ["calibration", "recovery.text", "evaluation.perplexity.texts[1]"]
    assert missing("requests/A.parquet", "recovered/A/checked.json") == ["calibration"]
    assert missing("importance/A/taylor/calibration-s0/seq16.parquet") == ["calibration"]
    assert missing("priors/A/calibration-s0/seq16.parquet") == []
    (line,) = text_problems(load_study(config | {"study": "x"}), Paths("results/x"), Sweep(parsed, Paths("results/x")))[
        :1
    ]
    assert line.endswith("got 'calibration.txt', but there is no such file; give one, or a hub repository")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.parquet", None, "has no column 'text'; it has words"),
        ("a.jsonl", '\n{"words": "a"}\n', "line 2: has no 'text'; it has words"),
        ("a.jsonl.gz", '{"text": null}\n', "line 1: 'text' is null; mend the row"),
        ("a.json", '{\n"text": "a"}', "line 2 is not JSON"),
        ("a.json", '[{"words": "a"}]', None),  # the job reads the whole list
        ("a.jsonl", '{"text": "a"}\n{"words": "b"}\n', None),  # the job reads the other lines
        ("a.jsonl", "", None),
        ("a.txt", "a\n", None),
    ],
)
def test_a_text_without_its_column_is_refused_before_any_job(
    name: str, content: str | None, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is None:
        write_parquet(Path(name), pa.table({"words": ["a"]}))
    else:
        Path(name).write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    perplexity = {"texts": [{"name": "a", "dataset": name}], "window": 128, "stride": 64}
    config = study(evaluation={"perplexity": perplexity})
    if problem is None:
        open_study(config, is_driver=True)
        return
    line = re.escape(f"  evaluation.perplexity.texts[0]: {name}: {problem}")
    with pytest.raises(SystemExit, match=rf"config has problems:\n{line}"):
        open_study(config, is_driver=True)
    write_json("results/s/requests/A.parquet", {})
    open_study(config, is_driver=True)  # all was made of it


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral"])
def test_sizes_of_a_sandbox_model_are_those_of_the_trained_one(architecture: str, tmp_path: Path) -> None:
    tied = architecture == "qwen2"
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6, "num_attention_heads": 8}
    model = random_model(architecture, 800, num_key_value_heads=4, tie_word_embeddings=tied, **shape)
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    entry = SANDBOX | {"sandbox": {"architecture": architecture, "tie_word_embeddings": tied}}
    parsed = load_study(study(entry))
    sizes = known_sizes(parsed.models[0], "nowhere", parsed.sandbox)
    assert sizes is not None
    assert sizes.sizes == inspect_folder(tmp_path).sizes


def test_the_driver_exits_with_the_problem() -> None:
    with pytest.raises(SystemExit, match=r"config has problems:\n  model 'A': pruning_ratio 0.8 means removing"):
        open_study(study(grid={"pruning_ratio": [0.8]}), is_driver=True)


@pytest.mark.parametrize(("ignores_case", "n_problems"), [(True, 2), (False, 0)])
def test_names_that_one_file_system_takes_for_one(
    ignores_case: bool, n_problems: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier.study.config_checks._ignores_case", lambda _: ignores_case)
    methods = [{"name": name, "criterion": "random"} for name in ("even", "Even", "other")]
    parsed = load_study(study(models=[SANDBOX, SANDBOX | {"name": "a"}], methods=methods, grid={"methods": ["even"]}))
    found = case_problems(parsed, "results/s")
    assert len(found) == n_problems
    if found:
        assert found[0] == (
            "models: the names 'A' and 'a' differ only in case, which the file system of results/s ignores; rename one"
        )


def test_this_file_system_ignores_case_or_not(tmp_path: Path) -> None:
    (tmp_path / "Folder").mkdir()
    assert _ignores_case(tmp_path / "Folder/new/one") == (tmp_path / "fOLDER").exists()

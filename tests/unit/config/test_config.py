"""Validation of the config: defaults, one clear line for each bad value, and up-to-date generated files."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from tools.config_options import insert_options, json_schema

from espalier.config import load_study
from espalier.data_formats import TEXT_SUFFIXES, document_files
from espalier.errors import UserError
from tests.conftest import REPOSITORY

MODEL = {"name": "A", "family": "Llama", "kind": "base", "path": "models/a"}
CONFIG = {"study": "s", "models": [MODEL]}


def with_changes(**changes: Any) -> dict[str, Any]:
    return {**CONFIG, **changes}


def test_defaults_are_the_protocol_of_the_published_runs() -> None:
    study = load_study(CONFIG)
    assert study.grid.taylor_seq_len == (16, 32, 64, 128, 256)
    assert study.grid.taylor_num_samples == (128, 256, 512)
    assert study.grid.pruning_ratio == (0.2,)
    assert study.grid.methods == ("taylor", "layerwise", "blockwise")
    assert (study.evaluation.data, study.evaluation.limit) == ("hub", None)
    assert (study.evaluation.perplexity.window, study.evaluation.perplexity.stride) == (2048, 512)
    assert [text.name for text in study.evaluation.perplexity.texts] == ["wikitext2", "ptb"]
    assert study.calibration.data_files == "en/c4-train.00000-of-01024.json.gz"


def test_calibration_is_named_after_its_dataset() -> None:
    assert load_study(with_changes(calibration={"dataset": "owner/some-text"})).calibration.name == "some-text"
    assert load_study(with_changes(calibration={"dataset": "data/mine.parquet"})).calibration.name == "mine"


REAP = {"name": "reap", "units": ["expert"], "criterion": "reap"}
REAP_STUDY = {"methods": [REAP], "grid": {"methods": ["reap"]}}
DEPTH = {"name": "depth", "units": ["layer"]}
DEPTH_STUDY = {"methods": [DEPTH], "grid": {"methods": ["depth"]}}
BAD = [
    ({"gird": {}}, "gird: unknown key (did you mean 'grid'?); allowed here: study, models, methods, grid,"),
    ({"grid": {"taylor_seqlen": [16]}}, "grid.taylor_seqlen: unknown key (did you mean 'taylor_seq_len'?)"),
    ({"models": [{**MODEL, "pth": 1}]}, "models[0].pth: unknown key (did you mean 'path'?)"),
    ({"evaluation": {"perplexity": {"texts": [{"name": "x", "dataset": "a/b", "joner": ""}]}}},
     "evaluation.perplexity.texts[0].joner: unknown key (did you mean 'joiner'?)"),
    ({"models": [{**MODEL, "sandbox": {"architecture": "gpt2"}}]},
     "models[0].sandbox.architecture: got 'gpt2'; allowed: llama, qwen2, mistral"),
    ({"models": []}, "models: is empty; give at least one value"),
    ({"evaluation": {"perplexity": {"texts": [{"name": "x", "dataset": "a/b"}, {"name": "x", "dataset": "a/c"}]}}},
     "evaluation.perplexity: two texts are named 'x'; give each its own name"),
    ({"models": [{"name": "A", "family": "B", "kind": "base", "sandbox": {"architecture": "llama", "hidden_size": 60,
      "num_attention_heads": 8}}]}, "models[0].sandbox: hidden_size 60 is not a multiple of num_attention_heads 8"),
    ({"models": [MODEL, MODEL]}, "models: two entries are named 'A'; give each its own name"),
    ({"models": [{**MODEL, "name": "a/b"}]}, "models[0].name: got 'a/b'; allowed: letters, digits and . _ + -"),
    ({"models": [{**MODEL, "name": "../a"}]}, "models[0].name: got '../a'; allowed: letters, digits"),
    ({"models": [{**MODEL, "name": "cross_model"}]}, "models[0]: name 'cross_model' is the folder of"),
    ({"models": [{**MODEL, "hub": "a/b"}]}, "models[0]: got path and hub; give exactly one of path, hub, sandbox,"),
    ({"models": [{"name": "A", "family": "B", "kind": "base"}]}, "models[0]: got no source; give exactly one of"),
    ({"models": [{**MODEL, "kind": "chat"}]}, "models[0].kind: got 'chat'; allowed: base, instruct (did you"),
    ({"models": [{**MODEL, "revision": "main"}]}, "models[0]: revision 'main' given without hub"),
    ({"models": [{"name": "A", "path": "x", "kind": "base"}]}, "models[0].family: missing. Family in reports"),
    ({"study": "a b"}, "study: got 'a b'; allowed: letters, digits"),
    ({"study": None}, "study: got None; allowed: a text"),
    ({"prunning_ratio": [0.5]}, "prunning_ratio: unknown key (did you mean 'grid.pruning_ratio'?)"),
    ({"limit": 5}, "limit: unknown key (did you mean 'evaluation.limit'?)"),
    ({"methods": ["taylor"]},
     "methods[0]: got 'taylor'; allowed: a mapping of keys to values (did you mean 'grid.methods'?)"),
    ({"grid": {"pruning_ratio": [50]}}, "grid.pruning_ratio[0]: got 50; allowed: less than 1 (did you mean 0.5?)"),
    ({"grid": 3}, "grid: got 3; allowed: a mapping of keys to values"),
    ({"grid": {"pruning_ratio": 0.2}}, "grid.pruning_ratio: got 0.2; allowed: a list (did you mean [0.2]?)"),
    ({"grid": {"pruning_ratio": ["15%"]}}, "grid.pruning_ratio[0]: got '15%'; allowed: a number (did you mean 0.15?)"),
    ({"evaluation": {"tasks": "piqa, boolq"}},
     "evaluation.tasks: got 'piqa, boolq'; allowed: a list (did you mean [piqa, boolq]?)"),
    ({"models": {"A": {"kind": "base"}}},
     "models: got {'A': {'kind': 'base'}}; allowed: a list; begin each entry with a dash: - {...}"),
    ({"study": 2026}, "study: got 2026; allowed: a text (did you mean '2026', with quotes?)"),
    ({"evaluation": {"limit": "None"}},
     "evaluation.limit: got 'None'; allowed: a whole number or null (did you mean null?)"),
    ({"evaluation": {"racing": True}},
     "evaluation.racing: got True; allowed: a mapping of keys to values or null (did you mean {}, which takes all "),
    ({"grid": {"pruning_ratio": [1.5]}}, "grid.pruning_ratio[0]: got 1.5; allowed: less than 1"),
    ({"grid": {"pruning_ratio": [0.2, 0.2]}}, "grid.pruning_ratio: 0.2 is listed twice; list each value once"),
    ({"grid": {"pruning_ratio": [float("nan")]}}, "grid.pruning_ratio[0]: got nan; allowed: a finite number"),
    ({"grid": {"taylor_seq_len": [16.5]}}, "grid.taylor_seq_len[0]: got 16.5; allowed: a whole number"),
    ({"grid": {"taylor_seq_len": [True]}}, "grid.taylor_seq_len[0]: got True; allowed: a whole number"),
    ({"grid": {"taylor_num_samples": []}}, "grid.taylor_num_samples: is empty"),
    ({"grid": {"methods": ["tailor"]}}, "grid.methods: got 'tailor'; allowed: taylor, layerwise, blockwise"),
    ({"models": [{**MODEL, "grid": {"methods": ["x"]}}]}, "models[0].grid.methods: got 'x'; allowed: taylor"),
    ({"methods": [{"name": "g", "scope": "gated"}]}, "methods[0]: scope 'gated' needs tau"),
    ({"methods": [{"name": "g", "tau": 0.5}]}, "methods[0]: tau 0.5 has no effect with scope 'none'"),
    ({"methods": [{"name": "t"}, {"name": "t"}], "grid": {"methods": ["t"]}}, "methods: two entries are named 't'"),
    ({"methods": [{"name": "t", "units": ["head"]}]}, "methods[0].units[0]: got 'head'; allowed: kv_group, mlp_c"),
    ({"methods": [{"name": "t", "units": ["expert", "kv_group"]}]},
     "methods[0]: units ['kv_group', 'expert']: expert cannot be combined with other units; use [expert]"),
    ({"methods": [{"name": "t", "criterion": "reap"}]}, "methods[0]: criterion 'reap' measures whole experts; use it"),
    ({"methods": [{"name": "t", "criterion": "reap", "units": ["layer"]}]}, "methods[0]: criterion 'reap' measures wh"),
    ({"methods": [{**REAP, "scope": "block"}]}, "methods[0]: scope 'block' has no effect with units [expert]: each la"),
    ({"methods": [{**REAP, "normalise": "layer"}]}, "methods[0]: normalise 'layer' has no effect with units [expert]"),
    ({"methods": [{**REAP, "contiguous": True}]}, "methods[0]: contiguous is for whole layers; remove it or use unit"),
    ({"methods": [{"name": "t", "units": []}]}, "methods[0].units: is empty; give at least one value"),
    ({"methods": [{"name": "t", "units": ["layer", "layer"]}]}, "methods[0].units: 'layer' is listed twice"),
    ({"methods": [{"name": "t", "units": ["kv_group", "layer"]}]},
     "methods[0]: units ['kv_group', 'layer']: layer cannot be combined with other units; use [layer]"),
    ({"methods": [{"name": "t", "contiguous": True}]}, "methods[0]: contiguous is for whole layers; remove it or use"),
    ({"methods": [{**DEPTH, "scope": "block"}]}, "methods[0]: scope 'block' is for groups of a block; with units"),
    ({"methods": [{**DEPTH, "normalise": "layer"}]}, "methods[0]: normalise 'layer' has no effect on whole layers"),
    ({"methods": [{**DEPTH, "allocation": "uniform"}]}, "methods[0]: allocation 'uniform' is for groups; with units"),
    ({"methods": [{"name": "t", "criterion": "constant"}]}, "methods[0]: criterion 'constant' gives all units the sam"),
    ({**REAP_STUDY, "selection": {"freeze_last_layers": 2}},
     "selection.freeze_last_layers: 2 gives layers different numbers of experts, but methods[0] ('reap') removes equa"),
    ({**REAP_STUDY, "selection": {"collapse_below": 0.5}},
     "selection.collapse_below: 0.5 gives layers different numbers of experts, but methods[0] ('reap') removes equa"),
    ({**REAP_STUDY, "selection": {"mlp_multiple_of": 8}},
     "selection.mlp_multiple_of: 8 has no effect, because all methods of the grid remove experts; remove it"),
    ({**DEPTH_STUDY, "selection": {"max_layer_ratio": 0.5}},
     "selection.max_layer_ratio: 0.5 forbids removing whole layers, which methods[0] ('depth') does; remove one of"),
    ({**DEPTH_STUDY, "selection": {"collapse_below": 0.5}},
     "selection.collapse_below: 0.5 has no effect on whole layers, which methods[0] ('depth') removes; remove one"),
    ({**DEPTH_STUDY, "selection": {"mlp_multiple_of": 8}},
     "selection.mlp_multiple_of: 8 has no effect, because all methods of the grid remove whole layers; remove it"),
    ({"methods": [DEPTH, {"name": "u", "allocation": "uniform"}], "grid": {"methods": ["depth", "u"]},
      "selection": {"stock_shape": True}},
     "methods[1]: 'u' gives layers different shapes, which selection.stock_shape forbids; set allocation: same_shape"),
    ({"evaluation": {"device": "gpu"}}, "evaluation.device: got 'gpu'; allowed: auto, cpu, cuda (did you mean 'cuda"),
    ({"evaluation": {"dtype": "fp16"}},
     "evaluation.dtype: got 'fp16'; allowed: auto, float32, bfloat16, float16 (did you mean 'float16'?)"),
    ({"evaluation": {"tasks": ["piqa", "piqa"]}}, "evaluation.tasks: 'piqa' is listed twice"),
    ({"evaluation": {"tasks": ["piqa", {"name": "piqa", "num_fewshot": 5}]}},
     "evaluation.tasks: 'piqa' is listed twice"),
    ({"evaluation": {"tasks": ["piqa", {"name": "mmlu", "num_fewshots": 5}]}},
     "evaluation.tasks[1].num_fewshots: unknown key (did you mean 'num_fewshot'?); allowed here: name, num_fewshot"),
    ({"evaluation": {"tasks": [{"num_fewshot": 5}]}},
     "evaluation.tasks[0].name: missing. Task, group or tag of lm-evaluation-harness."),
    ({"evaluation": {"tasks": [{"name": "mmlu", "num_fewshot": -1}]}},
     "evaluation.tasks[0].num_fewshot: got -1; allowed: greater than or equal to 0"),
    ({"evaluation": {"tasks": [5]}}, "evaluation.tasks[0]: got 5; allowed: a text"),
    ({"evaluation": {"too_long": "drop"}}, "evaluation.too_long: got 'drop'; allowed: truncate, skip"),
    ({"evaluation": {"limit": 0}}, "evaluation.limit: got 0; allowed: greater than or equal to 1"),
    ({"evaluation": {"perplexity": {"stride": 4096}}},
     "evaluation.perplexity: stride 4096 is larger than window 2048; give at most the window"),
    ({"calibration": {"dataset": "somewhere"}}, "calibration.dataset: got 'somewhere'; give 'sandbox', a file"),
    ({"calibration": {"seeds": [1, 1]}}, "calibration.seeds: seed 1 is listed twice"),
    ({"calibration": {"dataset": "Salesforce/wikitext", "config": "wikitext-2-raw-v1", "split": "test"}},
     "calibration: 'Salesforce/wikitext' split 'test' is also evaluation.perplexity.texts[0]"),
    ({"report": {"ratio": 0.5}}, "report.ratio: got 0.5; allowed: 0.2 (the grid's)"),
    ({"models": [{"name": "A", "family": "L", "kind": "instruct",
                  "sandbox": {"architecture": "llama", "continue_from": "B"}}]},
     "models[0].sandbox.continue_from: got 'B'; allowed: none here"),
    ({"models": [{"name": "A", "family": "L", "kind": "base",
                  "sandbox": {"architecture": "llama", "hidden_size": 30}}]},
     "models[0].sandbox: hidden_size 30 is not a multiple of num_attention_heads 8"),
    ({"evaluation": {"racing": {"rungs": [0.1, 0.1, 1.0]}}},
     "evaluation.racing.rungs: got 0.1, 0.1, 1.0; each rung must be larger than the one before, and above 0"),
    ({"evaluation": {"racing": {"rungs": [0.1, 0.5]}}},
     "evaluation.racing.rungs: got 0.1, 0.5; the last rung must be 1, which is all documents"),
    ({"evaluation": {"racing": {"confidence": 1.0}}}, "evaluation.racing.confidence: got 1.0; allowed: less than 1"),
    ({"evaluation": {"racing": {"keep": "comparisons"}}},
     "evaluation.racing: half_width belongs to keep: comparisons; give both"),
    ({"models": [{"name": "A", "family": "L", "kind": "base", "legacy": ["x"]}],
      "evaluation": {"racing": {}}},
     "evaluation.racing: a race of imported results is impossible: they have no single documents; remove racing"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"), BAD, ids=[line.split(":")[0] + str(i) for i, (_, line) in enumerate(BAD)]
)
def test_each_bad_value_is_one_clear_line(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        load_study(with_changes(**changes))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(expected)
    assert "pydantic" not in lines[0]


def test_limits_of_group_methods_may_stand_beside_methods_that_remove_layers() -> None:
    methods = [DEPTH, {"name": "same", "allocation": "same_shape"}]
    selection = {"mlp_multiple_of": 8, "stock_shape": True, "freeze_first_layers": 0}
    study = load_study(with_changes(methods=methods, grid={"methods": ["depth", "same"]}, selection=selection))
    assert [method.removes_layers for method in study.methods] == [True, False]


def test_units_have_one_order() -> None:
    (method,) = load_study(
        with_changes(methods=[{"name": "t", "units": ["mlp_channel", "kv_group"]}], grid={"methods": ["t"]})
    ).methods
    assert method.units == ("kv_group", "mlp_channel")
    assert "units" not in method.settings  # the default, as before units could be named


def test_each_problem_has_its_own_line() -> None:
    with pytest.raises(UserError) as caught:
        load_study(with_changes(gird=1, grid={"pruning_ratio": [2, "x"]}, study="/"))
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "study", "grid.pruning_ratio[0]", "grid.pruning_ratio[1]", "gird",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "dataset",
    ["data/c4.csv", "data/c4.csv.gz", "data/c4.zip", "./data/c4", "/data/c4", "a/b/c4.parquet.gz", "data/c4.JSON.GZ"],
)
def test_a_file_that_is_not_read_is_no_hub_repository(dataset: str) -> None:
    with pytest.raises(UserError) as caught:
        load_study(with_changes(calibration={"dataset": dataset}))
    assert str(caught.value) == (
        f"calibration.dataset: got {dataset!r}; give 'sandbox', a file (.parquet, .json, .jsonl, .txt, the last three "
        "also compressed: .gz, .bz2, .xz, .zst, .lz4), or a hub repository 'owner/name'"
    )


def test_a_file_that_exists_is_no_hub_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert load_study(with_changes(calibration={"dataset": "data/texts"})).calibration.is_hub
    (tmp_path / "data/texts").touch()
    with pytest.raises(UserError, match=r"^calibration.dataset: got 'data/texts'; give 'sandbox', a file \(.parquet, "):
        load_study(with_changes(calibration={"dataset": "data/texts"}))


@pytest.mark.parametrize("suffix", TEXT_SUFFIXES)
def test_local_texts_may_be_compressed(suffix: str) -> None:
    """`data/c4-train.json.gz` could also be a hub repository `owner/name`; it is taken for a file."""
    calibration = load_study(with_changes(calibration={"dataset": f"data/c4-train.00000{suffix}"})).calibration
    assert calibration.is_local
    assert not calibration.is_hub
    assert calibration.name == "c4-train"


def test_one_local_file_is_one_text_whatever_the_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local file is recognised under every spelling of its path, and its split is ignored."""
    monkeypatch.chdir(tmp_path)
    perplexity = {"texts": [{"name": "a", "dataset": "data/a.jsonl", "split": "test"}]}
    for dataset in ("data/a.jsonl", "./data/a.jsonl", f"{tmp_path}/data/a.jsonl"):
        with pytest.raises(UserError, match=rf"^calibration: '{dataset}' is also evaluation.perplexity.texts\[0\]; "):
            load_study(with_changes(calibration={"dataset": dataset}, evaluation={"perplexity": perplexity}))
    study = load_study(with_changes(calibration={"dataset": "data/b.jsonl"}, evaluation={"perplexity": perplexity}))
    assert study.warnings() == []


def test_compressed_documents_are_inputs_unless_they_are_copies(tmp_path: Path) -> None:
    """Copies as new inputs would trigger reruns of studies from before compressed files were read."""
    names = ["test.jsonl", "test.jsonl.gz", "train.json.gz", "dev.parquet", "notes.txt", "notes.md", "x.jsonl.zst"]
    assert document_files(tmp_path / "piqa" / name for name in names) == [
        str(tmp_path / "piqa" / name) for name in ("dev.parquet", "notes.txt", "test.jsonl", "train.json.gz")
    ]


def test_an_empty_config_says_so() -> None:
    with pytest.raises(UserError, match=r"^config: is empty; give a study name and models"):
        load_study({})


def test_a_joiner_without_double_quotes_is_doubtful() -> None:
    r"""YAML reads `joiner: \n` as a backslash and an n."""
    texts = [{"name": name, "dataset": "t.jsonl", "joiner": joiner} for name, joiner in (("a", "\n"), ("b", r"\n\n"))]
    (line,) = load_study(with_changes(evaluation={"perplexity": {"texts": texts}})).warnings()
    assert line.startswith("evaluation.perplexity.texts[1].joiner: got '\\\\n\\\\n', a backslash and a letter; ")
    assert line.endswith(r'use double quotes, as in joiner: "\n\n"')


def test_values_of_the_command_line_are_read_as_json() -> None:
    """Snakemake passes `--config 'evaluation={limit: 5}'` as {"evaluation": {"limit": "5"}}."""
    evaluation = {"limit": "5", "chat_template": "true", "perplexity": {"stride": "64"}}
    study = load_study(with_changes(evaluation=evaluation, grid={"pruning_ratio": ["0.25", "5e-1"]}))
    assert (study.evaluation.limit, study.evaluation.chat_template) == (5, True)
    assert study.evaluation.perplexity.stride == 64
    assert study.grid.pruning_ratio == (0.25, 0.5)
    assert load_study(with_changes(evaluation={"limit": "null"})).evaluation.limit is None
    with pytest.raises(UserError, match=r"^evaluation.limit: got '5 apples'; allowed: a whole number or null$"):
        load_study(with_changes(evaluation={"limit": "5 apples"}))


def test_secrets_are_refused_and_not_repeated() -> None:
    token = "hf_" + "a" * 30
    with pytest.raises(UserError, match=r"models\[0\].revision: looks like an access token") as caught:
        load_study(with_changes(models=[{**MODEL, "revision": token}]))
    assert token not in str(caught.value)


def test_another_split_of_a_perplexity_dataset_is_a_warning() -> None:
    calibration = {"dataset": "Salesforce/wikitext", "config": "wikitext-2-raw-v1", "split": "train"}
    assert load_study(with_changes(calibration=calibration)).warnings() == [
        "calibration: 'Salesforce/wikitext' is also the dataset of perplexity text 'wikitext2' (another split)"
    ]
    assert load_study(CONFIG).warnings() == []


HEADS, GROUPS = {"name": "heads", "units": ["kv_group"]}, {"name": "groups"}


@pytest.mark.parametrize(
    ("methods", "warnings"),
    [
        ([DEPTH, REAP], ["has no effect, because no method of the grid removes MLP channels; leave it out of new st"]),
        ([HEADS], ["has no effect, because no method of the grid removes MLP channels; leave it out of new studies"]),
        ([GROUPS, REAP], ["has no effect on methods[1] ('reap'), which removes whole experts (but a change makes its"]),
        ([GROUPS, DEPTH], []),
        ([{"name": "channels", "units": ["mlp_channel"]}, HEADS], []),
    ],
)
def test_a_width_that_some_methods_do_not_use_is_a_warning(methods: list[dict[str, Any]], warnings: list[str]) -> None:
    """It is no problem, because finished plans have the value in their recipes."""
    grid = {"methods": [method["name"] for method in methods]}
    study = load_study(with_changes(methods=methods, grid=grid, selection={"mlp_multiple_of": 8}))
    found = study.warnings()
    assert len(found) == len(warnings)
    for line, warning in zip(found, warnings, strict=True):
        assert line.startswith(f"selection.mlp_multiple_of: 8 {warning}")
    assert load_study(with_changes(methods=methods, grid=grid)).warnings() == []


@pytest.mark.parametrize(
    ("method", "warnings"),
    [
        (
            {**REAP, "allocation": "uniform"},
            ["allocation: 'uniform' has no effect, because all layers lose equally many"],
        ),
        (
            {"name": "t", "prior": "cosine_distance", "temperature": 0.5, "prior_floor": 0.1},
            [
                "prior: 'cosine_distance' has no effect, because scope is none; leave it out",
                "temperature: 0.5 has no effect, because scope is none; leave it out",
                "prior_floor: 0.1 has no effect, because scope is none; leave it out",
            ],
        ),
        ({"name": "t", "temperature": 0}, []),  # this says the same as the scope
        ({"name": "t", "scope": "layer", "prior": "cosine_distance", "temperature": 0.5, "prior_floor": 0.1}, []),
        ({"name": "t", "allocation": "uniform"}, []),
    ],
)
def test_an_option_of_a_method_without_effect_is_a_warning(method: dict[str, Any], warnings: list[str]) -> None:
    found = load_study(with_changes(methods=[method], grid={"methods": [method["name"]]})).warnings()
    assert len(found) == len(warnings)
    for line, warning in zip(found, warnings, strict=True):
        assert line.startswith(f"methods[0].{warning}")
    unused = load_study(with_changes(methods=[{**method, "name": "unused"}, {"name": "t"}], grid={"methods": ["t"]}))
    assert unused.warnings() == []


def test_imported_models_of_a_mixed_study_are_not_raced_and_it_says_so() -> None:
    imported = {"name": "I", "family": "L", "kind": "base", "legacy": ["x"]}
    study = load_study(with_changes(models=[*CONFIG["models"], imported], evaluation={"racing": {}}))
    assert "evaluation.racing: 'I' is imported, so it is not raced: its results have no single documents" in (
        study.warnings()
    )
    assert load_study(with_changes(models=[*CONFIG["models"], imported])).warnings() == []


def test_a_study_is_frozen_at_every_level() -> None:
    study = load_study(CONFIG)
    for section, key in ((study, "study"), (study.grid, "methods"), (study.models[0], "name")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, None)


@pytest.mark.parametrize("name", ["config", "quick", "paper"])
def test_shipped_configs_fit_the_schema(name: str) -> None:
    content = yaml.safe_load((REPOSITORY / "config" / f"{name}.yaml").read_text(encoding="utf-8"))
    load_study(content)
    Draft202012Validator(json.loads(json_schema())).validate(content)


def test_generated_files_are_fresh() -> None:
    """If this fails, run `make generated`."""
    assert (REPOSITORY / "config/schema.json").read_text(encoding="utf-8").splitlines() == json_schema().splitlines()
    page = (REPOSITORY / "config/README.md").read_text(encoding="utf-8")
    assert page.splitlines() == insert_options(page).splitlines()


def test_aliases_that_multiply_are_refused_at_once() -> None:
    """Ten lists of nine times the list before: 9^10 values, which would take minutes and gigabytes to expand."""
    value: object = "x"
    for _ in range(10):
        value = [value] * 9
    with pytest.raises(UserError, match=r"config: has [\d,]+ values after its aliases are expanded; allowed: 100,000"):
        load_study({"study": "s", "models": value})

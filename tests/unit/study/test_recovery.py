"""Recovery in a study: which experiments, which text, and which settings are refused before any job runs."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from espalier.config import load_study
from espalier.config.models import SandboxModel
from espalier.config.sandbox import Sandbox
from espalier.errors import UserError
from espalier.files import write_json
from espalier.study.config_checks import infeasible_problems, known_sizes
from espalier.study.lookups import Study
from espalier.study.planned_jobs import planned_jobs

MODEL = {"name": "A", "family": "Llama", "kind": "base", "path": "models/a"}
NAMES = ["taylor-seq16-n8-p20", "random-p20", "taylor-seq16-n8-p50", "random-p50"]
A = SimpleNamespace(model="A")


def make_study(recovery: dict[str, Any] | None, **changes: Any) -> Study:
    config: dict[str, Any] = {
        "study": "s",
        "models": [MODEL],
        "methods": [{"name": "taylor"}, {"name": "random", "criterion": "random"}],
        "grid": {
            "methods": ["taylor", "random"], "taylor_seq_len": [16], "taylor_num_samples": [8],
            "pruning_ratio": [0.2, 0.5],
        },
        "calibration": {"dataset": "c.parquet", "seeds": [3]},
    } | changes  # fmt: skip
    return Study(load_study(config | ({} if recovery is None else {"recovery": recovery})), Path("src/espalier"))


class AskedError(Exception):
    """Raised when the output of a checkpoint is needed before it has run."""


class Checkpoints:
    """A replacement for Snakemake's `checkpoints`, before the checkpoint has run or after it."""

    def __init__(self, chosen: Path | None = None) -> None:
        self.choose_recovered = self
        self._chosen = chosen

    def get(self, model: str) -> Any:
        assert model == "A"
        if self._chosen is None:
            raise AskedError
        return SimpleNamespace(output=[str(self._chosen)])


def chosen(study: Study, checkpoints: Checkpoints) -> list[str]:
    return [entry["experiment"] for entry in study.recovered.entries(checkpoints)(A)]


def test_without_the_section_nothing_is_recovered() -> None:
    study = make_study(None)
    assert study.recovered.result_files(Checkpoints())(A) == []
    assert (study.recovered.table, study.recovered.overlap_checks, study.recovered.analysis(A)) == ([], [], [])
    assert study.recovered.problems() == []
    missing = "recovery: the config has no such section, so nothing is recovered; give `recovery: {}`"
    assert study.recovered.warnings() == [missing]
    with pytest.raises(UserError, match="recovery: the config has no such section, so nothing is recovered; add it"):
        study.recovery.settings(A)


def test_names_and_all_need_no_checkpoint() -> None:
    assert chosen(make_study({"experiments": [NAMES[0]]}), Checkpoints()) == [NAMES[0]]
    assert chosen(make_study({"experiments": ["all"]}), Checkpoints()) == NAMES[2:]  # at the largest ratio
    headline = make_study({"experiments": ["all", NAMES[3], "best"]}, report={"ratio": 0.2})
    assert chosen(headline, Checkpoints()) == [NAMES[0], NAMES[1], NAMES[3]]


def test_the_best_is_asked_of_the_checkpoint(tmp_path: Path) -> None:
    study = make_study({"experiments": ["best", NAMES[1]]})
    with pytest.raises(AskedError):
        chosen(study, Checkpoints())
    write_json(tmp_path / "chosen.json", {"best": NAMES[2]})
    assert chosen(study, Checkpoints(tmp_path / "chosen.json")) == [NAMES[1], NAMES[2]]
    files = study.recovered.result_files(Checkpoints(tmp_path / "chosen.json"))(A)
    folder = f"results/s/recovered/A/{NAMES[1]}"
    assert files[:2] == [f"{folder}/metrics.json", f"{folder}/training.json"]


def test_partial_reports_take_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = make_study({"experiments": ["best", NAMES[1]]}, report={"allow_missing": True})
    assert chosen(study, Checkpoints()) == [NAMES[1]]  # the best is not known yet, so it is left out
    assert study.recovered.result_files(Checkpoints())(A) == []
    metrics = f"results/s/recovered/A/{NAMES[1]}/metrics.json"
    assert study.recovered.missing(Checkpoints())(A) == {metrics: None}
    older = tmp_path / f"results/s/recovered/A/{NAMES[1]}/failure.json"  # as version 0.1.0 recorded it
    write_json(older, {"reason": "out of memory", "log": "x.log"})
    assert study.recovered.missing(Checkpoints())(A) == {metrics: "out of memory"}
    write_json(tmp_path / f"results/s/failures/evaluate_recovered/A/{NAMES[1]}.json", {"reason": "nan", "rule": ""})
    assert study.recovered.missing(Checkpoints())(A) == {metrics: "nan"}
    write_json(tmp_path / f"results/s/failures/recover/A/{NAMES[1]}.json", {"reason": "loss is nan", "rule": ""})
    assert study.recovered.missing(Checkpoints())(A) == {metrics: "recovery: loss is nan"}
    assert study.recovered.samples(Checkpoints())(A) == {}
    write_json(tmp_path / "results/s/recovered/A/chosen.json", {"best": NAMES[2]})
    write_json(tmp_path / f"results/s/recovered/A/{NAMES[2]}/metrics.json", {})
    assert chosen(study, Checkpoints()) == [NAMES[1], NAMES[2]]
    assert list(study.recovered.samples(Checkpoints())(A)) == [NAMES[2]]


def test_a_model_with_controls_only_has_no_best_and_stops_no_other() -> None:
    """The table of all recovered experiments, which every page needs, would wait for the best one of C."""
    models = [MODEL, MODEL | {"name": "C", "grid": {"methods": ["random"]}}]
    study = make_study({"experiments": ["best"]}, models=models, inference={"experiments": ["best"]})
    known = Checkpoints()
    known.get = lambda model: SimpleNamespace(output=[f"{model}.json"])  # type: ignore[method-assign]
    with pytest.raises(FileNotFoundError, match=r"A\.json"):
        study.recovered.entries(known)(A)
    assert [study.recovered.planned_names(name) for name in ("A", "C")] == [["best"], []]
    assert study.exports.exported == [("A", "best")]
    assert study.inference.files == ["results/s/inference/A/best.json"]
    alone = make_study({"experiments": ["best"]}, models=models[1:])
    assert alone.recovered.planned_names("C") == ["best"]  # the job that determines it says that there is none


def test_unknown_names_are_refused_with_what_is_allowed() -> None:
    study = make_study({"experiments": ["best", "taylor-p20"]})
    assert study.recovered.problems() == [
        f"recovery.experiments: got 'taylor-p20'; allowed: best, all, {', '.join(NAMES)}"
    ]


def test_the_text_is_that_of_the_calibration_without_its_documents() -> None:
    study = make_study({})
    assert study.recovery.text == "c.parquet"
    settings = study.recovery.settings(A)
    assert (settings["calibration_seeds"], settings["text_field"]) == ([3], "text")
    assert study.recovery.calibrations(A) == [{"seed": 3, "seq_len": 16, "n_samples": 8}]
    assert {"experiments", "token_budget", "checkpointing", "text"}.isdisjoint(settings)


def test_another_text_is_used_whole() -> None:
    study = make_study({"text": {"dataset": "owner/texts", "text_field": "content"}})
    assert study.recovery.text == "cache/texts/owner--texts@train@main.parquet"
    assert "owner--texts@train@main" in study.staged.texts
    assert study.recovery.settings(A)["calibration_seeds"] == []
    assert study.recovery.calibrations(A) == []
    same = make_study({"text": {"dataset": "c.parquet"}})
    assert same.recovery.settings(A)["calibration_seeds"] == [3]  # the same file as the calibration text


@pytest.mark.parametrize("changes", [{"dataset": "./c.parquet"}, {"split": "validation"}])
def test_a_file_is_the_calibration_text_however_it_is_named(changes: dict[str, str]) -> None:
    """A local file has no splits. Otherwise, fine-tuning would use documents of the calibration sets, unchecked."""
    study = make_study({"text": {"dataset": "c.parquet"} | changes})
    assert study.recovery.text == "c.parquet"
    assert study.recovery.settings(A)["calibration_seeds"] == [3]
    assert study.recovery.calibrations(A) == [{"seed": 3, "seq_len": 16, "n_samples": 8}]


def test_another_revision_of_the_calibration_text_is_refused() -> None:
    """Documents of the calibration sets are left out by their places, which another revision may have changed."""
    calibration = {"dataset": "owner/texts", "revision": "v1"}
    same = make_study({"text": calibration}, calibration=calibration)
    assert same.recovery.text == "cache/texts/owner--texts@train@v1.parquet"
    message = "recovery.text.revision: got 'v2', but calibration reads the same split at revision 'v1', .*; give the"
    with pytest.raises(UserError, match=message):
        make_study({"text": calibration | {"revision": "v2"}}, calibration=calibration)
    other = {"text": calibration | {"revision": "v2", "split": "test"}}
    assert make_study(other, calibration=calibration).recovery.text == "cache/texts/owner--texts@test@v2.parquet"


def test_what_decides_the_adapters_does_not_depend_on_the_grid() -> None:
    """Otherwise, another sequence length in the grid would trigger all fine-tuning again."""
    wider = {"methods": ["taylor"], "taylor_seq_len": [16, 64], "taylor_num_samples": [8, 512], "pruning_ratio": [0.2]}
    assert make_study({}).recovery.settings(A) == make_study({}, grid=wider).recovery.settings(A)


@pytest.mark.parametrize(
    ("recovery", "message"),
    [
        ({"text": {"dataset": "p.txt"}},
         r"recovery.text: 'p.txt' is also evaluation.perplexity.texts\[0\]; fine-tune on another file"),
        ({"experiments": []}, "recovery.experiments: is empty; give at least one value"),
        ({"experiments": ["a-p20", "a-p20"]}, "recovery.experiments: 'a-p20' is listed twice; list each once"),
        ({"target_modules": ["q_prj"]}, r"recovery.target_modules\[0\]: got 'q_prj'; allowed: q_proj, k_proj, .+"),
        ({"rnak": 8}, r"recovery.rnak: unknown key \(did you mean 'rank'\?\)"),
        ({"dropout": 1.0}, "recovery.dropout: got 1.0; allowed: less than 1"),
        ({"learning_rate": 0.0}, "recovery.learning_rate: got 0.0; allowed: greater than 0"),
        ({"dtype": "float16"}, "recovery.dtype: got 'float16'; allowed: auto, float32, bfloat16"),
    ],
)  # fmt: skip
def test_bad_values_are_refused(recovery: dict[str, Any], message: str) -> None:
    texts = {"texts": [{"name": "p", "dataset": "p.txt"}]}
    with pytest.raises(UserError, match=message):
        make_study(recovery, evaluation={"perplexity": texts})


def test_another_split_of_a_perplexity_text_is_warned_of() -> None:
    texts = {"texts": [{"name": "p", "dataset": "owner/texts", "split": "test"}]}
    study = make_study({"text": {"dataset": "owner/texts"}}, evaluation={"perplexity": texts})
    assert study.config.warnings() == [
        "recovery.text: 'owner/texts' is also the dataset of perplexity text 'p' (another split)"
    ]


def test_sequences_longer_than_a_known_context_are_refused_at_once() -> None:
    sandbox = [{"name": "A", "family": "Llama", "kind": "base", "sandbox": {"architecture": "llama"}}]
    window = {"perplexity": {"window": 128, "stride": 64}}
    study = make_study({"seq_len": 512}, models=sandbox, evaluation=window).config
    sizes = {"A": known_sizes(study.models[0], "", Sandbox())}
    limit = SandboxModel(architecture="llama").max_position_embeddings
    assert infeasible_problems(study, sizes) == [
        f"recovery.seq_len: got 512, but the context of model 'A' is {limit} tokens; give at most {limit}"
    ]


def test_a_forecast_counts_recoveries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = make_study({"experiments": ["best", NAMES[1]], "seq_len": 8, "n_sequences": 4, "epochs": 2})
    jobs = [job for job in planned_jobs(study)["jobs"] if job["rule"] in {"recover", "evaluate_recovered"}]
    assert [(job["rule"], job["amount"]) for job in jobs] == [("recover", 64), ("evaluate_recovered", 1)] * 2
    assert {job["output"] for job in jobs if job["rule"] == "recover"} == {
        f"results/s/recovered/A/{name}/training.json" for name in ("best", NAMES[1])
    }


def test_what_lora_jobs_depend_on_has_no_newer_keys() -> None:
    """Settings of earlier recoveries stay byte-identical, so their adapters stay valid."""
    settings = make_study({}).recovery.settings(A)
    assert settings == make_study({"method": "lora"}).recovery.settings(A)
    assert not {"method", "distillation"} & set(settings)
    assert make_study({"distillation": {}}).recovery.settings(A) == {
        **settings, "distillation": {"temperature": 1.0, "weight": 1.0}
    }  # fmt: skip


def test_training_all_weights_has_its_own_rule_files_and_memory() -> None:
    study = make_study({"method": "full", "learning_rate": 1e-5, "experiments": ["random-p20"]})
    settings = study.recovery.settings(A)
    assert settings["method"] == "full"
    assert not {"rank", "alpha", "dropout", "target_modules"} & set(settings)
    (entry,) = study.recovered.entries(Checkpoints())(A)
    folder = "results/s/recovered/A/random-p20"
    assert entry["training"] == f"{folder}/trained/training.json"
    assert entry["metrics"] == f"{folder}/metrics.json"
    experiment = SimpleNamespace(model="A", experiment="random-p20")
    assert study.recovered.weights(experiment) == [f"{folder}/trained/trained_weights.safetensors"]
    assert study.recovery.memory == "recovery_full"
    adapters = make_study({"distillation": {}, "experiments": ["random-p20"]})
    assert {path.rpartition("/")[0] for path in adapters.recovered.weights(experiment)} == {f"{folder}/adapter"}
    assert adapters.recovery.memory == "recovery_distillation"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"method": "distill"}, r"recovery.method: got 'distill'; allowed: lora, full"),
        ({"method": "full"}, r"recovery: `method: full` needs a learning_rate: the default is for adapters; give one"),
        (
            {"method": "full", "learning_rate": 1e-5, "rank": 4},
            r"recovery: rank describes adapters, and `method: full`",
        ),
        ({"distillation": {"temperature": 0}}, r"recovery.distillation.temperature: got 0"),
        ({"distillation": {"temperature": -1.5}}, r"recovery.distillation.temperature: got -1.5"),
        ({"distillation": {"weight": 1.5}}, r"recovery.distillation.weight: got 1.5"),
        ({"distillation": {"teacher": "A"}}, r"recovery.distillation.teacher: .*unknown"),
        ({"distillation": True}, r"recovery.distillation: got True"),
    ],
)
def test_unusable_methods_are_refused_in_one_line(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        make_study(section)
    lines = str(error.value).splitlines()
    assert sum("recovery" in line for line in lines) == 1, lines
    assert re.search(message, str(error.value)), str(error.value)

"""Models that cannot be used: one clear line, a non-zero exit, and what others finished stays."""

from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from espalier.files import read_json
from espalier.sandbox.corpora import make_pages
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from espalier.sandbox.world import make_world
from tests.conftest import Run
from tests.unit.conftest import random_model


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    pages = make_pages(make_world(0), "training", 100, 0)
    return wrap(train_tokenizer("llama", pages, 400), model_max_length=128, chat=False)


def test_a_bad_model_stops_alone(snakemake: Run, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    for name in ("Good", "NoTokenizer", "Pickle"):
        random_model("llama", len(tokenizer)).save_pretrained(tmp_path / name)
    tokenizer.save_pretrained(tmp_path / "Good")
    tokenizer.save_pretrained(tmp_path / "Pickle")
    (tmp_path / "Pickle/model.safetensors").rename(tmp_path / "Pickle/pytorch_model.bin")
    names = ("Missing", "Pickle", "NoTokenizer", "Good")
    models = [{"name": name, "family": "Llama", "kind": "base", "path": name} for name in names]
    config = tmp_path / "study.yaml"
    config.write_text(
        yaml.safe_dump({"study": "bad", "models": models, "grid": {"taylor_seq_len": [16]}}), encoding="utf-8"
    )

    manifests = [f"results/bad/models/{name}.json" for name in names]
    done = snakemake(*manifests, "--configfile", str(config), directory=tmp_path)
    assert done.returncode != 0
    lines = done.stderr.splitlines()
    expected = {
        "Missing": "Missing: no such model folder; give one written by save_pretrained, or a hub repository",
        "Pickle": "Pickle: has only .bin weights, which are pickles and are never read; load them where you trust them "
        "and save with save_pretrained, which writes safetensors",
        "NoTokenizer": "NoTokenizer: has no tokenizer (tokenizer.json); save it there with tokenizer.save_pretrained",
    }
    for name, line in expected.items():
        assert f"[check {name}] error: {line}" in lines
        assert line in (tmp_path / f"results/bad/logs/check_model/{name}.log").read_text(encoding="utf-8")
        assert not (tmp_path / f"results/bad/models/{name}.json").exists()
    assert "Traceback" not in done.stderr
    assert read_json(tmp_path / "results/bad/models/Good.json")["architecture"] == "LlamaForCausalLM"


def test_a_results_folder_without_results_is_one_line(tmp_path: Path) -> None:
    from espalier.errors import UserError
    from espalier.summary import summarise

    with pytest.raises(UserError, match=r"nothing: no results yet; run snakemake first"):
        summarise(tmp_path / "nothing")

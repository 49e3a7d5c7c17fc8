"""Staging from a hub on loopback (one commit, safetensors only, verified checksums), and the lock file."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import yaml
from lm_eval.tasks._index import Entry, Kind
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.files import read_parquet, sha256_of, write_json, write_parquet
from espalier.models.folder import inspect_folder
from espalier.staging import datasets as dataset_staging
from espalier.staging import models as staging
from espalier.staging.lock import locked_commit, locked_dataset, read_lock, write_lock
from tests.unit.conftest import random_model
from tests.unit.hub import COMMIT, LoopbackHub, serve


@pytest.fixture
def repository_folder(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, architecture: str) -> Path:
    """Write the files that the hub serves: a sharded model, and a pickle and code that must not be downloaded."""
    folder = tmp_path / "hub"
    random_model(architecture, len(tokenizer)).save_pretrained(folder, max_shard_size="20kB")
    tokenizer.save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit('never run')")
    (folder / "LICENSE").write_text("a licence")
    return folder


@pytest.fixture
def hub(repository_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with serve(repository_folder) as server:
        monkeypatch.setattr(staging, "HfApi", partial(staging.HfApi, endpoint=server.url))
        yield server


def test_a_model_is_fetched_at_one_commit_and_verified(hub: LoopbackHub, tmp_path: Path) -> None:
    staged = staging.stage_model("owner/tiny", "main", tmp_path / "cache", None)
    assert staged["commit"] == COMMIT
    assert inspect_folder(tmp_path / "cache").n_layers == 2
    fetched = {path.name for path in (tmp_path / "cache").iterdir() if path.is_file()}
    assert "LICENSE" in fetched
    assert not fetched & {"pytorch_model.bin", "modeling.py"}
    assert staged["files"].keys() == fetched
    for name, described in staged["files"].items():
        assert described["sha256"] == sha256_of(hub.folder / name)
    assert not any(path.endswith((".bin", ".py")) for path in hub.asked)


def sharded(folder: Path) -> list[str]:
    """Return the names of the shards and their index, sorted."""
    return sorted(path.name for path in folder.glob("model*.safetensors*"))


def test_only_what_transformers_loads_is_fetched(hub: LoopbackHub, tmp_path: Path) -> None:
    """Other formats and precisions of the same weights, and other tokenizers, are not downloaded."""
    expected = {path.name for path in hub.folder.iterdir()} - {"pytorch_model.bin", "modeling.py"}
    expected.add("additional_chat_templates/tools.jinja")
    for name in (
        "consolidated.safetensors", "consolidated.00001-of-00002.safetensors", "model.fp16.safetensors",
        "model-00009-of-00009.safetensors", "adapter_model.safetensors", "model.safetensors.index.fp16.json",
        "model.q4.gguf", "original/model.safetensors", "original/tokenizer.json", "original/config.json",
        "onnx/model.onnx", "onnx/tokenizer_config.json", "tokenizer/tokenizer.json", "lora/adapter_model.safetensors",
        "additional_chat_templates/tools.jinja", "additional_chat_templates/deep/x.jinja", "prompts/chat.jinja",
        "docs/LICENSE.md",
    ):  # fmt: skip
        (hub.folder / name).parent.mkdir(exist_ok=True, parents=True)
        (hub.folder / name).write_bytes(b"not for us")
    staged = staging.stage_model("owner/tiny", "main", tmp_path / "cache", None)
    there = {path.relative_to(tmp_path / "cache").as_posix() for path in (tmp_path / "cache").rglob("*")}
    files = {name for name in there if not name.startswith(".cache") and (tmp_path / "cache" / name).is_file()}
    assert files == expected
    assert staged["files"].keys() == expected
    resolved = {path.split(f"{COMMIT}/", 1)[1] for path in hub.asked if path.startswith("/owner/tiny/resolve/")}
    assert resolved == expected


def test_one_file_is_preferred_to_shards_as_transformers_does(
    hub: LoopbackHub, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, architecture: str
) -> None:
    random_model(architecture, len(tokenizer), num_hidden_layers=1).save_pretrained(tmp_path / "other")
    shards = sharded(hub.folder)
    (tmp_path / "other/model.safetensors").rename(hub.folder / "model.safetensors")
    staged = staging.stage_model("owner/tiny", "main", tmp_path / "cache", None)
    assert "model.safetensors" in staged["files"]
    assert not staged["files"].keys() & set(shards)
    # In a folder with both, `inspect_folder` and transformers read the same file.
    shutil.copy(tmp_path / "other/config.json", hub.folder)
    loaded = AutoModelForCausalLM.from_pretrained(hub.folder)
    assert inspect_folder(hub.folder).weight_files == ("model.safetensors",)
    assert inspect_folder(hub.folder).n_params == loaded.num_parameters()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantised"),
        ({"vision_config": {}, "model_type": "other_vl"}, "is a wrapper around a text model"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers is"),
    ],
)
def test_a_model_that_its_config_shows_to_be_unusable_is_refused_before_its_weights(
    hub: LoopbackHub, changes: dict[str, object], problem: str, tmp_path: Path
) -> None:
    write_json(hub.folder / "config.json", json.loads((hub.folder / "config.json").read_text()) | changes)
    with pytest.raises(UserError, match=problem):
        staging.stage_model("owner/tiny", "main", tmp_path / "cache", None)
    assert not any(path.endswith(".safetensors") for path in hub.asked)


def test_shards_that_the_index_names_must_be_there(hub: LoopbackHub, tmp_path: Path) -> None:
    name = min(path.name for path in hub.folder.glob("*.safetensors"))
    (hub.folder / name).unlink()
    with pytest.raises(UserError, match=rf"owner/tiny: model.safetensors.index.json names {name}, which is no"):
        staging.stage_model("owner/tiny", "main", tmp_path / "cache", None)
    (hub.folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match=r"owner/tiny: model.safetensors.index.json names nothing, which is no"):
        staging.stage_model("owner/tiny", "main", tmp_path / "again", None)


def test_a_repository_without_the_usual_names_is_refused(hub: LoopbackHub, tmp_path: Path) -> None:
    for name in sharded(hub.folder):
        (hub.folder / name).unlink()
    (hub.folder / "consolidated.safetensors").touch()
    with pytest.raises(
        UserError,
        match=r"has neither model.safetensors nor .*, only consolidated.safetensors; name a rep",
    ):
        staging.stage_model("owner/tiny", "main", tmp_path / "cache", None)


def test_another_commit_leaves_nothing_of_the_one_before(hub: LoopbackHub, tmp_path: Path) -> None:
    """Files of the previous commit are deleted; transformers would load an old `model.safetensors`, not the shards."""
    cache = tmp_path / "cache"
    old = ["model.safetensors", "vocab.json", "chat_template.jinja", "additional_chat_templates/old.jinja", "notes.txt"]
    for name in old:
        (cache / name).parent.mkdir(exist_ok=True, parents=True)
        (cache / name).write_text("of another commit")
    there = {path.name for path in hub.folder.iterdir()}
    staging.stage_model("owner/tiny", "main", cache, None)
    left = [name for name in old if (cache / name).exists() and name not in there]
    assert left == ["notes.txt"]
    assert inspect_folder(cache).weight_files == tuple(sharded(hub.folder)[:-1])


def test_a_full_disk_is_said_before_anything_is_fetched(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    # The index is small and is downloaded first, because it lists the shards that are needed.
    not_needed = {"pytorch_model.bin", "modeling.py", "model.safetensors.index.json"}
    needed = sum(path.stat().st_size for path in hub.folder.iterdir() if path.name not in not_needed)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(
        UserError, match=r"owner/tiny: needs 0.0 GB in .*cache, where 0.0 GB are free; make room, or make cache/ a link"
    ):
        staging.stage_model("owner/tiny", "main", cache, None)
    assert not any(path.endswith(".safetensors") for path in hub.asked)
    # Files that were already downloaded need no space.
    shutil.copy(hub.folder / sharded(hub.folder)[0], cache)
    assert staging.stage_model("owner/tiny", "main", cache, None)["commit"] == COMMIT


def test_a_locked_revision_asks_for_its_commit(hub: LoopbackHub, tmp_path: Path) -> None:
    staging.stage_model("owner/tiny", "main", tmp_path / "cache", COMMIT)
    assert f"/api/models/owner/tiny/revision/{COMMIT}" in hub.asked
    assert "/api/models/owner/tiny/revision/main" not in hub.asked


def test_a_wrong_checksum_is_refused_and_the_file_deleted(hub: LoopbackHub, tmp_path: Path) -> None:
    name = min(path.name for path in hub.folder.glob("*.safetensors"))
    hub.wrong_checksums.add(name)
    with pytest.raises(UserError, match=rf"{name}: its SHA-256 is .*, the hub says 000000000000...; it was deleted"):
        staging.stage_model("owner/tiny", "main", tmp_path / "cache", None)
    assert not (tmp_path / "cache" / name).exists()
    hub.wrong_checksums.clear()
    assert staging.stage_model("owner/tiny", "main", tmp_path / "cache", None)["commit"] == COMMIT


def test_unknown_repositories_and_revisions_are_named(hub: LoopbackHub, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"owner/other: no such repository, or no access to it; check the name and HF_T"
    ):
        staging.stage_model("owner/other", "main", tmp_path / "cache", None)
    with pytest.raises(UserError, match=r"owner/tiny: has no revision 'v9'; give a branch, tag or commit"):
        staging.stage_model("owner/tiny", "v9", tmp_path / "cache", None)


def test_bin_only_repositories_are_refused_before_anything_is_fetched(hub: LoopbackHub, tmp_path: Path) -> None:
    for path in hub.folder.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(UserError, match=r"owner/tiny: has no safetensors weights; .bin files are pickles"):
        staging.stage_model("owner/tiny", "main", tmp_path / "cache", None)
    assert not (tmp_path / "cache").exists()


def test_a_hub_that_is_away_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "HfApi", partial(staging.HfApi, endpoint="http://127.0.0.1:9"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"owner/tiny: could not be fetched \(.*\); run `snakemake stage` again$"):
        staging.stage_model("owner/tiny", "main", tmp_path / "cache", None)
    (tmp_path / "owner/tiny").mkdir(parents=True)
    with pytest.raises(UserError, match=r"again, or give the local folder of this name as `path`, not as `hub`$"):
        staging.stage_model("owner/tiny", "main", tmp_path / "cache", None)


def test_lock_file_pins_commits_and_keeps_other_studies(tmp_path: Path) -> None:
    lock = tmp_path / "cache/lock.yaml"
    assert locked_commit(lock, "owner/tiny", "main") is None
    for name, commit in (("a", COMMIT), ("b", COMMIT[::-1])):
        staged = {"repository": f"owner/{name}", "revision": "main", "commit": commit, "files": {}}
        write_json(tmp_path / f"cache/models/{name}@main/staged.json", staged)
    write_json(tmp_path / "cache/datasets/piqa.json", {"task": "piqa", "commits": {"x/piqa": COMMIT}, "files": {}})
    source = {"dataset": "x/text", "commit": COMMIT}
    table = pa.table({"text": ["a"]}).replace_schema_metadata({b"espalier_staged": json.dumps(source).encode()})
    write_parquet(tmp_path / "cache/texts/x.parquet", table)
    write_lock(lock)
    assert locked_commit(lock, "owner/a", "main") == COMMIT
    assert locked_commit(lock, "owner/b", "main") == COMMIT[::-1]
    assert read_lock(lock)["tasks"]["piqa"]["commits"] == {"x/piqa": COMMIT}
    assert read_lock(lock)["texts"]["x"] == {**source, "sha256": sha256_of(tmp_path / "cache/texts/x.parquet")}


OTHER = COMMIT[::-1]
# A lock file as written by version 0.1.0.
LOCK = f"""
models:
  x/wiki@main: {{commit: '{OTHER}', files: {{}}}}
tasks:
  arc_easy: {{commits: {{x/arc: '{COMMIT}'}}, files: {{cache/datasets/arc_easy/test.parquet: abc}}}}
  local: {{commits: {{data/local: null}}, files: {{}}}}
  odd: {{commits: {{x/odd: '{COMMIT}'}}, files: {{}}}}
texts:
  x--wiki@test@main: {{dataset: x/wiki, config: raw, data_files: null, split: test, revision: main,
    commit: '{COMMIT}', sha256: abc}}
  x--wiki@test@v1: {{dataset: x/wiki, config: raw, data_files: null, split: test, revision: v1,
    commit: '{OTHER}', sha256: abc}}
"""


@pytest.mark.parametrize(
    ("dataset", "revision", "section", "key", "commit"),
    [
        ("x/wiki", "main", "texts", "x--wiki@test@main", COMMIT),
        ("x/wiki", "v1", "texts", "x--wiki@test@v1", OTHER),
        # Another split and a task that reads the same repository use the same commit; another revision does not.
        ("x/wiki", "main", "texts", "x--wiki@train@main", COMMIT),
        ("x/wiki", "main", "tasks", "wiki", COMMIT),
        ("x/wiki", "v2", "texts", "x--wiki@test@v2", None),
        ("x/arc", "main", "tasks", "arc_easy", COMMIT),
        ("x/arc", "main", "tasks", "arc_challenge", COMMIT),
        ("x/arc", "main", "texts", "x--arc@test@main", COMMIT),
        ("x/arc", "refs/convert/parquet", "texts", "x--arc@test@refs", None),
        # A task's own entry applies to the revision in its definition, which version 0.1.0 did not record.
        ("x/odd", "refs/convert/parquet", "tasks", "odd", COMMIT),
        ("data/local", "main", "tasks", "local", None),
        ("x/new", "main", "tasks", "new", None),
    ],
)
def test_every_dataset_in_the_lock_is_pinned(
    dataset: str, revision: str, section: str, key: str, commit: str | None, tmp_path: Path
) -> None:
    (tmp_path / "lock.yaml").write_text(LOCK, encoding="utf-8")
    assert locked_dataset(tmp_path / "lock.yaml", dataset, revision, section=section, key=key) == commit


def test_a_pinned_dataset_is_not_asked_for(tmp_path: Path) -> None:
    """A locked commit and a local folder need no request to the hub; a folder has no commit."""
    assert dataset_staging.resolve_commit("x/wiki", "main", COMMIT) == COMMIT
    assert dataset_staging.resolve_commit(str(tmp_path), "main", COMMIT) is None


def test_an_entry_is_kept_when_its_files_are_gone(tmp_path: Path) -> None:
    """An entry stays in the lock file, so a deleted folder is staged again at the commit that results depend on."""
    lock = tmp_path / "cache/lock.yaml"
    lock.parent.mkdir()
    lock.write_text(LOCK, encoding="utf-8")
    write_json(tmp_path / "cache/datasets/piqa.json", {"task": "piqa", "commits": {"x/piqa": COMMIT}, "files": {}})
    before = yaml.safe_load(LOCK)
    write_lock(lock)
    now = read_lock(lock)
    assert now.pop("tasks") == {**before.pop("tasks"), "piqa": {"commits": {"x/piqa": COMMIT}, "files": {}}}
    assert now == before


def test_a_file_that_is_not_the_locked_one_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = tmp_path / "cache/lock.yaml"

    def stage(text: str, commit: str) -> list[str]:
        source = json.dumps({"dataset": "x/text", "revision": "main", "commit": commit}).encode()
        table = pa.table({"text": [text]}).replace_schema_metadata({b"espalier_staged": source})
        write_parquet(tmp_path / "cache/texts/x.parquet", table)
        files = {"a.parquet": sha256_of(tmp_path / "cache/texts/x.parquet")}
        write_json(tmp_path / "cache/datasets/t.json", {"task": "t", "commits": {"x/t": commit}, "files": files})
        caplog.clear()
        write_lock(lock)
        return [record.getMessage() for record in caplog.records]

    assert stage("a", COMMIT) == []
    assert stage("a", COMMIT) == []
    said = stage("b", COMMIT)
    assert ["t: the SHA-256 of a.parquet was" in line for line in said] == [True, False]
    assert ["x: the SHA-256 of x was" in line for line in said] == [False, True]
    assert stage("c", OTHER) == []  # files of another commit may differ


def test_studies_that_stage_at_once_lose_no_entry(tmp_path: Path) -> None:
    """Each writer adds its entries to the current content of the lock file."""
    folders = [tmp_path / f"cache/models/m{number}@main" for number in range(8)]

    def stage(folder: Path) -> None:
        staged = {"repository": f"x/{folder.name}", "revision": "main", "commit": COMMIT, "files": {}}
        write_json(folder / "staged.json", staged)
        write_lock(tmp_path / "cache/lock.yaml")
        shutil.rmtree(folder)

    with ThreadPoolExecutor(len(folders)) as pool:
        list(pool.map(stage, folders))
    assert len(read_lock(tmp_path / "cache/lock.yaml")["models"]) == len(folders)


def test_a_broken_lock_file_is_refused(tmp_path: Path) -> None:
    for content in (
        b"- x",
        b"a: {b",
        b"\xff\xfe",
        b"[" * 3000,
        b"models: []\ntasks: {}\ntexts: {}",
        b"models: {a@main: x}\ntasks: {}\ntexts: {}",
        b"models: {a@main: {}}\ntasks: {}\ntexts: {}",
        b"models: {}\ntasks: {a: {commits: []}}\ntexts: {}",
        b"models: {}\ntasks: {a: {}}\ntexts: {}",
    ):
        (tmp_path / "lock.yaml").write_bytes(content)
        with pytest.raises(UserError, match=r"lock.yaml: is not a lock file; delete it and run `snakemake stage`"):
            read_lock(tmp_path / "lock.yaml")


@pytest.fixture
def local_dataset(tmp_path: Path) -> Path:
    """Write a dataset with the layout of a hub repository."""
    folder = tmp_path / "dataset"
    for split in ("train", "validation"):
        rows = [{"goal": f"{split} {i}", "sol1": "a", "sol2": "b", "label": i % 2} for i in range(6)]
        write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", pa.Table.from_pylist(rows))
    return folder


def test_task_documents_are_staged_split_by_split(
    tmp_path: Path, local_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = {"task": "piqa", "dataset_path": str(local_dataset), "output_type": "multiple_choice"}
    monkeypatch.setattr(
        dataset_staging, "packaged_entries", lambda names: {names[0]: Entry("piqa", Kind.TASK, None, cfg)}
    )
    staged = dataset_staging.stage_task("piqa", tmp_path / "cache", tmp_path / "lock.yaml")
    assert sorted(staged["files"]) == [
        str(tmp_path / f"cache/piqa/{split}.parquet") for split in ("train", "validation")
    ]
    assert read_parquet(tmp_path / "cache/piqa/train.parquet")["goal"].to_pylist()[0] == "train 0"


def test_a_text_is_staged_with_its_source(tmp_path: Path, local_dataset: Path) -> None:
    source = {
        "dataset": str(local_dataset),
        "config": None,
        "data_files": None,
        "split": "validation",
        "revision": "main",
    }
    dataset_staging.stage_text(source, tmp_path / "text.parquet", tmp_path / "lock.yaml")
    assert read_parquet(tmp_path / "text.parquet")["goal"].to_pylist()[0] == "validation 0"
    with pytest.raises(UserError, match=r"has no split 'test'; it has train, validation"):
        dataset_staging.stage_text({**source, "split": "test"}, tmp_path / "text.parquet", tmp_path / "lock.yaml")


def test_a_dataset_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    source = {"dataset": str(tmp_path / "empty"), "config": None, "data_files": None, "split": "x", "revision": "main"}
    with pytest.raises(UserError, match=r"empty: could not be read as a dataset \(.*\); check the name and HF_TOKEN"):
        dataset_staging.stage_text(source, tmp_path / "text.parquet", tmp_path / "lock.yaml")

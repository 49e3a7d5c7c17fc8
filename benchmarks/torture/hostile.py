"""Give every kind of nonsense as config, model folder and task data, and count how it is received."""

import copy
import json
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
import yaml
from benchmarks.torture.hostile_files import json_forms, parquet_forms
from benchmarks.torture.studies import REPOSITORY
from benchmarks.torture.values import VALUES, value_paths, with_value
from safetensors.torch import load_file, save_file
from tests.unit.conftest import random_model

from espalier.config import load_study
from espalier.errors import UserError
from espalier.evaluation.load_checked import load_checked_tasks
from espalier.files import read_json, write_parquet
from espalier.models.loading import load_tokenizer
from espalier.models.manifest import make_manifest
from espalier.sandbox.corpora import make_pages, make_task_documents
from espalier.sandbox.splits import splits
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from espalier.sandbox.world import make_world
from espalier.text_files import read_texts

TASKS = ("piqa", "boolq", "winogrande")
LONGEST_LINE = 500


class Counts:
    """How inputs of one kind were received."""

    def __init__(self) -> None:
        self.row: dict[str, float] = {
            "inputs": 0, "refused in one line": 0, "refused in more lines": 0, "accepted": 0, "other errors": 0,
            "slowest (CPU s)": 0.0,
        }  # fmt: skip
        self.faults: list[str] = []

    def give(self, what: str, call: Callable[[], object]) -> None:
        """Give one input to a function, and count the outcome; `what` describes the input in the list of faults."""
        start, outcome = time.process_time(), "accepted"
        try:
            call()
        except UserError as error:
            lines = str(error).splitlines()
            outcome = "refused in one line" if len(lines) == 1 else "refused in more lines"
            if not lines or max(map(len, lines)) > LONGEST_LINE:
                self.faults.append(f"{what}: empty or long line: {str(error)[:200]}")
        except Exception as error:  # noqa: BLE001 (whatever it is, it is a fault)
            outcome = "other errors"
            self.faults.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
        self.row["inputs"] += 1
        self.row[outcome] += 1
        seconds = time.process_time() - start
        self.row["slowest (CPU s)"] = max(self.row["slowest (CPU s)"], round(seconds, 2))
        if seconds > 1:
            self.faults.append(f"{what}: took {seconds:.1f} s")


def give_hostile_input(folder: Path, share: int = 1) -> tuple[pd.DataFrame, list[str]]:
    """Give all inputs.

    Args:
        folder: Folder for scratch files.
        share: Only every n-th input is given.

    Returns:
        A row for each kind, and a line for each fault: an error that is no `UserError`, a line that is too long, an
        input that took more than a second of CPU time.
    """
    rows, faults = {}, []
    kinds = {
        "configs": _configs, "model folders": _model_folders, "task data sets": _task_data,
        "files of documents": _document_files, "files of texts": _text_files,
    }  # fmt: skip
    for kind, make in kinds.items():
        counts = Counts()
        scratch = folder / kind.replace(" ", "-")
        scratch.mkdir(parents=True)
        for number, (what, call) in enumerate(make(scratch)):
            if number == 0:
                call()  # the sound input, which imports everything
            elif number % share == 0:
                counts.give(f"{kind}: {what}", call)
        rows[kind] = counts.row
        faults += counts.faults
    return pd.DataFrame(rows).T.convert_dtypes(), faults


Inputs = Iterator[tuple[str, Callable[[], object]]]
_ODD_VALUES: tuple[Any, ...] = (None, "many", -1, 0, 2.5, 10**12, [], {"a": 1})
_ODD_FIELDS: tuple[Any, ...] = (None, "", 7, -1, 2.5, "x" * 5000, [], ["a"], {"a": 1}, True)
_ODD_ROWS: tuple[list[Any], ...] = ([], [{}], [[]], [None], ["text"], [7])


def _configs(_: Path) -> Inputs:
    """Yield the default config, then copies in which one value is replaced."""
    config = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text(encoding="utf-8"))
    yield "default", lambda: load_study(copy.deepcopy(config))
    for path in value_paths(config):
        for value in VALUES:
            changed = with_value(config, path, value)
            yield f"{path}: {value!r:.60}", partial(load_study, changed)


def _model_folders(scratch: Path) -> Inputs:
    """Yield a sound model folder, then folders in which one value of a JSON file or one file is damaged."""
    sound, folder = scratch / "sound", scratch / "model"
    tokenizer = wrap(
        train_tokenizer("llama", make_pages(make_world(0), "training", 60, 0), 400), model_max_length=128, chat=False
    )
    random_model("llama", len(tokenizer)).save_pretrained(sound)
    tokenizer.save_pretrained(sound)

    def check() -> None:
        manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
        load_tokenizer(folder, trust_remote_code=manifest["trust_remote_code"])

    def damaged(change: Callable[[Path], object]) -> Callable[[], object]:
        def call() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(sound, folder)
            change(folder)
            check()

        return call

    yield "sound", damaged(lambda _: None)
    config = read_json(sound / "config.json")
    for key in config:
        for value in _ODD_VALUES:
            text = json.dumps({**config, key: value})
            yield f"config.json {key}: {value!r}", damaged(partial(_write_config, text))
    for path in sorted(sound.iterdir()):
        for what, change in FILE_DAMAGES.items():
            yield f"{path.name} {what}", damaged(partial(_change_file, path.name, change))
    tensors = load_file(sound / "model.safetensors")
    for name in list(tensors)[:6]:
        for what, tensor in {
            "missing": None, "of another shape": tensors[name][:1], "infinite": tensors[name] * float("inf"),
            "of whole numbers": tensors[name].int(),
        }.items():  # fmt: skip
            content = {**tensors, name: tensor}
            content = {key: one.contiguous() for key, one in content.items() if one is not None}
            yield f"{name} {what}", damaged(partial(_write_weights, content))


def _write_config(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)


def _write_weights(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _change_file(name: str, change: Callable[[Path], object], folder: Path) -> None:
    change(folder / name)


def _write_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _become_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


FILE_DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": _write_half,
    "random": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "null": lambda path: path.write_text("null"),
    "a list": lambda path: path.write_text("[]"),
    "a folder": _become_folder,
    "a broken link": _become_broken_link,
}


def _task_data(scratch: Path) -> Inputs:
    """Yield sound documents of a task, then documents in which one field or one file is damaged."""
    world = make_world(0)
    number = iter(range(10**6))

    def load(task: str, documents: list[Any], change: Callable[[Path], object] | None = None) -> object:
        folder = scratch / str(next(number))
        files = [folder / task / f"{split}.jsonl" for split in splits(task)]
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(one) + "\n" for one in documents), encoding="utf-8")
        if change:
            change(files[-1])
        return load_checked_tasks([task], folder, folder / "scratch", num_fewshot=0, limit=None)

    sound = {task: make_task_documents(world, task, splits(task)[1], 6, 0) for task in TASKS}
    for task in TASKS:
        yield f"{task} sound", partial(load, task, sound[task])
    for task, documents in sound.items():
        for field in documents[0]:
            for value in _ODD_FIELDS:
                changed = [*documents[:3], {**documents[3], field: value}, *documents[4:]]
                yield f"{task} {field}: {value!r:.40}", partial(load, task, changed)
            without = [{key: value for key, value in one.items() if key != field} for one in documents]
            yield f"{task} without {field}", partial(load, task, without)
        for rows in _ODD_ROWS:
            yield f"{task} rows {rows}", partial(load, task, rows)
        for what, change in FILE_DAMAGES.items():
            yield f"{task} file {what}", partial(load, task, documents, change)
        yield f"{task} of a table without columns", partial(load, task, documents, _write_empty_table)


def _document_files(scratch: Path) -> Inputs:
    """Yield sound documents of a task, then files of documents in odd forms, for the scored split or for all splits."""
    world, number = make_world(0), iter(range(10**6))
    fields = {"piqa": ("goal", "label"), "boolq": ("passage", "label"), "winogrande": ("sentence", "answer")}

    def load(task: str, contents: dict[str, tuple[str, bytes]]) -> object:
        folder = scratch / str(next(number))
        for split, (suffix, content) in contents.items():
            path = folder / task / f"{split}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return load_checked_tasks([task], folder, folder / "scratch", num_fewshot=0, limit=None)

    for task, (text, label) in fields.items():
        rows = make_task_documents(world, task, splits(task)[1], 6, 0)
        sound = {suffix: content for what, suffix, content in json_forms(rows, text) if what == "CR LF"}
        sound |= {suffix: content for what, suffix, content in parquet_forms(rows, text) if what == "broken metadata"}
        yield f"{task} sound", partial(load, task, dict.fromkeys(splits(task), (".jsonl", sound[".jsonl"])))
        for what, suffix, content in (*json_forms(rows, text), *parquet_forms(rows, text, label)):
            other = ".parquet" if suffix == ".parquet" else ".jsonl"
            one = dict.fromkeys(splits(task), (other, sound[other])) | {splits(task)[1]: (suffix, content)}
            yield f"{task} {what}, in one split", partial(load, task, one)
            yield f"{task} {what}, in all splits", partial(load, task, dict.fromkeys(splits(task), (suffix, content)))


def _text_files(scratch: Path) -> Inputs:
    """Yield a sound file of texts, then files in odd forms."""
    rows = [{"text": f"text {number}", "other": number} for number in range(6)]
    path = scratch / "sound.txt"
    path.write_text("one\ntwo\n")
    yield "sound", partial(read_texts, path, "text")
    plain = {
        "a byte order mark": b"\xef\xbb\xbfone\n",
        "UTF-16": "one\n".encode("utf-16"),
        "zeros": b"\0" * 100,
        "CR": b"a\rb",
    }
    forms = (*json_forms(rows, "text"), *parquet_forms(rows, "text"), *((what, ".txt", plain[what]) for what in plain))
    for number, (what, suffix, content) in enumerate(forms):
        path = scratch / f"{number}{suffix}"
        path.write_bytes(content)
        yield what, partial(read_texts, path, "text")
    for what, change in FILE_DAMAGES.items():
        path = scratch / f"{what}.parquet"
        path.write_bytes(next(content for _, suffix, content in parquet_forms(rows, "text") if suffix == ".parquet"))
        change(path)
        yield f"Parquet {what}", partial(read_texts, path, "text")


def _write_empty_table(path: Path) -> None:
    path.unlink()
    write_parquet(path.with_suffix(".parquet"), pa.table({}))

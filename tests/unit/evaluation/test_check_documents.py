"""Files and documents of tasks: valid ones are accepted, any other raises a one-line error that names its place."""

import bz2
import gzip
import io
import json
import lzma
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lm_eval.api.task import ConfigurableTask

from espalier.errors import UserError
from espalier.evaluation.check_accuracy import accuracy_problem
from espalier.evaluation.check_documents import check_documents, problem_of
from espalier.evaluation.load_checked import load_checked_tasks
from espalier.evaluation.task_rules import Rules
from espalier.evaluation.tasks import Tasks, load_tasks
from espalier.files import write_parquet
from espalier.sandbox.corpora import make_task_documents
from espalier.sandbox.splits import splits
from espalier.sandbox.tasks import TASKS
from espalier.sandbox.world import World

Rows = list[dict[str, Any]]
Splits = dict[str, dict[str, Rows]]
Load = Callable[..., Tasks]
MENDED = "; mend it or take it out of the file"


@pytest.fixture(scope="module")
def rows(world: World) -> Splits:
    """Return eight documents for every split of the seven tasks."""
    return {task: {s: make_task_documents(world, task, s, 8, 0) for s in splits(task)} for task in TASKS}


def as_lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return a function that writes the files of one task and loads it.

    It writes rows as JSON lines, tables as Parquet, and text and bytes unchanged.
    """

    def load(task: str, files: dict[str, Any], num_fewshot: int = 0, limit: int | None = None) -> Tasks:
        (tmp_path / task).mkdir(parents=True)
        for name, content in files.items():
            path = tmp_path / task / name
            if isinstance(content, pa.Table):
                write_parquet(path, content)
            elif isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(content if isinstance(content, str) else as_lines(content), encoding="utf-8")
        return load_checked_tasks([task], tmp_path, tmp_path / "scratch", num_fewshot=num_fewshot, limit=limit)

    return load


# -- single documents --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tasks(rows: Splits, tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    """Load the seven tasks, and others whose definitions use other rules."""
    folder = tmp_path_factory.mktemp("tasks")
    for task, by_split in (rows | OTHERS).items():
        for split, documents in by_split.items():
            write_parquet(folder / task / f"{split}.parquet", pa.Table.from_pylist(documents))
    loaded: Tasks = load_tasks([*rows, *OTHERS], folder, tmp_path_factory.mktemp("scratch"))
    return loaded


def in_splits(names: str, documents: Rows) -> dict[str, Rows]:
    """Return documents for each split. Their first field names the split, since no document may be in two splits."""
    return {
        split: [
            {key: f"{split} {value}" if key == next(iter(doc)) else value for key, value in doc.items()}
            for doc in documents
        ]
        for split in names.split()
    }


OTHERS = {
    # Half of the documents have no support, as in the real data.
    "sciq": in_splits("train validation test", [
        {"question": f"q{i}", "support": "fact" if i % 2 else "", "correct_answer": "d",
         **{f"distractor{k}": f"w{k}" for k in (1, 2, 3)}} for i in range(4)
    ]),
    # No question at all: the choices are whole sentences.
    "blimp_adjunct_island": in_splits("train", [{"sentence_good": "good", "sentence_bad": "bad"}] * 4),
    # The answer is one of the choices, not its number, and the choices are part of the question as well.
    "commonsense_qa": in_splits("train validation", [
        {"question": f"q{i}", "choices": {"label": list("ABCDE"), "text": list("vwxyz")}, "answerKey": "B"}
        for i in range(4)
    ]),
    # Code in the task definition makes question, choices and answer; labels of the hidden split are -1.
    "copa": in_splits("train validation", [
        {"premise": f"P{i}.", "choice1": "It fell.", "choice2": "It rose.", "question": "cause", "label": i % 2}
        for i in range(4)
    ]),
    # Its own metric, with several right answers.
    "truthfulqa_mc2": in_splits("validation", [
        {"question": f"q{i}", "mc2_targets": {"choices": ["a", "b", "c"], "labels": [1, 1, 0]}} for i in range(4)
    ]),
    # A template that uses the label as an index.
    "anli_r1": in_splits("train_r1 dev_r1 test_r1", [
        {"premise": "p", "hypothesis": f"h{i}", "label": i % 3} for i in range(4)
    ]),
}  # fmt: skip


def test_valid_documents_are_accepted(tasks: Tasks) -> None:
    """Optional fields are empty in some documents: `ctx_b` of HellaSwag, `support` of SciQ."""
    check_documents(tasks, num_fewshot=2, limit=None)


REFUSED = [
    ("boolq", {"label": 2}, "its answer is 2, but its 2 choices are 0 to 1"),
    ("boolq", {"label": -1}, "its answer is -1, but its 2 choices are 0 to 1"),
    ("boolq", {"label": "1"}, "its answer is '1', which is none of its 2 choices"),
    ("boolq", {"label": 1.0}, r"its answer is 1.0 \(float\), which is no choice and no number of one"),
    ("boolq", {"label": None}, "label is null"),
    ("boolq", {"label": [0]}, r"its answer is \[0\], but that of the first document is no list"),
    ("boolq", {"question": None}, "question is null"),
    ("boolq", {"question": " "}, "question is empty"),
    ("boolq", {"passage": None}, "passage is null"),
    ("boolq", {"passage": ""}, "passage is empty"),
    ("piqa", {"goal": None}, "goal is null"),
    ("piqa", {"goal": ""}, "goal is empty"),
    ("piqa", {"sol1": None}, "sol1 is null"),
    ("piqa", {"sol2": "\n"}, "sol2 is empty"),
    ("hellaswag", {"label": "4"}, "its answer is 4, but its 4 choices are 0 to 3"),
    ("hellaswag", {"label": "-1"}, "its answer is '-1', which is none of its 4 choices"),
    ("hellaswag", {"ctx_a": ""}, "ctx_a is empty"),
    ("hellaswag", {"choices": ["a", "", "b", "c"]}, r"choices\[1\] is empty"),
    ("hellaswag", {"choices": ["a"]}, "its number of choices is 1, but at least 2 are needed"),
    ("winogrande", {"answer": "3"}, r"cannot be read by the rules of its task \(KeyError: '3'; answer is '3'; at `ret"),
    ("winogrande", {"answer": ""}, "KeyError: ''; answer is ''"),
    ("winogrande", {"answer": None}, "KeyError: None; answer is null"),
    ("winogrande", {"option1": None}, "option1 is null"),
    ("winogrande", {"option2": ""}, "option2 is empty"),
    ("winogrande", {"sentence": "No blank."}, r"ValueError: substring not found; at `idx = doc\[.sentence.\].index"),
    ("winogrande", {"sentence": "It ends in _"}, "what follows its choices is empty"),
    ("arc_easy", {"answerKey": "Z"}, "ValueError: 'Z' is not in list; answerKey is 'Z'"),
    ("arc_easy", {"answerKey": None}, "answerKey is null"),
    ("arc_easy", {"choices": {"text": ["a", None], "label": ["A", "B"]}, "answerKey": "A"}, r"text\[1\] is null"),
    ("arc_easy", {"choices": {"text": ["a", "b"], "label": list("ABCD")}, "answerKey": "D"},
     "its answer is 3, but its 2 choices are 0 to 1"),
    ("arc_easy", {"choices": {"text": [], "label": []}}, "is not in list"),
    ("arc_challenge", {"question": ""}, "question is empty"),
    ("openbookqa", {"question_stem": None}, "question_stem is null"),
    ("openbookqa", {"question_stem": 42}, r"its question is no text, but 42 \(int\)"),
    ("sciq", {"question": ""}, "question is empty"),
    ("sciq", {"distractor2": ""}, "distractor2 is empty"),
    ("sciq", {"correct_answer": None}, "correct_answer is null"),
    ("blimp_adjunct_island", {"sentence_good": ""}, "sentence_good is empty"),
    ("commonsense_qa", {"answerKey": "F"}, "its answer is 'F', which is none of its 5 choices"),
    ("commonsense_qa", {"question": ""}, "question is empty"),
    ("copa", {"label": -1}, "label is -1; its split may have no answers"),
    ("copa", {"premise": ""}, "premise is empty"),
    ("copa", {"choice1": None}, "choice1 is null"),
    ("truthfulqa_mc2", {"mc2_targets": {"choices": ["a", ""], "labels": [1, 0]}}, r"choices\[1\] is empty"),
    ("anli_r1", {"label": -1}, "label is -1; its split may have no answers"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "change", "problem"), REFUSED)
def test_a_document_that_cannot_be_scored_is_refused(
    task: str, change: dict[str, Any], problem: str, tasks: Tasks
) -> None:
    found = problem_of(Rules(tasks.leaves[task], solved=False), {**tasks.leaves[task].task_docs[1], **change})
    with pytest.raises(UserError, match=problem):
        raise UserError(found)


def test_unused_fields_are_not_checked(tasks: Tasks) -> None:
    for task, change in (
        ("boolq", {"idx": None}), ("hellaswag", {"source_id": None, "ctx_b": ""}), ("sciq", {"support": ""}),
        ("boolq", {"label": True}), ("piqa", {"goal": "None of these"}), ("winogrande", {"qID": ""}),
    ):  # fmt: skip
        loaded = tasks.leaves[task]
        assert problem_of(Rules(loaded, solved=False), {**loaded.task_docs[1], **change}) is None


def test_examples_are_checked_by_the_rules_for_examples(tasks: Tasks) -> None:
    """The prompt shows the answer of a solved example, so it must have an answer."""
    loaded = tasks.leaves["piqa"]
    for change, problem in (({"label": None}, "label is null"), ({"label": -1}, "its answer is -1, but its 2 choices")):
        assert str(problem_of(Rules(loaded, solved=True), {**loaded.task_docs[0], **change})).startswith(problem)


# -- which documents are checked ---------------------------------------------------------------------------------


def changed(rows: Rows, number: int, **change: Any) -> Rows:
    return [{**row, **(change if index == number else {})} for index, row in enumerate(rows)]


def test_the_document_is_named_and_others_are_counted(load: Load, rows: Splits) -> None:
    bad = changed(changed(rows["piqa"]["validation"], 3, label=2), 6, goal=None)
    line = (
        "evaluation.data: task 'piqa', split 'validation', document 3: its answer is 2, but its 2 choices are 0 to 1"
        f"{MENDED} (1 more of this split are refused, too)"
    )
    with pytest.raises(UserError) as caught:
        load("piqa", {"train.jsonl": rows["piqa"]["train"], "validation.jsonl": bad})
    assert str(caught.value) == line


def test_documents_beyond_the_limit_are_not_scored(load: Load, rows: Splits) -> None:
    bad = changed(rows["piqa"]["validation"], 5, label=2)
    load("piqa", {"train.jsonl": rows["piqa"]["train"], "validation.jsonl": bad}, limit=5)


def test_examples_are_checked_where_they_are_shown(load: Load, rows: Splits, tmp_path: Path) -> None:
    files = {"train.jsonl": changed(rows["piqa"]["train"], 4, label=2), "validation.jsonl": rows["piqa"]["validation"]}
    load("piqa", files)
    with pytest.raises(UserError, match=r"task 'piqa', split 'train', document 4: its answer is 2"):
        load_checked_tasks(["piqa"], tmp_path, tmp_path / "again", num_fewshot=1, limit=None)


def test_too_few_examples_are_counted(load: Load, rows: Splits) -> None:
    """One more example is drawn than shown, because one of them may be the scored document."""
    files = {"train.jsonl": rows["piqa"]["train"][:3], "validation.jsonl": rows["piqa"]["validation"]}
    with pytest.raises(UserError, match=r"split 'train': has 3 documents, but evaluation.num_fewshot 5 needs 6"):
        load("piqa", files, num_fewshot=5)


# -- what lm-eval cannot load ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "split", "change", "problem"),
    [
        # lm-eval tries the first document when it loads a task. HellaSwag's own code reads every document.
        ("boolq", "validation", (0, {"label": 7}), "document 0: its answer is 7, but its 2 choices are 0 to 1"),
        ("winogrande", "validation", (0, {"answer": "3"}), "document 0: cannot be read .*KeyError: '3'; answer is '3'"),
        ("hellaswag", "validation", (5, {"label": ""}), "document 5: cannot be read .*; label is ''; at `.gold.: int"),
        ("hellaswag", "validation", (5, {"ctx_a": None}), "document 5: cannot be read .*; ctx_a is null"),
        ("hellaswag", "train", (2, {"label": ""}), "document 2: cannot be read .*; label is ''"),
    ],
)
def test_a_document_that_stops_lm_eval_is_named(
    task: str, split: str, change: tuple[int, dict[str, Any]], problem: str, load: Load, rows: Splits
) -> None:
    files = {f"{name}.jsonl": documents for name, documents in rows[task].items()}
    number, values = change
    with pytest.raises(UserError, match=rf"^evaluation.data: task '{task}', split '{split}', {problem}.*{MENDED}$"):
        load(task, files | {f"{split}.jsonl": changed(rows[task][split], number, **values)})


@pytest.mark.parametrize(
    ("task", "field", "left"),
    [
        ("piqa", "goal", "sol1, sol2, label"),
        ("piqa", "sol1", "goal, sol2, label"),
        ("piqa", "label", "goal, sol1, sol2"),
        ("openbookqa", "question_stem", "id, choices, answerKey"),
        ("winogrande", "option2", "sentence, option1, answer"),
    ],
)
def test_a_missing_column_is_named(task: str, field: str, left: str, load: Load, rows: Splits) -> None:
    """lm-eval would write the name of a missing column into the prompt, instead of its value."""
    without = {
        f"{split}.parquet": pa.Table.from_pylist([{k: v for k, v in row.items() if k != field} for row in documents])
        for split, documents in rows[task].items()
    }
    with pytest.raises(UserError, match=rf"document 0: has no '{field}', which its task reads; it has {left}"):
        load(task, without)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"goal": "cut', r"validation.jsonl: line 9 is not JSON \(Unterminated string starting at\); mend the line"),
        ("null\n", "validation.jsonl: line 9: is not a JSON object"),
        ("[1]\n", "validation.jsonl: line 9: is not a JSON object"),
    ],
)
def test_the_line_of_a_broken_file_is_named(content: str, problem: str, load: Load, rows: Splits) -> None:
    good = rows["piqa"]["validation"]
    with pytest.raises(UserError, match=problem):
        load("piqa", {"train.jsonl": good, "validation.jsonl": as_lines(good) + content})


def test_a_null_row_is_refused_before_pyarrow_reads_it(load: Load, rows: Splits) -> None:
    """The row is refused before pyarrow reads the file, because a null in the first row crashes pyarrow."""
    good = rows["piqa"]["validation"]
    with pytest.raises(UserError, match=r"train.jsonl: line 1: is not a JSON object"):
        load("piqa", {"train.jsonl": "null\n" + as_lines(good), "validation.jsonl": good})


def test_unreadable_files_are_named(load: Load, rows: Splits, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows["piqa"]["validation"])
    write_parquet(tmp_path / "whole.parquet", table)
    whole = (tmp_path / "whole.parquet").read_bytes()
    with pytest.raises(UserError, match=r"^evaluation.data: .*validation.parquet: is not a complete Parquet file"):
        load("piqa", {"train.parquet": table, "validation.parquet": whole[:-40]})


@pytest.mark.parametrize("empty", ["", "\n", "[]"])
def test_empty_splits_are_refused(empty: str, load: Load, rows: Splits) -> None:
    with pytest.raises(UserError, match=r"validation.jsonl: is empty; give a file with documents"):
        load("piqa", {"train.jsonl": rows["piqa"]["train"], "validation.jsonl": empty})


def test_an_empty_parquet_split_is_refused(load: Load, rows: Splits) -> None:
    table = pa.Table.from_pylist(rows["piqa"]["validation"])
    with pytest.raises(UserError, match=r"validation.parquet: is empty; give a file with documents"):
        load("piqa", {"train.parquet": table, "validation.parquet": table.slice(0, 0)})


def test_the_row_of_another_type_is_named(load: Load, rows: Splits) -> None:
    good = rows["piqa"]["validation"]
    with pytest.raises(
        UserError, match=r"validation.jsonl: line 4: label is 1.5 \(float\), but int in train.jsonl, line 1; give"
    ):
        load("piqa", {"train.jsonl": good, "validation.jsonl": changed(good, 3, label=1.5)})


# -- values that are read as others ------------------------------------------------------------------------------


@pytest.mark.parametrize("date", ["2024-01-01", "2024-01-01T10:00:00", "2024-01-01 10:00"])
@pytest.mark.parametrize("splits", [["validation"], ["train", "validation"]], ids=["one split", "both splits"])
def test_texts_that_are_read_as_dates_are_refused(load: Load, rows: Splits, date: str, splits: list[str]) -> None:
    """The JSON reader of `datasets` would write the date in another way into the prompt."""
    files = {
        f"{split}.jsonl": [row | {"goal": date} if split in splits else row for row in documents]
        for split, documents in rows["piqa"].items()
    }
    with pytest.raises(UserError, match=r"^evaluation.data: .*validation.jsonl: line 1: goal is '2024") as error:
        load("piqa", files)
    assert str(error.value).endswith("; give all splits as Parquet, with goal as a text")
    assert len(str(error.value).splitlines()) == 1


def test_dates_in_parquet_and_among_other_texts_are_read_as_they_are(load: Load, rows: Splits, tmp_path: Path) -> None:
    dated = {split: [row | {"goal": "2024-01-01"} for row in documents] for split, documents in rows["piqa"].items()}
    read = load("piqa", {f"{split}.parquet": pa.Table.from_pylist(each) for split, each in dated.items()})
    assert {document["goal"] for document in read.leaves["piqa"].task_docs} == {"2024-01-01"}
    shutil.rmtree(tmp_path / "piqa")
    some = {split: [*each[:4], *rows["piqa"][split][4:]] for split, each in dated.items()}
    read = load("piqa", {f"{split}.jsonl": each for split, each in some.items()})
    assert [document["goal"] for document in read.leaves["piqa"].task_docs][:4] == ["2024-01-01"] * 4


def test_unused_fields_may_be_read_as_dates(load: Load, rows: Splits) -> None:
    files = {
        f"{split}.jsonl": [row | {"written": "2024-01-01"} for row in each] for split, each in rows["piqa"].items()
    }
    assert len(list(load("piqa", files).leaves["piqa"].task_docs)) == 8


def test_times_in_a_column_of_texts_are_refused(load: Load, rows: Splits) -> None:
    good = pa.Table.from_pylist(rows["piqa"]["train"])
    times = good.set_column(0, "goal", pa.array([0] * 8, pa.timestamp("us")))
    with pytest.raises(
        UserError, match=r"validation.parquet: row 0: goal is datetime.* reads '1970-01-01 00:00:00.000"
    ):
        load("piqa", {"train.parquet": good, "validation.parquet": times})


@pytest.mark.parametrize("label", [[True] * 8, ["1"] * 8, [1.0] * 8, [Decimal(1)] * 8], ids=lambda label: str(label[0]))
def test_labels_of_other_types_are_read_as_the_same_numbers(load: Load, rows: Splits, label: list[Any]) -> None:
    good = pa.Table.from_pylist(rows["piqa"]["train"])
    other = pa.Table.from_pylist(rows["piqa"]["validation"]).set_column(3, "label", pa.array(label))
    read = load("piqa", {"train.parquet": good, "validation.parquet": other})
    assert [document["label"] for document in read.leaves["piqa"].task_docs] == [1] * 8


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([b"text"] * 8), "bytes"), (pa.array([["a"]] * 8), "list"), (pa.array([{"a": "b"}] * 8), "dict"),
        (pa.array([0] * 8, pa.timestamp("us")), "datetime"), (pa.array([0] * 8, pa.date32()), "date"),
        (pa.array([1] * 8, pa.duration("s")), "timedelta"), (pa.array([1] * 8, pa.time32("s")), "time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_question_that_is_no_text_in_any_split_is_refused(
    load: Load, rows: Splits, values: pa.Array, kind: str
) -> None:
    """Python would write its own form of the value into the prompt, such as `b'text'`."""
    for task, field in (("piqa", "goal"), ("boolq", "passage")):
        files = {}
        for split, documents in rows[task].items():
            table = pa.Table.from_pylist(documents)
            files[f"{split}.parquet"] = table.set_column(table.column_names.index(field), field, values)
        with pytest.raises(UserError, match=rf"'validation', document 0: {field} is no text, but {kind}; mend it or"):
            load(task, files)


# -- damaged and odd files ---------------------------------------------------------------------------------------


def _with_bad_bytes(table: pa.Table) -> bytes:
    bad = pa.Array.from_buffers(pa.string(), 8, pa.array([b"\xff"] * 8).buffers())
    return _parquet([table.set_column(0, "goal", bad)])


def _parquet(tables: list[pa.Table]) -> bytes:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (_with_bad_bytes, r"has values that cannot be read \(Column 0: .*UTF8.*\); give a complete file"),
        (
            lambda table: _parquet([table.append_column("goal", table["goal"])]),
            "has the column 'goal' more than once; keep one",
        ),
        (
            lambda table: _parquet([table.slice(0, 0), table]),
            "has a row group without rows, which `datasets` cannot read; write the file again",
        ),
        (
            lambda table: _parquet([table.append_column("a\nb", table["goal"])]),
            r"has the fields goal, sol1, sol2, label, 'a\\nb', but train.parquet has goal, sol1, sol2, label; give all",
        ),
        (lambda table: _parquet([table])[:-8] + b"\xff\xff\xff\x7fPAR1", r"is not a complete .*; give a complete file"),
    ],
)  # fmt: skip
def test_odd_parquet_is_refused_in_one_line(
    load: Load, rows: Splits, make: Callable[[pa.Table], bytes], line: str
) -> None:
    table = pa.Table.from_pylist(rows["piqa"]["validation"])
    with pytest.raises(UserError, match=rf"^evaluation.data: .*validation.parquet: {line}") as error:
        load("piqa", {"train.parquet": table, "validation.parquet": make(table)})
    assert len(str(error.value).splitlines()) == 1


def test_files_that_cannot_be_read_together_are_named(load: Load, rows: Splits) -> None:
    good = rows["piqa"]["validation"]
    big = changed(good, 3, label=10**30)
    with pytest.raises(
        UserError, match=r"train.jsonl and .*validation.jsonl cannot be read together \(.*\); give them"
    ):
        load("piqa", {"train.jsonl": good, "validation.jsonl": big})


# -- files of a task ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)],
)
@pytest.mark.parametrize("form", [".jsonl", ".json"])
def test_documents_may_be_compressed(
    form: str, suffix: str, pack: Callable[[bytes], bytes], load: Load, rows: Splits
) -> None:
    documents = rows["piqa"]["validation"]
    content = as_lines(documents) if form == ".jsonl" else json.dumps(documents)
    tasks = load("piqa", {"train.jsonl": documents, f"validation{form}{suffix}": pack(content.encode())})
    assert [doc["goal"] for doc in tasks.leaves["piqa"].task_docs] == [row["goal"] for row in documents]


def test_two_files_of_one_split_are_refused(load: Load, rows: Splits) -> None:
    documents = rows["piqa"]["validation"]
    packed = gzip.compress(as_lines(documents).encode())
    with pytest.raises(
        UserError, match=r"has both validation.jsonl and validation.jsonl.gz for the split 'validation'; keep one"
    ):
        load("piqa", {"train.jsonl": documents, "validation.jsonl": documents, "validation.jsonl.gz": packed})


def test_splits_of_two_forms_are_refused(load: Load, rows: Splits) -> None:
    documents = rows["piqa"]["validation"]
    with pytest.raises(
        UserError, match=r"has train.parquet, validation.jsonl; give all splits of task 'piqa' as Parquet, or all"
    ):
        load("piqa", {"train.parquet": pa.Table.from_pylist(documents), "validation.jsonl": documents})


@pytest.mark.parametrize("is_link", [True, False], ids=["broken link", "folder"])
@pytest.mark.parametrize("name", ["validation.jsonl", "validation.parquet"])
def test_what_stands_for_a_file_of_documents_must_be_one(
    load: Load, tmp_path: Path, name: str, *, is_link: bool
) -> None:
    path = tmp_path / "piqa" / name
    path.parent.mkdir()
    if is_link:
        path.symlink_to("nowhere")
    else:
        path.mkdir()
    problem = "is a link to a file that does not exist" if is_link else "is a folder, not a file"
    with pytest.raises(UserError, match=f"{name}: {problem}; give a file with documents"):
        load_checked_tasks(["piqa"], tmp_path, tmp_path / "scratch", num_fewshot=0, limit=None)


@pytest.mark.parametrize(("task", "field"), [("piqa", "label"), ("boolq", "label"), ("winogrande", "answer")])
def test_a_long_value_is_cut_in_the_message(load: Load, rows: Splits, task: str, field: str) -> None:
    scored = [*rows[task][splits(task)[1]][:3], {**rows[task][splits(task)[1]][3], field: "x" * 5000}]
    with pytest.raises(UserError, match=r"(document [03]|line 4): ") as error:
        load(task, {f"{splits(task)[0]}.jsonl": rows[task][splits(task)[0]], f"{splits(task)[1]}.jsonl": scored})
    assert max(map(len, str(error.value).splitlines())) < 500


def test_examples_that_are_scored_are_refused(load: Load, rows: Splits, tmp_path: Path) -> None:
    """Whether all documents are examples (a copy of the file), or all examples are scored (a part of it)."""
    scored = rows["piqa"]["validation"]
    load("piqa", {"train.jsonl": scored, "validation.jsonl": scored})  # without examples, it does not matter
    problem = r"task 'piqa', split 'train': \d+ of its \d+ solved examples are documents of the scored split"
    for number, train in enumerate((scored, scored[:4], [*rows["piqa"]["train"], *scored])):
        (tmp_path / "piqa/train.jsonl").write_text(as_lines(train), encoding="utf-8")
        with pytest.raises(UserError, match=problem):
            load_checked_tasks(["piqa"], tmp_path, tmp_path / str(number), num_fewshot=2, limit=None)
    (tmp_path / "piqa/train.jsonl").write_text(as_lines([*rows["piqa"]["train"], scored[0]]), encoding="utf-8")
    load_checked_tasks(["piqa"], tmp_path, tmp_path / "one", num_fewshot=2, limit=None)


def test_examples_of_the_scored_split_are_refused(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "choices": ["a", "b", "c", "d"], "answer": i % 4} for i in range(9)]
    for split in ("test", "dev"):
        path = tmp_path / f"mmlu_anatomy/{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(as_lines(rows), encoding="utf-8")
    tasks = load_tasks(["mmlu_anatomy"], tmp_path, tmp_path / "scratch")
    (task,) = tasks.leaves.values()
    assert isinstance(task, ConfigurableTask)
    task.fewshot_cfg.split = "test"
    with pytest.raises(UserError, match=r"split 'test': its solved examples are documents that are scored; give the"):
        check_documents(tasks, num_fewshot=1, limit=None)


@pytest.fixture
def truthfulqa(tmp_path: Path) -> Path:
    """Return a folder with documents of `truthfulqa_mc2`."""
    (tmp_path / "truthfulqa_mc2").mkdir()
    content = as_lines(OTHERS["truthfulqa_mc2"]["validation"])
    (tmp_path / "truthfulqa_mc2/validation.jsonl").write_text(content, encoding="utf-8")
    return tmp_path


def test_examples_that_the_definition_forbids_are_refused(truthfulqa: Path) -> None:
    with pytest.raises(
        UserError, match=r"num_fewshot is 5 for 'truthfulqa_mc2', but its definition allows no examples"
    ):
        load_checked_tasks(
            ["truthfulqa_mc2"], truthfulqa, truthfulqa / "scratch", num_fewshot=0, limit=None,
            task_fewshots={"truthfulqa_mc2": 5},
        )  # fmt: skip


def test_a_task_with_an_accuracy_of_its_own_is_refused(truthfulqa: Path) -> None:
    """`truthfulqa_mc2` gives the probability of all right choices, from which no document is right or wrong."""
    # Log-likelihoods -10, -13, -16 of right, right, wrong: 1 - e^-6 / (1 + e^-3 + e^-6) = 0.9976
    with pytest.raises(
        UserError, match=r"'truthfulqa_mc2' computes its accuracy by a rule of its own.*0\.9976.*; leave"
    ):
        load_checked_tasks(["truthfulqa_mc2"], truthfulqa, truthfulqa / "scratch", num_fewshot=0, limit=None)


@pytest.mark.parametrize("aggregation", [lambda values: values[0], sum, lambda _: 1 / 0])
def test_an_aggregation_other_than_the_mean_is_refused(tasks: Tasks, aggregation: Callable[[Any], Any]) -> None:
    task = tasks.leaves["sciq"]
    assert accuracy_problem(task) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "aggregation", lambda: {"acc": aggregation, "acc_norm": aggregation})
        assert "'sciq' computes its accuracy by a rule of its own" in (accuracy_problem(task) or "")


def test_the_accuracy_of_usual_tasks_is_that_of_their_documents(tasks: Tasks) -> None:
    problems = {name: accuracy_problem(task) for name, task in tasks.leaves.items()}
    assert {name for name, problem in problems.items() if problem} == {"truthfulqa_mc2"}


def test_an_answer_may_be_an_integer_of_numpy(load: Callable[..., Tasks]) -> None:
    """The rule of ToxiGen computes its answer with numpy."""
    rows = [{"text": f"t{i}", "toxicity_human": 1.0 + 4 * (i % 2), "toxicity_ai": 1.0} for i in range(4)]
    found = load("toxigen", {"train.jsonl": rows, "test.jsonl": rows})
    assert [found.leaves["toxigen"].doc_to_target(doc) for doc in found.leaves["toxigen"].task_docs] == [0, 1, 0, 1]

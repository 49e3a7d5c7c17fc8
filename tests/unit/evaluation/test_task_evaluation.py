"""Conversion of lm-eval's results: groups of tasks, and documents with fewer answers than choices."""

from types import SimpleNamespace

import pytest

from espalier.errors import UserError
from espalier.evaluation.task_evaluation import _leaves, _sample_rows


def test_a_group_counts_the_documents_of_all_its_tasks() -> None:
    results = {
        "n-samples": {"physics": {}, "biology": {}, "law": {}},
        "group_subtasks": {"all": ["science", "law"], "science": ["physics", "biology"]},
    }
    assert list(_leaves("all", results)) == ["physics", "biology", "law"]
    assert list(_leaves("law", results)) == ["law"]


def test_a_choice_without_an_answer_is_refused() -> None:
    task = SimpleNamespace(task_name="t", multiple_input=False, doc_to_choice=lambda _: ["a", "b", "c"])
    sample = {"doc": {}, "doc_id": 4, "target": 1, "filtered_resps": [(-1.0, False), (-2.0, False)]}
    with pytest.raises(UserError, match="task t, document 4: 2 answers for 3 choices"):
        _sample_rows(task, [sample])
    sample["filtered_resps"].append((-3.0, True))
    assert [row["gold"] for row in _sample_rows(task, [sample])] == [False, True, False]

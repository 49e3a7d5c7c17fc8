"""Keys that a config file gives twice are reported with their lines; merge keys and aliases are accepted."""

import logging
from pathlib import Path

import pytest

from espalier.config.duplicate_keys import find_duplicate_keys
from espalier.study.driver import open_study
from tests.conftest import REPOSITORY

MODEL = {"name": "A", "family": "L", "kind": "base", "sandbox": {"architecture": "llama"}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("study: a\nstudy: b\n", ["study is given twice, in lines 1 and 2"]),
        ("study: a\n'study': b\n\"study\": c\n", ["study is given 3 times, in lines 1, 2 and 3"]),
        ("evaluation:\n  limit: 5\n  tasks: [piqa]\n  limit: 7\n",
         ["evaluation.limit is given twice, in lines 2 and 4"]),
        ("methods:\n- {name: a}\n- {name: b, tau: 0.1, tau: 0.2}\n", ["methods[1].tau is given twice, in line 3"]),
        ("grid: {a: 1}\nreport:\n  x: {y: 1, y: 2}\ngrid: {b: 1}\n",
         ["report.x.y is given twice, in line 3", "grid is given twice, in lines 1 and 4"]),
        # A problem in an anchored mapping is reported once. The value of a merge key may be an inline mapping.
        ("a: &x {k: 1, k: 2}\nb: *x\nc: {<<: *x}\n", ["a.k is given twice, in line 1"]),
        ("a: {<<: {k: 1, k: 2}}\n", ["a.k is given twice, in line 1"]),
        ('{"study": "a", "grid": {"x": [{"y": 1, "y": 2}]},\n"study": "b"}',
         ["grid.x[0].y is given twice", "study is given twice"]),
        # JSON that is indented with tabs is not valid YAML.
        ('{\n\t"study": "a",\n\t"study": "b"\n}', ["study is given twice"]),
    ],
)  # fmt: skip
def test_keys_that_are_given_twice_are_named(content: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(content, encoding="utf-8")
    assert find_duplicate_keys([tmp_path / "study.yaml"]) == [
        f"{tmp_path / 'study.yaml'}: {line}; keep one" for line in expected
    ]


@pytest.mark.parametrize(
    "content",
    [
        "a: &x {k: 1}\nb: {<<: *x, k: 2}\nc: {k: 3, <<: *x}\n",
        "a: &x {k: 1}\nb: &y {k: 2}\nc: {<<: [*x, *y]}\nd: {<<: *x, <<: *y}\n",
        "a: {k: 1}\nb: {k: 1}\nc: [{k: 1}, {k: 1}]\n",
        "1: a\n'1': b\n",
        "a: &x [*x]\n",
        "a: [\n",
        "",
        "just a text",
    ],
)
def test_what_is_no_repetition_is_accepted(content: str, tmp_path: Path) -> None:
    """Files that are missing or cannot be parsed are not reported here; Snakemake reports them."""
    (tmp_path / "study.yaml").write_text(content, encoding="utf-8")
    assert find_duplicate_keys([tmp_path / "study.yaml", tmp_path / "none.yaml"]) == []


def test_shipped_configs_give_each_key_once() -> None:
    files = sorted((REPOSITORY / "config").glob("*.yaml"))
    assert files
    assert find_duplicate_keys(files) == []


def test_only_the_driver_reads_the_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "study.yaml").write_text("study: a\nstudy: b\n", encoding="utf-8")
    config = {"study": "b", "models": [MODEL]}
    with pytest.raises(SystemExit, match=r"^The config has problems:\n  .*study.yaml: study is given twice, "):
        open_study(config, is_driver=True, config_files=[tmp_path / "study.yaml"])
    with caplog.at_level(logging.WARNING):
        assert open_study(config, is_driver=False, config_files=[tmp_path / "study.yaml"]).config.study == "b"

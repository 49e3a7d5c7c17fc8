"""A config file that Snakemake cannot load is refused in one line by the check of ours."""

import json
from pathlib import Path

import pytest

from espalier.config.check import check_file, main
from espalier.errors import UserError
from tests.conftest import REPOSITORY

SOUND = "study: s\nmodels:\n- {name: A, path: m, family: Llama, kind: base}\n"


STUDIES = sorted(path for path in (REPOSITORY / "config").glob("*.yaml") if path.name != "literature.yaml")


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.name)
def test_shipped_configs_are_valid(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(file)]) == 0, capsys.readouterr().err
    assert ": a valid config of study " in capsys.readouterr().out


def test_json_is_read_as_well(tmp_path: Path) -> None:
    content = {"study": "s", "models": [{"name": "A", "path": "m", "family": "Llama", "kind": "base"}]}
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert check_file(tmp_path / "c.json").study == "s"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: &a [*a]", r"a\[0\]: is an alias \(`\*name`\) of a mapping or list that holds it"),
        ("&a [*a]", "c.yaml: holds no keys at its top; write `key: value` lines"),
        ("x: &a {b: *a}", r"x\.b: is an alias \(`\*name`\) of a mapping or list that holds it"),
        ("x: " + "[" * 3000 + "]" * 3000, "c.yaml: has over 50 levels of lists and mappings within each other"),
        ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "c.yaml: has over 50 levels"),
        ("\n".join(f"{' ' * depth}a:" for depth in range(3000)), "c.yaml: has over 50 levels"),
        ('{"x": ' + "[" * 400 + "]" * 400 + "}", r"x\[0\]\[0\]: has over 50 levels"),
        ("__use_yte__: true\nstudy: ?print(1)", "c.yaml: has the key __use_yte__, so Snakemake runs Python code in it"),
        ("", "c.yaml: holds no keys at its top"),
        ("- a", "c.yaml: holds no keys at its top"),
        ("a: [", "c.yaml: is neither JSON nor YAML .*; correct it"),
        ("a: 1\n\tb: 2", r"c.yaml: is neither JSON nor YAML \(line 2: .*; YAML is indented with spaces, not"),
        ('a: "b\nc: 1\n', r"c.yaml: is neither JSON nor YAML \(lines 1 to 3: .*quoted scalar.*\); correct it"),
        ("a: \x07", "c.yaml: is neither JSON nor YAML .*; correct it"),
        ("a: 2024-13-45", r"c.yaml: is neither JSON nor YAML \(month must be in 1..12\); correct it"),
        ("a: !!python/object:os.system {}", "c.yaml: is neither JSON nor YAML .*could not determine a constructor"),
        ("? [a, b]\n: 1", "c.yaml: is neither JSON nor YAML .*unhashable key"),
        ("study: s\nstudy: t\nmodels: []", "c.yaml: study is given twice, in lines 1 and 2; keep one"),
        (SOUND + "tasks: [piqa]", "tasks: unknown key"),
        (
            "x0: &x0 [1]\n" + "".join(f"x{n + 1}: &x{n + 1} [{', '.join([f'*x{n}'] * 9)}]\n" for n in range(9)),
            "values after its aliases are expanded",
        ),
    ],
)  # fmt: skip
def test_problems_are_one_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=line) as error:
        check_file(path)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 500


def test_files_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    for path in (tmp_path / "none.yaml", tmp_path, loop, tmp_path / ("x" * 5000)):
        assert main([str(path)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert ": cannot be read (" in line
        assert line.endswith("); give the path of a config file")
    (tmp_path / "c.yaml").write_bytes("study: ä".encode("utf-16"))
    assert main([str(tmp_path / "c.yaml")]) == 1
    assert "is not UTF-8" in capsys.readouterr().err
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err

"""Targets on the command line: the public ones are listed first, and a mistaken one gets a hint."""

from types import SimpleNamespace

import pytest

from espalier.study.targets import check_targets, collecting_rules, list_targets_first, warn_of_empty_targets


def rule(name: str, *, output: bool = False, norun: bool = False, files: tuple[str, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(
        name=name,
        input=files,
        docstring=f"Text of {name}.",
        output=["f", "cache/lock.yaml"] if output else [],
        norun=norun,
        has_wildcards=lambda: output,
    )


RULES = [rule("plans", norun=True), rule("analyse", output=True), rule("plan", output=True), rule("forecast")]


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("plan", "plan: makes files of single models or experiments; did you mean 'plans'\\?"),
        ("forecas", "forecas: is no target; did you mean 'forecast'\\?"),
        ("my_study.yaml", "my_study.yaml: is a config file, not a target; give it after --configfile"),
        ("xyz", "xyz: is no target; targets are forecast, plans"),
    ],
)
def test_mistaken_targets(target: str, line: str) -> None:
    with pytest.raises(SystemExit, match=line):
        check_targets([target], RULES)


def test_files_and_targets_are_accepted() -> None:
    check_targets(["plans", "forecast", "results/s/x.json", "x.json", "cache/lock.yaml"], RULES)


def test_targets_are_listed_first(capsys: pytest.CaptureFixture[str]) -> None:
    workflow = SimpleNamespace(rules=RULES)
    list_targets_first(workflow)
    workflow.list_rules(only_targets=False)
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert names == ["forecast", "plans", "analyse", "plan"]
    workflow.list_rules(only_targets=True)
    assert "analyse" not in capsys.readouterr().out
    assert collecting_rules(RULES) == {"plans"}


def test_a_target_with_nothing_to_do_says_so(caplog: pytest.LogCaptureFixture) -> None:
    rules = [rule("stage", norun=True), rule("plans", norun=True, files=("plan.json",)), rule("forecast")]
    rules += [rule("structures", norun=True), rule("legacy", norun=True)]
    warn_of_empty_targets(["stage", "plans", "forecast", "structures"], rules)
    assert [record.getMessage() for record in caplog.records] == [
        "stage: nothing to do: no model, task or text of the config comes from a hub",
        "structures: nothing to do: the config has nothing of this kind",
    ]

"""What is said about paths that may not be read or written."""

import os
from pathlib import Path

import pytest

from espalier.errors import no_permission


@pytest.fixture
def bits_bind_root(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = {os.W_OK: 0o200, os.R_OK: 0o400}
    monkeypatch.setattr(os, "access", lambda path, mode: bool(Path(path).stat().st_mode & bits[mode]))


@pytest.mark.usefixtures("bits_bind_root")
def test_the_folder_is_named_if_it_forbids_to_write(tmp_path: Path) -> None:
    """The name of a temporary file in it would say nothing."""
    file = tmp_path / "closed/a.json"
    file.parent.mkdir()
    file.write_text("x", encoding="utf-8")
    error = PermissionError(13, "Permission denied", str(tmp_path / "closed/.a.json.7.part"))
    remedy = "cannot be written (Permission denied); make it writable (`chmod u+w`) and run again"
    file.parent.chmod(0o555)
    assert no_permission(error) == f"{file.parent}: {remedy}"
    file.parent.chmod(0o755)
    file.chmod(0o444)
    assert no_permission(PermissionError(13, "Permission denied", str(file))) == f"{file}: {remedy}"


@pytest.mark.usefixtures("bits_bind_root")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.touch(0o200)
    error = PermissionError(13, "Permission denied", str(file))
    assert (
        no_permission(error)
        == f"{file}: cannot be read (Permission denied); make it readable (`chmod u+r`) and run again"
    )


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "full", "x"), ValueError("x")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert no_permission(error) is None

"""llama.cpp is built once for any processor, and never taken from pip's cache, which holds builds for one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# Notes what it is asked; `pip wheel` leaves an empty wheel, or fails as without a compiler.
PYTHON = """\
#!/bin/sh
echo "$CMAKE_ARGS | $*" >> {asked}
[ "$3" = wheel ] || exit 0
[ -e {broken} ] && exit 1
while [ "$1" != --wheel-dir ]; do shift; done
touch "$2/llama_cpp_python-0-py3-none-any.whl"
"""


class Clone:
    """A folder with the script and the requirements, and a Python that only notes what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broken = folder / "broken"
        self._asked = folder / "asked.txt"
        (folder / "envs").mkdir(parents=True)
        shutil.copy(REPOSITORY / "envs/install_llama_cpp.sh", folder / "envs")
        shutil.copy(REPOSITORY / "requirements-llama.txt", folder)
        (folder / "python").write_text(PYTHON.format(asked=self._asked, broken=self.broken), encoding="utf-8")
        (folder / "python").chmod(0o755)

    def install(self, cache: Path, **environment: str) -> list[str]:
        """Run the script; return what Python was asked."""
        self._asked.write_text("", encoding="utf-8")
        command = ["sh", str(self.folder / "envs/install_llama_cpp.sh"), str(self.folder / "python")]
        kept = {name: value for name, value in os.environ.items() if name not in {"CFLAGS", "CMAKE_ARGS"}}
        done = subprocess.run(command, env=kept | {"XDG_CACHE_HOME": str(cache)} | environment, check=False)
        assert (done.returncode != 0) == self.broken.exists()
        return self._asked.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


def test_it_is_built_for_any_processor_and_without_pips_cache(clone: Clone, tmp_path: Path) -> None:
    built, installed = clone.install(tmp_path / "cache", CMAKE_ARGS="-DGGML_NATIVE=ON")
    settings, command = built.split(" | ")
    assert "-DGGML_NATIVE=OFF" in settings.split()
    assert command.startswith("-m pip wheel ")
    assert "--no-cache-dir" in command.split()
    # Whatever is installed already may be a build for another processor.
    assert {"--force-reinstall", "--no-index"} <= set(installed.split())
    (wheel,) = (tmp_path / "cache/espalier/wheels").glob("*/*.whl")
    assert installed.endswith(str(wheel))


def test_it_is_built_once_for_all_clones(clone: Clone, tmp_path: Path) -> None:
    assert len(clone.install(tmp_path / "cache")) == 2
    (again,) = Clone(tmp_path / "other").install(tmp_path / "cache")
    assert "-m pip install" in again


@pytest.mark.parametrize("what", ["version", "script", "compiler flags"])
def test_another_build_has_a_folder_of_its_own(what: str, clone: Clone, tmp_path: Path) -> None:
    clone.install(tmp_path / "cache")
    changed = {"version": "requirements-llama.txt", "script": "envs/install_llama_cpp.sh"}.get(what)
    if changed:
        path = clone.folder / changed
        path.write_text(path.read_text(encoding="utf-8").replace("0.3.36", "0.3.37") + "#\n", encoding="utf-8")
    flags = {} if changed else {"CFLAGS": "-march=native"}
    assert len(clone.install(tmp_path / "cache", **flags)) == 2
    assert len(list((tmp_path / "cache/espalier/wheels").iterdir())) == 2


def test_a_failed_build_leaves_nothing(clone: Clone, tmp_path: Path) -> None:
    clone.broken.touch()
    clone.install(tmp_path / "cache")
    assert list((tmp_path / "cache/espalier/wheels").iterdir()) == []
    clone.broken.unlink()
    assert len(clone.install(tmp_path / "cache")) == 2

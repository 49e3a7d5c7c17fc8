"""What the documents hold for a test to run: fenced blocks, commands inside the text, and edits written as diffs."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md", "results/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
PROGRAMS = ("snakemake", "make", "python", "pip", "pytest", "pre-commit", "PYTHONPATH=")
_FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Path of the page in the repository.
        line: Number of its first line.
        language: The word after the fence.
        text: Its content.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Its page and line, for the name of a test."""
        return f"{self.page}:{self.line}"


def blocks(*languages: str, pages: list[Path] = PAGES) -> list[Block]:
    """List the fenced blocks of pages, of some languages or of all."""
    found = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 2
            found.append(Block(str(page.relative_to(REPOSITORY)), line, match[2].strip(), match[3]))
    return [block for block in found if not languages or block.language in languages]


def inline_commands() -> list[Block]:
    """List the commands with arguments that stand in the text of pages.

    A name alone is no command, and what has a placeholder such as `{study}` is a pattern of commands.
    """
    found = []
    for page in PAGES:
        text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))
        for match in _INLINE.finditer(text):
            command = " ".join(match[1].split())
            if command.startswith(PROGRAMS) and " " in command and not re.search(r"\{\w+\}", command):
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(str(page.relative_to(REPOSITORY)), line, "sh", command))
    return found


def copy_repository(folder: Path) -> Path:
    """Copy the files of a fresh clone, with uncommitted changes, into a git repository, as tests need."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def apply_edit(diff: str, folder: Path) -> Path:
    """Apply an edit that is written as a diff without line numbers.

    The line `+++ path` names the file. Hunks stand between lines `@@`; the lines of a hunk that are not added must
    occur once in the file, in one piece. A file that is not there yet has added lines only.

    Returns:
        The edited file.
    """
    head, *lines = diff.splitlines()
    path = folder / re.fullmatch(r"\+\+\+ (\S+)", head)[1]
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for hunk in "\n".join(lines).split("\n@@\n"):
        rows = [row for row in hunk.split("\n") if row != "@@"]
        assert all(not row or row[0] in " +-" for row in rows), f"{path.name}: a line of the diff has no sign"
        before = "".join(f"{row[1:]}\n" for row in rows if not row.startswith("+"))
        after = "".join(f"{row[1:]}\n" for row in rows if not row.startswith("-"))
        assert not before or f"\n{text}".count(f"\n{before}") == 1, f"{path.name} does not have once:\n{before}"
        text = f"\n{text}".replace(f"\n{before}", f"\n{after}", 1)[1:] if before else text + after
    path.write_text(text, encoding="utf-8")
    return path

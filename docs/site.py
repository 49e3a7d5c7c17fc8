"""Builds the site from Markdown all over the repository, each page under its path there.

So README.md is the start page without a copy of it, and a link means the same on the site and on a git host.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BESIDE_DOCS = ("README.md", "config/README.md", "CONTRIBUTING.md", "CHANGELOG.md")
SUFFIXES = {".md", ".svg", ".png", ".css"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Name the files of docs/ after their paths in the repository, and add the pages that stand elsewhere in it."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    docs = [f"docs/{file.src_uri}" for file in files if file.src_dir == config.docs_dir]
    paths = [path for path in (*BESIDE_DOCS, *docs) if Path(path).suffix in SUFFIXES]
    return Files(theme + [File.generated(config, path, abs_src_path=str(ROOT / path)) for path in paths])

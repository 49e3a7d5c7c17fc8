"""Write docs/figures/pipeline.svg, the graph of the rules of the default study.

`python docs/draw_pipeline.py` writes it, `--check` exits with 1 where it is out of date. A line leads down from what is
made to what is made of it; one that follows from others is left out.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from graph import figure

REPOSITORY = Path(__file__).resolve().parents[1]
FIGURE = REPOSITORY / "docs/figures/pipeline.svg"


def rules() -> dict[str, set[str]]:
    """Ask Snakemake which rule needs which: for each rule those that need it."""
    config = str(REPOSITORY / "config/config.yaml")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", config]
    with tempfile.TemporaryDirectory() as folder:
        printed = subprocess.run(
            [*command, "--rulegraph", "mermaid-js", "--cores", "1"],
            cwd=folder, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    names = dict(re.findall(r"^\s*(id\d+)\[(\w+)\]$", printed, re.MULTILINE))
    graph: dict[str, set[str]] = {name: set() for name in names.values()}
    for needed, needs in re.findall(r"^\s*(id\d+) --> (id\d+)$", printed, re.MULTILINE):
        if needed != needs:
            graph[names[needed]].add(names[needs])
    return graph


def rows(graph: dict[str, set[str]]) -> list[list[str]]:
    """Put each rule a row above the first one that needs it, so that lines pass by no other rule."""

    def height(name: str) -> int:
        return max((1 + height(other) for other in graph[name]), default=0)

    heights = {name: height(name) for name in graph}
    return [sorted(name for name in graph if heights[name] == row) for row in range(max(heights.values()), -1, -1)]


def main() -> None:
    """Write the figure, or compare it with what would be written."""
    graph = rules()
    content = figure(graph, rows(graph), {name: name for name in graph}, "Which rule needs which")
    if "--check" not in sys.argv:
        FIGURE.write_text(content, encoding="utf-8")
    elif not FIGURE.is_file() or FIGURE.read_text(encoding="utf-8") != content:
        sys.exit(f"{FIGURE.relative_to(REPOSITORY)} is out of date; run `make generated`")


if __name__ == "__main__":
    main()

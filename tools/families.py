"""Generate the tables of model families and of wrappers in README.md from the tables in `espalier.models`.

`python -m tools.families` writes them. Tests fail when they are stale.
"""

from __future__ import annotations

from pathlib import Path

from espalier.export.gguf.source import MODEL_TYPES, STOCK_TYPES
from espalier.models.architecture import EXPERT, EXPERT_FAMILIES, FAMILIES, UNITS
from espalier.models.wrappers import WRAPPERS

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- families: generated, do not edit -->", "<!-- end of families -->"
BEGIN_WRAPPERS, END_WRAPPERS = "<!-- wrappers: generated, do not edit -->", "<!-- end of wrappers -->"


def families_table() -> str:
    """Return the Markdown table: one row for each family, with its units and its exports."""
    units = [f"{unit.title}s" for name, unit in UNITS.items() if name != EXPERT]
    header = ["family", "`model_type`", *units, "layers that differ", "stock checkpoint: heads", "GGUF"]
    rows = [header, ["---", "---", *(":---:" for _ in units), ":---:", "---", "---"]]
    for name, family in FAMILIES.items():
        rows.append([family.title, f"`{name}`", *("yes" for _ in units), "yes", str(family.heads), _gguf(name)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def wrappers_table() -> str:
    """Return the Markdown table of wrappers, each with the families of its text models."""
    rows = [["wrapper", "`model_type`", "family of the text model"], ["---", "---", "---"]]
    for name, wrapper in WRAPPERS.items():
        rows.append([wrapper.title, f"`{name}`", ", ".join(FAMILIES[text].title for text in wrapper.families)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def experts_table() -> str:
    """Return the Markdown table of families with experts."""
    header = [
        "family with experts", "`model_type`", "experts", "KV groups", "channels of each expert", "layers",
        "layers that differ", "stock checkpoint: heads", "GGUF",
    ]  # fmt: skip
    rows = [header, ["---", "---", *([":---:"] * 5), "---", "---"]]
    for name, family in EXPERT_FAMILIES.items():
        rows.append([family.title, f"`{name}`", *(["yes"] * 4), "no", str(family.heads), _gguf(name)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def insert_families(page: str) -> str:
    """Return a page with the tables of families inserted between their markers."""
    return _insert(page, f"{families_table()}\n{experts_table()}", BEGIN, END)


def insert_wrappers(page: str) -> str:
    """Return a page with the table of wrappers inserted between its markers."""
    return _insert(page, wrappers_table(), BEGIN_WRAPPERS, END_WRAPPERS)


def _insert(page: str, table: str, begin: str, end: str) -> str:
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{table}\n{end}{after}"


def _gguf(name: str) -> str:
    return "yes" if name in MODEL_TYPES else "stock only" if name in STOCK_TYPES else "no"


def main() -> None:
    """Write the tables into README.md."""
    page = README.read_text(encoding="utf-8")
    README.write_text(insert_wrappers(insert_families(page)), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Generate the table of model families in README.md from the table of architectures.

`python -m tools.families` writes it. A test fails when it is stale.
"""

from __future__ import annotations

from pathlib import Path

from espalier.export.gguf.source import MODEL_TYPES, STOCK_TYPES
from espalier.models.architecture import EXPERT, EXPERT_FAMILIES, FAMILIES, UNITS

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- families: generated, do not edit -->", "<!-- end of families -->"


def families_table() -> str:
    """Return the Markdown table: one row for each family, with its units and its exports."""
    units = [f"{unit.title}s" for name, unit in UNITS.items() if name != EXPERT]
    header = ["family", "`model_type`", *units, "layers that differ", "stock checkpoint: heads", "GGUF"]
    rows = [header, ["---", "---", *(":---:" for _ in units), ":---:", "---", "---"]]
    for name, family in FAMILIES.items():
        rows.append([family.title, f"`{name}`", *("yes" for _ in units), "yes", str(family.heads), _gguf(name)])
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
    """Return a page with the tables inserted between their markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{families_table()}\n{experts_table()}\n{END}{after}"


def _gguf(name: str) -> str:
    return "yes" if name in MODEL_TYPES else "stock only" if name in STOCK_TYPES else "no"


def main() -> None:
    """Write the table into README.md."""
    README.write_text(insert_families(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Generate the JSON schema and the table of options from the config models.

`python -m tools.config_options` writes both. A test fails and shows the difference when they are stale.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from espalier.config.problems import section_in
from espalier.config.study import StudyConfig

CONFIG_FOLDER = Path(__file__).resolve().parents[1] / "config"
BEGIN, END = "<!-- options: generated, do not edit -->", "<!-- end of options -->"


def json_schema() -> str:
    """Return the JSON schema of a config file, which editors use."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **StudyConfig.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def options_table() -> str:
    """Return one Markdown table for each section of the config."""
    return "\n\n".join(_section_table(path, section) for path, section in _sections("", StudyConfig)) + "\n"


def insert_options(page: str) -> str:
    """Return a page with the options table inserted between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{options_table()}\n{END}{after}"


def _sections(path: str, section: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, section
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        # A model's `grid` has the same options as the top-level `grid`, which has its own table.
        if inner and path + name != "models[].grid":
            many = "[]" if "tuple[" in str(field.annotation) else ""
            yield from _sections(f"{path}{name}{many}.", inner)


def _section_table(path: str, section: type[BaseModel]) -> str:
    title = f"### `{path.rstrip('.')}`" if path else "### Top level"
    purpose = inspect.cleandoc(section.__doc__ or "")
    rows = [
        f"| `{name}` | {_type(section, name)} | {_default(field)} | {_one_line(field.description)} |"
        for name, field in section.model_fields.items()
    ]
    return "\n".join([title, "", purpose, "", "| key | type | default | meaning |", "|---|---|---|---|", *rows])


def _type(section: type[BaseModel], name: str) -> str:
    return _schema_type(section.model_json_schema()["properties"][name])


def _schema_type(schema: dict[str, Any]) -> str:
    """Return a short description of a JSON schema, such as `list of number ≥ 0`."""
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_schema_type(option) for option in options)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_schema_type(schema['items'])}"
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    names = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "null": "none",
    }
    plain = "section" if "$ref" in schema else names.get(schema.get("type", ""), "section")
    return " ".join([plain, ", ".join(bounds)]).strip()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "see text"
    if section_in(field.annotation) is None or _is_list_of_texts(field.default):
        return f"`{_plain(field.default)}`"
    return "see below"


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) > 0 and all(isinstance(one, str) for one in value)


def _one_line(description: str | None) -> str:
    return " ".join((description or "").split())


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    """Write `config/schema.json`, and the table into `config/README.md`."""
    (CONFIG_FOLDER / "schema.json").write_text(json_schema(), encoding="utf-8")
    readme = CONFIG_FOLDER / "README.md"
    readme.write_text(insert_options(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

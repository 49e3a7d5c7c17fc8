"""Convert pydantic's errors to one line per problem: the path, the given value and the allowed values."""

from __future__ import annotations

import difflib
import re
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from espalier.config.base import REPOSITORY_PATTERN, REVISION_PATTERN
from espalier.naming import NAME_PATTERN

_PATTERNS = {
    NAME_PATTERN: "letters, digits and . _ + -, beginning with a letter or digit (no slash, no space)",
    REPOSITORY_PATTERN: "a hub repository, 'owner/name'",
    REVISION_PATTERN: "a branch, tag or commit",
}
_LONG_TEXT = re.compile(r"(got '[^']{60})[^']{20,}'")
NON_TEXT_ERRORS = {"int_type", "int_parsing", "float_type", "float_parsing", "bool_type", "bool_parsing"}
_TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
}
_SECTION_ERRORS = {"model_type", "model_attributes_type"}
_NUMBER_ERRORS = {"int_type", "int_parsing", "float_type", "float_parsing"}
_OTHER_WORDS = {
    "gpu": "cuda", "bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "single": "float32",
    "chat": "instruct", "pretrained": "base", "foundation": "base",
}  # fmt: skip
"""Words that people use for an allowed value, where the spelling does not suggest it."""


def describe_problems(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """Return one line for every problem.

    Args:
        error: The error that pydantic raised.
        root: The pydantic model that was validated. It has the known keys and their descriptions.
    """
    details = [_without_tags(detail) for detail in error.errors(include_url=False)]
    problems = [detail for detail in details if not _is_consequence(detail, details)]
    return [_LONG_TEXT.sub(r"\1...'", line) for detail in problems for line in _describe_problem(detail, root)]


def _without_tags(detail: ErrorDetails) -> ErrorDetails:
    """Remove the names of the alternatives of a union, such as `<mapping>`, from the location of an error."""
    location = tuple(part for part in detail["loc"] if isinstance(part, int) or not part.startswith("<"))
    return {**detail, "loc": location}


def _is_consequence(detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """Return whether an error is only a consequence of another one.

    Examples are a list that is too short because its elements are invalid, and a default that depends on an invalid
    value.
    """
    if detail["type"] == "default_factory_not_called":
        return True
    location = detail["loc"]
    return detail["type"] == "too_short" and any(
        other["loc"][: len(location)] == location and len(other["loc"]) > len(location) for other in details
    )


def format_path(location: tuple[int | str, ...]) -> str:
    """Return a location as a path: `models[2].revision` for `("models", 2, "revision")`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _describe_problem(detail: ErrorDetails, root: type[BaseModel]) -> list[str]:
    path, kind, context = format_path(detail["loc"]), detail["type"], detail.get("ctx", {})
    given = _format_given(detail["input"])
    if kind == "extra_forbidden":
        return [_unknown_key(detail["loc"], root)]
    if kind == "missing":
        field = _field_at(detail["loc"], root)
        return [f"{path}: missing. {field.description if field else ''}".rstrip()]
    if kind == "value_error":
        lines = str(context["error"]).splitlines()
        return [f"{path}: {line}" if path else line for line in lines]
    if kind == "literal_error":
        allowed = re.sub(r" or (?=[^ ]*$)", ", ", context["expected"]).replace("'", "")
        return [f"{path}: got {given}; allowed: {allowed}{_suggestion(detail['input'], allowed.split(', '))}"]
    if kind == "string_pattern_mismatch":
        return [f"{path}: got {given}; allowed: {_PATTERNS.get(context['pattern'], context['pattern'])}"]
    if kind in {"too_short", "string_too_short"}:
        return [f"{path}: is empty; give at least one value"]
    if kind in _TYPES:
        field = _field_at(detail["loc"], root)
        or_null = " or null" if field and type(None) in get_args(field.annotation) else ""
        return [f"{path or 'config'}: got {given}; allowed: {_TYPES[kind]}{or_null}{_type_hint(detail, field, root)}"]
    message = detail["msg"].removeprefix("Input should be ").removeprefix("String should ")
    fraction = kind in {"less_than", "less_than_equal"} and _as_fraction(detail["input"], *context.values())
    return [f"{path}: got {given}; allowed: {message}{f' (did you mean {fraction:g}?)' if fraction else ''}"]


def _unknown_key(location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    section = _section_at(location[:-1], root)
    allowed = list(section.model_fields) if section else []
    suggestion = _suggestion(location[-1], allowed) or _elsewhere(location, root)
    return f"{format_path(location)}: unknown key{suggestion}; allowed here: {', '.join(allowed)}"


def _elsewhere(location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    """Return a hint that names a key of the same or a similar name in another section; empty if there is none."""
    given = next((part for part in reversed(location) if isinstance(part, str)), None)
    if given is None:
        return ""
    paths = sorted(_all_paths(root), key=lambda path: path.count("."))  # a key near the root before one of a model
    paths = [path for path in paths if path != format_path(location[: location.index(given) + 1])]
    names = [path.rsplit(".", 1)[-1] for path in paths]
    match = difflib.get_close_matches(given, names, n=1, cutoff=0.8)
    return f" (did you mean {paths[names.index(match[0])]!r}?)" if match else ""


def _all_paths(section: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the path of every key below a section, for example `grid.pruning_ratio`."""
    own = [f"{prefix}{name}" for name in section.model_fields]
    inner = [(name, section_in(field.annotation)) for name, field in section.model_fields.items()]
    return own + [path for name, below in inner if below for path in _all_paths(below, f"{prefix}{name}.")]


def _type_hint(detail: ErrorDetails, field: FieldInfo | None, root: type[BaseModel]) -> str:
    """Return what a value of the wrong type was probably meant to be; empty if there is no guess."""
    kind, given = detail["type"], detail["input"]
    guess = None
    if kind == "tuple_type" and isinstance(given, dict):
        return "; begin each entry with a dash: - {...}"
    if kind == "tuple_type" and isinstance(given, str | int | float) and len(str(given).splitlines()) == 1:
        guess = f"[{given}]" if len(str(given)) <= 60 else None
    elif kind == "string_type" and isinstance(given, int | float) and not isinstance(given, bool):
        guess = f"'{given}', with quotes"
    elif kind in _NUMBER_ERRORS and str(given).lower() in {"none", "all"} and field and field.default is None:
        guess = "null"
    elif kind in _NUMBER_ERRORS and (percentage := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", str(given))):
        guess = f"{float(percentage[1]) / 100:g}"
    elif kind in _SECTION_ERRORS:
        section = section_in(field.annotation) if field else None
        if given is True and section and not any(key.is_required() for key in section.model_fields.values()):
            guess = "{}, which takes all defaults"
        else:
            return _elsewhere(detail["loc"], root)
    return f" (did you mean {guess}?)" if guess else ""


def _as_fraction(given: object, limit: object) -> float | None:
    """Return a percentage as a fraction, where at most 1 is allowed; None if it cannot be one."""
    if not isinstance(given, int | float) or isinstance(given, bool):
        return None
    return given / 100 if limit == 1 and 1 < given <= 100 else None


def _suggestion(given: object, allowed: list[str]) -> str:
    if (word := _OTHER_WORDS.get(str(given).lower())) in allowed:
        return f" (did you mean {word!r}?)"
    match = difflib.get_close_matches(str(given), allowed, n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def _section_at(location: tuple[int | str, ...], root: type[BaseModel]) -> type[BaseModel] | None:
    """Return the section at a location; None if the location is not a section."""
    section: type[BaseModel] | None = root
    is_key = False  # whether the part is a key of a mapping of sections
    for part in location:
        if isinstance(part, int) or is_key:
            is_key = False
            continue
        field = section.model_fields.get(part) if section else None
        section = section_in(field.annotation) if field else None
        is_key = field is not None and get_origin(field.annotation) is dict
    return section


def _field_at(location: tuple[int | str, ...], root: type[BaseModel]) -> FieldInfo | None:
    """Return the field at a location; None if there is none, as for an element of a list."""
    if not location or isinstance(location[-1], int):
        return None
    section = _section_at(location[:-1], root)
    return section.model_fields.get(location[-1]) if section else None


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section inside an annotation such as `tuple[ModelEntry, ...] | None`; None if it has no section."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := section_in(arg))), None)


def _format_given(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

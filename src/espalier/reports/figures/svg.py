"""Finishing of an SVG document that matplotlib wrote: alternative text, tooltips, unique ids, and less weight."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_FAMILY = re.compile(r"font-family: ([^;]+);? ?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def finish_svg(raw: str, name: str, alt: str, tips: Mapping[str, str]) -> str:
    """Make an SVG document of matplotlib ready for a page.

    Args:
        raw: The document. Metadata of matplotlib, such as the date, are removed.
        name: Name of the figure. It begins every id, so several figures can be in one page.
        alt: Alternative text.
        tips: Tooltips, by the id of their group.

    Returns:
        The document without XML declaration.
    """
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ET.fromstring(raw)  # noqa: S314 (matplotlib wrote it)
    for child in root.findall(f"{{{SVG}}}metadata"):
        root.remove(child)
    for element in root.iter():
        if text := tips.get(element.get("id", "")):
            title = ET.Element(f"{{{SVG}}}title")
            title.text = text
            element.insert(0, title)
            element.set("class", "tip")
    for element in root.iter():
        for child in element.findall(f"{{{SVG}}}style"):
            element.remove(child)  # in a page, it would be about the page; the document has the same as its own style
    family = _move_family(root)
    new_ids = _new_ids(root, name)
    for element in root.iter():
        _rename(element, new_ids)
    _remove_white_space(root)
    _unwrap_groups(root)
    title = ET.Element(f"{{{SVG}}}title")
    title.text = alt
    root.insert(0, title)
    root.set("role", "img")
    root.set("aria-label", alt)
    font = f";font-family:{family},Verdana,sans-serif" if family else ""
    root.set("style", f"stroke-linejoin:round;stroke-linecap:butt{font}")
    return ET.tostring(root, encoding="unicode") + "\n"


def _move_family(root: ET.Element) -> str:
    """Move the font family of all texts to the document, if all have the same. Return it, or an empty string."""
    texts = list(root.iter(f"{{{SVG}}}text"))
    families = {match[1] for text in texts if (match := _FAMILY.search(text.get("style", "")))}
    if len(families) != 1:
        return ""
    for text in texts:
        text.set("style", _FAMILY.sub("", text.get("style", "")))
    return families.pop()


def _new_ids(root: ET.Element, name: str) -> dict[str, str]:
    """Return a short new id for each id that something in the document refers to."""
    used: dict[str, None] = {}
    for element in root.iter():
        used |= dict.fromkeys([element.get(_XLINK, "")[1:]])
        for value in element.attrib.values():
            used |= dict.fromkeys(_REFERENCE.findall(value))
    used.pop("", None)
    return {old: f"{name}-{number}" for number, old in enumerate(used)}


def _rename(element: ET.Element, new_ids: Mapping[str, str]) -> None:
    """Give an element its new id and references, and shorten its numbers. Ids without a reference are removed."""
    identity = element.attrib.pop("id", None)
    if identity is not None and identity in new_ids:
        element.set("id", new_ids[identity])
    if _XLINK in element.attrib and element.attrib[_XLINK].startswith("#"):
        element.set(_XLINK, f"#{new_ids[element.attrib[_XLINK][1:]]}")
    for key, value in list(element.attrib.items()):
        if "url(#" in value:
            element.set(key, _REFERENCE.sub(lambda match: f"url(#{new_ids[match[1]]})", value))
        elif key in {"d", "transform", "x", "y"}:
            short = _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", value)
            element.set(key, " ".join(short.split()))
        elif key == "style":
            element.set(key, value.replace(": ", ":").replace("; ", ";"))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]


def _remove_white_space(root: ET.Element) -> None:
    """Remove the indentation of the document."""
    for element in list(root.iter()):
        if element.tag not in {f"{{{SVG}}}text", f"{{{SVG}}}tspan", f"{{{SVG}}}style", f"{{{SVG}}}title"}:
            element.text = None
        element.tail = None if element.tag != f"{{{SVG}}}tspan" else element.tail


def _unwrap_groups(element: ET.Element) -> None:
    """Replace each group without attributes by its content; matplotlib wraps every mark in several."""
    content: list[ET.Element] = []
    for child in list(element):
        _unwrap_groups(child)
        content += list(child) if child.tag == f"{{{SVG}}}g" and not child.attrib else [child]
    element[:] = content

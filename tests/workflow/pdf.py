"""Sizes of the text and of the pages of a PDF that Chromium printed."""

import re
import zlib
from collections.abc import Iterator

_OPERATORS = re.compile(rb"\bq\b|\bQ\b|([-\d. ]+) cm\b|/\w+ ([\d.]+) Tf\b|([-\d. ]+) Tm\b|\bT[Jj]\b")


def page_sizes(pdf: bytes) -> set[tuple[int, int]]:
    """Return the width and height of the pages, in points."""
    boxes = (box.split() for box in re.findall(rb"/MediaBox ?\[([^\]]*)\]", pdf))
    return {(round(float(box[2])), round(float(box[3]))) for box in boxes}


def text_sizes(pdf: bytes) -> set[float]:
    """Return the sizes of all text as printed, in points: size of the font times scale of the page and of the text."""
    return {size for stream in _page_contents(pdf) for size in _sizes_in(stream)}


def _page_contents(pdf: bytes) -> Iterator[bytes]:
    """Yield the operators of each page. Fonts and images are streams, too, but their bytes are not ASCII."""
    for start in re.finditer(rb"stream\r?\n", pdf):
        try:
            stream = zlib.decompress(pdf[start.end() : pdf.find(b"endstream", start.end())])
        except zlib.error:
            continue
        if stream.isascii():
            yield stream


def _sizes_in(stream: bytes) -> Iterator[float]:
    scale, saved, font, text = 1.0, [1.0], 0.0, 1.0
    for found in _OPERATORS.finditer(stream):
        operator = found.group(0)
        if operator == b"q":
            saved.append(scale)
        elif operator == b"Q":
            scale = saved.pop()
        elif operator.endswith(b"cm"):
            scale *= _scale_of(found.group(1))
        elif operator.endswith(b"Tf"):
            font = float(found.group(2))
        elif operator.endswith(b"Tm"):
            text = _scale_of(found.group(3))
        else:
            yield round(font * text * scale, 2)


def _scale_of(matrix: bytes) -> float:
    values = [float(value) for value in matrix.split()[-6:]]
    return abs(values[0]) or abs(values[1])

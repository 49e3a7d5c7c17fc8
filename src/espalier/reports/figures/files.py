"""Writing of figures: each one as SVG, as PDF, and its table as CSV, in the style of the reports and of the user."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib import style

from espalier.errors import UserError
from espalier.reports.figures.drawing import GREY, Drawing, Figure, plain
from espalier.reports.figures.svg import finish_svg

OWN_STYLE = files("espalier.reports.figures") / "figures.mplstyle"


def write_figures(figures: Sequence[Figure], folder: Path, user_style: str | None = None) -> dict[str, str]:
    """Write each figure as `{name}.svg` and `{name}.pdf`, and its table as `{name}.csv`. Equal input, equal bytes.

    Args:
        figures: Figures to write, with labels in English: for other languages, a PDF may need fonts that are missing.
        folder: Existing folder.
        user_style: Style file of the user, applied on top of the style of the reports.

    Returns:
        SHA-256 of each SVG, by the name of its figure.

    Raises:
        UserError: If the style file is missing or invalid.
    """
    hashes = {}
    with figure_style(user_style):
        for figure in figures:
            svg, pdf = render_figure(figure)
            (folder / f"{figure.name}.svg").write_text(svg, encoding="utf-8", newline="\n")
            (folder / f"{figure.name}.pdf").write_bytes(pdf)
            pd.DataFrame(list(figure.rows)).to_csv(folder / f"{figure.name}.csv", index=False, lineterminator="\n")
            hashes[figure.name] = hashlib.sha256(svg.encode()).hexdigest()
    return hashes


@contextmanager
def figure_style(user_style: str | None = None) -> Iterator[None]:
    """Apply the style of the reports, then that of the user. Settings of the machine (`matplotlibrc`) do not count.

    Args:
        user_style: Style file of the user.

    Raises:
        UserError: If the style file is missing or invalid.
    """
    own: Any = mpl.rc_params_from_file(str(OWN_STYLE), fail_on_error=True, use_default_template=False)
    added = [own] if user_style is None else [own, read_style(user_style)]
    # A name with a glyph that the font lacks is no problem of the job; fontTools logs each step of its work.
    levels = {name: logging.getLogger(name).level for name in ("matplotlib", "fontTools")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with style.context(added, after_reset=True):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def read_style(path: str) -> mpl.RcParams:
    """Read a style file of matplotlib.

    Args:
        path: The file, `*.mplstyle`.

    Raises:
        UserError: If the file is missing, or if a key or a value in it is unknown to matplotlib.
    """
    if not Path(path).is_file():
        raise UserError(f"report.style: got {path!r}, but there is no such file; give a style file of matplotlib")
    problems: list[str] = []
    read = mpl.RcParams()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: problems.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("matplotlib")
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        read = mpl.rc_params_from_file(path, fail_on_error=True, use_default_template=False)
    except (ValueError, KeyError, OSError, UnicodeError) as error:
        problems.append(str(error))
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    if problems:
        what = " ".join(problems[0].split()).partition(" You probably need")[0]  # advice about another file
        raise UserError(f"report.style: {path}: {what}")
    return read


def render_figure(figure: Figure) -> tuple[str, bytes]:
    """Draw a figure under the style that is in force.

    Returns:
        The SVG document, and the PDF document.
    """
    drawing = figure.draw() if figure.draw else _draw_reason(figure.reason or "")
    if engine := drawing.figure.get_layout_engine():
        engine.execute(drawing.figure)
        drawing.figure.set_layout_engine("none")  # everything is placed once, for both formats
    raw = io.StringIO()
    drawing.figure.savefig(raw, format="svg", metadata={"Date": None})
    pdf = io.BytesIO()
    drawing.figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Title": figure.caption})
    return finish_svg(raw.getvalue(), figure.name, figure.alt, drawing.tips), pdf.getvalue()


def _draw_reason(reason: str) -> Drawing:
    drawing = Drawing(0.5)
    drawing.axes.set_axis_off()
    drawing.axes.text(0.5, 0.5, plain(reason), ha="center", va="center", color=GREY, wrap=True)
    return drawing

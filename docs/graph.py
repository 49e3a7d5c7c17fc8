"""Draw a graph in rows as SVG: boxes, and lines from the lower edge of one to the upper edge of another."""

from collections.abc import Mapping, Sequence

WIDTH, ROW, BOX = 900, 92, 28  # pixels


def reduced(graph: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Leave out the arrows that follow from others; there are no cycles."""

    def below(node: str) -> set[str]:
        return graph[node].union(*(below(other) for other in graph[node]))

    return sorted(
        (node, other)
        for node, others in graph.items()
        for other in others
        if not any(other in below(third) for third in others - {other})
    )


def ordered(rows: Sequence[Sequence[str]], graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Put the nodes of each row into an order in which lines cross little."""
    place: dict[str, float] = {}
    found = []
    for row in (row for row in rows if row):
        above = {name: [place[other] for other in place if name in graph[other]] for name in row}
        sorted_row = sorted(row, key=lambda name: sum(above[name]) / len(above[name]) if above[name] else 0.5)
        place |= {name: (index + 0.5) / len(row) for index, name in enumerate(sorted_row)}
        found.append(sorted_row)
    return found


def figure(graph: Mapping[str, set[str]], rows: Sequence[Sequence[str]], shown: Mapping[str, str], title: str) -> str:
    """Draw a graph whose lines lead down.

    Args:
        graph: For each node those that its lines lead to.
        rows: The nodes, row by row from the top.
        shown: What the box of each node says.
        title: Title of the figure, for those who cannot see it.
    """
    rows = ordered(rows, graph)
    at = {
        name: (WIDTH * (index + 0.5) / len(row), ROW * (number + 0.5))
        for number, row in enumerate(rows)
        for index, name in enumerate(row)
    }
    lines = []
    for node, other in reduced(graph):
        (x, y), (to_x, to_y) = at[node], at[other]
        y, to_y = y + BOX / 2, to_y - BOX / 2
        lines.append(f'<path d="M{x:g},{y:g} C{x:g},{y + 26:g} {to_x:g},{to_y - 26:g} {to_x:g},{to_y:g}"/>')
    boxes = []
    for name, (x, y) in at.items():
        width = 9 * len(shown[name]) + 14
        boxes.append(f'<rect x="{x - width / 2:g}" y="{y - BOX / 2:g}" width="{width}" height="{BOX}" rx="4"/>')
        boxes.append(f'<text x="{x:g}" y="{y + 5:g}">{shown[name]}</text>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {ROW * len(rows)}" role="img">',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{ROW * len(rows)}" fill="#ffffff"/>',
        '<g fill="none" stroke="#5f7f8f" stroke-width="1.3">', *lines, "</g>",
        '<g fill="#e8f1f2" stroke="#33566b" font-family="monospace" font-size="14" text-anchor="middle">',
        *(box.replace("<text", '<text fill="#12232e" stroke="none"') for box in boxes), "</g>", "</svg>", "",
    ])  # fmt: skip

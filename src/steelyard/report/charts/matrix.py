"""A square of cells: row by column, coloured by sign and size, hollow where the sign is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from steelyard.report.charts.labels import text_width
from steelyard.report.charts.svg import tag

SIDE = 44  # px of a cell that has room for its number
WIDTH = 720  # px of the whole, where cells are smaller
LABELLED = 40  # rows and columns up to which each has its name beside it


@dataclass(frozen=True)
class Square:
    """One cell.

    Attributes:
        share: from −1 to 1 of the strongest colour.
        text: shown inside where there is room.
        title: shown when pointed at.
        known: whether the sign is.
    """

    share: float
    text: str
    title: str
    known: bool


def matrix(
    names: Sequence[str], cells: Sequence[Sequence[Square | None]], aria: str, bounds: Sequence[int] = ()
) -> Markup:
    """Rows and columns have the same names; None leaves a cell empty, a line stands before each place of `bounds`."""
    count = len(names)
    room = max(text_width(name) for name in names) + 10 if count <= LABELLED else 8
    side = min(SIDE, (WIDTH - room) / count)
    top = min(room, 120.0)
    parts: list[Markup] = []
    for place, name in enumerate(names):
        middle = side * (place + 0.5)
        if count <= LABELLED:
            parts.append(tag("text", name, class_="tick", x=room - 8, y=top + middle + 4, text_anchor="end"))
            x, y = room + middle, top - 8
            parts.append(tag("text", name, class_="tick", x=x, y=y, transform=f"rotate(-45 {x:.1f} {y:.1f})"))
    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            if cell is None:
                continue
            x, y = room + side * column, top + side * row
            css = "gain" if cell.share > 0 else "hurt"
            inside = [tag("title", cell.title)]
            inside.append(
                tag(
                    "rect", class_=css if cell.known else "open", x=x + 1, y=y + 1, width=side - 2, height=side - 2,
                    rx=2,
                    fill_opacity=round(0.12 + 0.6 * min(1.0, abs(cell.share)), 2) if cell.known else 0,
                )
            )  # fmt: skip
            if side >= 30:
                inside.append(
                    tag("text", cell.text, class_="in", x=x + side / 2, y=y + side / 2 + 4, text_anchor="middle")
                )
            parts.append(tag("g", *inside, data_row=row, data_column=column))
    end = side * count
    for place in bounds:
        x, y = room + side * place, top + side * place
        parts.append(tag("line", class_="bound", x1=x, x2=x, y1=top, y2=top + end))
        parts.append(tag("line", class_="bound", x1=room, x2=room + end, y1=y, y2=y))
    width, height = room + side * count + 60, top + side * count + 4
    return tag(
        "svg", *parts, class_="matrix", viewBox=f"0 0 {width:.0f} {height:.0f}",
        style=f"max-width:{width:.0f}px", role="img", aria_label=aria,
    )  # fmt: skip

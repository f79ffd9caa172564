"""The square of cells, read back: names beside their rows and above their columns, each cell where these say."""

from __future__ import annotations

import re

import pytest

from report.reading import Element, parse, tooltip
from steelyard.report.charts.labels import text_width
from steelyard.report.charts.matrix import Square, matrix


def draw(names: list[str], cells: list[list[Square | None]]) -> Element:
    return parse(str(matrix(names, cells, "who <helps> whom"))).one("svg")


def plain(count: int) -> tuple[list[str], list[list[Square | None]]]:
    """Each cell another, none on the diagonal."""
    cells = [
        [
            None if row == column else Square((row - column) / count, f"{row}.{column}", f"{column} → {row}", True)
            for column in range(count)
        ]
        for row in range(count)
    ]
    return [f"task {place}" for place in range(count)], cells


def squares(drawn: Element) -> dict[tuple[int, int], Element]:
    found = {(int(cell["data-row"]), int(cell["data-column"])): cell for cell in drawn.elements if cell.tag == "g"}
    assert len(found) == sum(cell.tag == "g" for cell in drawn.elements)
    return found


def middle(cell: Element) -> tuple[float, float]:
    rect = cell.one("rect")
    return float(rect["x"]) + float(rect["width"]) / 2, float(rect["y"]) + float(rect["height"]) / 2


@pytest.mark.parametrize("count", [1, 2, 5, 14, 40])
def test_names_stand_at_their_rows_and_columns(count: int) -> None:
    names, cells = plain(count)
    cells[0][0] = Square(0.0, "own", "own", True)  # a row of one has a cell as well
    drawn = draw(names, cells)
    found = squares(drawn)
    beside = [text for text in drawn.elements if text.tag == "text" and text.get("text-anchor") == "end"]
    above = [text for text in drawn.elements if text.tag == "text" and text.get("text-anchor") is None]
    assert [text.text for text in beside] == [text.text for text in above] == names
    assert {"tick"} == {name for text in [*beside, *above] for name in text.classes}
    left, top = (min(float(cell.one("rect")[side]) for cell in found.values()) for side in "xy")
    middles = {place: middle(cell) for place, cell in found.items()}
    for place, (row, column) in enumerate(zip(beside, above, strict=True)):
        # Names end, or begin, a few pixels from the cells and in the midst of them.
        assert 0 < left - float(row["x"]) < 12
        assert float(row["x"]) >= text_width(names[place])
        assert 0 < top - float(column["y"]) < 12
        turned = re.fullmatch(r"rotate\(-45 ([\d.]+) ([\d.]+)\)", column["transform"])
        assert turned is not None, "turned about where it begins"
        assert [float(end) for end in turned.groups()] == pytest.approx([float(column[end]) for end in "xy"], abs=0.06)
        ys = [y for (r, _), (_, y) in middles.items() if r == place]
        xs = [x for (_, c), (x, _) in middles.items() if c == place]
        assert ys == pytest.approx([float(row["y"]) - 4] * len(ys), abs=0.02)
        assert xs == pytest.approx([float(column["x"])] * len(xs), abs=0.02)


@pytest.mark.parametrize("count", [2, 5, 16, 40, 41])
def test_cells_say_what_they_are_and_lie_beside_each_other_in_the_picture(count: int) -> None:
    names, cells = plain(count)
    drawn = draw(names, cells)
    assert drawn.classes == ["matrix"]
    assert (drawn["role"], drawn["aria-label"]) == ("img", "who <helps> whom")
    nothing, nothing_either, width, height = map(float, drawn["viewbox"].split())
    assert nothing == nothing_either == 0
    assert drawn["style"] == f"max-width:{width:.0f}px"
    found = squares(drawn)
    assert set(found) == {(row, column) for row in range(count) for column in range(count) if row != column}
    side = float(found[0, 1].one("rect")["width"]) + 2  # with a gap of a pixel all around
    named = [text for text in drawn.elements if text.tag == "text"]
    assert len(named) == (2 * count if count <= 40 else 0)
    room = text_width(names[-1]) + 10 if count <= 40 else 8  # all names are about as long
    assert side == pytest.approx(min(44, (720 - room) / count), abs=0.2)
    for (row, column), cell in found.items():
        rect, square = cell.one("rect"), cells[row][column]
        assert square is not None
        x, y = middle(cell)
        (first_x, first_y) = middle(found[1, 0])
        assert x - first_x == pytest.approx(side * column, abs=0.02 * count)
        assert y - first_y == pytest.approx(side * (row - 1), abs=0.02 * count)
        assert float(rect["width"]) == float(rect["height"])
        assert 0 <= float(rect["x"]) < float(rect["x"]) + side <= width
        assert 0 <= float(rect["y"]) < float(rect["y"]) + side - 2 <= height
        assert tooltip(cell) == square.title
        texts = cell.all("text")
        assert [text.text for text in texts] == ([square.text] if side >= 30 else [])
        for text in texts:
            assert (text.classes, text["text-anchor"]) == (["in"], "middle")
            assert (float(text["x"]), float(text["y"]) - 4) == pytest.approx((x, y), abs=0.02)
    right, low = max(middle(cell)[0] for cell in found.values()), max(middle(cell)[1] for cell in found.values())
    assert 59.4 <= width - right - side / 2 <= 60.6, "room for the last name, which leans out"
    assert 3.4 <= height - low - side / 2 <= 4.6


def test_numbers_stand_in_cells_of_thirty_pixels() -> None:
    sides = {}
    for count in range(14, 30):
        names, cells = plain(count)
        some = squares(draw(names, cells))[0, 1]
        sides[float(some.one("rect")["width"]) + 2] = bool(some.all("text"))
    assert any(sides.values())
    assert not all(sides.values())
    assert sides == {side: side >= 30 for side in sides}


@pytest.mark.parametrize(
    ("share", "known", "css", "filled"),
    [
        (1.0, True, "gain", 0.72), (0.5, True, "gain", 0.42), (-0.5, True, "hurt", 0.42), (-1.0, True, "hurt", 0.72),
        (3.0, True, "gain", 0.72), (-3.0, True, "hurt", 0.72), (0.0, True, "hurt", 0.12),
        (0.5, False, "open", 0.0), (-1.0, False, "open", 0.0),
    ],
)  # fmt: skip
def test_colour_is_the_sign_and_strength_the_size(share: float, known: bool, css: str, filled: float) -> None:
    cell = squares(draw(["a", "b"], [[None, Square(share, "", "", known)], [None, None]]))[0, 1]
    rect = cell.one("rect")
    assert (rect.classes, float(rect["fill-opacity"])) == ([css], filled)


def test_long_names_have_room_above_up_to_a_bound() -> None:
    def tops(name: str) -> tuple[float, float]:
        drawn = draw(["a", name], plain(2)[1])
        rects = [cell.one("rect") for cell in squares(drawn).values()]
        return min(float(rect["x"]) for rect in rects) - 1, min(float(rect["y"]) for rect in rects) - 1

    short, long = "name", "a name that is longer than any that fits above the cells"
    assert tops(short) == pytest.approx((text_width(short) + 10,) * 2, abs=0.01)
    assert tops(long) == pytest.approx((text_width(long) + 10, 120), abs=0.01)
    assert text_width(long) > 130

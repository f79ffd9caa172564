"""Read a page back as its reader does: tables by row and column, charts by the ticks on their own axes.

Nothing here asks the package how it draws. A wrong axis, a swapped column or a mark in the wrong place is read as the
wrong number, which the tests then hold to the judgement.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
UNREAD = {"script", "style", "title", "defs"}  # `title` is a tooltip inside a chart: read by name


@dataclass
class Element:
    """An element of the page."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return self.attributes[name]

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()

    @property
    def elements(self) -> list[Element]:
        """The direct children that are elements."""
        return [child for child in self.children if isinstance(child, Element)]

    def walk(self) -> Iterator[Element]:
        for child in self.elements:
            yield child
            yield from child.walk()

    def all(self, tag: str = "", class_: str = "", **attributes: str) -> list[Element]:
        """Descendants with this tag, class and attributes (`data_m` is data-m), in the order of the page."""
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        return [
            found
            for found in self.walk()
            if (not tag or found.tag == tag)
            and (not class_ or class_ in found.classes)
            and all(found.get(name) == value for name, value in wanted.items())
        ]

    def one(self, tag: str = "", class_: str = "", **attributes: str) -> Element:
        found = self.all(tag, class_, **attributes)
        assert len(found) == 1, f"{len(found)} of {tag}.{class_} {attributes}"
        return found[0]

    @property
    def text(self) -> str:
        """All text inside, blanks joined; tooltips and scripts are no text."""
        return _joined(self._pieces())

    @property
    def own(self) -> str:
        """The text that stands directly in it."""
        return _joined(child for child in self.children if isinstance(child, str))

    def _pieces(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            elif child.tag not in UNREAD:
                yield from child._pieces()


def tooltip(found: Element) -> str:
    """The tooltip of a mark in a chart, not of the marks inside it."""
    (title,) = [child for child in found.elements if child.tag == "title"]
    return "".join(piece for piece in title.children if isinstance(piece, str))


def _joined(pieces: Iterator[str]) -> str:
    return re.sub(r"[ \n\t]+", " ", "".join(pieces)).strip()


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("page")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._check(tag, attrs)
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._check(tag, attrs)
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def _check(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """In a chart that is saved by itself, which is XML, `<G>` is no group; and no name stands twice."""
        written = self.get_starttag_text() or ""
        assert written.startswith(f"<{tag}"), f"{written} is not written in lower case"
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), written

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(text: str) -> Element:
    builder = _Builder()
    builder.feed(text)
    builder.close()
    (root,) = builder.open
    return root


# --- numbers ---


def number(text: str) -> float:
    """A number as the page writes it; "–" is none."""
    clean = text.replace("\u202f", "").replace("−", "-").replace("∞", "inf")
    return math.nan if clean == "–" else float(clean)


def says(text: str, value: float, signed: bool = False) -> bool:
    """Whether a text is this value, rounded to the digits that the text shows."""
    if math.isnan(value):
        return text == "–"
    shown = number(text)
    if math.isinf(value):
        return shown == value
    if signed and shown > 0 and not text.startswith("+"):
        return False
    last = Decimal(text.replace("\u202f", "").replace("−", "-")).as_tuple().exponent
    assert isinstance(last, int)
    return abs(shown - value) <= 0.5 * 10.0**last * (1 + 1e-6) + 1e-12 * abs(value)


def says_interval(text: str, mean: float, low: float, high: float) -> bool:
    """Whether a text is this mean, with the half-width where it is bounded: "+1.3 ±0.4"."""
    shown, _, width = text.partition(" ")
    half = (high - low) / 2
    wide = says(width[1:], half) and width[0] == "±" if width else not math.isfinite(half)
    return says(shown, mean, signed=True) and wide


# --- tables ---


def table(found: Element) -> dict[tuple[str, str], Element]:
    """(row, column) → cell. Rows and columns are called by their headings, in full where those are cut."""
    head, body = found.one("thead"), found.one("tbody")
    columns = [_heading(cell) for cell in head.one("tr").elements[1:]]
    cells = {}
    for row in body.all("tr"):
        name, *rest = row.elements
        assert name.tag == "th"
        for column, cell in zip(columns, rest, strict=True):
            assert (name["title"], column) not in cells, "two rows or columns have one name"
            cells[name["title"], column] = cell
    return cells


def _heading(cell: Element) -> str:
    return cell.get("title") or cell.own or cell.text


def by_setting(section: Element) -> dict[int, Element]:
    """The parts of a section that belong to one setting each."""
    found = [part for part in section.all("div") if "data-setting" in part.attributes]
    return {int(part["data-setting"]): part for part in found}


# --- charts ---


@dataclass(frozen=True)
class Axis:
    """A scale as its ticks tell it; positions in per cent of the width, or in px from the top."""

    log: bool
    origin: float  # position of value 0 (linear) or 1 (logarithmic)
    slope: float

    def place(self, value: float) -> float:
        """Where a value belongs."""
        return self.origin + self.slope * (math.log(value) if self.log else value)

    def at(self, position: float) -> float:
        """The value at a position."""
        found = (position - self.origin) / self.slope
        return math.exp(found) if self.log else found


def axis(ticks: Sequence[tuple[float, float]]) -> Axis:
    """The scale on which all ticks (position, value) lie; an error where there is none."""
    assert len(ticks) >= 2, f"nobody can read an axis with the ticks {ticks}"
    for log in (False, True):
        if log and min(value for _, value in ticks) <= 0:
            continue
        marks = [(position, math.log(value) if log else value) for position, value in ticks]
        (first, low), (last, high) = marks[0], marks[-1]
        slope = (last - first) / (high - low)
        if all(abs(first + slope * (value - low) - position) < 0.03 for position, value in marks):
            return Axis(log, first - slope * low, slope)
    raise AssertionError(f"the ticks {ticks} lie on no scale")


def share(text: str) -> float:
    """A horizontal position, in per cent of the width."""
    assert text.endswith("%") or text == "0", text
    return float(text.rstrip("%"))


def _ticks(chart: Element) -> list[Element]:
    return [text for text in chart.elements if text.tag == "text" and "tick" in text.classes]


def _upright(chart: Element) -> Axis:
    """The vertical axis: its labels stand left of the plot, centred on grid lines."""
    labels = [text for text in _ticks(chart) if text.get("dx") == "-6"]
    lines = [line for line in chart.elements if line.tag == "line" and line.get("x2") == "100%"]
    assert len(labels) == len(lines)
    ticks = []
    for text, line in zip(labels, lines, strict=True):
        assert abs(float(text["y"]) - 4 - float(line["y1"])) < 0.011
        assert line["y1"] == line["y2"]
        assert ("zero" in line.classes) <= (number(text.text) == 0)
        ticks.append((float(line["y1"]), number(text.text)))
    return axis(ticks)


@dataclass
class Row:
    """A row of a forest plot; positions in per cent of the width."""

    method: int
    label: str
    number: str
    title: str
    css: str
    mark: tuple[str, float] | None  # shape, position
    whisker: tuple[float, float] | None
    arrows: dict[str, float]  # left, right -> position
    no_result: bool


@dataclass
class Forest:
    across: Axis
    region: tuple[float, float] | None
    rows: list[Row]


def forest(chart: Element) -> Forest:
    labels = [text for text in _ticks(chart) if text["text-anchor"] == "middle"]
    lines = [line for line in chart.elements if line.tag == "line"]
    assert [line["x1"] for line in lines] == [text["x"] for text in labels] == [line["x2"] for line in lines]
    assert ["zero" in line.classes for line in lines] == [number(text.text) == 0 for text in labels]
    sides = {text.text: (text["x"], text.get("text-anchor")) for text in chart.all("text", class_="side")}
    assert sides == {"← worse": ("0", None), "better →": ("100%", "end")}
    shaded = [part for part in chart.elements if part.tag == "rect" and "region" in part.classes]
    region = [(share(part["x"]), share(part["x"]) + share(part["width"])) for part in shaded]
    assert {(part["y"], part["height"]) for part in shaded} <= {(line["y1"], line["y2"]) for line in lines}
    rows, heights = [], []
    for row in chart.all("g", class_="row"):
        hit = row.one("rect", class_="hit")
        middle = float(hit["y"]) + float(hit["height"]) / 2
        heights.append(middle)
        for part in row.elements:  # everything of a row stands on one line
            at = {"text": lambda p: float(p["y"]) - 4, "line": lambda p: float(p["y1"]), "use": lambda p: float(p["y"])}
            assert part.tag not in at or at[part.tag](part) == middle
        whiskers = [(share(part["x1"]), share(part["x2"])) for part in row.all("line", class_="whisker")]
        uses = [(part["href"], share(part["x"])) for part in row.all("use")]
        marks = [(href.removeprefix("#mark-"), x) for href, x in uses if href.startswith("#mark-")]
        css = next(name for name in row.classes if name != "row")
        rows.append(
            Row(
                int(row["data-m"]),
                row.one("text", class_="name").text,
                "".join(part.text for part in row.all("text", class_="number")),
                tooltip(row),
                css,
                marks[0] if marks else None,
                whiskers[0] if whiskers else None,
                {href.removeprefix("#beyond-"): x for href, x in uses if href.startswith("#beyond-")},
                any(part.text == "no result" for part in row.all("text")),
            )
        )
    assert heights == sorted(set(heights)), "rows stand below each other"
    return Forest(axis([(share(text["x"]), number(text.text)) for text in labels]), region[0] if region else None, rows)


@dataclass
class Dot:
    """A method on the scatter of gain against cost; `x` in per cent, `y` in px."""

    method: int
    title: str
    x: float
    y: float | None  # none: off the edge
    whisker: tuple[float, float] | None
    arrows: dict[str, float]
    ink: tuple[str, bool]  # colour, dashed


@dataclass
class Cost:
    across: Axis
    up: Axis
    dots: list[Dot]
    single: tuple[float, float]
    labels: dict[int, tuple[str, float, float]]
    boxes: dict[int, tuple[float, float, str, str]]  # of each label: how far aside and down, how it hangs, its text
    height: float


def cost(chart: Element, origin: str = "single-task") -> Cost:
    check_frame(chart)
    below = [text for text in _ticks(chart) if text.get("dx") is None]
    stops = chart.all("line", class_="stop")
    assert [line["x1"] for line in stops] == [text["x"] for text in below] == [line["x2"] for line in stops]
    (upright,) = [line for line in chart.all("line", class_="zero") if line["x1"] == line["x2"]]
    height = float(upright["y2"])
    dots = []
    for dot in chart.all("g", class_="dot"):
        halo = dot.one("circle", class_="halo")
        x = share(halo["cx"])
        circles = [circle for circle in dot.all("circle") if "halo" not in circle.classes]
        assert all(share(circle["cx"]) == x and circle["cy"] == halo["cy"] for circle in circles)
        whiskers = dot.all("line", class_="whisker")
        assert all(share(line["x1"]) == share(line["x2"]) == x for line in whiskers)
        dots.append(
            Dot(
                int(dot["data-m"]),
                tooltip(dot),
                x,
                float(circles[0]["cy"]) if circles else None,
                next(((float(line["y1"]), float(line["y2"])) for line in whiskers), None),
                {
                    use["href"].removeprefix("#beyond-"): float(use["y"])
                    for use in dot.all("use")
                    if share(use["x"]) == x
                },
                (next(name for name in dot.classes if name != "dot"), any("hollow" in c.classes for c in circles)),
            )
        )
    names = chart.all("text", class_="name")
    single = chart.one("rect", class_="single")
    assert single["x"] == upright["x1"]
    assert (single["width"], single["height"], single["transform"]) == ("8", "8", "translate(-4 0)"), "centred"
    (named,) = [text for text in _ticks(chart) if text.text == origin]
    assert named["x"] == single["x"]
    return Cost(
        axis([(share(text["x"]), number(text.text)) for text in below]),
        _upright_signed(chart),
        dots,
        (share(single["x"]), float(single["y"]) + 4),
        {int(text["data-m"]): (text.text, share(text["x"]), float(text["y"])) for text in names},
        {
            int(text["data-m"]): (float(text["dx"]), float(text["dy"]) - 4, text["text-anchor"], text.text)
            for text in names
        },
        height,
    )


def _upright_signed(chart: Element) -> Axis:
    labels = [text.text for text in _ticks(chart) if text.get("dx") == "-6"]
    assert all(text.startswith("+") == (number(text) > 0) for text in labels)
    return _upright(chart)


@dataclass
class Amounts:
    """Learning curves. A track is a list of (x in per cent, y, low and high in px or None)."""

    up: Axis
    stops: list[float]
    labels: dict[float, str]
    tracks: dict[int, list[tuple[float, float, tuple[float, float] | None, str]]]
    lines: dict[int, list[tuple[float, float]]]
    inks: dict[int, tuple[str, str | None]]
    region: list[tuple[float, float]]  # the corners of the shaded region, x in per cent
    ends: dict[int, str]  # direct labels


def amounts(chart: Element) -> Amounts:
    stops = [share(line["x1"]) for line in chart.all("line", class_="stop")]
    labels = {share(text["x"]): text.text for text in _ticks(chart) if text.get("dx") is None}
    tracks, lines, inks, ends = {}, {}, {}, {}
    for group in chart.elements:
        if group.tag == "g" and group.all("circle"):
            marks = []
            for dot in group.all("g", class_="dot"):
                circle = dot.one("circle")
                whisker = [(float(line["y1"]), float(line["y2"])) for line in dot.all("line", class_="whisker")]
                assert all(line["x1"] == line["x2"] == circle["cx"] for line in dot.all("line"))
                title = tooltip(dot)
                marks.append((share(circle["cx"]), float(circle["cy"]), whisker[0] if whisker else None, title))
                inks[int(group["data-m"])] = (next(name for name in dot.classes if name != "dot"), None)
            tracks[int(group["data-m"])] = marks
        elif group.tag == "g":
            check_end(group, 190)
            ends[int(group["data-m"])] = group.one("text", class_="end").text
            there = _points(group.one("path", class_="leader")["d"])[0][1]
            assert abs(there - tracks[int(group["data-m"])][-1][1]) < 0.06, "tied to the end of its line"
    for path in chart.all("path", class_="line"):
        method = int(path["data-m"])
        lines[method] = [(x / 10, y) for x, y in _points(path["d"])]
        assert inks.setdefault(method, (path.classes[1], None))[0] == path.classes[1]
        inks[method] = (path.classes[1], path.get("stroke-dasharray"))
    corners = [
        (float(x) / 10, float(y))
        for polygon in chart.all("polygon", class_="region")
        for x, y in (pair.split(",") for pair in polygon["points"].split())
    ]
    return Amounts(_upright(chart), stops, labels, tracks, lines, inks, corners, ends)


@dataclass
class Line:
    """A line over the epochs: points (x in thousandths of the width, y in px), and what the read-out is given."""

    name: str
    ink: tuple[str, str | None]
    pieces: list[list[tuple[float, float]]]
    values: list[str]


@dataclass
class Curves:
    up: Axis
    across: Axis | None  # none: a single epoch
    epochs: list[int]
    lines: dict[int, Line]
    bands: dict[int, list[tuple[float, float]]]
    dots: dict[int, float]
    ends: dict[int, str]
    read_out: tuple[float, float, bool, float]  # low, high, log, height


def curves(chart: Element, key: str) -> Curves:
    """Lines by `data-m` (methods) or `data-t` (tasks)."""
    below = [text for text in _ticks(chart) if text.get("dx") is None]
    ticks = [(share(text["x"]), number(text.text.removeprefix("epoch "))) for text in below]
    assert below[0].text.startswith("epoch ")
    assert all(text["text-anchor"] == "middle" for text in below)
    epochs = [int(epoch) for epoch in chart["data-epochs"].split()]
    lines = {}
    for group in chart.elements:
        if group.tag == "g":
            check_end(group, 150)
    for path in chart.all("path", class_="line"):
        pieces = [_points("M" + piece) for piece in path["d"].split("M")[1:]]
        ink = (next(name for name in path.classes if name != "line"), path.get("stroke-dasharray"))
        assert int(path[key]) not in lines
        lines[int(path[key])] = Line(path["data-name"], ink, pieces, path["data-y"].split())
    return Curves(
        _upright(chart),
        axis(ticks) if len(epochs) > 1 else None,
        epochs,
        lines,
        {int(path[key]): _points(path["d"].rstrip("Z")) for path in chart.all("path", class_="band")},
        {int(dot[key]): float(dot["cy"]) for dot in chart.all("circle", class_="dot") if dot["cx"] == "50%"},
        {int(g[key]): g.one("text", class_="end").text for g in chart.elements if g.tag == "g"},
        (float(chart["data-low"]), float(chart["data-high"]), chart["data-log"] == "1", float(chart["data-height"])),
    )


def _points(path: str) -> list[tuple[float, float]]:
    pairs = [piece.split() for piece in re.split("[ML]", path) if piece]
    return [(float(x), float(y)) for x, y in pairs]


@dataclass
class Panel:
    title: str
    note: str
    chart: Element


def panels(section: Element) -> list[Panel]:
    """The charts of a section, with what stands above them."""
    found = []
    for figure in section.all("figure", class_="panel"):
        head = figure.one("figcaption")
        chart = figure.one("svg", class_="plot")
        check_frame(chart)
        assert chart["aria-label"].startswith(head.one("b").text)
        assert re.fullmatch(r"--left:\d+px;--right:\d+px", figure["style"])
        found.append(Panel(head.one("b").text, head.one("span").text, chart))
    return found


def check_frame(chart: Element) -> None:
    """As wide as its place, as high as what is in it, told to those who listen; and inner drawings that are stretched
    are stretched from a thousandth of the width to what their points say."""
    assert (chart["width"], chart["role"]) == ("100%", "img")
    height = float(chart["height"])
    assert all(part.own == "" for part in [chart, *chart.walk()] if part.tag not in ("text", "title"))
    for part in chart.elements:
        heights = [float(part[name]) for name in ("y", "y1", "y2") if part.get(name) is not None]
        assert all(-1 <= y <= height for y in heights), f"{part} lies outside"
        if part.tag == "text":
            assert {"x", "y"} <= set(part.attributes)
        if part.tag == "line":
            assert {"x1", "x2", "y1", "y2"} <= set(part.attributes)
        if part.tag == "svg":
            assert part["width"] == "100%"
            assert part["viewbox"] == f"0 0 1000 {part['height']}"
            assert part["preserveaspectratio"] == "none"
            assert all(path["vector-effect"] == "non-scaling-stroke" for path in part.all("path", class_="line"))


def check_end(group: Element, height: float) -> None:
    """A label at the right edge, tied to the end of its line."""
    leader, text = group.one("path", class_="leader"), group.one("text", class_="end")
    around = group.one("svg")
    assert (around["x"], around["overflow"]) == ("100%", "visible")
    assert (text["x"], text["dx"]) == ("100%", "12")
    (left, there), (right, here) = _points(leader["d"])
    assert (left, right) == (0, 9)
    assert 0 <= there <= height
    assert abs(here + 4 - float(text["y"])) < 0.06

"""Build SVG elements; every attribute and text is escaped."""

from __future__ import annotations

from markupsafe import Markup, escape

Value = str | float | int | None


def tag(name: str, *children: str, **attributes: Value) -> Markup:
    """An element. `class_` is written class, `stroke_width` stroke-width; None leaves an attribute out.

    Children that are plain text are escaped, Markup is kept.
    """
    words = [
        f'{key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    head = " ".join([name, *words])
    inside = Markup("").join(children)
    return Markup(f"<{head}>{inside}</{name}>") if inside else Markup(f"<{head}/>")


def of_width(position: float) -> str:
    """A position from 0 to 1 as a share of the width."""
    return f"{_number(100 * position)}%"


def _number(value: str | float) -> str:
    if isinstance(value, str):
        return value
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return "0" if text in ("-0", "") else text

"""Docstrings for a terminal: paragraphs, lists and arguments wrapped to its width; examples and tables as they are."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field

WIDEST = 120
HANG = 4  # of an argument's further lines
FORMULA = re.compile(r"``[^`]+``\S*")  # kept in one line where it fits, with the comma that follows
GLUE = "\x1f"  # in place of a blank at which no line may end


@dataclass
class _Item:
    """One paragraph, bullet or argument."""

    indent: int
    hang: int
    pieces: list[str] = field(default_factory=list)

    def lines(self, width: int) -> list[str]:
        width = max(width, self.hang + 20)  # a terminal of no width at all still gets its words
        room = width - self.hang

        def glued(formula: re.Match[str]) -> str:
            return formula[0].replace(" ", GLUE) if len(formula[0]) <= room else formula[0]

        lines = textwrap.wrap(
            FORMULA.sub(glued, " ".join(self.pieces)),
            width,
            initial_indent=" " * self.indent,
            subsequent_indent=" " * self.hang,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return [line.replace(GLUE, " ") for line in lines]


def rewrapped(docstring: str, width: int) -> str:
    """The same words, in lines of at most `width` characters where words allow it."""
    width = min(width, WIDEST)
    out: list[str] = []
    item: _Item | None = None
    verbatim: int | None = None  # the indent of the line whose example, below it, is not to be touched
    table = False

    def close() -> None:
        nonlocal item
        if item is not None:
            out.extend(item.lines(width))
            item = None

    for line in docstring.splitlines():
        text, indent = line.strip(), len(line) - len(line.lstrip())
        table = bool(text) and (table or "====" in text)
        if verbatim is not None and text and indent <= verbatim:
            verbatim = None
        if not text or table or verbatim is not None:
            close()
            out.append(line.rstrip())
            continue
        bullet = text.startswith("- ")
        goes_on = item is not None and not bullet and (indent > item.indent or (indent == item.indent == item.hang))
        heading = item is not None and len(item.pieces) == 1 and item.pieces[0].endswith(":") and indent > item.indent
        if item is None or not goes_on or heading:
            close()
            item = _Item(indent, indent + (2 if bullet else HANG if indent else 0))
        item.pieces.append(text)
        if text.endswith("::") or text == "Example:":
            close()
            verbatim = indent
    close()
    return "\n".join(out)

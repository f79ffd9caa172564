"""Small words of sentences and tables, for whoever says something: lists, counted nouns, columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def listed(names: Iterable[str], word: str = "and") -> str:
    """``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def counted(number: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def columns(rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """Rows of text as columns; with `numbers` all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numbers and place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )

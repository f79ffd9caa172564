"""Small parts of sentences and tables, for whoever says something: lists, counted nouns, percentages, columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def listed(names: Iterable[str], word: str = "and") -> str:
    """``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def first_few(texts: Sequence[str], most: int) -> str:
    """``a, b, c``; of more than `most` ``a, b and 3 more``."""
    rest = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + rest


def counted(number: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def percent(share: float, form: str = ".4g") -> str:
    """``10 %`` of 0.1; with another format, ``−3.2 %``."""
    return f"{100 * share:{form}} %".replace("-", "−")


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

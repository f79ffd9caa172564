"""Put labels where they do not cover each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LETTER = 6.3  # mean width of a letter at 12 px, in px
LINE = 14  # height of a line of labels, in px


def text_width(text: str) -> float:
    """Rough width in px; wide characters (CJK) count twice."""
    return LETTER * sum(1.8 if ord(letter) > 0x2E80 else 1.0 for letter in text)


def dodge(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions apart to at least `gap`, within low to high, as little as possible.

    Groups that touch are merged and centred on the mean of what they wanted (pool adjacent violators).
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    groups: list[tuple[float, int]] = []  # sum of (wanted - gap * rank in the group), members
    for index in order:
        total, size = wanted[index], 1
        while groups and groups[-1][0] / groups[-1][1] + gap * groups[-1][1] > total / size:
            before, members = groups.pop()
            total, size = before + total - gap * members * size, members + size
        groups.append((total, size))
    starts = [position for total, size in groups for position in _spread(total / size, size, gap)]
    return _inside(order, starts, gap, low, high)


def _spread(start: float, size: int, gap: float) -> list[float]:
    return [start + gap * rank for rank in range(size)]


def _inside(order: list[int], places: list[float], gap: float, low: float, high: float) -> list[float]:
    for rank in range(len(places)):  # push down from the top edge …
        places[rank] = max(places[rank], low + gap * rank)
    for rank in range(len(places)):  # … and up from the bottom edge
        places[-1 - rank] = min(places[-1 - rank], high - gap * rank)
    found = [0.0] * len(places)
    for place, index in zip(places, order, strict=True):
        found[index] = place
    return found


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Shared area in px²."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

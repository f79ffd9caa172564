"""Put labels where they do not cover each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LINE = 14  # height of a line of labels, in px


def text_width(text: str) -> float:
    """Width in px at 12 px, a little on the safe side for common sans-serif fonts."""
    return sum(_letter_width(letter) for letter in text)


def _letter_width(letter: str) -> float:
    if ord(letter) > 0x2E80:  # Chinese, Japanese, Korean
        return 12.0
    if letter in "iljtfrI.,:;|!'()[] ":
        return 4.0
    if letter in "mwMW%@":
        return 10.4
    return 8.4 if letter.isupper() else 6.8


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

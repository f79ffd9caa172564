"""Which colour and dash each method and each task has, everywhere on the page.

Seven colours after Okabe and Ito (safe for the common colour-vision deficiencies), yellow left out because it does
not show on white; beyond seven, the dash changes, so that up to 35 lines remain distinct. The colours themselves
are CSS variables, because dark paper needs lighter ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = 7
DASHES = ("", "6 3", "2 2.5", "8 3 2 3", "1 4")


@dataclass(frozen=True)
class Ink:
    """The look of one line: class for the colour, dash pattern."""

    css: str
    dash: str | None


def inks(names: Sequence[str], reference: str | None = None) -> dict[str, Ink]:
    """An ink per name; the reference is drawn in the colour of the text, dashed."""
    found: dict[str, Ink] = {}
    for name in names:
        if name == reference:
            found[name] = Ink("ref", "5 3")
            continue
        place = len(found) - (reference in found)
        found[name] = Ink(f"c{place % COLOURS}", DASHES[place // COLOURS % len(DASHES)] or None)
    return found

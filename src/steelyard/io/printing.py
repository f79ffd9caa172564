"""Text that a terminal shows and does not obey: names, messages and paths are whatever somebody wrote."""

from __future__ import annotations

SHOWN = "\n\xa0\u202f"
"""What Python calls unprintable and a terminal shows: line breaks and blanks at which no line may end."""


def printable(text: object) -> str:
    """Without escape sequences' first characters, carriage returns, and marks that turn the direction of writing."""
    text = str(text)
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\t", " ").replace("\r", " ")
    return "".join(character for character in text if character.isprintable() or character in SHOWN)

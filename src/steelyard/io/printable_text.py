"""Text that a terminal shows and does not obey: names, messages and paths are whatever somebody wrote."""

from __future__ import annotations

import re

SHOWN = "\n\xa0\u202f"
"""What Python calls unprintable and a terminal shows: line breaks and blanks at which no line may end."""
LONGEST_MESSAGE = 2_000
"""Characters of a message of somebody else's code, enough to know what happened."""

# Whole, so that of a colour no "[31m" is left.
_SEQUENCES = re.compile(
    r"(\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, moves of the cursor
    r"|(\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]{0,1000}(\x07|\x1b\\|\x9c)"  # titles of the window, links
    r"|\x1b[ -/]*[0-~]"
)


def printable(text: object, longest: int | None = None) -> str:
    """Without escape sequences, control characters, carriage returns, and marks that turn the direction of writing.

    Args:
        text: of anything, what `str` makes of it.
        longest: of a text with more characters, the beginning and the end.
    """
    text, cut = str(text), False
    if longest is not None and len(text) > 8 * longest:  # so that cleaning does not take long either
        text, cut = text[: 4 * longest] + text[-4 * longest :], True
    if not text.isprintable():
        text = _SEQUENCES.sub("", text.replace("\r\n", "\n")).replace("\t", " ").replace("\r", " ")
        text = "".join(character for character in text if character.isprintable() or character in SHOWN)
    if longest is None or (len(text) <= longest and not cut):
        return text
    return f"{text[: longest // 2]} … (shortened) … {text[-longest // 2 :]}"

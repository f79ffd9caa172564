"""Texts of other people's code, made fit to be kept and shown: no control characters, and not too long."""

from __future__ import annotations

import re

LONGEST_ERROR = 2_000  # characters
LONGEST_WARNING = 2_000
LONGEST_TRACEBACK = 20_000

# Whole sequences first, so that of a colour no "[31m" is left; then whatever else a terminal would obey.
_SEQUENCES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]{0,1000}(\x07|\x1b\\)|[ -/]*[0-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str, longest: int) -> str:
    """The text without control sequences; of one that is too long the beginning and the end."""
    half = longest // 2
    if len(text) > 8 * longest:  # so that cleaning does not take long either
        text = text[: 4 * longest] + text[-4 * longest :]
        cut = True
    else:
        cut = False
    text = _CONTROLS.sub(" ", _SEQUENCES.sub("", text.replace("\r\n", "\n")))
    if len(text) <= longest and not cut:
        return text
    return f"{text[:half]} … (shortened) … {text[-half:]}"

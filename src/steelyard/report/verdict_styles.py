"""The four verdicts as words, signs and class names. Never by colour alone: shape and word say the same."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.study.judgement import Verdict


@dataclass(frozen=True)
class Style:
    """How a verdict is shown."""

    word: str
    short: str
    sign: str  # a geometric shape that every common font has
    css: str
    style: str  # rich


STYLES: dict[Verdict, Style] = {
    "gain": Style("gain", "gain", "▲", "gain", "blue"),
    "no difference": Style("no difference", "same", "■", "same", "default"),
    "negative transfer": Style("negative transfer", "hurt", "▼", "hurt", "red"),
    "undecided": Style("undecided", "open", "○", "open", "dim"),
}
NONE = Style("", "", "", "none", "default")


def style_of(verdict: Verdict | None) -> Style:
    return NONE if verdict is None else STYLES[verdict]

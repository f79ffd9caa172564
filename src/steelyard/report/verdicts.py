"""The four verdicts as words, signs and class names. Never by colour alone: shape and word say the same."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.study.judgement import Verdict


@dataclass(frozen=True)
class Look:
    """How a verdict is shown."""

    word: str
    short: str
    sign: str  # a geometric shape that every common font has
    css: str
    style: str  # rich


LOOKS: dict[Verdict, Look] = {
    "gain": Look("gain", "gain", "▲", "gain", "blue"),
    "no difference": Look("no difference", "same", "■", "same", "default"),
    "negative transfer": Look("negative transfer", "hurt", "▼", "hurt", "red"),
    "undecided": Look("undecided", "open", "○", "open", "dim"),
}
NONE = Look("", "", "", "none", "default")


def look(verdict: Verdict | None) -> Look:
    return NONE if verdict is None else LOOKS[verdict]

"""The command that made a study, with some of its options changed: whole, to be pasted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

TAKES = {
    "compare": ("--epochs", "--learning-rate", "--methods", "--tune"),
    "group": ("--epochs", "--learning-rate"),
}
"""Options that hints of a study name, by the commands that make studies and take these options."""
NAMED = {
    "compare": (*TAKES["compare"], "--epoch-steps", "--resplit", "--tune-seeds"),
    "group": (*TAKES["group"], "--epoch-steps"),
}
"""The same with those that a hint names in a sentence, and no command is spelt out with."""
SHORT = {"--methods": "-m"}


def with_options(command: str, options: Mapping[str, str]) -> str | None:
    """Its own words, these options in the place of those given: all others, what stands behind ``--`` too, stay.

    None where the text is no command that takes them: a study that Python planned, or a reproduction.

    Args:
        command: as it was given, with quotes where a shell wants them.
        options: long names and values; all take one.
    """
    try:
        words = shlex.split(command)
    except ValueError:  # a text of somebody's own, whose quotes do not close
        return None
    if len(words) < 2 or words[0] != "steelyard" or not set(options) <= set(TAKES.get(words[1], ())):
        return None
    end = words.index("--") if "--" in words else len(words)
    ours = _without(words[:end], {*options, *(SHORT[name] for name in options if name in SHORT)})
    for name, value in options.items():
        ours += [name, value]
    return shlex.join([*ours, *words[end:]])


def is_reproduction(command: str) -> bool:
    """Whether a study is one of a reproduction, whose settings are its own: its command takes no others."""
    return command.split()[:2] == ["steelyard", "reproduce"]


def is_comparison(command: str) -> bool:
    """Whether a study is one of `steelyard compare`, or of somebody's own Python: no part of another command."""
    words = command.split()
    return words[:1] != ["steelyard"] or words[1:2] == ["compare"]


def takes(command: str, sentence: str) -> bool:
    """Whether the command that made a study takes all options that a sentence names.

    A study that Python planned takes them as arguments. A command to be pasted, on a line of its own, is one by
    `with_options`.
    """
    words, sentence = command.split(), sentence.partition("\n")[0]
    if words[:1] != ["steelyard"]:
        return True
    return set(re.findall(r"--[a-z-]+", sentence)) <= set(NAMED.get("".join(words[1:2]), ()))


def _without(words: list[str], names: set[str]) -> list[str]:
    """``--epochs 5`` and ``--epochs=5`` alike."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in names:
            skip = True
        elif word.partition("=")[0] not in names:
            kept.append(word)
    return kept

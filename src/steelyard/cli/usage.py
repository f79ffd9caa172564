"""Say what is wrong with a command line: the option, the value that was given, and how the command is used."""

from __future__ import annotations

import re
import sys
from typing import Any

from steelyard.errors import UnknownNameError

COMMAND = re.compile(r"No such command (?P<quote>['\"])(?P<name>.*?)(?P=quote)\.(\s|$)", re.DOTALL)
"""What the library says of a command; some versions add a guess of their own."""


def usage_error(error: Any) -> str:
    """The words for a usage error of the command-line library, whichever version of it raised it."""
    context = getattr(error, "ctx", None)
    message = _message(error, context)
    if context is None:
        return message
    return f"{message}\n{context.get_usage()}\n`{context.command_path} --help` says more."


def _message(error: Any, context: Any) -> str:
    said = str(error.format_message())
    if context is not None and hasattr(error, "option_name") and said.startswith("No such option"):
        known = [*(option for parameter in context.command.params for option in parameter.opts), "--help"]
        return str(UnknownNameError("option", str(error.option_name), known))
    unknown = COMMAND.match(said)
    if context is not None and unknown is not None:
        return str(UnknownNameError("command", unknown["name"], context.command.commands))
    programs = "--" in sys.argv or (context is not None and context.info_name == "compare")
    if said.startswith("Got unexpected extra argument") and programs:
        return f"{said}. A program stands behind --, with all its words: steelyard compare -- python train.py"
    given = _given(getattr(error, "param", None))
    return said if given is None or repr(given) in said else f"{said.rstrip('.')}; given: {given!r}."


def _given(parameter: Any) -> str | None:
    """What the command line has for an option, as it was written last."""
    found = None
    words = sys.argv[1:]
    for option in getattr(parameter, "opts", ()):
        for place, word in enumerate(words):
            if word == option and place + 1 < len(words):
                found = words[place + 1]
            elif word.startswith(f"{option}="):
                found = word.partition("=")[2]
    return found

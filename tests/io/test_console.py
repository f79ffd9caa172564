"""What is printed where the terminal says little of itself, or what its user asked for."""

import os
import pty
import subprocess
import sys

import pytest


def shown(*words, **variables):
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "steelyard", *words]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | variables
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 4096):
            text += piece
    except OSError:  # what Linux says at the end
        pass
    process.wait()
    os.close(ours)
    return text.decode()


@pytest.mark.parametrize("columns", ["0", "40", "999"])
def test_something_is_printed_at_any_width(columns):
    assert "single-task" in shown("methods", COLUMNS=columns)
    assert "compare" in shown("--help", COLUMNS=columns)


def test_errors_are_coloured_unless_nobody_wants_colours():
    coloured, plain = shown("report", "none.sqlite"), shown("report", "none.sqlite", NO_COLOR="1")
    assert "\x1b[31m" in coloured
    assert "\x1b" not in plain
    assert "Error: there is no store none.sqlite" in plain

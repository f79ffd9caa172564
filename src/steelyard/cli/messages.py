"""What every command says in the same way, and the codes with which it ends."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import typer

from steelyard.io.printable_text import printable

WRONG_INPUT, SOME_FAILED, INTERRUPTED = 2, 1, 130


def say(text: object, err: bool = False) -> None:
    """Print a message: names and paths in it are shown, and not obeyed by the terminal."""
    typer.echo(printable(text), err=err)


def command_line() -> str:
    """The command as it was given, to be given again."""
    return shlex.join(["steelyard", *sys.argv[1:]])


@contextlib.contextmanager
def resumable(command: str) -> Iterator[None]:
    """Say how to go on when the user stops what goes on with the same command."""
    try:
        yield
    except KeyboardInterrupt:
        interrupted(f"Stopped. What is finished is kept; go on with the same command:\n  {command}")


def interrupted(text: str) -> NoReturn:
    """End as Ctrl-C does, after these words."""
    say(f"\n{text}", err=True)
    sys.exit(INTERRUPTED)


def open_in_browser(page: Path) -> None:
    """Show a page that was written."""
    typer.launch(page.resolve().as_uri())

"""The ``steelyard`` command. What does the work is imported late, so that a mistyped option does not wait."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import warnings
from typing import Annotated, NoReturn

import typer

from steelyard import __version__
from steelyard.cli.architectures import architectures
from steelyard.cli.compare import compare
from steelyard.cli.diagnose import diagnose
from steelyard.cli.export import export
from steelyard.cli.group import group
from steelyard.cli.leaderboard import leaderboard
from steelyard.cli.merge import merge
from steelyard.cli.messages import INTERRUPTED, SOME_FAILED, WRONG_INPUT, interrupted, say
from steelyard.cli.methods import methods
from steelyard.cli.new import new
from steelyard.cli.problems import problems
from steelyard.cli.program_words import CommandOfProgram
from steelyard.cli.report import report
from steelyard.cli.reproduce import reproduce
from steelyard.cli.usage import usage_error
from steelyard.errors import SteelyardError, SteelyardWarning
from steelyard.io.printable_text import printable
from steelyard.io.unread_streams import going_on_unread

UNPRINTABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What a full disk or a terminal that is gone says."""
COMMANDS = (
    *(compare, group, reproduce, leaderboard),
    *(diagnose, report, merge, export),
    *(methods, architectures, problems, new),
)
"""As ``steelyard --help`` lists them; a command's name is its function's."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for _command in COMMANDS:
    app.command(cls=CommandOfProgram if _command is compare else None)(_command)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"steelyard {__version__}")
        raise typer.Exit()


@app.callback()
def steelyard(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Balance several losses with one call, and know whether sharing helped."""


def main() -> None:
    """The entry point: errors raised on purpose, and those of the command line, become a message and exit code 2."""
    with going_on_unread():
        _run()


def _run() -> NoReturn:
    if os.environ.get("COLUMNS") == "0":  # as terminals say that do not know: nothing would be printed
        del os.environ["COLUMNS"]
    python_says, warnings.formatwarning = warnings.formatwarning, format_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of a letter that the encoding does not have, its number
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="steelyard", standalone_mode=False)
    except SteelyardError as error:
        _fail(error)
    except (KeyboardInterrupt, typer.Abort):
        interrupted("Stopped.")
    except OSError as error:
        if error.filename is not None or error.errno not in UNPRINTABLE:
            raise
        _close_output()
        say(f"Error: cannot print: {error.strerror}. What was finished before is kept.", err=True)
        sys.exit(SOME_FAILED)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            sys.exit(WRONG_INPUT)
        if not hasattr(error, "format_message"):
            raise
        _fail(usage_error(error))
    finally:
        warnings.formatwarning = python_says
    if code == INTERRUPTED:  # what click makes of Ctrl-C where a command has no words of its own for it
        interrupted("Stopped.")
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: object) -> NoReturn:
    coloured = False if os.environ.get("NO_COLOR") else None  # None: where a terminal shows it
    typer.secho("Error: ", nl=False, err=True, color=coloured, fg="red", bold=True)
    say(error, err=True)
    sys.exit(WRONG_INPUT)


def _close_output() -> None:
    """Nothing can be printed any more: Python shall not try once more on its way out."""
    with open(os.devnull, "wb") as nowhere, contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning in one line; of Steelyard's own, which say what they are about, without the line of its code."""
    where = "" if issubclass(category, SteelyardWarning) else f"{filename}:{lineno}: {category.__name__}: "
    return printable(f"Warning: {where}{message}") + "\n"

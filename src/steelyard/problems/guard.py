"""What a problem's code may do to the program that calls it: nothing that the program does not say."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

from steelyard.errors import ProblemError

P = ParamSpec("P")
R = TypeVar("R")


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """For functions that call a problem's code: it neither ends the program, nor moves it, nor silences it.

    `sys.exit()` and `os._exit()` would end a command with code 0 and in silence, after `os.chdir()` the store and the
    page would be written elsewhere, and what is printed on another `sys.stdout` is not seen.

    Raises:
        ProblemError: the code called `sys.exit()` or `os._exit()`, or raised `SystemExit`.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        folder, streams, leave = os.getcwd(), (sys.stdout, sys.stderr), os._exit
        os._exit = _exit_of(os.getpid(), leave)  # type: ignore[assignment]
        try:
            result = function(*args, **kwargs)
            if any(stream is not None and stream.closed for stream in streams):
                raise ProblemError("the problem's code closes sys.stdout or sys.stderr: leave them open")
            return result
        except SystemExit as error:
            frames = traceback.extract_tb(error.__traceback__)
            where = next(frame for frame in reversed(frames) if frame.filename != __file__)
            raise ProblemError(
                f"{where.filename}, line {where.lineno}: the problem's code ends the program with "
                f"sys.exit({'' if error.code is None else repr(error.code)}). Raise an error that says what is wrong"
            ) from error
        finally:
            os._exit = leave
            sys.stdout, sys.stderr = streams
            os.chdir(folder)

    return call


def _exit_of(process: int, leave: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
    """Ends processes that are forked, and raises in this one."""

    def leave_or_raise(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(status)

    return leave_or_raise

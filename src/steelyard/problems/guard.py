"""What a problem's code may do to the program that calls it: nothing that the program does not say."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from steelyard.errors import ProblemError

P = ParamSpec("P")
R = TypeVar("R")


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """For functions that call a problem's code: it neither ends the program nor moves it to another folder.

    `sys.exit()` would end a command with code 0 and in silence, and after `os.chdir()` the store and the page would be
    written elsewhere.

    Raises:
        ProblemError: the code called `sys.exit()`, or raised `SystemExit`.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        folder = os.getcwd()
        try:
            return function(*args, **kwargs)
        except SystemExit as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise ProblemError(
                f"{where.filename}, line {where.lineno}: the problem's code ends the program with "
                f"sys.exit({'' if error.code is None else repr(error.code)}). Raise an error that says what is wrong"
            ) from error
        finally:
            os.chdir(folder)

    return call

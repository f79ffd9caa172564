"""An error that ends a program of a study is told to the study: launchers bury it in words of their own."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

from steelyard.study.program.assignment import Assignment
from steelyard.study.program.reports import Report, tell


def tell_uncaught(assignment: Assignment) -> None:
    """From now on, of this process, of whatever rank."""
    before = sys.excepthook

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, Exception):
            what = traceback.format_exception_only(kind, error)[-1].strip()
            tell(Path(assignment.answer), Report(assignment.run, os.getpid(), "refused", error=what))
        before(kind, error, trace)

    sys.excepthook = told

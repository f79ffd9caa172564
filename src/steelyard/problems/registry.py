"""Find a problem by name, by entry point, or in a user's file."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from steelyard.errors import UnknownNameError
from steelyard.problems.errors import ProblemError
from steelyard.problems.problem import Problem
from steelyard.problems.user_file import read_problem_file

PROBLEMS = {
    "digits": "steelyard.problems.digits:problem",
    "multi-mnist": "steelyard.problems.multi_mnist:multi_mnist",
    "multi-fashion": "steelyard.problems.multi_mnist:multi_fashion",
    "mnist-fashion": "steelyard.problems.multi_mnist:mnist_fashion",
    "census": "steelyard.problems.census:problem",
    "sarcos": "steelyard.problems.sarcos:problem",
    "tox21": "steelyard.problems.tox21:problem",
}


def problem_names() -> list[str]:
    """The built-in problems and those that other packages register as ``steelyard.problems``."""
    return sorted({*PROBLEMS, *(entry.name for entry in entry_points(group="steelyard.problems"))})


def load_problem(reference: str) -> Problem:
    """The problem called ``digits``, or the one in ``my_problem.py`` (or ``my_problem.py:variable``).

    Raises:
        UnknownNameError: no problem of that name.
        ProblemFileError: the file is missing, fails, or holds no single problem.
    """
    file, separator, variable = reference.rpartition(".py")
    if separator and (not variable or variable.startswith(":")):
        return read_problem_file(Path(file + ".py"), variable[1:])
    if reference in PROBLEMS:
        module, _, attribute = PROBLEMS[reference].partition(":")
        found: object = getattr(import_module(module), attribute)
    else:
        entries = entry_points(group="steelyard.problems", name=reference)
        if not entries:
            hint = "A file of your own ends in .py: `steelyard new my_problem.py` writes one."
            raise UnknownNameError("problem", reference, problem_names(), hint)
        found = next(iter(entries)).load()
    if not isinstance(found, Problem):
        raise ProblemError(f"problem {reference!r} is registered as a {type(found).__name__}, not a Problem")
    found.reference = reference
    return found

"""Find a problem by name, by entry point, or in a user's file."""

from __future__ import annotations

import functools
import inspect
import sys
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any

from steelyard.base.specs import SpecPart, parse_spec
from steelyard.errors import OptionError, ProblemError, UnknownNameError
from steelyard.problems.builtin import PROBLEMS
from steelyard.problems.other_optimizer import OPTIMIZER, OWN, with_optimizer
from steelyard.problems.problem import Problem
from steelyard.problems.sources import sources_of
from steelyard.problems.user_file import read_problem_file


def problem_names() -> list[str]:
    """The built-in problems and those that other packages register as ``steelyard.problems``.

    Example:
        >>> from steelyard.problems import problem_names
        >>> "digits" in problem_names()
        True
    """
    return sorted({*PROBLEMS, *(entry.name for entry in entry_points(group="steelyard.problems"))})


def load_problem(reference: str) -> Problem:
    """The problem called ``digits`` or ``gdsc(drugs=50)``, or the one in ``my_problem.py`` (``….py:variable``).

    ``digits(optimizer=sgd)`` steps by SGD with momentum in place of the problem's own optimizer.

    Raises:
        UnknownNameError: no problem or option of that name.
        OptionError: an option's value is refused.
        ProblemFileError: the file is missing, fails, or holds no single problem.

    Example:
        >>> from steelyard.problems import load_problem
        >>> load_problem("digits").task_names
        ('left', 'right')
    """
    file, separator, variable = reference.rpartition(".py")
    if separator and (not variable or variable.startswith(":")):
        return read_problem_file(Path(file + ".py"), variable[1:])
    asked = _parsed(reference)
    known = problem_options(asked.name)
    for option in asked.options:
        if option not in known:
            raise UnknownNameError(f"option of {asked.name}", option, known)
    # Options at their default are left out, so that one problem has one name.
    changed = {option: value for option, value in asked.options.items() if value != known[option]}
    return _built(str(SpecPart(asked.name, changed)))


def problem_options(name: str) -> dict[str, object]:
    """The options of a registered problem, and their defaults; ``optimizer`` is one of every problem."""
    registered = _registered(name)
    if isinstance(registered, Problem):
        return {OPTIMIZER: OWN}
    if not inspect.isfunction(registered):
        raise ProblemError(f"problem {name!r} is registered as a {type(registered).__name__}, not a Problem")
    own = {option: parameter.default for option, parameter in inspect.signature(registered).parameters.items()}
    return {**own, OPTIMIZER: own.get(OPTIMIZER, OWN)}


@functools.cache
def _built(reference: str) -> Problem:
    """The same text gives the same problem, so that its data are loaded once in a process."""
    asked = _parsed(reference)
    problem, options = _registered(asked.name), dict(asked.options)
    takes_one = not isinstance(problem, Problem) and OPTIMIZER in inspect.signature(problem).parameters
    optimizer = OWN if takes_one else options.pop(OPTIMIZER, OWN)
    if not isinstance(problem, Problem):
        problem = problem(**options)
    if not isinstance(problem, Problem):
        raise ProblemError(f"the function of problem {asked.name!r} returned {type(problem).__name__}, not a Problem")
    problem = with_optimizer(problem, optimizer)
    if asked.options:
        problem.name = reference
    problem.reference = reference
    problem.sources = _sources(asked.name)
    return problem


def _parsed(reference: str) -> SpecPart:
    if not reference.endswith(")"):
        return SpecPart(reference)
    spec = parse_spec(reference)
    if spec.stages:
        raise OptionError(f"problem {reference!r}: loss stages go before a method, not before a problem")
    return spec.method


def _sources(name: str) -> dict[str, Path]:
    """The file in which a registered problem is written, and what it imports of its own package."""
    module = PROBLEMS[name].partition(":")[0] if name in PROBLEMS else next(iter(_entries(name))).module
    file = getattr(sys.modules.get(module), "__file__", None)
    return sources_of(Path(file).resolve(), module) if isinstance(file, str) else {}


def _entries(name: str) -> EntryPoints:
    return entry_points(group="steelyard.problems", name=name)


def _registered(name: str) -> Any:
    if name in PROBLEMS:
        module, _, attribute = PROBLEMS[name].partition(":")
        return getattr(import_module(module), attribute)
    entries = _entries(name)
    if not entries:
        hint = "A file of your own ends in .py: `steelyard new my_problem.py` writes one."
        raise UnknownNameError("problem", name, problem_names(), hint)
    return next(iter(entries)).load()

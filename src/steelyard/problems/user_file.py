"""Read a problem from a user's Python file, and say where it went wrong if it does."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path

from steelyard.errors import ProblemFileError, UnknownNameError
from steelyard.problems.problem import Problem


def read_problem_file(path: Path, variable: str = "") -> Problem:
    """Execute the file and pick ``variable``, else ``problem``, else the only `Problem` in it."""
    path = path.expanduser().resolve()
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ProblemFileError(f"cannot read the problem file {path}: {error.strerror}") from error
    return _read(path, variable, hashlib.sha256(text).hexdigest())


@functools.cache
def _read(path: Path, variable: str, fingerprint: str) -> Problem:
    """The same text gives the same problem, so that its data are loaded once in a process."""
    problem = _pick(_execute(path), path, variable)
    problem.reference = f"{path}:{variable}" if variable else str(path)
    problem.fingerprint = fingerprint
    return problem


def _execute(path: Path) -> dict[str, object]:
    name = f"steelyard_problem_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as for a script: the file may import its neighbours
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise ProblemFileError(describe(error, path)) from error
    return vars(module)


def describe(error: BaseException, path: Path) -> str:
    """``my_problem.py, line 12: NameError: name 'x' is not defined``, with the line itself below."""
    what = traceback.format_exception_only(type(error), error)[-1].strip()
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line: int | None = error.lineno
        what = f"{type(error).__name__}: {error.msg}"
    else:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = lines[-1] if lines else None
    if line is None:
        return f"{path}: {what}"
    source = path.read_text(errors="replace").splitlines()
    code = source[line - 1].strip() if line <= len(source) else ""
    return f"{path}, line {line}: {what}" + (f"\n    {code}" if code else "")


def _pick(names: dict[str, object], path: Path, variable: str) -> Problem:
    problems = {name: value for name, value in names.items() if isinstance(value, Problem)}
    if variable:
        if variable not in problems:
            raise UnknownNameError(f"problem of {path}:", variable, problems)
        return problems[variable]
    if "problem" in problems:
        return problems["problem"]
    if len(set(map(id, problems.values()))) != 1:
        found = f"it has {', '.join(sorted(problems))}" if problems else "it has none"
        raise ProblemFileError(
            f"{path}: name one Problem `problem`, or choose with {path.name}:NAME ({found}). "
            "`steelyard new` writes a file to start from."
        )
    return next(iter(problems.values()))

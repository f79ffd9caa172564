"""Read a problem from a user's Python file, and say where it went wrong if it does."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from steelyard.errors import ProblemFileError, UnknownNameError
from steelyard.io.printable_text import LONGEST_MESSAGE, printable
from steelyard.io.writing import what_it_is
from steelyard.problems.guard import guarded
from steelyard.problems.problem import Problem
from steelyard.problems.sources import code_digest, is_own, sources_of

_known: dict[tuple[Path, str], Problem] = {}
_brought: dict[str, tuple[Path, str]] = {}
"""Modules of the user's that problem files have imported, with the digest of their text at the time."""
_brought_by: dict[Path, set[str]] = {}

_reading: list[Path] = []


def being_read() -> Path | None:
    """The problem file whose code is running."""
    return _reading[-1] if _reading else None


@guarded
def read_problem_file(path: Path, variable: str = "") -> Problem:
    """Execute the file and pick ``variable``, else ``problem``, else the only `Problem` in it.

    While neither the file nor a module of the user's that it imports has changed, it is the same problem, so that its
    data are loaded once in a process.
    """
    try:
        there = what_it_is(path.expanduser().stat())
        if there != "a file":
            raise ProblemFileError(f"cannot read the problem file {path}: it is {there}")
        path = path.expanduser().resolve()
        path.read_bytes()
    except RuntimeError as error:  # no such user's home
        raise ProblemFileError(f"cannot read the problem file {path}: {error}") from error
    except OSError as error:
        raise ProblemFileError(f"cannot read the problem file {path}: {error.strerror}") from error
    known = _known.get((path, variable))
    if known is not None and code_digest(known.sources) == known.fingerprint:
        return known
    names, imported = _execute(path)
    problem = _pick(names, path, variable)
    problem.reference = f"{path}:{variable}" if variable else str(path)
    problem.sources = sources_of(path, loaded=imported)
    problem.fingerprint = code_digest(problem.sources)
    _known[path, variable] = problem
    return problem


class _Afresh(SourceFileLoader):
    """Takes the text that is there, never a ``.pyc``: Python thinks that one fresh after an edit in the same second."""

    def path_stats(self, path: str | bytes | os.PathLike[str]) -> Mapping[str, Any]:
        raise OSError("no age by which a .pyc could be chosen, nor with which one is written")


def _execute(path: Path) -> tuple[dict[str, object], dict[str, Path]]:
    """The names in the file, and the modules of the user's that it imported by whatever means."""
    name = f"steelyard_problem_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Afresh(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as for a script: the file may import its neighbours
    _forget_edited()
    before = set(sys.modules)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    _reading.append(path)
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() and exceptions of the user's own kind, too
        sys.modules.pop(name, None)
        raise ProblemFileError(describe(error, path)) from error
    finally:
        _reading.pop()
        for new in sorted(set(sys.modules) - before - {name}):
            if (file := _own_file(new)) is not None:
                _brought[new] = file, code_digest({new: file})
                _brought_by.setdefault(path, set()).add(new)
    return vars(module), {new: _brought[new][0] for new in _brought_by.get(path, ())}


def _forget_edited() -> None:
    """Where a module of the user's was edited since a problem file imported it, have all of them imported anew."""
    if any(code_digest({name: file}) != digest for name, (file, digest) in _brought.items()):
        for name in _brought:
            sys.modules.pop(name, None)
        _brought.clear()
        _brought_by.clear()
        importlib.invalidate_caches()


def _own_file(name: str) -> Path | None:
    """The file of a module of the user's that is loaded."""
    file = getattr(sys.modules[name], "__file__", None)
    path = Path(file).resolve() if isinstance(file, str) and file.endswith(".py") else None
    return path if path is not None and is_own(name, path) else None


def describe(error: BaseException, path: Path | None = None) -> str:
    """``my_problem.py, line 12: NameError: name 'x' is not defined``, with the line itself below."""
    what = printable(traceback.format_exception_only(type(error), error)[-1].strip(), LONGEST_MESSAGE)
    if path is None:
        return what
    line: int | None = None
    code: str | None = ""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        what, line, code = f"{type(error).__name__}: {error.msg}", error.lineno, error.text
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == str(path):
                line, code = frame.lineno, frame.line
    if line is None:
        return f"{path}: {what}"
    shown = printable((code or "").strip(), LONGEST_MESSAGE)
    return f"{path}, line {line}: {what}" + (f"\n    {shown}" if shown else "")


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

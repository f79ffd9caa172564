"""A class by where it is imported from: ``my_package.balancing:MyMethod``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from steelyard.errors import OptionError, UnknownNameError


def is_path(name: str) -> bool:
    """Whether a name says where its class is imported from, and is none that somebody registered."""
    return ":" in name


def class_by_path(kind: str, path: str, base: type) -> type:
    """Import a class, which must be a subclass of `base`.

    A module that Python does not find is looked for in the current folder too, where a user writes it: the command
    ``steelyard``, unlike ``python -m``, does not look there.

    Args:
        kind: what the class is to be, for messages: ``method``.

    Raises:
        OptionError: there is no such module, importing it fails, or it has something else by that name.
        UnknownNameError: the module has nothing of that name.
    """
    where, _, name = path.partition(":")
    module = _imported(kind, path, where)
    if not hasattr(module, name):
        mine = [each for each, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
        raise UnknownNameError(f"{kind} in {where} ({_place(module)}):", name, mine)
    found = getattr(module, name)
    if not isinstance(found, type) or not issubclass(found, base):
        what = f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise OptionError(
            f"{kind} {path!r} is {what}, not a subclass of steelyard.{base.__name__}: name the class, "
            f"`class {name}(steelyard.{base.__name__})`"
        )
    return found


def _imported(kind: str, path: str, where: str) -> ModuleType:
    if where not in sys.modules:
        _look_here_too(where.partition(".")[0])
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise OptionError(f"{kind} {path!r}: importing {where} needs {error.name!r}: install it") from error
        raise OptionError(
            f"{kind} {path!r}: there is no module {error.name!r}, neither installed nor in {Path.cwd()}: install its "
            "package, or run in the folder in which it lies"
        ) from None
    except Exception as error:  # whatever the user's own code raises
        raise OptionError(f"{kind} {path!r}: importing {where} fails: {type(error).__name__}: {error}") from error


def _look_here_too(top: str) -> None:
    """What is found elsewhere stays what it is: the current folder comes last."""
    here = str(Path.cwd())
    if here in sys.path or importlib.util.find_spec(top) is not None:
        return
    sys.path.append(here)
    if importlib.util.find_spec(top) is None:
        sys.path.remove(here)


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or "no file")

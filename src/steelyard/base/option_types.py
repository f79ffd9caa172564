"""What type an option's value must have: read from the constructor's annotations, checked once for every class.

A value comes from a line of text as often as from Python, so ``ema(beta=high)`` is a user's mistake and not a fault in
a method: it is refused by the option's name and its value, before the constructor runs.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal, Union

import torch

from steelyard.errors import OptionError, UnknownNameError

_LARGEST_WHOLE = 2**53
"""Up to here float64, in which state is kept, counts exactly."""
_LONGEST = 80
"""Characters of a value that an error shows."""


def check_types(cls: type, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Refuse options whose values are not of the types that the constructors of ``cls`` and its bases name.

    Raises:
        OptionError, UnknownNameError: names the option, its value and what it must be.
    """
    hints = _hints(cls)
    for name, value in {**dict(zip(_positional(cls), arguments, strict=False)), **options}.items():
        hint = hints.get(name, Any)
        if hint is not Any and not _fits(value, hint):
            raise _refusal(getattr(cls, "name", "") or cls.__name__, name, value, hint)


def shown(value: object) -> str:
    """A value for an error message: on one line, and no more of it than can be read."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python converts
        return f"a {type(value).__name__} too long to print"
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _fits(value: object, hint: Any) -> bool:
    choices = _choices(hint)
    if len(choices) > 1:
        return any(_fits(value, choice) for choice in choices)
    origin = typing.get_origin(hint)
    if origin is Literal:
        return isinstance(value, str | int) and value in typing.get_args(hint)
    if hint is type(None):
        return value is None
    if hint is float:
        return _is_number(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_WHOLE
    if origin is Callable:
        return callable(value)
    kind = origin or hint
    return isinstance(value, kind) if isinstance(kind, type) else True


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _choices(hint: Any) -> tuple[Any, ...]:
    """The members of a union; else the hint itself."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is Union
    return typing.get_args(hint) if is_union else (hint,)


def _refusal(owner: str, name: str, value: object, hint: Any) -> OptionError | UnknownNameError:
    choices = [choice for choice in _choices(hint) if choice is not type(None)]
    literals = [each for choice in choices if typing.get_origin(choice) is Literal for each in typing.get_args(choice)]
    if literals:
        return UnknownNameError(f"value of {name}", value if isinstance(value, str) else shown(value), literals)
    wanted = " or ".join(dict.fromkeys(_words(choice, name) for choice in choices))
    optional = ", or None" if _fits(None, hint) else ""
    return OptionError(f"{name} of {owner} must be {wanted}{optional}, got {shown(value)}")


def _words(hint: Any, name: str) -> str:
    if hint is float:
        return "a finite number"
    if hint is int:
        return "a whole number"
    if hint is bool:
        return "True or False"
    if hint is str:
        return "text"
    origin = typing.get_origin(hint) or hint
    if origin is Callable:
        return "a function"
    if origin is Mapping:
        return f"a mapping from task names to numbers, as in {name}={{'left': 2.0}}"
    if origin is torch.Generator:
        return "a torch.Generator, which only Python can give"
    return f"a {getattr(origin, '__name__', origin)}"


@lru_cache(maxsize=256)
def _hints(cls: type) -> dict[str, Any]:
    """Annotations of the constructors' arguments, the class's own before those of its bases."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in base.__dict__:
            try:
                hints = typing.get_type_hints(base.__dict__["__init__"])
            except (NameError, TypeError, AttributeError):
                continue  # another package's, with names that exist for its type checker alone
            for name, hint in hints.items():
                if name not in ("tasks", "shared", "look", "return"):  # these have checks that say more
                    found.setdefault(name, hint)
    return found


@lru_cache(maxsize=256)
def _positional(cls: type) -> tuple[str, ...]:
    """Names of the arguments that may be given by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    return tuple(parameter.name for parameter in parameters if parameter.kind in kinds)[1:]


class ConstructorSignature:
    """The signature of a class whose ``__new__`` takes anything: its constructor's, for help, editors and docs."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")  # calling an instance is another matter
        signature = inspect.signature(owner.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])

"""Values of annotated types from JSON, which has no dataclasses and no tuples, and text alone for keys."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache

NUMBERS = {float, int}
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""How numbers are written that standard JSON does not have."""


def typed(kind: typing.Any, value: typing.Any) -> typing.Any:
    """The value of this type that JSON was made of: a dataclass, ``list[…]``, ``dict[…]``, ``tuple[…]``, a union.

    Whole numbers stay whole where fractions may stand. Fields at their default may be missing.

    Raises:
        ValueError, TypeError: it is of another type, or a field is missing or unknown.

    Example:
        >>> from steelyard.io.typed import typed
        >>> typed(dict[int, tuple[float, ...]], {"3": [0.5, 1]})
        {3: (0.5, 1)}
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inside = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else typed(inside, value)
    if origin is typing.Literal and value in arguments:
        return value
    if origin is list and isinstance(value, list):
        return _items(arguments[0], value)
    if origin is tuple and isinstance(value, list | tuple):
        return _tuple(arguments, list(value))
    if origin is dict and isinstance(value, dict):
        return {arguments[0](key): typed(arguments[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _dataclass(kind, value)
    if kind is float and type(value) in NUMBERS:
        return value
    if kind is float and value in NOT_FINITE:
        return float(value)
    if kind is typing.Any or type(value) is kind:
        return value
    raise ValueError(f"{value!r} in the place of {getattr(kind, '__name__', kind)}")


def _items(kind: typing.Any, values: list[typing.Any]) -> list[typing.Any]:
    if kind is float and set(map(type, values)) <= NUMBERS:  # there may be millions
        return values
    return [typed(kind, item) for item in values]


def _tuple(kinds: tuple[typing.Any, ...], values: list[typing.Any]) -> tuple[typing.Any, ...]:
    if kinds[-1] is Ellipsis:
        return tuple(_items(kinds[0], values))
    return tuple(typed(kind, item) for kind, item in zip(kinds, values, strict=True))


def _dataclass(kind: typing.Any, values: dict[str, typing.Any]) -> typing.Any:
    fields = _fields(kind)
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(f"unknown fields {unknown}")
    return kind(**{name: typed(fields[name], item) for name, item in values.items()})


@cache
def _fields(kind: typing.Any) -> Mapping[str, typing.Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}

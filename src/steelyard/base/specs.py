"""Read and write the one-line form of a method: ``ema-scale(beta=0.9)+mgda(normalise=l2)``.

Grammar::

    specs  = spec {"," spec}
    spec   = {stage "+"} method
    stage, method = name ["(" option {"," option} ")"]
    name   = registered name | module ":" class
    option = key "=" value

Values are read as Python literals where they are one (numbers, ``True``, ``None``, quoted text); anything else
is text, so ``variant=to-max`` needs no quotes.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass, field

from steelyard.errors import OptionError

_NAME = r"[A-Za-z][\w.-]*|[A-Za-z_][\w.]*:[A-Za-z_]\w*"
_CALL = re.compile(rf"^\s*({_NAME})\s*(?:\((.*)\))?\s*$", re.DOTALL)


@dataclass(frozen=True)
class SpecPart:
    """A name with its options: one stage, or the method itself."""

    name: str
    options: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}({','.join(f'{key}={_write(self.options[key])}' for key in sorted(self.options))})"


@dataclass(frozen=True)
class Spec:
    """A method with the loss stages in front of it; ``str(spec)`` is its canonical form."""

    stages: tuple[SpecPart, ...]
    method: SpecPart

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def options(self) -> dict[str, object]:
        return self.method.options

    def __str__(self) -> str:
        return "+".join(str(part) for part in (*self.stages, self.method))


def parse_spec(text: str) -> Spec:
    """Read one method: ``"ema"``, ``"log+mgda"``, ``"dwa(temperature=2)"``."""
    parts = [_part(piece, text) for piece in split_outside(text, "+")]
    return Spec(tuple(parts[:-1]), parts[-1])


def _part(piece: str, text: str) -> SpecPart:
    match = _CALL.match(piece)
    if match is None:
        raise OptionError(f"cannot read {piece!r} in {text!r}: write it as name or name(option=value,…)")
    name, inside = match.groups()
    options: dict[str, object] = {}
    for item in split_outside(inside, ",") if inside and inside.strip() else []:
        key, sign, value = item.partition("=")
        if not sign or not key.strip() or not value.strip():
            raise OptionError(f"cannot read the option {item.strip()!r} of {name!r}: write it as key=value")
        if key.strip() in options:
            raise OptionError(f"the option {key.strip()!r} of {name!r} is given twice")
        options[key.strip()] = _read(value.strip())
    return SpecPart(name, options)


def split_outside(text: str, separator: str) -> list[str]:
    """Split at separators that stand outside brackets and quotes; the pieces keep their blanks."""
    if not text.strip():
        raise OptionError("a name is missing: write a method, for example equal or ema(beta=0.9)")
    pieces, depth, quote, start = [], 0, "", 0
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth < 0:
                raise OptionError(f"unbalanced brackets in {text!r}")
        elif character == separator and depth == 0:
            pieces.append(text[start:position])
            start = position + 1
    if depth or quote:
        raise OptionError(f"unbalanced brackets or quotes in {text!r}")
    pieces.append(text[start:])
    if any(not piece.strip() for piece in pieces):
        raise OptionError(f"an empty entry in {text!r}: remove the extra {separator!r}")
    return pieces


def _read(value: str) -> object:
    try:
        literal = ast.literal_eval(value)
        repr(literal)  # a number of more digits than Python writes cannot be named in any message
        return literal
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # the last two: nested too deeply
        return value


def _write(value: object) -> str:
    if isinstance(value, str):
        # Text that would read back as something else keeps its quotes.
        plain = re.fullmatch(r"[\w.-]+", value) is not None and _read(value) == value
        return value if plain else repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{_write_inside(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        inside = ",".join(_write_inside(item) for item in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"  # inf would read back as text
    return repr(value)


def _write_inside(value: object) -> str:
    return repr(value) if isinstance(value, str) else _write(value)

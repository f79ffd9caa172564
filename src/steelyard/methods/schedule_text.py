"""Weights as readable text: ``"seg: 1.0 until 80 %, then 0.1; depth: 0 to 1 until 10 %, then 1"``.

Grammar::

    text  = entry {separator entry}          separator is a comma, a semicolon or a new line
    entry = task ":" piece {[","] "then" piece}
    piece = number ["to" number] ["until" point]
    point = number ["%" | "steps" | "epochs"]

``a to b until p`` goes in a straight line. The last piece of an entry has no ``until``, all others have one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.errors import OptionError, UnknownNameError

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_UNIT = re.compile(r"%|steps?\b|epochs?\b")
_SPACE = re.compile(r"[ \t]*")
_THEN = re.compile(r"\s*,?\s*then\b")
_SEPARATOR = re.compile(r"\s*[,;\n]\s*")
_NAME = re.compile(r"[^:,;\n]+")


@dataclass(frozen=True)
class Piece:
    """A straight line from ``start`` to ``end``, before ``until`` (in steps or epochs; ``None``: for ever)."""

    start: float
    end: float
    until: float | None


Plan = tuple[Piece, ...]
"""One task's weights over time."""


def value_at(plan: Plan, progress: float) -> float:
    """The weight once ``progress`` steps (or epochs) are done."""
    begin = 0.0
    for piece in plan:
        if piece.until is None:
            return piece.start
        if progress < piece.until:
            return piece.start + (piece.end - piece.start) * (progress - begin) / (piece.until - begin)
        begin = piece.until
    raise AssertionError("a plan ends with a piece that holds for ever")


def parse_plans(text: str, tasks: Sequence[str], per: str, total: float | None) -> dict[str, Plan]:
    """Read ``task: pieces`` entries; ``total`` steps or epochs (as ``per`` says) are what percentages refer to."""
    reader = _Reader(text, per, total)
    plans: dict[str, Plan] = {}
    while True:
        start = reader.skip()
        task = reader.task(tasks)
        if task in plans:
            raise reader.error(f"{task!r} has its weights already", start)
        reader.expect(":", f"':' after the task {task!r}")
        plans[task] = reader.plan()
        if reader.at_end():
            return plans
        if not reader.match(_SEPARATOR):
            raise reader.error("expected ', then', the next task after a comma or semicolon, or the end")


def parse_plan(text: str, per: str, total: float | None) -> Plan:
    """Read one task's pieces."""
    reader = _Reader(text, per, total)
    plan = reader.plan()
    if not reader.at_end():
        raise reader.error("expected ', then' or the end")
    return plan


class _Reader:
    """A position in the text."""

    def __init__(self, text: str, per: str, total: float | None) -> None:
        self.text, self.per, self.total, self.position = text, per, total, 0

    def error(self, message: str, position: int | None = None) -> OptionError:
        position = self.position if position is None else position
        found = repr(self.text[position : position + 20]) if position < len(self.text) else "the end"
        return OptionError(f"cannot read the weights {self.text!r}, at character {position + 1} ({found}): {message}")

    def match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found.group()

    def skip(self) -> int:
        self.match(_SPACE)
        return self.position

    def at_end(self) -> bool:
        return not self.text[self.position :].strip()

    def expect(self, token: str, what: str) -> None:
        self.skip()
        if not self.text.startswith(token, self.position):
            raise self.error(f"expected {what}")
        self.position += len(token)

    def word(self, word: str) -> bool:
        return self.match(re.compile(rf"\s*{word}\b")) is not None

    def number(self) -> float:
        self.skip()
        found = self.match(_NUMBER)
        if found is None:
            raise self.error("expected a number")
        if not math.isfinite(float(found)):
            raise self.error("no weight and no point in training is as large as that", self.position - len(found))
        return float(found)

    def task(self, tasks: Sequence[str]) -> str:
        # The longest first, so that a name may begin with another and may hold spaces, commas or colons.
        for name in sorted(tasks, key=len, reverse=True):
            if re.compile(re.escape(name) + r"\s*:").match(self.text, self.position):
                self.position += len(name)
                return name
        found = _NAME.match(self.text, self.position)
        if found is None:
            raise self.error("expected the name of a task")
        raise UnknownNameError("task", found.group().strip(), tasks, f"It stands in the weights {self.text!r}.")

    def plan(self) -> Plan:
        pieces: list[Piece] = []
        while True:
            piece = self.piece(pieces[-1].until or 0.0 if pieces else 0.0)
            pieces.append(piece)
            if not self.match(_THEN):
                break
            if piece.until is None:
                raise self.error("'then' follows a value that has no 'until'")
        if pieces[-1].until is not None:
            raise self.error("expected ', then' and the weight from there on")
        return tuple(pieces)

    def piece(self, begin: float) -> Piece:
        start = self.number()
        end = self.number() if (ramp := self.word("to")) else start
        if not self.word("until"):
            if ramp:
                raise self.error("expected 'until': a line from one weight to another needs its end")
            return Piece(start, end, None)
        self.skip()
        place = self.position
        until = self.point()
        if until <= begin:
            raise self.error(f"'until' must lie after {begin:g} {self.per}s, where this piece begins", place)
        return Piece(start, end, until)

    def point(self) -> float:
        number = self.number()
        self.skip()
        place = self.position
        unit = self.match(_UNIT)
        if unit == "%":
            if self.total is None:
                raise self.error(f"a percentage needs the length of training: total=<number of {self.per}s>", place)
            return number * self.total / 100
        if unit is not None and unit.rstrip("s") != self.per:
            raise self.error(f"the weights follow {self.per}s here: choose per={unit.rstrip('s')!r}", place)
        return number

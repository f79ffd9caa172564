"""Weights as readable text: ``"seg: 1.0 until 80 %, then 0.1; depth: 0 to 1 until 10 %, then 1"``.

One entry per task, apart by a semicolon, a comma or a new line; its pieces follow each other with ``then``. A piece is
``WEIGHT``, ``WEIGHT until POINT`` or, in a straight line, ``WEIGHT to WEIGHT until POINT``; the last one has no
``until``. A point is a number of steps (or epochs), or a percentage of the training's length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.errors import OptionError, UnknownNameError

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PIECE = re.compile(rf"({_NUMBER})(?:\s+to\s+({_NUMBER}))?(?:\s+until\s+({_NUMBER})\s*(%|steps?|epochs?)?)?")
_THEN = re.compile(r"\s*,?\s*\bthen\b\s*")
_FORMS = "write WEIGHT, WEIGHT until POINT, then …, or WEIGHT to WEIGHT until POINT, then …"


@dataclass(frozen=True)
class Piece:
    """A straight line from ``start`` to ``end``, before ``until`` (in steps or epochs; infinite: for ever)."""

    start: float
    end: float
    until: float = math.inf


def value_at(pieces: Sequence[Piece], progress: float) -> float:
    """The weight once ``progress`` steps (or epochs) are done."""
    begin = 0.0
    for piece in pieces[:-1]:
        if progress < piece.until:
            return piece.start + (piece.end - piece.start) * (progress - begin) / (piece.until - begin)
        begin = piece.until
    return pieces[-1].start


def parse_entries(text: str, tasks: Sequence[str], per: str, total: float | None) -> dict[str, tuple[Piece, ...]]:
    """Read ``task: pieces`` entries; ``total`` steps or epochs (as ``per`` says) are what percentages refer to."""
    # The longest first, so that a name may begin with another and may hold spaces, commas or colons.
    names = "|".join(map(re.escape, sorted(tasks, key=len, reverse=True)))
    before, *entries = re.split(rf"(?:^|[,;\n])\s*({names})\s*:", text)
    if before.strip() or not entries:
        raise _unknown(text, text, tasks)
    found: dict[str, tuple[Piece, ...]] = {}
    for task, own in zip(entries[::2], entries[1::2], strict=True):
        if task in found:
            raise OptionError(f"the weights {text!r} have {task!r} twice")
        if stranger := re.search(r"[,;\n]\s*([^:,;\n]+):", own):
            raise _unknown(stranger[1], text, tasks)
        found[task] = parse_pieces(own.rstrip(" \t,;\n"), per, total)
    return found


def parse_pieces(text: str, per: str, total: float | None) -> tuple[Piece, ...]:
    """Read one task's pieces."""
    pieces: list[Piece] = []
    *early, last = _THEN.split(text.strip())
    for part in early:
        pieces.append(_piece(part, per, total))
        begin = pieces[-2].until if len(pieces) > 1 else 0.0
        if not begin < pieces[-1].until < math.inf:
            raise OptionError(f"the weights {text!r}: {part!r} needs an 'until' after its begin at {begin:g} {per}s")
    pieces.append(_piece(last, per, total))
    if pieces[-1].until < math.inf or pieces[-1].start != pieces[-1].end:
        raise OptionError(f"the weights {text!r}: what is it from the end of {last!r} on? {_FORMS}")
    return tuple(pieces)


def _piece(text: str, per: str, total: float | None) -> Piece:
    found = _PIECE.fullmatch(text)
    if found is None:
        raise OptionError(f"cannot read the weight {text!r}: {_FORMS}")
    start, end, until = (float(found[group] or found[1]) for group in (1, 2, 3))
    if not math.isfinite(start + end + until):
        raise OptionError(f"the weight {text!r}: no weight and no point in training is as large as that")
    return Piece(start, end, _point(until, found[4], per, total, text) if found[3] else math.inf)


def _point(number: float, unit: str | None, per: str, total: float | None, text: str) -> float:
    """A point in training, in steps (or epochs)."""
    if unit == "%":
        if total is None:
            raise OptionError(
                f"the weight {text!r}: a percentage needs the length of training: total=<number of {per}s>"
            )
        return number * total / 100
    if unit is not None and unit.rstrip("s") != per:
        raise OptionError(f"the weight {text!r}: the weights follow {per}s here: choose per={unit.rstrip('s')!r}")
    return number


def _unknown(name: str, text: str, tasks: Sequence[str]) -> UnknownNameError:
    return UnknownNameError("task", name.partition(":")[0].strip(), tasks, f"It stands in the weights {text!r}.")

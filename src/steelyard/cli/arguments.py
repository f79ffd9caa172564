"""Read what the command line gives as text: fractions, seeds, file names; and what it leaves open."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from typer import Context

from steelyard.base.specs import split_outside
from steelyard.errors import OptionError, SteelyardError
from steelyard.io.lists_and_counts import listed

Fractions = float | dict[str, float]
LONGEST_NAME = 100  # of a file that is named after a problem; systems allow 255 bytes, endings included


class ArgumentError(SteelyardError, ValueError):
    """An argument of the command line cannot be read."""


def parse_fractions(texts: Sequence[str]) -> list[Fractions]:
    """Read settings of training fractions.

    ``0.1,1.0`` are two settings, the same fraction for all tasks; ``left=0.1,right=1.0`` is one setting; several
    texts, or semicolons within one, put settings one after the other. ``10%`` is ``0.1``.
    """
    settings: list[Fractions] = []
    for group in (group for text in texts for group in text.split(";")):
        items = [item.strip() for item in group.split(",")]
        if not any(items):
            raise ArgumentError(f"--fractions {' ; '.join(texts)!r}: an empty setting")
        if all("=" in item for item in items):
            settings.append(_by_task(items, group))
        elif any("=" in item for item in items):
            raise ArgumentError(
                f"--fractions {group!r} mixes fractions for all tasks with fractions by task: write settings apart "
                "with a semicolon, e.g. '0.1;left=0.1,right=1.0'"
            )
        else:
            settings.extend(_fraction(item, group) for item in items)
    return settings


def _by_task(items: Sequence[str], group: str) -> dict[str, float]:
    fractions: dict[str, float] = {}
    for item in items:
        task, _, value = (piece.strip() for piece in item.partition("="))
        if task in fractions:
            raise ArgumentError(f"--fractions {group!r} gives {task!r} twice")
        fractions[task] = _fraction(value, group)
    return fractions


def _fraction(text: str, group: str) -> float:
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ArgumentError(f"--fractions {group!r}: {text!r} is no number such as 0.1 or 10%") from None
    if not 0 < value <= 1:
        raise ArgumentError(f"--fractions {group!r}: {text} must be above 0 and at most 1 (or 100%)")
    return value


def parse_seeds(text: str) -> int | list[int]:
    """``5`` is five seeds, 0 to 4; ``3,7,11`` are these three."""
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(re.fullmatch(r"\d{1,18}", piece) for piece in pieces):
        raise ArgumentError(f"--seeds {text!r}: give a number of seeds, as in 5, or the seeds, as in 3,7,11")
    numbers = [int(piece) for piece in pieces]
    if numbers == [0]:
        raise ArgumentError(f"--seeds {text!r}: give at least one seed")
    if len(set(numbers)) < len(numbers):
        raise ArgumentError(f"--seeds {text!r} names a seed twice: the same trial, trained once")
    return numbers[0] if len(numbers) == 1 else numbers


def parse_efforts(text: str) -> tuple[float, ...]:
    """``0.25,1``: shares of a whole training, rising to 1."""
    try:
        return tuple(float(piece) for piece in text.split(","))
    except ValueError:
        raise ArgumentError(
            f"--efforts {text!r}: give shares of a whole training that rise to 1, as in 0.25,1"
        ) from None


def parse_names(option: str, text: str | None) -> list[str] | None:
    """``left,right``; None stays None."""
    if text is None:
        return None
    names = [piece.strip() for piece in text.split(",")]
    if not all(names):
        raise ArgumentError(f"{option} {text!r}: an empty name")
    return names


def parse_outside(option: str, text: str | None) -> list[str] | None:
    """The same where names may have options: ``digits,gdsc(drugs=20,network=small)`` are two."""
    if text is None:
        return None
    try:
        return [piece.strip() for piece in split_outside(text, ",")]
    except OptionError as error:
        raise ArgumentError(f"{option}: {error}") from None


def default_store(problem: str) -> Path:
    """``steelyard-digits.sqlite`` in the current folder; ``steelyard-gdsc-drugs-50.sqlite`` for ``gdsc(drugs=50)``."""
    return Path(f"steelyard-{re.sub(r'[^A-Za-z0-9_.-]+', '-', problem).strip('-')[:LONGEST_NAME]}.sqlite")


def beside(store: Path, suffix: str) -> Path:
    """The file of another kind beside a store: ``study.sqlite`` -> ``study.html`` or ``study-quick.html``."""
    return store.with_name(store.stem + suffix)


def refuse_beside(context: Context, why: str, taken: Collection[str]) -> None:
    """Refuse the options that were given and would do nothing: all but `taken`, the names of arguments.

    Args:
        why: what makes them useless, as in ``--from trains nothing``.
    """
    given = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name not in taken and source is not None and source.name == "COMMANDLINE":
            given.append(max(parameter.opts, key=len))
    if given:
        raise ArgumentError(f"{why}: leave out {listed(given)}")

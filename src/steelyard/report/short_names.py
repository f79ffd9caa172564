"""Short names for methods and tasks, where a full specification does not fit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from steelyard.study.planning.arms import parse_arm
from steelyard.study.planning.readable_arms import numbers_of_twins, with_counts


def split_methods(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """`split_method` of each, names numbered where two methods would look alike."""
    parts = {method: split_method(method) for method in methods}
    numbers = numbers_of_twins(parts)
    return {method: (name + numbers[method], options) for method, (name, options) in parts.items()}


def short_methods(methods: Sequence[str], width: int = 18) -> dict[str, str]:
    """The shortest name that still tells the methods of one study apart.

    `ema(beta=0.9,variant=to-max)` becomes `ema` if it is the only ema, and `ema(beta=0.9)` if another one
    differs in beta only. Names that stay too long are cut in the middle; if that makes two equal, they are
    numbered.
    """
    names = {method: split_method(method)[0] for method in methods}
    for name in set(names.values()):
        family = [method for method in methods if names[method] == name]
        if len(family) > 1:
            names.update(_with_options(name, family))
    arms = {method: parse_arm(method) for method in methods}
    names = {m: with_counts(name, arms[m], 0) if len(name) > width else name for m, name in names.items()}
    cut = {method: elide(name, width) for method, name in names.items()}
    return {
        m: f"{elide(names[m], width - 4)}{number}" if number else cut[m] for m, number in numbers_of_twins(cut).items()
    }


def split_method(method: str) -> tuple[str, str]:
    """The name and the options apart: ("log+ema", "beta=0.9, variant=to-max")."""
    arm = parse_arm(method)
    parts = arm.parts
    several = sum(bool(part.options) for part in parts) > 1
    options = []
    for part in parts:
        inside = str(part)[len(part.name) + 1 : -1].replace(",", ", ")
        if inside:
            options.append(f"{part.name}: {inside}" if several else inside)
    return with_counts(arm.name, arm), "; ".join(options)


def elide(text: str, width: int) -> str:
    """Cut the middle out of a text that is too long; its ends tell more than its middle."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    tail = (width - 1) // 3
    return f"{text[: width - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def _with_options(name: str, family: Sequence[str]) -> dict[str, str]:
    """The name with the fewest options that tell the family's members apart."""
    found = {
        method: {
            (place, key): str(value)
            for place, part in enumerate(parse_arm(method).parts)
            for key, value in part.options.items()
        }
        for method in family
    }
    keys = sorted({key for options in found.values() for key in options})
    telling = next(
        (
            chosen
            for size in range(1, len(keys))
            for chosen in itertools.combinations(keys, size)
            if len({tuple(options.get(key) for key in chosen) for options in found.values()}) == len(family)
        ),
        tuple(keys),
    )
    written = {
        method: ",".join(f"{key[1]}={options[key]}" for key in telling if key in options)
        for method, options in found.items()
    }
    return {method: f"{name}({text})" if text else name for method, text in written.items()}

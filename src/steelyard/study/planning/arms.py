"""One arm of a study as its user writes it: a method, where it reads gradients, and its architecture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

from steelyard.base.specs import Spec, SpecPart, parse_spec, split_outside
from steelyard.errors import OptionError
from steelyard.problems.problem import check_place
from steelyard.study.planning.arm_networks import Network, parse_networks, write_networks

SHARED = "shared"
"""The option of an arm, not of its method, that says where gradients are read: ``mgda(shared=trunk)``."""


@dataclass(frozen=True)
class Arm:
    """``equal``, ``mgda(shared=trunk)``, ``uw{left right|depth}``, ``equal@mmoe(experts=8)``; `str` is canonical."""

    method: Spec
    architecture: Spec | None = None
    shared: str | None = None
    networks: tuple[Network, ...] = ()  # none: one for all tasks

    @property
    def written(self) -> Spec:
        """The method with the place among its options, as it is written."""
        if self.shared is None:
            return self.method
        part = SpecPart(self.method.name, {**self.method.options, SHARED: self.shared})
        return dataclasses.replace(self.method, method=part)

    @property
    def parts(self) -> tuple[SpecPart, ...]:
        """Loss stages, the method, and the architecture if there is one."""
        parts = (*self.method.stages, self.written.method)
        return parts if self.architecture is None else (*parts, self.architecture.method)

    @property
    def name(self) -> str:
        """Without options: ``log+ema@mmoe``."""
        method = "+".join(part.name for part in (*self.method.stages, self.method.method))
        method += write_networks(self.networks)
        return method if self.architecture is None else f"{method}@{self.architecture.name}"

    def __str__(self) -> str:
        written = f"{self.written}{write_networks(self.networks)}"
        return written if self.architecture is None else f"{written}@{self.architecture}"


def make_arm(method: Spec, architecture: Spec | None = None, networks: tuple[Network, ...] = ()) -> Arm:
    """An arm of a method whose options may say where it reads gradients.

    Raises:
        UnknownNameError: the place is neither features nor trunk.
    """
    if SHARED not in method.options:
        return Arm(method, architecture, networks=networks)
    options = dict(method.options)
    shared = str(options.pop(SHARED))
    check_place(shared)
    return Arm(dataclasses.replace(method, method=SpecPart(method.name, options)), architecture, shared, networks)


@lru_cache(maxsize=1024)
def parse_arm(text: str) -> Arm:
    """Read ``METHOD``, ``METHOD{TASKS|TASKS}``, ``METHOD@ARCHITECTURE`` or both."""
    method, *architectures = split_outside(text, "@")
    if len(architectures) > 1:
        raise OptionError(
            f"{text!r} names {len(architectures)} architectures: an arm is METHOD@ARCHITECTURE, one of each"
        )
    method, networks = _braces(method)
    return make_arm(parse_spec(method), parse_spec(architectures[0]) if architectures else None, networks)


def _braces(text: str) -> tuple[str, tuple[Network, ...]]:
    """A method, and the networks in the braces behind it."""
    depth, quote = 0, ""
    for place, character in enumerate(text.strip()):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "{" and depth == 0 and text.strip().endswith("}"):
            return text.strip()[:place], parse_networks(text.strip()[place + 1 : -1])
        else:
            depth += (character in "([{") - (character in ")]}")
    return text, ()


def parse_arms(text: str) -> list[Arm]:
    """Read a comma-separated list of arms; commas inside parentheses belong to options."""
    return [parse_arm(piece) for piece in split_outside(text, ",")]

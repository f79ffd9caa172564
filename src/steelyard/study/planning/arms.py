"""One arm of a study as its user writes it: a method, and after an ``@`` the architecture that it is tried with."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.base.specs import Part, Spec, parse_spec, split_outside
from steelyard.errors import OptionError


@dataclass(frozen=True)
class Arm:
    """``equal``, or ``equal@mmoe(experts=8)``; ``str(arm)`` is the canonical form."""

    method: Spec
    architecture: Spec | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """Loss stages, the method, and the architecture if there is one."""
        parts = (*self.method.stages, self.method.method)
        return parts if self.architecture is None else (*parts, self.architecture.method)

    @property
    def name(self) -> str:
        """Without options: ``log+ema@mmoe``."""
        method = "+".join(part.name for part in (*self.method.stages, self.method.method))
        return method if self.architecture is None else f"{method}@{self.architecture.name}"

    def __str__(self) -> str:
        return str(self.method) if self.architecture is None else f"{self.method}@{self.architecture}"


def parse_arm(text: str) -> Arm:
    """Read ``METHOD`` or ``METHOD@ARCHITECTURE``."""
    method, *architectures = split_outside(text, "@")
    if len(architectures) > 1:
        raise OptionError(
            f"{text!r} names {len(architectures)} architectures: an arm is METHOD@ARCHITECTURE, one of each"
        )
    return Arm(parse_spec(method), parse_spec(architectures[0]) if architectures else None)


def parse_arms(text: str) -> list[Arm]:
    """Read a comma-separated list of arms; commas inside parentheses belong to options."""
    return [parse_arm(piece) for piece in split_outside(text, ",")]

"""A softmax gate over experts, the part that MMoE, CGC and PLE are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from steelyard.errors import ArchitectureError, UnknownNameError
from steelyard.models.features import Features, each, flat, mix, parts, sample_inputs, trace

if TYPE_CHECKING:
    from steelyard.models.base_architecture import Part
    from steelyard.problems.problem import Problem

READS = ("input", "features")


class Mixture(nn.Module):
    """``Σ_e softmax(W r)_e f_e`` for the experts' outputs ``f``, by row.

    Args:
        width: of what the gate reads, ``r``, flattened.
        experts: how many are mixed.
        reads: ``"input"``: ``r`` is what goes into the experts, as in the papers; ``"features"``: the mean of what
            comes out of them, for inputs that are no numbers (tokens, categories).
    """

    def __init__(self, width: int, experts: int, reads: str) -> None:
        super().__init__()
        self.reads = reads
        self.gate = nn.Linear(width, experts, bias=False)

    def weights(self, inputs: Features, stacked: Features) -> Tensor:
        """The gate [N, E], every row adding up to one."""
        read = inputs if self.reads == "input" else each(lambda tensor: tensor.mean(0), stacked)
        return self.gate(flat(read)).softmax(1)  # type: ignore[no-any-return]

    def forward(self, inputs: Features, stacked: Features) -> Features:
        return mix(self.weights(inputs, stacked), stacked)


def gate_place(architecture: str, reads: str | None, inputs: Features) -> str:
    """``"input"`` or ``"features"``; where it is not said, the input if it is all floating-point numbers.

    Raises:
        UnknownNameError: the gate reads neither ``input`` nor ``features``.
        ArchitectureError: the inputs are no numbers that a linear gate could read.
    """
    kinds = [tensor.dtype for tensor in parts(inputs) if not tensor.is_floating_point()]
    if reads is None:
        return "features" if kinds else "input"
    if reads not in READS:
        raise UnknownNameError(f"place for the gates of {architecture} to read, gate =", str(reads), READS)
    if reads == "input" and kinds:
        raise ArchitectureError(
            f"{architecture}: the gates read the network's inputs, and some are {kinds[0]}, which a linear gate "
            f"cannot read as numbers: write {architecture}(gate=features) to let them read the experts' outputs"
        )
    return reads


def gate_width(reads: str, inputs: Features, outputs: Features) -> int:
    """How many numbers a gate reads per row, from a sample of what goes into the experts and what comes out."""
    return flat(inputs if reads == "input" else outputs).shape[1]


def build_mixtures(
    architecture: str, problem: Problem, tasks: Sequence[str], part: Part, gate: str | None, experts: int
) -> list[nn.Module]:
    """A gate for each task over so many experts that are copies of the problem's trunk, each from its own seed."""
    inputs = sample_inputs(problem)
    reads = gate_place(architecture, gate, inputs)
    (outputs,) = trace([part("trunk", problem.trunk)], inputs)
    width = gate_width(reads, inputs, outputs)
    return [part(f"gate/{task}", lambda: Mixture(width, experts, reads)) for task in tasks]

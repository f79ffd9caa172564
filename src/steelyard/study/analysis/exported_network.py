"""A trained network as one program of `torch.export`: it runs without Steelyard and without the problem's file."""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from steelyard.errors import ArchitectureError
from steelyard.problems.rows import Split, take
from steelyard.problems.task import Inputs
from steelyard.study.analysis.trained_network import TrainedNetwork

EXAMPLES = 3, 5
"""Rows that a program is made from, and that it is tried on afterwards."""
MARK = "steelyard-network"


class FromStored(nn.Module):
    """Inputs as the problem's data hold them -> outputs by task."""

    def __init__(self, trained: TrainedNetwork, several: bool) -> None:
        super().__init__()
        self.trained, self.several = trained, several

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """``prepare`` and the networks."""
        stored = inputs if self.several else inputs[0]
        outputs: dict[str, Tensor] = self.trained(self.trained.problem.prepare(stored))
        return outputs


def exported(trained: TrainedNetwork) -> bytes:
    """The file that ``torch.export.load`` reads; its program takes inputs as the problem's data hold them, as many rows
    as there are, and gives outputs by task.

    Raises:
        ArchitectureError: `torch.export` makes no program of the network, or one that computes something else.
    """
    trained = trained.eval().cpu()
    test = trained.problem.data().test
    if not isinstance(test, Split):
        raise ArchitectureError(
            "torch.export needs rows of one shape in memory to follow a network: this problem's are read when they are "
            "needed, or are apart for each task. Take its weights instead, with --out model.safetensors"
        )
    data = test.inputs
    model = FromStored(trained, several=isinstance(data, tuple))
    # Copies: a file of a view has all that is behind it.
    few, more = (tuple(part.clone() for part in _parts(take(data, slice(0, count)))) for count in EXAMPLES)
    rows = torch.export.Dim("rows")
    try:
        with torch.no_grad():
            program = torch.export.export(
                model, few, dynamic_shapes={"inputs": tuple({0: rows} for _ in few)}, strict=False
            )
            again, expected = program.module()(*more), model(*more)
    except Exception as error:  # whatever it is that torch cannot trace, by its own many kinds of errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArchitectureError(
            f"torch.export makes no program of this network: {reason}. Take its weights instead, with --out "
            "model.safetensors, or the module, with steelyard.study.network"
        ) from error
    for task, outputs in expected.items():
        if not torch.allclose(again[task], outputs, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise ArchitectureError(
                f"the program that torch.export makes of this network gives other outputs for {task!r} (does prepare() "
                "draw at random?): take its weights instead, with --out model.safetensors"
            )
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={MARK: "1"})
    return file.getvalue()


def _parts(inputs: Inputs) -> tuple[Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)

"""QM8: excited states of 21,786 small molecules; two energies and two oscillator strengths by three methods each.

Energies are in atomic units and spread by 0.04, oscillator strengths have none and spread by 0.06 about a smaller mean:
the twelve targets are standardised on the training rows, and errors are in deviations.

Inputs are the fingerprint bits that are set (ECFP4, 2,048 bits, at most 23 of them in a molecule this small) and 14
descriptors. What two of the methods say about a molecule is strongly correlated (energies by 0.97 to 0.99).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from steelyard.problems.builtin.arrays import load_arrays
from steelyard.problems.data import Data
from steelyard.problems.files import DataFile
from steelyard.problems.kinds import regression
from steelyard.problems.metrics import mae, r2
from steelyard.problems.problem import Problem
from steelyard.problems.splits import split
from steelyard.problems.task import Task

BITS, DESCRIPTORS, HIDDEN, FEATURES = 2048, 14, 256, 128
QUANTITIES = {"E1": "energy 1", "E2": "energy 2", "f1": "strength 1", "f2": "strength 2"}
METHODS = ("CC2", "PBE0", "CAM")
TARGETS = {f"{quantity}-{method}": f"{QUANTITIES[quantity]} {method}" for method in METHODS for quantity in QUANTITIES}
FILE = DataFile(
    "qm8",
    "qm8.npz",
    how=(
        "It holds, for the 21,786 molecules of MoleculeNet's QM8: fp_packed (packed bits of RDKit's Morgan fingerprint "
        "of radius 2, 2048 bits), desc (14 RDKit descriptors, float32), Y (12 targets, float32) and tasks (their names)"
    ),
)
ARRAYS = "dbcb524b606b39690dd98702ad9bb069610239788697ed5f7854446f04e1ec25"


def load(seed: int = 8) -> Data:
    arrays = load_arrays(FILE, ("fp_packed", "desc", "Y", "tasks"), ARRAYS)
    columns = arrays["tasks"].tolist()
    targets = {name: arrays["Y"][:, columns.index(name)] for name in TARGETS}
    bits = np.unpackbits(arrays["fp_packed"], axis=1)
    return split((set_bits(bits), arrays["desc"]), targets, seed=seed, standardise=True, standardise_targets=TARGETS)


def set_bits(bits: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Rows of bits [N, B] -> the numbers of those that are set [N, most in a row], filled up with B."""
    counts = bits.sum(1, dtype=np.int64)
    rows, numbers = bits.nonzero()
    places = np.arange(len(rows)) - (counts.cumsum() - counts)[rows]
    found = np.full((len(bits), counts.max()), bits.shape[1], np.int64)
    found[rows, places] = numbers
    return found


class Trunk(nn.Module):
    """Two layers on set bits [N, 23] and descriptors [N, 14]; a bag is a linear layer on bits, for less work."""

    def __init__(self) -> None:
        super().__init__()
        self.bits = nn.EmbeddingBag(BITS + 1, HIDDEN, mode="sum", padding_idx=BITS)
        nn.init.normal_(self.bits.weight, std=18**-0.5)  # a molecule has 18 bits on average
        self.descriptors = nn.Linear(DESCRIPTORS, HIDDEN)
        self.rest = nn.Sequential(nn.ReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, FEATURES), nn.ReLU())

    def forward(self, bits: Tensor, descriptors: Tensor) -> Tensor:
        features: Tensor = self.rest(self.bits(bits) + self.descriptors(descriptors))
        return features


def head(task: Task) -> nn.Module:
    return nn.Linear(FEATURES, task.outputs)


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=2e-3)


problem = Problem(
    name="qm8",
    summary="excited states of small molecules: energies and oscillator strengths by three quantum-chemical methods",
    tasks=[regression(name, metrics=(r2, mae), label=label) for name, label in TARGETS.items()],
    load=load,
    trunk=Trunk,
    head=head,
    optimizer=optimizer,
    epochs=25,
    source="QM8 (Ramakrishnan et al., 2015; terms not stated), in the selection of MoleculeNet",
    needs=("qm8",),
)

"""Tox21: twelve toxicity assays of 7,823 molecules, 17 % of the labels missing.

Inputs are 2,048 fingerprint bits (ECFP4) and 14 descriptors, standardised on the training rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from steelyard.problems.builtin.arrays import load_arrays
from steelyard.problems.data import Data
from steelyard.problems.files import DataFile
from steelyard.problems.kinds import binary
from steelyard.problems.problem import Problem
from steelyard.problems.splits import split
from steelyard.problems.task import Inputs, Task

BITS, DESCRIPTORS = 2048, 14
ASSAYS = (
    *("NR-AR", "NR-AR-LBD", "NR-AhR", "NR-Aromatase", "NR-ER", "NR-ER-LBD", "NR-PPAR-gamma"),
    *("SR-ARE", "SR-ATAD5", "SR-HSE", "SR-MMP", "SR-p53"),
)
FILE = DataFile(
    "tox21",
    "tox21.npz",
    how=(
        "It holds, for the 7,823 molecules of MoleculeNet's Tox21 that RDKit reads: fp_packed (packed bits of the "
        "Morgan fingerprint of radius 2, 2048 bits), desc (14 RDKit descriptors, float32), Y (12 labels, float32, "
        "NaN = missing) and tasks (their names)."
    ),
)
ARRAYS = "ecbe010fdffba30453429af89f8b7daf6566ed0e9b71f5eb0dd14bd1ff4aad6f"


def load(seed: int = 12) -> Data:
    arrays = load_arrays(FILE, ("fp_packed", "desc", "Y", "tasks"), ARRAYS)
    bits = np.unpackbits(arrays["fp_packed"], axis=1)
    assays = arrays["tasks"].tolist()
    targets = {assay: arrays["Y"][:, assays.index(assay)] for assay in ASSAYS}
    return split((bits, arrays["desc"]), targets, seed=seed, standardise=True)


def prepare(inputs: Inputs) -> Inputs:
    """(bits as uint8, descriptors) -> one float32 row; the bits stay bytes in memory until then."""
    assert not isinstance(inputs, Tensor)
    bits, descriptors = inputs
    return torch.cat([bits.float(), descriptors], dim=1)


def trunk() -> nn.Module:
    return nn.Sequential(nn.Linear(BITS + DESCRIPTORS, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 64), nn.ReLU())


def head(task: Task) -> nn.Module:
    return nn.Linear(64, task.outputs)


problem = Problem(
    name="tox21",
    summary="twelve toxicity assays of molecules, 17 % of the labels missing",
    tasks=[binary(assay) for assay in ASSAYS],
    load=load,
    trunk=trunk,
    head=head,
    prepare=prepare,
    batch_size=128,
    epochs=15,
    source="Tox21 Data Challenge 2014, NIH (public domain), in the selection of MoleculeNet",
    needs=("tox21",),
)

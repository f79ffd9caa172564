"""SARCOS: seven torques of a robot arm from its positions, velocities and accelerations, in raw units.

The targets are left as they are: their deviations differ 20-fold (and their squared errors 400-fold), which
is what makes the balance of the losses matter. These are the 4,449 rows of the official test file, divided by
a fixed seed; the official training file, which holds copies of them, is not used.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from steelyard.problems.builtin.arrays import load_arrays
from steelyard.problems.data import Data
from steelyard.problems.files import DataFile
from steelyard.problems.kinds import regression
from steelyard.problems.problem import Problem
from steelyard.problems.splits import split
from steelyard.problems.task import Task

JOINTS = 7
FILE = DataFile(
    "sarcos_test",
    "sarcos_test.npz",
    how="It holds X (4449, 21) and Y (4449, 7), float32: columns 0:21 and 21:28 of sarcos_inv_test.mat.",
)
ARRAYS = "a58659512db3684dcd4cc62b7d45b2a3bf54422893376dde3e87f33398d11e86"


def load(seed: int = 21) -> Data:
    arrays = load_arrays(FILE, ("X", "Y"), ARRAYS)
    targets = {f"torque{joint + 1}": arrays["Y"][:, joint] for joint in range(JOINTS)}
    return split(arrays["X"], targets, seed=seed, standardise=True)


def trunk() -> nn.Module:
    return nn.Sequential(nn.Linear(21, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())


def head(task: Task) -> nn.Module:
    return nn.Linear(128, task.outputs)


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=2e-3)


problem = Problem(
    name="sarcos",
    summary="seven joint torques of a robot arm, in raw units whose scales differ 20-fold",
    tasks=[regression(f"torque{joint + 1}", label=f"torque {joint + 1}") for joint in range(JOINTS)],
    load=load,
    trunk=trunk,
    head=head,
    optimizer=optimizer,
    batch_size=64,
    epochs=60,
    source="SARCOS inverse dynamics, gaussianprocess.org/gpml/data (terms not stated)",
    needs=("sarcos_test",),
)

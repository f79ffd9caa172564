"""Sixteen multi-target regressions, each by its name: steelyard compare mulan.py:enb

Data of Mulan (Spyromitros-Xioufis and others, 2016), as STEELYARD_DATA/mulan_mtr/NAME.npz: X, Y, target_names.
"""

import numpy as np
from torch import nn

from steelyard.problems import Data, Problem, regression, split
from steelyard.problems.files import DataFile, find, search_path


def made(name: str) -> Problem:
    stored = np.load(find(DataFile("mulan_mtr", f"{name}.npz")), allow_pickle=False)
    tasks = [f"y{number + 1}" for number in range(stored["Y"].shape[1])]
    width = stored["X"].shape[1]

    def load(seed: int = 0) -> Data:
        inputs, groups = stored["X"], None
        if name == "enb":  # rows that differ in a building's orientation alone are one building
            groups = np.unique(np.delete(inputs, 5, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        targets = dict(zip(tasks, stored["Y"].T, strict=True))
        data = split(inputs, targets, seed=seed, standardise=True, standardise_targets=tasks, groups=groups)
        for rows in data.splits().values():
            rows.inputs.nan_to_num_(0.0)  # gaps become the mean of the training rows
        return data

    return Problem(
        f"mulan-{name}",
        [regression(task, label=str(label)) for task, label in zip(tasks, stored["target_names"], strict=True)],
        load,
        trunk=lambda: nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()),
        head=lambda task: nn.Linear(64, task.outputs),
        batch_size=32,
    )


for place in search_path():
    for file in sorted((place / "mulan_mtr").glob("*.npz")):
        globals().setdefault(file.stem.replace("-", "_"), made(file.stem))

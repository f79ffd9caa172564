"""Mine or clutter in 29 fields, each a task with radar images of its own: steelyard compare landmine.py

Landmine data of Xue, Liao, Carin and Krishnapuram (2007), as STEELYARD_DATA/landmine/landmine.npz: X, y, task.
"""

import numpy as np
import torch
from torch import nn

from steelyard.problems import Data, Problem, Split, binary, split
from steelyard.problems.files import DataFile, find

FIELDS = range(29)


def load(seed: int = 0) -> Data:
    stored = np.load(find(DataFile("landmine", "landmine.npz")), allow_pickle=False)
    inputs = torch.from_numpy(stored["X"]).float()
    parts: dict[str, dict[str, Split]] = {"train": {}, "validation": {}, "test": {}}
    for number, field in enumerate(np.unique(stored["task"])):
        name, rows = f"field-{number + 1}", stored["task"] == field
        divided = split(inputs[rows], {name: stored["y"][rows] > 0}, seed=seed, stratify=name)
        for part, own in divided.splits().items():
            parts[part][name] = own
    train = torch.cat([own.inputs for own in parts["train"].values()])
    mean, deviation = train.mean(0), train.std(0)
    for own in (own for part in parts.values() for own in part.values()):
        own.inputs = (own.inputs - mean) / deviation
    return Data(**parts)


problem = Problem(
    "landmine",
    [binary(f"field-{number + 1}") for number in FIELDS],
    load,
    trunk=lambda: nn.Sequential(nn.Linear(9, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()),
    head=lambda task: nn.Linear(32, task.outputs),
    batch_size=32,
    epochs=10,
    shared="trunk",
)

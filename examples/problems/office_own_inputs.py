"""Ten kinds of object in four sources, each a task with inputs of its own: steelyard compare office_own_inputs.py

Office + Caltech-10 (Gong and others, 2012), as STEELYARD_DATA/office_caltech10/office_caltech10.npz. Three
sources have GoogLeNet features, 1024 numbers, one visual words, 800: the first layer is each kind's own.
"""

import numpy as np
from torch import Tensor, nn

from steelyard.problems import Data, Problem, Split, classification, split
from steelyard.problems.files import DataFile, find

KINDS = {"amazon": "googlenet", "webcam": "googlenet", "dslr": "googlenet", "caltech10": "surf"}


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleDict({"800": nn.Linear(800, 64), "1024": nn.Linear(1024, 64)})
        self.second = nn.Sequential(nn.ReLU(), nn.Linear(64, 32), nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        return self.second(self.first[str(features.shape[1])](features))


def load(seed: int = 0) -> Data:
    stored = np.load(find(DataFile("office_caltech10", "office_caltech10.npz")), allow_pickle=False)
    parts: dict[str, dict[str, Split]] = {"train": {}, "validation": {}, "test": {}}
    for name, kind in KINDS.items():
        inputs, labels = (stored[f"{name}_{kind}_{which}"] for which in "Xy")
        divided = split(
            inputs.astype(float), {name: labels.astype(int) - 1}, seed=seed, standardise=True, stratify=name
        )
        for part, own in divided.splits().items():
            parts[part][name] = own
    return Data(**parts)


tasks, head = [classification(name, classes=10) for name in KINDS], lambda task: nn.Linear(32, task.outputs)
problem = Problem("office-own", tasks, load, Trunk, head, batch_size=32, epochs=10, shared="trunk")

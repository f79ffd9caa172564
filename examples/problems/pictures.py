"""JPEGs in a folder, cropped and flipped as they are read by two workers: PICTURES=folder steelyard compare pictures.py

A file's name holds its labels, `00017-1-0.25.jpg`: upright stripes (1) or level ones (0), and how bright they are.
"""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from steelyard.problems import Data, Problem, binary, regression

FILES = sorted(Path(os.environ.get("PICTURES", "pictures")).glob("*.jpg"))


class Pictures(Dataset):
    def __init__(self, fifths: range, augment: bool = False) -> None:
        self.files, self.augment = [file for row, file in enumerate(FILES) if row % 5 in fifths], augment

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, float]]:
        _, upright, bright = self.files[row].stem.split("-")
        image = torch.from_numpy(np.array(Image.open(self.files[row]))).movedim(2, 0)
        top, left = torch.randint(9, (2,)).tolist() if self.augment else (4, 4)
        image = image[:, top : top + 56, left : left + 56]
        flipped = self.augment and torch.rand(()) < 0.5
        return (image.flip(2) if flipped else image), {"upright": float(upright), "bright": float(bright)}


def load() -> Data:
    parts = [Pictures(range(3), augment=True), Pictures(range(3, 4)), Pictures(range(4, 5))]
    return Data(*(DataLoader(part, batch_size=64, num_workers=2) for part in parts))


def trunk() -> nn.Module:
    first, second = nn.Conv2d(3, 16, 3, stride=2), nn.Conv2d(16, 32, 3, stride=2)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())


tasks, head = [binary("upright"), regression("bright")], lambda task: nn.Linear(512, task.outputs)
problem = Problem("pictures", tasks, load, trunk, head, batch_size=64, epochs=5, prepare=lambda x: x.float() / 255)

"""A transformer for ``benchmarks/amortised.py --bias benchmarks/tokens.py``: the ten tasks of MNIST-Imbalanced.

An image is sixteen patches of 7 x 7; two encoder layers of width 32, mean over the patches.
"""

import dataclasses

import torch
from torch import Tensor, nn

from steelyard.problems import Task, load_problem

WIDTH, PATCH, PATCHES = 32, 7, 16


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, stride=PATCH)
        self.places = nn.Parameter(0.1 * torch.randn(PATCHES, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT + self.places
        features: Tensor = self.layers(tokens).mean(1)
        return features


def head(task: Task) -> nn.Module:
    return nn.Linear(WIDTH, task.outputs)


problem = dataclasses.replace(load_problem("mnist-imbalanced"), name="tokens", trunk=Trunk, head=head)

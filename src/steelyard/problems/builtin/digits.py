"""Two overlaid handwritten digits, from the 1,797 real 8 x 8 digits that scikit-learn carries."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from steelyard.problems.builtin.overlay import overlay
from steelyard.problems.data import Data
from steelyard.problems.kinds import classification
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Split
from steelyard.problems.task import Task

OFFSET, FEATURES = 3, 16
# Digits in each pool, and pairs drawn from it. A digit image of one pool never appears in another split.
POOLS = {"train": (1000, 4000), "validation": (297, 1000), "test": (500, 3000)}


def load(seed: int = 1797) -> Data:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.uint8)
    labels = torch.from_numpy(digits.target).long()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    splits, start = {}, 0
    for name, (size, pairs) in POOLS.items():
        pool = order[start : start + size]
        splits[name] = _pairs(images[pool], labels[pool], pairs, generator)
        start += size
    return Data(**splits, description="pairs of digits from disjoint pools of 1000, 297 and 500")


def _pairs(images: Tensor, labels: Tensor, count: int, generator: torch.Generator) -> Split:
    left = torch.randint(len(images), (count,), generator=generator)
    right = torch.randint(len(images), (count,), generator=generator)
    inputs = overlay(images[left], images[right], OFFSET).flatten(1).float() / 16
    return Split(inputs, {"left": labels[left], "right": labels[right]})


def trunk() -> nn.Module:
    """Narrow on purpose: 16 shared features are enough for one digit and scarce for two."""
    return nn.Sequential(nn.Linear((8 + OFFSET) ** 2, 64), nn.ReLU(), nn.Linear(64, FEATURES), nn.ReLU())


def head(task: Task) -> nn.Module:
    return nn.Linear(FEATURES, task.outputs)


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=2e-3)


problem = Problem(
    name="digits",
    summary="two overlaid 8 x 8 digits; name the left and the right one",
    tasks=(
        classification("left", classes=10, label="left digit"),
        classification("right", classes=10, label="right digit"),
    ),
    load=load,
    trunk=trunk,
    head=head,
    optimizer=optimizer,
    batch_size=128,
    epochs=25,
    source="scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits, CC BY 4.0)",
)

"""Multi-MNIST, Multi-Fashion and MNIST + Fashion: two overlaid images, name the left and the right one.

For each image of a split a second one is drawn; the left image lies at 0:28, the right one at 6:34 (both
axes) of a black 36 x 36 canvas, overlapping pixels take the maximum, and the canvas is resized to 28 x 28 by
bilinear interpolation with anti-aliasing (the source does not say how it resizes).

The 60,000 training images are first divided into 50,000 and 10,000 by a fixed seed, and pairs are drawn
within each part, so that no image of the validation or the test data is ever seen in training.

Source: Gong et al., "A Comparison of Loss Weighting Strategies for Multi task Learning in Deep Neural
Networks", IEEE Access 7, 2019; the construction goes back to Sener and Koltun (2018).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.problems.builtin.idx import Name, images_and_labels
from steelyard.problems.builtin.overlay import overlay
from steelyard.problems.data import Data
from steelyard.problems.kinds import classification
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Split
from steelyard.problems.task import Inputs, Task

CANVAS, OFFSET, SIZE = 36, 6, 28
VALIDATION = 10_000
SEED = 36


def load(left: Name, right: Name) -> Data:
    generator = torch.Generator().manual_seed(SEED)
    sources = {name: (images_and_labels(name, True), images_and_labels(name, False)) for name in (left, right)}
    order = torch.randperm(60_000, generator=generator)
    pools = ((order[VALIDATION:], 0), (order[:VALIDATION], 0), (torch.arange(10_000), 1))
    splits = []
    for pool, part in pools:
        first_images, first_labels = sources[left][part]
        second_images, second_labels = sources[right][part]
        drawn = pool[torch.randint(len(pool), (len(pool),), generator=generator)]
        inputs = pairs(first_images[pool], second_images[drawn])
        splits.append(Split(inputs, {"left": first_labels[pool], "right": second_labels[drawn]}))
    return Data(splits[0], splits[1], splits[2], "50,000 / 10,000 / 10,000 pairs from disjoint pools of images")


def pairs(left: Tensor, right: Tensor) -> Tensor:
    """Overlay uint8 images [N, 28, 28] and resize to uint8 [N, 1, 28, 28]."""
    resized, edge = [], CANVAS - SIZE - OFFSET
    for start in range(0, len(left), 4096):  # in float32 all at once would be 20 times the memory
        chunk = slice(start, start + 4096)
        canvas = F.pad(overlay(left[chunk], right[chunk], OFFSET), (0, edge, 0, edge))[:, None].float()
        small = F.interpolate(canvas, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        resized.append(small.round_().to(torch.uint8))
    return torch.cat(resized)


def prepare(inputs: Inputs) -> Inputs:
    """uint8 images -> float32 in [0, 1]; they stay bytes in memory until they are needed."""
    assert isinstance(inputs, Tensor)
    return inputs.float().div_(255)


def trunk() -> nn.Module:
    """The LeNet of the source: conv 1-10, pool, conv 10-20, pool, fully connected to 50 features."""
    network = nn.Sequential(
        nn.Conv2d(1, 10, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(10, 20, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(320, 50),
        nn.ReLU(),
    )
    # Pooling is several times as fast so, a step of training half as fast again (one CPU thread, batch 256).
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def head(task: Task) -> nn.Module:
    return nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, task.outputs))


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=2e-3)


def _problem(name: str, left: Name, right: Name, nouns: tuple[str, str], source: str) -> Problem:
    return Problem(
        name=name,
        summary=f"two overlaid images; name the left {nouns[0]} and the right {nouns[1]}",
        tasks=(
            classification("left", classes=10, label=f"left {nouns[0]}"),
            classification("right", classes=10, label=f"right {nouns[1]}"),
        ),
        load=partial(load, left, right),
        trunk=trunk,
        head=head,
        optimizer=optimizer,
        prepare=prepare,
        epochs=10,
        source=source,
        needs=tuple(dict.fromkeys((left, right))),
    )


_MNIST, _FASHION = "MNIST (CC BY-SA 3.0)", "Fashion-MNIST (MIT)"
multi_mnist = _problem("multi-mnist", "mnist", "mnist", ("digit", "digit"), _MNIST)
multi_fashion = _problem("multi-fashion", "fashion_mnist", "fashion_mnist", ("item", "item"), _FASHION)
mnist_fashion = _problem("mnist-fashion", "mnist", "fashion_mnist", ("digit", "item"), f"{_MNIST}, {_FASHION}")

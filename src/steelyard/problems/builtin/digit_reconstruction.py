"""The pairs of digits of Multi-MNIST: name the left one, and paint the image again from the shared features.

A heterogeneous pair of tasks beside the homogeneous one of `multi_mnist`: same images, splits and trunk, and the first
task is the same, so that the two differ in the second task alone. It asks the 50 features, from which a digit is to be
named, to keep the whole image: an autoencoder with a decoder of two linear layers, mean squared error over pixels in
[0, 1]. Its loss is 10 to 50 times smaller than the cross-entropy.

The construction is ours: Gong et al. (2019) is known to us by its abstract alone, which does not say how tasks of
different kinds were paired.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.problems.builtin import multi_mnist
from steelyard.problems.data import Data
from steelyard.problems.kinds import classification
from steelyard.problems.metrics import r2, rmse
from steelyard.problems.problem import Problem
from steelyard.problems.rows import DataRows, Split
from steelyard.problems.task import Metric, Task

PIXELS = multi_mnist.SIZE**2


def load() -> Data:
    data = multi_mnist.load("mnist", "mnist")
    return Data(_retargeted(data.train), _retargeted(data.validation), _retargeted(data.test), data.description)


def _retargeted(split: DataRows) -> Split:
    assert isinstance(split, Split)
    assert isinstance(split.inputs, Tensor)
    return Split(split.inputs, {"digit": split.targets["left"], "image": split.inputs})  # the same bytes, not a copy


def _as_pixels(targets: Tensor) -> Tensor:
    return targets.flatten(1).float() / 255


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs, _as_pixels(targets))


def _of_pixels(metric: Metric) -> Metric:
    """The metric on pixels in [0, 1]."""
    measured: Callable[[Tensor, Tensor], float] = metric.function
    return Metric(
        metric.name,
        lambda outputs, targets: measured(outputs, _as_pixels(targets)),
        higher_is_better=metric.higher_is_better,
        ideal=metric.ideal,
    )


def head(task: Task) -> nn.Module:
    if task.name == "digit":
        return multi_mnist.head(task)
    return nn.Sequential(nn.Linear(50, 256), nn.ReLU(), nn.Linear(256, task.outputs))


problem = Problem(
    name="digit-reconstruction",
    summary="two overlaid digits; name the left one and paint the image again",
    tasks=(
        classification("digit", classes=10, label="left digit"),
        Task("image", _squared_error, (_of_pixels(rmse), _of_pixels(r2)), outputs=PIXELS, label="image"),
    ),
    load=load,
    trunk=multi_mnist.trunk,
    head=head,
    optimizer=multi_mnist.optimizer,
    prepare=multi_mnist.prepare,
    epochs=10,
    source="MNIST (CC BY-SA 3.0)",
    needs=("mnist",),
)

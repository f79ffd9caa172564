"""MNIST-Imbalanced: ten digits against the rest, from 200 images of the digit 0 down to 20 of the digit 9.

The training rows are the first 200, 180, …, 20 images of the classes 0 to 9 in the training file, 1,100 in all; every
task sees all of them. All other training images are for validation, of which 2,000 are drawn by a fixed seed (58,900
would take forty times as long as an epoch of training): ``mnist-imbalanced(validation=58900)`` has them all. The
10,000 test images are balanced.

The test error of the paper is that of all ten outputs together, the largest of which names the digit: `joint`. By
task, the ranking is judged first, because few or no scores of a rare digit pass zero.

The network is the paper's, a LeNet of 20 and 50 filters and 500 features; so are Adam at 1e-4, from half of the epochs
on at 1e-5, and batches of 100. Two things are options, because a study of this library's own kind has others:
``mnist-imbalanced(start=glorot,choose=last)`` starts networks as the authors do (trunk: Glorot, uniform; heads: N(0,
0.01²); no offsets) and judges them at the last epoch. The authors train for 1,000 epochs (``--epochs 1000``), for which
the default of 200 is no substitute: it ends while the asymmetric network is still far behind.

Source: Lee, Yang, Hwang, "Deep Asymmetric Multi-task Feature Learning" (ICML 2018), arXiv 1708.00260; set-up as in the
authors' public code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from steelyard.base.options import one_of
from steelyard.errors import OptionError
from steelyard.problems.builtin.idx import images_and_labels
from steelyard.problems.data import Data
from steelyard.problems.kinds import binary
from steelyard.problems.metrics import auc, balanced_error, error_rate
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Split
from steelyard.problems.task import Inputs, JointMetric, Task

COUNTS = tuple(range(200, 0, -20))
SEED, OTHERS = 9, 60_000 - sum(COUNTS)
Start = Literal["torch", "glorot"]
Choose = Literal["best", "last"]
TASKS = tuple(f"digit{digit}" for digit in range(10))


def load(validation: int) -> Data:
    images, labels = images_and_labels("mnist", True)
    train, others = few_of_each(labels)
    drawn = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(SEED))[:validation]]
    splits = [_split(images[rows], labels[rows]) for rows in (train, drawn)]
    return Data(
        splits[0],
        splits[1],
        _split(*images_and_labels("mnist", False)),
        f"1,100 training images, {validation:,} of the other {len(others):,} for validation, 10,000 test images",
    )


def few_of_each(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers of the first 200 zeros, 180 ones, … 20 nines; and of all other rows."""
    chosen = torch.cat([(labels == digit).nonzero()[:count, 0] for digit, count in enumerate(COUNTS)])
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[chosen] = False
    return chosen, rest.nonzero()[:, 0]


def _split(images: Tensor, labels: Tensor) -> Split:
    return Split(images[:, None], {task: (labels == digit).float() for digit, task in enumerate(TASKS)})


def prepare(inputs: Inputs) -> Inputs:
    """uint8 images -> float32 in [0, 1]."""
    assert isinstance(inputs, Tensor)
    return inputs.float().div_(255)


def trunk() -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
    )
    # As in `multi_mnist`: a step takes 0.6 of the time so, a look at validation images less than half.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def head(task: Task) -> nn.Module:
    return nn.Linear(500, task.outputs)


def glorot_trunk() -> nn.Module:
    """`trunk`, started as the authors' framework does."""
    network = trunk()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network


def small_head(task: Task) -> nn.Module:
    """`head`, started as the authors write it."""
    layer = nn.Linear(500, task.outputs)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-4)


def tenth_at_half(done: float) -> float:
    """The rate, as a share of the first one, when this share of the epochs is done."""
    return 1.0 if done < 0.5 else 0.1


def test_error(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> float:
    """The share of images whose largest output is not their digit's."""
    named, truth = (torch.stack([of[task].flatten() for task in TASKS], 1).argmax(1) for of in (outputs, targets))
    return float((named != truth).double().mean())


def problem(validation: int = 2000, start: Start = "torch", choose: Choose = "best") -> Problem:
    """MNIST-Imbalanced.

    Args:
        validation: so many validation images.
        start: of networks, ``torch``'s own or the authors' ``glorot``.
        choose: the epoch at which networks are judged, the ``best`` on validation data or the authors' ``last``.
    """
    one_of("start", start, Start)
    one_of("choose", choose, Choose)
    if not isinstance(validation, int) or not 1000 <= validation <= OTHERS:
        raise OptionError(f"validation={validation!r}: give a number of images from 1000 to {OTHERS}")
    return Problem(
        name="mnist-imbalanced",
        summary="ten digits against the rest, from 200 training images of the first down to 20 of the last",
        tasks=[
            binary(task, metrics=(auc, balanced_error, error_rate), label=f"digit {digit}")
            for digit, task in enumerate(TASKS)
        ],
        load=partial(load, validation),
        trunk=trunk if start == "torch" else glorot_trunk,
        head=head if start == "torch" else small_head,
        choose=choose,
        optimizer=optimizer,
        schedule=tenth_at_half,
        prepare=prepare,
        batch_size=100,
        epochs=200,
        joint=(JointMetric("test error", test_error, higher_is_better=False, ideal=0.0, percent=True),),
        source="MNIST (CC BY-SA 3.0)",
        needs=("mnist",),
    )

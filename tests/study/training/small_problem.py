"""A problem of two tasks that trains in no time."""

import dataclasses
import math

import torch
from torch import nn

from steelyard.problems import Data, Problem, Split, classification, regression
from steelyard.study.trial import Trial


def made(**options):
    """A classification, a regression with every third label missing, dropout, batch normalisation and a prepare."""
    generator = torch.Generator().manual_seed(0)
    splits = []
    for _ in range(3):
        x = torch.randn(36, 4, generator=generator)
        z = x[:, 2] * x[:, 3]
        z[::3] = math.nan
        splits.append(Split(x, {"kind": (x[:, 0] > 0).long() + (x[:, 1] > 0).long(), "size": z}))
    defaults = {
        "tasks": (classification("kind", 3), regression("size")),
        "load": lambda: Data(*splits),
        "trunk": lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2)),
        "head": lambda task: nn.Linear(6, task.outputs),
        "prepare": lambda x: x * 2,
    }
    return Problem("made", **{**defaults, **options})


def trial(method="equal", tasks=("kind", "size"), **options):
    defaults = {"seed": 1, "epochs": 2, "batch_size": 18, "scale": None if method == "single-task" else "paper"}
    fractions = tuple((task, 1.0) for task in sorted(tasks))
    return Trial("made", method, tasks, fractions=fractions, **{**defaults, **options})


def same(first, second):
    """Everything but times and memory, to the last bit."""
    timeless = {"seconds": 0.0, "steps_per_second": 0.0, "processor_seconds": 0.0, "peak_memory": 0.0}
    left, right = (dataclasses.replace(each, **timeless) for each in (first, second))
    return repr((left, left.curves, left.outputs)) == repr((right, right.curves, right.outputs))

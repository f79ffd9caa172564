"""Multi-target regression: small tables, each with several targets of one unit, from the collection of Mulan.

``enb``: what 768 buildings need for heating and for cooling (kWh/m²). ``jura``: three heavy metals in 359 samples of
soil (ppm), 26-fold apart. ``oes97``: how many people 16 occupations employ in 334 cities, 21-fold apart. ``scm20d``:
the prices of 16 products 20 days ahead, from 8,966 days of simulated trade. ``wq``: how common 14 plants and animals
are in 1,060 samples of river water, from 0 to 5.

As the targets of a table share their unit, they keep their proportions: each is centred, and all are divided by one
number, the root of their mean variance on the training rows. Rows are divided by a fixed seed, or by each trial's own
(a day of ``scm20d`` resembles its neighbours: what is said there is about days in between, not about the future).

Source: Spyromitros-Xioufis et al., "Multi-target regression via input space expansion: treating targets as inputs",
Machine Learning 104, 2016, arXiv 1211.6581, whose tables these are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from steelyard.base.options import one_of
from steelyard.problems.builtin.arrays import load_arrays
from steelyard.problems.data import Data
from steelyard.problems.files import DataFile
from steelyard.problems.kinds import regression
from steelyard.problems.metrics import r2, rmse
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Split
from steelyard.problems.splits import split
from steelyard.problems.task import Task

Table = Literal["enb", "jura", "oes97", "scm20d", "wq"]
HIDDEN = 64


@dataclass(frozen=True)
class Shape:
    """Of one table: what it is, its columns, how long its training is, and the digest of its arrays."""

    summary: str
    inputs: int
    tasks: tuple[str, ...]
    batch_size: int
    epochs: int
    arrays: str


SHAPES: dict[Table, Shape] = {
    "enb": Shape(
        "heating and cooling of buildings",
        8,
        ("heating", "cooling"),
        64,
        100,
        "94658f279d9b0783f2625128cda0ec97c73e840db3bd1e0228a06fd6749e2ec7",
    ),
    "jura": Shape(
        "three heavy metals in soil, 26-fold apart",
        15,
        ("cadmium", "cobalt", "copper"),
        32,
        60,
        "660128ca4c9e92bd84198f4f3f8eb51a6e8f9dc94db39a3a748a041d2af847f2",
    ),
    "oes97": Shape(
        "how many people 16 occupations employ in a city",
        263,
        tuple(f"job{n}" for n in range(1, 17)),
        32,
        60,
        "c9f2826cfe4b89bb22c492c0776b15b99b29cb091380e393addbf945b7f2dfc6",
    ),
    "scm20d": Shape(
        "the prices of 16 products 20 days ahead",
        61,
        tuple(f"product{n}" for n in range(1, 17)),
        128,
        30,
        "5a320617f6cc512e4b90b954a0a38c0f5bfe003ca84e1a4d89cd5fd1feb21f6d",
    ),
    "wq": Shape(
        "how common 14 plants and animals are in rivers",
        16,
        tuple(f"species{n}" for n in range(1, 15)),
        64,
        40,
        "921defecd9f3e6c65aff7c99e8887a3db7838cf4264bc2eb87dff799b5a19dd6",
    ),
}


def load(table: Table, seed: int = 16) -> Data:
    shape = SHAPES[table]
    file = DataFile(
        "mulan_mtr",
        f"{table}.npz",
        how=f"It holds X and Y, float32: the inputs and targets of Mulan's multi-target table {table}, rows as there.",
    )
    arrays = load_arrays(file, ("X", "Y"), shape.arrays)
    targets = {name: arrays["Y"][:, place] for place, name in enumerate(shape.tasks)}
    found = split(arrays["X"], targets, seed=seed, standardise=True)
    parts = [part for part in found.splits().values() if isinstance(part, Split)]
    known = torch.stack([parts[0].targets[name] for name in shape.tasks]).double()
    centres, size = known.mean(1).tolist(), known.var(1, correction=0).mean().sqrt().item()
    train, validation, test = (
        Split(
            part.inputs,
            {
                name: ((part.targets[name].double() - centre) / size).float()
                for name, centre in zip(shape.tasks, centres, strict=True)
            },
        )
        for part in parts
    )
    return Data(train, validation, test, found.description)


def trunk(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())


def head(task: Task) -> nn.Module:
    return nn.Linear(HIDDEN, task.outputs)


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=3e-3)


def problem(table: Table = "scm20d") -> Problem:
    """Multi-target regression.

    Args:
        table: ``enb``, ``jura``, ``oes97``, ``scm20d`` or ``wq``.
    """
    one_of("table", table, Table)
    shape = SHAPES[table]
    return Problem(
        name="multi-target",
        summary=f"several targets of one unit: {shape.summary}",
        tasks=[regression(name, metrics=(r2, rmse)) for name in shape.tasks],
        load=partial(load, table),
        trunk=partial(trunk, shape.inputs),
        head=head,
        optimizer=optimizer,
        batch_size=shape.batch_size,
        epochs=shape.epochs,
        source="Mulan's collection of multi-target tables (Spyromitros-Xioufis et al., 2016; for research)",
        needs=("mulan_mtr",),
    )

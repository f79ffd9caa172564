"""Multi-target regression: small tables, each with several targets of one unit, from the collection of Mulan.

``enb``: what 768 buildings need for heating and for cooling (kWh/m²). ``jura``: three heavy metals in 359 samples of
soil (ppm). ``oes97``: how many people 16 occupations employ in 334 cities. ``scm20d``: the prices of 16 products 20
days ahead, from 8,966 days of simulated trade. ``wq``: how common 14 plants and animals are in 1,060 samples of river
water, from 0 to 5. Targets stand in the order of the table; inputs that are names are a column for each of them.

As the targets of a table share their unit, they keep their proportions: each is centred, and all are divided by one
number, the root of their mean variance on the training rows. By their deviations the metals of ``jura`` are 26-fold
apart, the occupations of ``oes97`` 21-fold, the targets of the other tables at most 2.3-fold.

Rows are divided by a fixed seed, or by each trial's own. The buildings of ``enb`` are a grid in which turning one
hardly moves its loads, so that the four directions of a building stay together. A day of ``scm20d`` resembles its
neighbours: what is said there is about days in between, not about the future.

Source: Spyromitros-Xioufis et al., "Multi-target regression via input space expansion: treating targets as inputs",
Machine Learning 104, 2016, arXiv 1211.6581, whose tables these are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
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
    """Of one table: what it is, its size, how long its training is, and the digest of its arrays.

    ``twins``: the column in which rows that are otherwise alike differ.
    """

    summary: str
    rows: int
    inputs: int
    tasks: tuple[str, ...]
    batch_size: int
    epochs: int
    arrays: str
    twins: int | None = None


SHAPES: dict[Table, Shape] = {
    "enb": Shape(
        "heating and cooling of buildings",
        768,
        8,
        ("heating", "cooling"),
        64,
        100,
        "94658f279d9b0783f2625128cda0ec97c73e840db3bd1e0228a06fd6749e2ec7",
        twins=5,  # the direction that a building faces
    ),
    "jura": Shape(
        "three heavy metals in soil, 26-fold apart",
        359,
        15,
        ("cadmium", "cobalt", "copper"),
        32,
        60,
        "660128ca4c9e92bd84198f4f3f8eb51a6e8f9dc94db39a3a748a041d2af847f2",
    ),
    "oes97": Shape(
        "how many people 16 occupations employ in a city",
        334,
        263,
        tuple(f"job{n}" for n in range(1, 17)),
        32,
        60,
        "c9f2826cfe4b89bb22c492c0776b15b99b29cb091380e393addbf945b7f2dfc6",
    ),
    "scm20d": Shape(
        "the prices of 16 products 20 days ahead",
        8966,
        61,
        tuple(f"product{n}" for n in range(1, 17)),
        128,
        30,
        "5a320617f6cc512e4b90b954a0a38c0f5bfe003ca84e1a4d89cd5fd1feb21f6d",
    ),
    "wq": Shape(
        "how common 14 plants and animals are in rivers",
        1060,
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
        how=(
            f"It holds X ({shape.rows}, {shape.inputs}) and Y ({shape.rows}, {len(shape.tasks)}), float32: the inputs "
            f"and targets of Mulan's multi-target table {table}, rows as there; an input of names is a column for each."
        ),
    )
    arrays = load_arrays(file, ("X", "Y"), shape.arrays)
    targets = {name: arrays["Y"][:, place] for place, name in enumerate(shape.tasks)}
    found = split(arrays["X"], targets, seed=seed, standardise=True, groups=_families(arrays["X"], shape.twins))
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


def _families(inputs: npt.NDArray[Any], twins: int | None) -> npt.NDArray[Any] | None:
    """By row, which rows are alike but for one column; None where there are none such."""
    if twins is None:
        return None
    return np.unique(np.delete(inputs, twins, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


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

"""A main task and an auxiliary whose relevance drifts as training goes on, and differs from batch to batch.

Both dials are options: ``synthetic-auxiliary(drift=1,spread=2)``. With 16 standard normal inputs,

    easy = √2 (x_0 x_1 + x_2 x_3)               learnt first
    hard = (x_4 x_5 x_6 + x_7 x_8 x_9) / √2     learnt last
    other: like hard, of further inputs

    main      = easy + hard
    auxiliary = r (easy + √(1 - drift) hard + √drift other),    r = 1 ± spread with equal odds, row by row

and a little noise on both. Each dial changes one thing:

- ``drift``: once easy is learnt, what the auxiliary still teaches and what the main task still lacks have a correlation
  of ``√(1 - drift)``. At 0 the auxiliary helps to the end, at 1 only at first. Its mean and variance stay the same.
- ``spread``: the auxiliary's label of a row says ``r`` times what it should, on average what it should. Above 1, half
  of the rows contradict the others. A batch is as good as the ``r`` of its rows: its relevance is the mean of ``r``,
  each row weighted by the main task's squared error there, and it varies from batch to batch with ``spread``.

`hydalearn`'s weights follow both, as ``tests/methods/test_hydalearn_follows.py`` holds: without spread, the auxiliary's
mean weight in the seventh epoch is 0.89, 0.77, 0.65 and 0.18 at drifts of 0, ¼, ½ and 1; at a drift of ½, its weights
deviate within an epoch by 0.15, 0.25, 0.36 and 0.44 at spreads of 0, ½, 1 and 2, and in batches of 32 at the largest
they have a rank correlation of 0.67 with the batch's relevance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steelyard.errors import OptionError
from steelyard.problems.data import Data
from steelyard.problems.kinds import regression
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Split
from steelyard.problems.task import Task

INPUTS, WIDTH, NOISE = 16, 64, 0.1
VALIDATION, TEST = 1000, 2000


@dataclass(frozen=True)
class Drawn:
    """What was drawn: inputs ``[N, 16]``, labels ``[N]`` of both tasks, and ``r [N]``, which no network sees."""

    inputs: Tensor
    main: Tensor
    auxiliary: Tensor
    agreement: Tensor


def draw(rows: int, drift: float, spread: float, seed: int) -> Drawn:
    """Rows of the module's equations; other dials, same seed: same inputs, same main labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, INPUTS, generator=generator)
    noise = NOISE * torch.randn(2, rows, generator=generator)
    agreement = 1 + spread * (2.0 * torch.randint(2, (rows,), generator=generator) - 1)
    easy = 2**0.5 * (x[:, 0] * x[:, 1] + x[:, 2] * x[:, 3])
    hard = (x[:, 4:7].prod(1) + x[:, 7:10].prod(1)) / 2**0.5
    other = (x[:, 10:13].prod(1) + x[:, 13:16].prod(1)) / 2**0.5
    taught = easy + (1 - drift) ** 0.5 * hard + drift**0.5 * other
    return Drawn(x, easy + hard + noise[0], agreement * taught + noise[1], agreement)


def relevance(agreement: Tensor, errors: Tensor) -> float:
    """Of a batch: the mean of its rows' ``r``, weighted by the main task's squared errors ``[N]``."""
    return float((agreement * errors.square()).sum() / errors.square().sum())


def trunk() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())


def head(task: Task) -> nn.Module:
    return nn.Linear(WIDTH, task.outputs)


def problem(drift: float = 1.0, spread: float = 0.5, rows: int = 4096) -> Problem:
    """The problem at some position of its dials.

    Args:
        drift: from 0 (the auxiliary stays relevant) to 1 (only at first).
        spread: at least 0, how far rows differ in what the auxiliary is worth; above 1, some contradict.
        rows: to train on.
    """
    if not 0 <= drift <= 1:
        raise OptionError(f"synthetic-auxiliary: drift={drift} must lie in [0, 1]")
    if not spread >= 0:
        raise OptionError(f"synthetic-auxiliary: spread={spread} must be at least 0")
    if not isinstance(rows, int) or rows < 1:
        raise OptionError(f"synthetic-auxiliary: rows={rows!r} must be a whole number of at least 1")

    def load() -> Data:
        drawn = [draw(count, drift, spread, seed) for seed, count in enumerate((rows, VALIDATION, TEST))]
        train, validation, test = (
            Split(part.inputs, {"main": part.main, "auxiliary": part.auxiliary}) for part in drawn
        )
        return Data(train, validation, test, "drawn from the problem's equations")

    return Problem(
        name="synthetic-auxiliary",
        summary="a main task, and an auxiliary whose relevance drifts and differs from batch to batch, by two dials",
        tasks=(regression("main"), regression("auxiliary")),
        main="main",
        load=load,
        trunk=trunk,
        head=head,
        batch_size=32,
        epochs=12,
        source="synthetic",
    )

"""Random sets of task gradients of the structures at which small solvers break, in every precision."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

STRUCTURES = (
    *("random", "nearly equal", "equal", "opposite", "rank-deficient", "zero rows", "ratio 1e6", "duplicates"),
    *("1e-12", "1e-30", "1e-40", "stationary", "one hot"),
)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """One set of gradients ``rows [T, P]``, in the precision that a network would have them in."""

    structure: str
    tasks: int
    size: int
    dtype: torch.dtype
    seed: int

    def __str__(self) -> str:
        return f"{self.structure}, {self.tasks} x {self.size}, {self.dtype}, seed {self.seed}"

    def rows(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.randn(self.tasks, self.size, generator=generator, dtype=torch.float64)
        share = torch.rand(self.tasks, 1, generator=generator, dtype=torch.float64)
        return _structured(self.structure, rows, share).to(self.dtype)


def _structured(structure: str, rows: Tensor, share: Tensor) -> Tensor:
    half = (len(rows) + 1) // 2
    if structure == "nearly equal":
        return rows[:1] + 1e-6 * rows
    if structure == "equal":
        return rows[:1].expand_as(rows)
    if structure == "opposite":
        return torch.cat([rows[:half], -rows[: len(rows) - half]])
    if structure == "rank-deficient":
        return torch.cat([rows[:half], (rows[:half] + rows[:1])[: len(rows) - half]])
    if structure == "zero rows":
        return rows * (share > 0.3)
    if structure == "ratio 1e6":
        return rows * 10 ** (6 * share - 3)
    if structure == "duplicates":
        return rows[: (len(rows) + 3) // 4].repeat(4, 1)[: len(rows)]
    if structure == "stationary":
        return torch.cat([rows[1:], -rows[1:].sum(0, keepdim=True)])
    if structure == "one hot":
        return torch.where(rows.abs() == rows.abs().amax(1, keepdim=True), rows, 0.0)
    if structure.startswith("1e-"):
        return rows * float(structure)
    return rows


def cases(count: int, seed: int, most: int = 100) -> list[Case]:
    """``count`` cases: every structure in turn, sizes and precisions drawn."""
    draw = random.Random(seed)
    return [
        Case(
            STRUCTURES[number % len(STRUCTURES)],
            min(most, draw.choice([1, 2, 3, 7, 20, 40, 64, 100])),
            draw.choice([1, 3, 12, 20, 200]),
            draw.choice(DTYPES),
            draw.randrange(10**6),
        )
        for number in range(count)
    ]

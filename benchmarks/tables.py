"""What reading gradients at a trunk with a large table costs: 400,000 rows of 64 numbers, 256 samples of 20 ids.

    python benchmarks/tables.py

A step is forward + looking + backward, four tasks, `mgda`; a quarter of the ids is padding. Candidates take turns.
"""

from __future__ import annotations

from typing import Any

import torch
from timing import Timing, interleaved, machine
from torch import Tensor, nn

import steelyard

ROWS, WIDTH, SAMPLES, IDS = 400_000, 64, 256, 20
TASKS = ["a", "b", "c", "d"]


class Recommender(nn.Module):
    """A table, the mean or sum of a sample's rows, one layer."""

    def __init__(self, kind: str, sparse: bool) -> None:
        super().__init__()
        bag = {} if kind == "embedding" else {"mode": kind}
        make: Any = nn.EmbeddingBag if bag else nn.Embedding
        self.table, self.layer = make(ROWS, WIDTH, padding_idx=0, sparse=sparse, **bag), nn.Linear(WIDTH, 128)

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.table(ids)
        features: Tensor = self.layer(rows.mean(1) if rows.dim() == 3 else rows).relu()
        return features


def measured(kind: str, sparse: bool) -> dict[str, Timing]:
    torch.manual_seed(0)
    trunk, heads = Recommender(kind, sparse), nn.ModuleDict({task: nn.Linear(128, 1) for task in TASKS})
    ids, targets = torch.randint(ROWS, (SAMPLES, IDS)), torch.randn(len(TASKS), SAMPLES, 1)
    ids[:, IDS * 3 // 4 :] = 0
    balancer = steelyard.make("mgda", TASKS)

    def losses() -> dict[str, Tensor]:
        trunk.zero_grad()
        heads.zero_grad()
        z = trunk(ids)
        return {task: (heads[task](z) - y).square().mean() for task, y in zip(TASKS, targets, strict=True)}

    steps = {
        "plain": lambda: sum(losses().values(), torch.zeros(())).backward(),  # type: ignore[no-untyped-call]
        "trunk": lambda: balancer(losses(), shared=trunk).backward(),
    }
    return interleaved(steps, "plain", 9)


def main() -> None:
    torch.set_num_threads(1)
    print(machine())
    for kind in ("embedding", "mean", "sum"):
        for sparse in (False, True):
            found, gradients = measured(kind, sparse), "sparse" if sparse else "dense"
            print(f"  {kind:9s} {gradients:6s} {found['plain'].median * 1e3:6.1f} ms  trunk {found['trunk'].ratio:.2f}")


if __name__ == "__main__":
    main()

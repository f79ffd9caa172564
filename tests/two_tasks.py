"""A small problem of two tasks for the frameworks' tests, and the plain loop that they are compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import steelyard

TASKS = ["steep", "flat"]
BATCH = 8


class TwoTasks(nn.Module):
    """A trunk and a head for each of two regressions whose scales differ 30-fold."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 12), nn.Tanh())
            self.heads = nn.ModuleDict({task: nn.Linear(12, 1) for task in TASKS})

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        features = self.encoder(x)
        return {task: head(features) for task, head in self.heads.items()}, features


def data(batches: int = 8) -> tuple[Tensor, Tensor]:
    """Inputs ``[N, 6]`` and targets ``[N, 2]``."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batches * BATCH, 6, generator=generator)
    return x, torch.stack((30 * x[:, 0] * x[:, 1], x[:, 2].sin()), 1)


def losses_of(outputs: dict[str, Tensor], y: Tensor) -> dict[str, Tensor]:
    return {
        task: nn.functional.mse_loss(outputs[task].squeeze(1).float(), y[:, place]) for place, task in enumerate(TASKS)
    }


def place(model: TwoTasks, features: Tensor, where: str) -> Tensor | nn.Module:
    return features if where == "features" else model.encoder


def plain_loop(
    method: str,
    where: str = "features",
    *,
    epochs: int = 2,
    accumulate: int = 1,
    clip: float | None = None,
    autocast: bool = False,
    before_step: Callable[[int], None] | None = None,
) -> tuple[TwoTasks, steelyard.Balancer]:
    """What a framework must reproduce: attach, average micro-batches, clip, step, tick epochs."""
    model = TwoTasks()
    torch.manual_seed(2)
    balancer = steelyard.make(method, TASKS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    balancer.attach(optimizer)
    x, y = data()
    for _ in range(epochs):
        for number, start in enumerate(range(0, len(x), BATCH)):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                outputs, features = model(x[start : start + BATCH])
                losses = losses_of(outputs, y[start : start + BATCH])
                loss = balancer(losses, shared=place(model, features, where))
            (loss / accumulate).backward()
            if (number + 1) % accumulate == 0:
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
        if balancer.period is None:
            balancer.end_epoch()
    return model, balancer


def same(first: nn.Module, second: nn.Module) -> bool:
    """Bit for bit."""
    ours, theirs = dict(first.named_parameters()), dict(second.named_parameters())
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

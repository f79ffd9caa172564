"""Accelerate as a study runs it: `trial` says what to train, and every process reports what all have gathered.

python examples/accelerate_program.py
steelyard compare --seeds 3 -- accelerate launch --cpu --num_processes 2 examples/accelerate_program.py
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import steelyard


class Network(nn.Module):
    """A trunk, and a regressor for each task that is trained."""

    def __init__(self, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.heads = nn.ModuleDict({task: nn.Linear(32, 1) for task in tasks})

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        features = self.trunk(x)
        return {task: head(features).squeeze(1) for task, head in self.heads.items()}, features


def main() -> None:
    trial = steelyard.trial(tasks={"sum": "mae", "product": "mae"}, epochs=3, learning_rate=3e-3)
    accelerator = Accelerator()
    x = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
    rows = TensorDataset(x, torch.stack([x[:, 0] + x[:, 1], x[:, 2] * x[:, 3]], 1))
    train, validation, test = torch.utils.data.random_split(rows, [256, 128, 128], torch.Generator().manual_seed(0))

    set_seed(trial.seed % 2**32)
    network = Network(trial.tasks)
    trial.start(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=trial.learning_rate)
    balancer = trial.balancer().attach(optimizer, accelerator.scaler)
    network, optimizer, loader = accelerator.prepare(network, optimizer, DataLoader(train, batch_size=32, shuffle=True))
    held_out = {
        name: accelerator.prepare(DataLoader(rows, 128)) for name, rows in (("validation", validation), ("test", test))
    }
    column = {"sum": 0, "product": 1}

    def errors(part: str) -> dict[str, Tensor]:
        found = []
        with torch.no_grad():
            for inputs, targets in held_out[part]:
                outputs, _ = network(inputs)
                there = torch.stack([(outputs[task] - targets[:, column[task]]).abs() for task in trial.tasks], 1)
                found.append(accelerator.gather_for_metrics(there))
        return dict(zip(trial.tasks, torch.cat(found).mean(0), strict=True))

    for epoch in range(1, trial.epochs + 1):
        for inputs, targets in loader:
            outputs, features = network(inputs)
            losses = {task: nn.functional.mse_loss(outputs[task], targets[:, column[task]]) for task in trial.tasks}
            optimizer.zero_grad()
            accelerator.backward(balancer(losses, shared=features))  # was: sum(losses.values())
            optimizer.step()
        trial.report(epoch, errors("validation"), test=lambda: errors("test"), network=network)
        if trial.should_stop:
            break


if __name__ == "__main__":
    main()

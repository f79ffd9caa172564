"""Accelerate: the loop as it is, and one line for the losses.

python examples/accelerate_loop.py
accelerate launch --cpu --num_processes 2 examples/accelerate_loop.py
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import steelyard


class Network(nn.Module):
    """A trunk, a classifier and a regressor; it returns the features that both heads read."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.kind, self.size = nn.Linear(32, 3), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self.trunk(x)
        return self.kind(features), self.size(features).squeeze(1), features


def main(epochs: int = 3) -> None:
    accelerator = Accelerator(gradient_accumulation_steps=2)
    torch.manual_seed(0)
    x = torch.randn(512, 16)
    labelled = TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 1).long(), 20 * x[:, 2] * x[:, 3])

    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    balancer = steelyard.make("db-mtl", ["kind", "size"]).attach(optimizer, accelerator.scaler)
    network, optimizer, loader = accelerator.prepare(network, optimizer, DataLoader(labelled, batch_size=32))

    for _ in range(epochs):
        for inputs, kind, size in loader:
            with accelerator.accumulate(network):
                logits, sizes, features = network(inputs)
                losses = {
                    "kind": nn.functional.cross_entropy(logits, kind),
                    "size": nn.functional.mse_loss(sizes, size),
                }
                accelerator.backward(balancer(losses, shared=features))  # was: sum(losses.values())
                optimizer.step()
                optimizer.zero_grad()
        accelerator.print({name: round(value, 4) for name, value in balancer.metrics().items()})


if __name__ == "__main__":
    main()

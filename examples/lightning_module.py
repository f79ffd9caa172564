"""Lightning: one line in `__init__`, one in `training_step`, and a callback.

python examples/lightning_module.py
python examples/lightning_module.py --devices 2
"""

from __future__ import annotations

import argparse

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import steelyard
from steelyard.integrations.lightning import BalancerCallback


class Model(lightning.LightningModule):
    """A trunk, a classifier and a regressor."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.kind, self.size = nn.Linear(32, 3), nn.Linear(32, 1)
        self.balancer = steelyard.make("db-mtl", ["kind", "size"])  # new

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        inputs, kind, size = batch
        features = self.trunk(inputs)
        losses = {
            "kind": nn.functional.cross_entropy(self.kind(features), kind),
            "size": nn.functional.mse_loss(self.size(features).squeeze(1), size),
        }
        return self.balancer(losses, shared=features)  # was: sum(losses.values())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    lightning.seed_everything(0)
    x = torch.randn(512, 16)
    labelled = TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 1).long(), 20 * x[:, 2] * x[:, 3])
    model = Model()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=arguments.devices,
        max_epochs=arguments.epochs,
        gradient_clip_val=1.0,
        accumulate_grad_batches=2,
        log_every_n_steps=4,
        logger=lightning.pytorch.loggers.CSVLogger("lightning_logs"),
        callbacks=[BalancerCallback()],
    )
    trainer.fit(model, DataLoader(labelled, batch_size=32))
    if trainer.is_global_zero:
        print(model.balancer.summary())


if __name__ == "__main__":
    main()

"""Lightning as a study runs it: `trial` says what to train, and a callback reports.

python examples/lightning_program.py
steelyard compare --methods uw,db-mtl --seeds 3 -- python examples/lightning_program.py
"""

from __future__ import annotations

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import steelyard
from steelyard.integrations.lightning import BalancerCallback, TrialCallback

TRIAL = steelyard.trial(tasks={"sum": "mae", "product": "mae"}, epochs=3, learning_rate=3e-3)


class Model(lightning.LightningModule):
    """A trunk, and a regressor for each task of the trial."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.heads = nn.ModuleDict({task: nn.Linear(32, 1) for task in TRIAL.tasks})
        self.balancer = TRIAL.balancer()

    def errors(self, batch: list[torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        inputs, targets = batch
        features = self.trunk(inputs)
        where = {"sum": 0, "product": 1}
        return {
            task: head(features).squeeze(1) - targets[:, where[task]] for task, head in self.heads.items()
        }, features

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        errors, features = self.errors(batch)
        return self.balancer({task: error.square().mean() for task, error in errors.items()}, shared=features)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        for task, error in self.errors(batch)[0].items():
            self.log(task, error.abs().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=TRIAL.learning_rate)


def main() -> None:
    lightning.seed_everything(TRIAL.seed % 2**32, verbose=False)
    x = torch.randn(512, 16)
    parts = TensorDataset(x, torch.stack([x[:, 0] + x[:, 1], x[:, 2] * x[:, 3]], 1))
    train, validation, test = torch.utils.data.random_split(parts, [256, 128, 128])
    report = TrialCallback(
        TRIAL,
        validation={task: f"{task}/dataloader_idx_0" for task in TRIAL.tasks},
        test={task: f"{task}/dataloader_idx_1" for task in TRIAL.tasks},
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=TRIAL.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[BalancerCallback(log=False), report],
    )
    held_out = [DataLoader(validation, batch_size=128), DataLoader(test, batch_size=128)]
    trainer.fit(Model(), DataLoader(train, batch_size=32, shuffle=True), held_out)


if __name__ == "__main__":
    main()

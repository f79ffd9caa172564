"""
In Lightning
============

One line in ``__init__``, one in ``training_step``, and a callback that attaches the
optimizer, ends epochs and logs.
"""

# %%
# Two tasks whose losses differ a hundredfold: a class, and a product measured in large
# units.
import logging
import warnings

import lightning
import matplotlib.pyplot as plt
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import steelyard
from steelyard.integrations.lightning import BalancerCallback


class Model(lightning.LightningModule):
    def __init__(self, method: str) -> None:
        super().__init__()
        first, second = nn.Linear(16, 64), nn.Linear(64, 32)
        self.trunk = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.kind, self.size = nn.Linear(32, 3), nn.Linear(32, 1)
        self.balancer = steelyard.make(method, ["kind", "size"])  # new
        self.history: list[dict[str, float]] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        inputs, kind, size = batch
        features = self.trunk(inputs)
        losses = {
            "kind": nn.functional.cross_entropy(self.kind(features), kind),
            "size": nn.functional.mse_loss(self.size(features).squeeze(1), size),
        }
        loss = self.balancer(losses, shared=features)  # was: sum(losses.values())
        self.history.append(self.balancer.metrics())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def train(method: str) -> Model:
    lightning.seed_everything(0, verbose=False)
    x = torch.randn(1024, 16)
    kind = (x[:, 0] > 0).long() + (x[:, 1] > 1).long()
    data = TensorDataset(x, kind, 20 * x[:, 2] * x[:, 3])
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=12,
        accumulate_grad_batches=2,  # micro-batches propose, steps commit
        log_every_n_steps=8,
        logger=DummyLogger(),
        callbacks=[BalancerCallback()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    model = Model(method)
    trainer.fit(model, DataLoader(data, batch_size=32, shuffle=True))
    return model


logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")
models = {method: train(method) for method in ("equal", "db-mtl")}

# %%
# `Balancer.summary`: what the weights were over the run; `Balancer.freeze` keeps them.
print(models["db-mtl"].balancer.summary())
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for axis, task in zip(axes, ("kind", "size"), strict=True):
    for method, model in models.items():
        axis.plot([step[f"loss/{task}"] for step in model.history], label=method)
    axis.set(title=f"loss of {task}", xlabel="micro-batch", yscale="log")
axes[0].legend()

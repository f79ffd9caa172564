"""Run by the tests: two processes of Lightning's DDP, each writes its weights and the balancer's state."""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from steelyard.integrations.lightning import BalancerCallback
from test_lightning import Model
from two_tasks import BATCH, data


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("method")
    parser.add_argument("where")
    parser.add_argument("--accumulate", type=int, default=1)
    arguments = parser.parse_args()
    trainer = pl.Trainer(
        strategy="ddp",
        devices=2,
        accelerator="cpu",
        max_epochs=2,
        accumulate_grad_batches=arguments.accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[BalancerCallback()],
    )
    model = Model(arguments.method, arguments.where)
    trainer.fit(model, DataLoader(TensorDataset(*data()), batch_size=BATCH // 2))
    torch.save(
        {"network": model.network.state_dict(), "balancer": model.balancer.state_dict()},
        arguments.folder / f"rank{trainer.global_rank}.pt",
    )


if __name__ == "__main__":
    main()

"""Run by the tests under torchrun: a `Trainer` on two processes, each writes its weights and the balancer's state."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from test_transformers import BATCH, PLACES, trainer


def main(folder: Path, method: str, where: str) -> None:
    trained = trainer(folder, method, place=dict(PLACES[where]), per_device_train_batch_size=BATCH // 2)
    assert trained.args.world_size == 2
    trained.train()
    assert type(trained.model_wrapped).__name__ == "DistributedDataParallel"
    torch.save(
        {"network": trained.model.state_dict(), "balancer": trained.balancer.state_dict()},
        folder / f"rank{trained.args.process_index}.pt",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
    # As the interpreter ends, gloo's threads abort the process now and then, and destroy_process_group may wait for
    # ever: all that is looked at is written.
    os._exit(0)

"""Two overlaid digits by a loop of one's own, which a study can run as it is.

python examples/digits_program.py --method uw --seed 1
torchrun --nproc-per-node 2 examples/digits_program.py
steelyard compare --methods uw,dwa --seeds 3 -- python examples/digits_program.py
"""

from __future__ import annotations

import argparse
import os

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import steelyard
from steelyard.problems import load_problem

BATCH = 128


def trunk() -> nn.Module:
    return nn.Sequential(nn.Linear(121, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU())


def head() -> nn.Module:
    return nn.Linear(16, 10)


class Network(nn.Module):
    """A trunk, and a head for each task that is trained."""

    def __init__(self, trunk: nn.Module, heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleDict(heads)

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        features = self.trunk(images)
        return {task: head(features) for task, head in self.heads.items()}, features


def main(method: str | None = None, seed: int | None = None, epochs: int = 25) -> None:
    trial = steelyard.trial(
        tasks={"left": "accuracy", "right": "accuracy"}, epochs=epochs, learning_rate=2e-3, method=method, seed=seed
    )
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        distributed.init_process_group("gloo")
    data = load_problem("digits").data()  # any tensors, loader or files of your own

    # Each part starts from the trial's seed and its name: a head alike in the run of its task alone and in that of all.
    heads = {task: trial.part(f"head/{task}", head) for task in trial.tasks}
    network = Network(trial.part("trunk", trunk), heads)
    trial.start(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=trial.learning_rate)
    balancer = trial.balancer().attach(optimizer)
    model = DistributedDataParallel(network) if ranks > 1 else network

    def accuracies(part: str) -> dict[str, Tensor]:
        split = data.splits()[part]
        with torch.no_grad():
            outputs, _ = network(split.inputs)
        return {task: (outputs[task].argmax(1) == split.targets[task]).double().mean() for task in trial.tasks}

    first = 1
    if saved := trial.resume():  # a study was stopped here, and goes on
        first = saved["epoch"] + 1
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])  # the balancer's state is in it
    for epoch in range(first, trial.epochs + 1):
        for rows in trial.batches(len(data.train), BATCH, epoch):
            mine = rows[rank::ranks]
            outputs, features = model(data.train.inputs[mine])
            losses = {
                task: nn.functional.cross_entropy(outputs[task], data.train.targets[task][mine]) for task in trial.tasks
            }
            optimizer.zero_grad()
            balancer(losses, shared=features).backward()  # was: sum(losses.values()).backward()
            optimizer.step()
        trial.report(epoch, accuracies("validation"), test=lambda: accuracies("test"), network=network)
        trial.save(epoch=epoch, network=network.state_dict(), optimizer=optimizer.state_dict())  # what is reported
        if trial.should_stop:
            break
    if ranks > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--method")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--epochs", type=int, default=25)
    main(**vars(parser.parse_args()))

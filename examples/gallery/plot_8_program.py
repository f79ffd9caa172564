"""
A program of your own
=====================

A training loop that exists stays as it is: it asks what to train in one call, says what
it found in another, and a study runs it once for every trial.
"""

# %%
# The program. Run by hand it trains all tasks under the plain sum; a study tells it the
# task or tasks, the method and the seed. Where each part starts and the order of rows
# come from the trial, so that its networks are compared like with like. Everything else
# is the program's own: the data, the network, the step.
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """
import os

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import steelyard

trial = steelyard.trial(
    tasks={"sum": "rmse", "product": "rmse"}, epochs=6, learning_rate=0.01
)
rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
if ranks > 1:  # by torchrun
    distributed.init_process_group("gloo")

x = torch.randn(900, 8, generator=torch.Generator().manual_seed(0))
y = {"sum": 20 * (x[:, 0] + x[:, 1]), "product": x[:, 2] * x[:, 3]}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = trial.part(
            "trunk", lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        )
        self.heads = nn.ModuleDict()
        for task in trial.tasks:
            self.heads[task] = trial.part(f"head/{task}", lambda: nn.Linear(32, 1))

    def forward(self, x):
        features = self.trunk(x)
        outputs = {task: head(features)[:, 0] for task, head in self.heads.items()}
        return outputs, features


network = Network()
model = DistributedDataParallel(network) if ranks > 1 else network
optimizer = torch.optim.Adam(network.parameters(), lr=trial.learning_rate)
balancer = trial.balancer().attach(optimizer)


def errors(outputs, rows):
    return {task: (outputs[task] - y[task][rows]).square().mean() for task in outputs}


def rmse(rows):
    with torch.no_grad():
        found = errors(network(x[rows])[0], rows)
    return {task: error.sqrt() for task, error in found.items()}


for epoch in range(1, trial.epochs + 1):
    for rows in trial.batches(500, 20, epoch):
        rows = rows[rank::ranks]
        outputs, features = model(x[rows])
        optimizer.zero_grad()
        loss = balancer(errors(outputs, rows), shared=features)  # was: sum(...)
        loss.backward()
        optimizer.step()
    validation, test = slice(500, 700), slice(700, 900)
    trial.report(epoch, rmse(validation), test=lambda: rmse(test), network=network)
    if trial.should_stop:
        break
if ranks > 1:
    distributed.destroy_process_group()
"""

# %%
# By hand, and by hand on two processes: the same numbers, to the rounding of another
# order of sums.
HERE = Path(tempfile.mkdtemp())
(HERE / "train.py").write_text(PROGRAM)


path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
alone = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "76"}


def run(command: str) -> None:
    done = subprocess.run(
        shlex.split(command), cwd=HERE, env=alone, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    print(f"{command}\n\n{done.stdout}")


run("python train.py")
run("torchrun --nproc-per-node 2 train.py")

# %%
# A study of it. What stands behind ``--`` is any command: with ``torchrun
# --nproc-per-node 2 train.py`` there, every trial trains on two processes. Two seeds
# show what a table looks like; five tell more.
run("steelyard compare --methods uw --seeds 2 --workers 2 -- python train.py")

# %%
# The networks of the best epoch are kept, and load into the program's own module.
run("steelyard export steelyard-train.sqlite --method uw --out uw.safetensors")

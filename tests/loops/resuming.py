"""Training that stops and goes on in another process: run as a script, it loads checkpoints and writes what follows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import steelyard
from steelyard.base.specs import parse_spec
from steelyard.method_registry import method_class, method_names, options_of
from steelyard.testing.toy import Toy, snapshot

TASKS = ["a", "b", "c"]
BEFORE, AFTER = 3, 3
SPECS = [
    *method_names(),
    "log+ema-scale+random",
    "initial-scale+pcgrad",
    "cr-mogm+log+mgda",
    "mgda(memory=rows)",
    "ema(every=3)",
    "pcgrad(max_change=0.1)",
    "uw(learn=external)",
]


class Run:
    """A network, its optimizer and a balancer; the global seed differs from run to run, as in a new process."""

    def __init__(self, spec: str, attached: bool, seed: int) -> None:
        torch.manual_seed(seed)
        name = parse_spec(spec).name
        options: dict[str, Any] = {"main": "a"} if "main" in options_of(method_class(name)) else {}
        method = steelyard.make(spec, TASKS, **options)
        rows = method.memory == "rows" or "features" not in method.where
        self.toy = Toy(
            TASKS,
            at_trunk=rows or name in ("db-mtl", "max-norm"),
            probing=method.reads == "cross_gramian",
            looking=method.reads == "lookahead",
        )
        self.balancer = steelyard.make(spec, TASKS, shared=self.toy.trunk, **options)
        learned = list(self.balancer.parameters())
        kind = torch.optim.SGD if name == "adatask" else torch.optim.AdamW  # which it would refuse
        self.toy.optimizer = kind([*self.toy.parameters(), *learned], lr=0.01)
        if attached:
            self.balancer.attach(self.toy.optimizer)

    def train(self, steps: int, first: int = 0) -> Tensor:
        """All weights; an epoch ends after every other step."""
        weights = []
        for number in range(first, first + steps):
            weights.append(self.toy.step(self.balancer))
            if number % 2:
                if self.balancer.needs_validation:
                    self.balancer.observe(validation=self.toy.losses()[0])
                self.balancer.end_epoch()
        return torch.stack(weights)

    def outcome(self, weights: Tensor) -> dict[str, Any]:
        return {
            "weights": weights,
            "state": snapshot(self.balancer),
            "parameters": [parameter.detach().clone() for parameter in self.toy.parameters()],
        }


def save(run: Run, route: str, path: Path) -> None:
    model, optimizer = run.toy.network.state_dict(), run.toy.optimizer.state_dict()
    if route == "state_dict":
        torch.save({"model": model, "optimizer": optimizer, "balancer": run.balancer.state_dict()}, path)
    elif route == "optimizer":
        torch.save({"model": model, "optimizer": optimizer}, path)
    else:
        import torch.distributed.checkpoint as dcp  # two seconds, which most who import this file need not wait

        dcp.save({"model": run.toy.network, "balancer": run.balancer}, checkpoint_id=path)
        torch.save(optimizer, path / "optimizer.pt")  # its keys by parameter are the wrappers' business


def load(run: Run, route: str, path: Path) -> None:
    if route == "distributed":
        import torch.distributed.checkpoint as dcp

        dcp.load({"model": run.toy.network, "balancer": run.balancer}, checkpoint_id=path)
        run.toy.optimizer.load_state_dict(torch.load(path / "optimizer.pt", weights_only=True))
        return
    saved = torch.load(path, weights_only=True)
    run.toy.network.load_state_dict(saved["model"])
    if route == "state_dict":
        run.balancer.load_state_dict(saved["balancer"])
    run.toy.optimizer.load_state_dict(saved["optimizer"])


def file_name(spec: str, route: str) -> str:
    return f"{SPECS.index(spec)}-{route}"


def main(folder: Path, route: str, specs: list[str]) -> None:
    torch.use_deterministic_algorithms(True)
    found = {}
    for spec in specs:
        run = Run(spec, attached=route == "optimizer", seed=1)
        load(run, route, folder / file_name(spec, route))
        found[spec] = run.outcome(run.train(AFTER, BEFORE))
    torch.save(found, folder / f"resumed-{route}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])

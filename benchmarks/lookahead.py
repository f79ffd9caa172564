"""What looking one step ahead costs: HydaLearn and Auto-λ against the plain sum.

    python benchmarks/lookahead.py

The network of `overhead.py`: an MLP trunk of 3.2 M parameters, batch 128, a linear head per task; a step is forward +
balancer + backward. Each takes turns with the plain sum in one process; ratios of medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import torch
from networks import Network, plain
from timing import interleaved, machine
from torch import Tensor, nn

import steelyard

AUXILIARIES = (1, 2, 4)
FIRST_ORDER = "hydalearn(main=task0,mode=first-order)"
METHODS = {
    "exact": ("hydalearn(main=task0)", None),
    "first-order at features": (FIRST_ORDER, "features"),
    "first-order at the trunk": (FIRST_ORDER, "trunk"),
    "first-order at the model": (FIRST_ORDER, "model"),
    "auto-lambda": ("auto-lambda(main=task0)", None),
}


class Model(nn.Module):
    """The benchmark's network as one module, which looking ahead needs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.trunk, self.heads = network.trunk, network.heads

    def forward(self, inputs: Tensor) -> list[Tensor]:
        features = self.trunk(inputs)
        return [head(features) for head in self.heads]


def balanced(network: Network, spec: str, where: str | None) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
    balancer, model = steelyard.make(spec, network.names, learning_rate=1e-3), Model(network)

    def losses_on(call: Callable[..., Any], batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        outputs = zip(network.names, call(batch[0]), batch[1], strict=True)
        return {name: nn.functional.cross_entropy(output, labels) for name, output, labels in outputs}

    batch = (network.inputs, network.labels)
    again = steelyard.losses_of(model, losses_on, batch, held_out=batch)

    def combine(losses: Mapping[str, Tensor], features: Tensor) -> Tensor:
        places = {"features": features, "trunk": network.trunk, "model": model}
        loss: Tensor = balancer(losses, shared=None if where is None else places[where], again=again)
        return loss

    return combine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine())
    print("\nStep time, times the plain sum, by the number of auxiliaries")
    print(f"  {'':26s}" + "".join(f"{count:>8d}" for count in AUXILIARIES))
    ratios: dict[str, list[float]] = {name: [] for name in METHODS}
    for count in AUXILIARIES:
        network = Network(count + 1)
        for name, (spec, where) in METHODS.items():
            pair = {"plain sum": network.step(plain), name: network.step(balanced(network, spec, where))}
            timing = interleaved(pair, "plain sum", arguments.rounds)
            ratios[name].append(timing[name].median / timing["plain sum"].median)
    for name, values in ratios.items():
        print(f"  {name:26s}" + "".join(f"{value:>8.2f}" for value in values))


if __name__ == "__main__":
    main()

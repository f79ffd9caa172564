"""A small network and its training, the same on one process with the whole batch and on ranks with shards of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import steelyard
from steelyard.balancing.balancer import Balancer
from steelyard.base.specs import parse_spec
from steelyard.method_registry import method_class, options_of

TASKS = ("left", "middle", "right")
SCALES = {"left": 1.0, "middle": 3.0, "right": 0.3}
BATCH = 12
EPOCH = 2
"""Steps."""


class Network(nn.Module):
    """A tanh trunk with a linear head per task, in float64."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(5, 6), nn.Tanh()).double()
        self.heads = nn.ModuleDict({task: nn.Linear(6, 2) for task in TASKS}).double()

    def forward(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.trunk(inputs)
        return features, {task: head(features) for task, head in self.heads.items()}


def data(step: int, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    """The global batch of a step."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    draw = {task: torch.randn(BATCH, 2, generator=generator, dtype=torch.float64) for task in TASKS}
    return torch.randn(BATCH, 5, generator=generator, dtype=torch.float64), draw


def shard(rank: int, ranks: int) -> slice:
    return slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)


def errors(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
    """Losses per element."""
    return {task: SCALES[task] * (outputs[task] - targets[task][rows]).square() for task in TASKS}


def build(spec: str, **options: Any) -> Balancer:
    if "main" in options_of(method_class(parse_spec(spec).name)):
        options["main"] = "left"
    torch.manual_seed(7)
    return steelyard.make(spec, list(TASKS), **options)


def whole(parameter: Tensor) -> Tensor:
    """All of a parameter, of which a rank may hold a piece."""
    full = getattr(parameter, "full_tensor", None)
    return parameter.detach() if full is None else full().detach()


def train(
    spec: str | Balancer,
    at: str,
    rank: int = 0,
    ranks: int = 1,
    steps: int = 12,
    wrapper: Callable[..., nn.Module] = DistributedDataParallel,
    mask: Callable[[int, str], Tensor] | None = None,
    attached: bool = False,
    make_network: Callable[[], Network] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train, and return weights per step, values per step, final parameters and state.

    Args:
        spec: the method.
        at: ``"features"`` or ``"trunk"``.
        mask: ``(step, task) -> [BATCH]``, which labels there are; all where it is not given.
        attached: whether the optimizer commits.
        make_network: `Network`, where it is not given.
        options: of the wrapper.
    """
    network = Network() if make_network is None else make_network()
    model = wrapper(network, **options) if ranks > 1 else network
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    balancer = build(spec) if isinstance(spec, str) else spec
    if attached:
        balancer.attach(optimizer)
    rows = shard(rank, ranks)
    weights, values = [], []

    def losses_on(step: int, seed: int = 1) -> tuple[dict[str, Tensor | None], Tensor]:
        inputs, targets = data(step, seed)
        features, outputs = model(inputs[rows])
        each = errors(outputs, targets, rows)
        if mask is None:
            return {task: error.mean() for task, error in each.items()}, features
        return {
            task: steelyard.masked_mean(error, mask(step, task)[rows][:, None]) for task, error in each.items()
        }, features

    for step in range(steps):
        optimizer.zero_grad()
        extra = {}
        if balancer.reads == "cross_gramian":
            extra["probes"] = [losses_on(step, seed)[0] for seed in (2, 3)]
        losses, features = losses_on(step)
        result = balancer(losses, shared=network.trunk if at == "trunk" else features, **extra)
        result.backward()
        optimizer.step()
        if balancer.needs_after:
            with torch.no_grad():
                balancer.observe(after=losses_on(step)[0])
        if step % EPOCH == EPOCH - 1:
            if balancer.needs_validation:
                with torch.no_grad():
                    balancer.observe(validation=losses_on(step, 4)[0])
            balancer.end_epoch()
        weights.append(balancer.last_weights)
        values.append(result.detach())
    return {
        "weights": torch.stack(weights),
        "values": torch.stack(values),
        "parameters": torch.cat([whole(parameter).flatten() for parameter in network.parameters()]),
        "state": {name: value for name, value in balancer.state_dict().items() if isinstance(value, Tensor)},
        "metrics": balancer.metrics(),
    }

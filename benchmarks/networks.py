"""The networks that the benchmarks train: a shared trunk and one linear head of ten classes per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

CLASSES = 10


class Encoder(nn.Module):
    """Four transformer layers, mean over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        encoded: Tensor = self.layers(x)
        return encoded.mean(1)


def mlp() -> tuple[nn.Module, Tensor, int]:
    """Three hidden layers of 1,024 (3.1 M parameters), batch 128."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(1024, 1024), nn.ReLU()]
    return nn.Sequential(*layers), torch.randn(128, 1024), 1024


def convnet() -> tuple[nn.Module, Tensor, int]:
    """Three convolutions with batch norm and one linear layer (0.4 M parameters), batch 64 of 28 x 28."""

    def block(inside: int, outside: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(), nn.MaxPool2d(2)]

    trunk = nn.Sequential(*block(1, 32), *block(32, 64), *block(64, 128), nn.Flatten(), nn.Linear(1152, 256), nn.ReLU())
    return trunk, torch.randn(64, 1, 28, 28), 256


def transformer() -> tuple[nn.Module, Tensor, int]:
    """Four encoder layers of width 256 (3.2 M parameters), batch 32 of 64 tokens."""
    return Encoder(), torch.randn(32, 64, 256), 256


TRUNKS: dict[str, Callable[[], tuple[nn.Module, Tensor, int]]] = {
    "mlp": mlp,
    "convnet": convnet,
    "transformer": transformer,
}


class Network:
    """A trunk, its heads, and a batch.

    ``disjoint``: each task has labels for samples of its own; batch norm, which mixes samples, uses running statistics.
    """

    def __init__(self, tasks: int, trunk: str = "mlp", device: str = "cpu", disjoint: bool = False) -> None:
        torch.manual_seed(0)
        module, inputs, width = TRUNKS[trunk]()
        module.train(not disjoint)
        self.trunk, self.inputs = module.to(device), inputs.to(device)
        self.names = [f"task{number}" for number in range(tasks)]
        self.heads = nn.ModuleList([nn.Linear(width, CLASSES) for _ in self.names]).to(device)
        self.labels = torch.randint(CLASSES, (tasks, len(inputs)), device=device)
        size = len(inputs) // tasks
        self.samples = [slice(size * k, size * k + size) if disjoint else slice(None) for k in range(tasks)]

    def losses(self) -> tuple[dict[str, Tensor], Tensor]:
        features = self.trunk(self.inputs)
        return {
            name: nn.functional.cross_entropy(head(features[mine]), labels[mine])
            for name, head, labels, mine in zip(self.names, self.heads, self.labels, self.samples, strict=True)
        }, features

    def zero(self) -> None:
        for parameter in (*self.trunk.parameters(), *self.heads.parameters()):
            parameter.grad = None

    def step(self, combine: Callable[[Mapping[str, Tensor], Tensor], Tensor]) -> Callable[[], None]:
        """Forward, ``combine(losses, features)``, backward."""

        def run() -> None:
            self.zero()
            losses, features = self.losses()
            combine(losses, features).backward()  # type: ignore[no-untyped-call]

        return run


def plain(losses: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """The plain sum."""
    return sum(losses.values(), torch.zeros((), device=features.device))

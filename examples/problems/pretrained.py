"""Pictures by a trunk that was trained before, with a rate of its own: steelyard compare pretrained.py."""

import functools

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from steelyard.problems import Data, Problem, binary, regression


class Pictures(Dataset):
    def __init__(self, count: int, seed: int, augment: bool) -> None:
        self.images = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        self.augment = augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, red = self.images[row], self.images[row, 0].mean()
        targets = {"red": (red > 0).float(), "contrast": image.square().mean()}
        return (image.flip(2) if self.augment and torch.rand(()) < 0.5 else image), targets


@functools.cache
def weights() -> dict[str, Tensor]:  # in the place of torch.load("trunk.pt"): the trunk learns to tell colours apart
    torch.manual_seed(0)
    trunk, images = empty(), torch.randn(256, 3, 16, 16)
    optimizer = torch.optim.Adam(trunk.parameters())
    for _ in range(20):
        optimizer.zero_grad()
        (trunk(images)[:, :3] - images.mean((2, 3))).square().mean().backward()
        optimizer.step()
    return trunk.state_dict()


def empty() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())


def trunk() -> nn.Module:
    made = empty()
    made.load_state_dict(weights())
    return made


def optimizer(parameters):
    return torch.optim.Adam([{"params": parameters.heads}, {"params": parameters.trunk, "lr": 1e-4}], lr=1e-3)


parts, tasks = [Pictures(200, seed, augment=seed == 0) for seed in range(3)], [binary("red"), regression("contrast")]
problem = Problem(
    "pretrained", tasks, lambda: Data(*parts), trunk, lambda task: nn.Linear(32, task.outputs), optimizer=optimizer
)

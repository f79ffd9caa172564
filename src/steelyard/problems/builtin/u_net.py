"""Small convolutional networks for images out of images: an encoder, and a decoder that meets it again."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """3 x 3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Residual(nn.Module):
    """``relu(x + f(x))``."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.f(x))


def residual(channels: int) -> nn.Module:
    """Two convolutions and the way around them."""
    return Residual(
        nn.Sequential(
            convolution(channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
    )


class Hourglass(nn.Module):
    """``relu(x + upsampled(project(inner(x))))``: what a coarser look adds to fine features.

    Args:
        inner: works at a coarser scale; [N, channels, H, W] -> [N, coarse, h, w].
        channels, coarse: of the two scales.
    """

    def __init__(self, inner: nn.Module, channels: int, coarse: int) -> None:
        super().__init__()
        self.inner = inner
        self.project = nn.Sequential(nn.Conv2d(coarse, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + _upsampled(self.project(self.inner(x)), (x.shape[2], x.shape[3])))


class Upsampled(nn.Module):
    """A network whose output is resized, bilinearly, to `size`."""

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return _upsampled(self.network(x), self.size)


def _upsampled(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

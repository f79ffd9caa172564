"""Surface normals from a depth image: a plane through every pixel's neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 4
TOLERANCE = 0.02


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: focal lengths and principal point (x, y), in pixels."""

    focal: tuple[float, float]
    centre: tuple[float, float]


def surface_normals(measured: Tensor, unit: float, camera: Camera) -> Tensor:
    """Unit normals x 127, zero where none can be derived; they face the camera (x right, y down, z into the room).

    The points of a plane ``n·X = d`` seen at ``X = z (x, y, 1)`` have ``1/z = n·(x, y, 1)/d``: inverse depth is linear
    over the image. So a least-squares fit to the (2 `RADIUS` + 1)² inverse depths around a pixel, which is a few
    correlations, gives the normal, exactly on planes. There is none where the fit misses by more than `TOLERANCE` of
    the inverse depth (root mean square: an edge or a small thing), or where a pixel around has no depth.

    Args:
        measured: depth in units, uint8 [N, H, W], 0 = none.
        unit: metres.
        camera: at this resolution.

    Returns:
        int8 [N, 3, H, W].
    """
    return torch.cat([_fit(chunk.float() * unit, camera) for chunk in torch.split(measured, 8)])


def _fit(depth: Tensor, camera: Camera) -> Tensor:
    missing = (depth == 0).float()
    inverse = torch.where(depth > 0, 1 / depth, 0)
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float32)
    flat, slope = torch.full_like(offsets, 1 / len(offsets)), offsets / offsets.square().sum()
    rows = _correlate(inverse, flat, 2)
    mean, by_row = _correlate(rows, flat, 1), _correlate(rows, slope, 1)
    by_column = _correlate(_correlate(inverse, slope, 2), flat, 1)

    variance = _correlate(_correlate(inverse.square(), flat, 2), flat, 1) - mean.square()
    missed = variance - (by_column.square() + by_row.square()) * offsets.square().mean()
    fits = missed <= (TOLERANCE * mean).square()
    complete = _correlate(_correlate(missing, flat, 2), flat, 1) == 0
    complete[:, :RADIUS] = complete[:, -RADIUS:] = False
    complete[:, :, :RADIUS] = complete[:, :, -RADIUS:] = False

    height, width = depth.shape[1:]
    x = (torch.arange(width) - camera.centre[0]) / camera.focal[0]
    y = (torch.arange(height)[:, None] - camera.centre[1]) / camera.focal[1]
    a, b = by_column * camera.focal[0], by_row * camera.focal[1]
    towards = [a, b, mean - a * x - b * y]
    # Written out: torch.nn.functional.normalize over three channels takes ten times as long on the CPU.
    length = sum((part.square() for part in towards), torch.full((), 1e-12)).sqrt()
    scale = -127 * (fits & complete) / length
    return torch.stack([(part * scale).round_().to(torch.int8) for part in towards], dim=1)


def _correlate(image: Tensor, kernel: Tensor, dim: int) -> Tensor:
    """Correlate along one dimension, zeros outside; three times as fast as the convolution of a single channel."""
    size = image.shape[dim]
    padded = F.pad(image, (RADIUS, RADIUS) if dim == 2 else (0, 0, RADIUS, RADIUS))
    result = torch.zeros_like(image)
    for start, weight in enumerate(kernel.tolist()):
        result.add_(padded.narrow(dim, start, size), alpha=weight)
    return result

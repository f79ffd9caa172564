"""Tasks with a label per pixel: segmentation, depth, surface normals. Pixels without a label count nowhere.

Metrics are over all labelled pixels of a split together, not means of images' or batches' means.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from steelyard.base.float64 import float64_device
from steelyard.errors import ProblemError
from steelyard.problems.task import Metric, Task

BINS_PER_DEGREE = 20  # the edges of WITHIN are edges of bins
BINS = 180 * BINS_PER_DEGREE
WITHIN = (11.25, 22.5, 30.0)  # degrees


def segmentation(name: str, classes: int, ignored: int = 255, label: str = "", equivalence: float = 0.01) -> Task:
    """Labels 0 … classes - 1 per pixel [N, H, W], logits [N, classes, H, W], cross-entropy; judged by mIoU.

    Its statistics are a confusion matrix [classes, classes] per image, rows by label.
    """
    return Task(
        name,
        partial(_pixel_cross_entropy, ignored=ignored),
        (mean_iou, pixel_accuracy),
        outputs=classes,
        missing=ignored,
        statistics=partial(_confusion, classes=classes, ignored=ignored),
        label=label,
        equivalence=equivalence,
    )


def depth(name: str, unit: float, label: str = "", equivalence: float = 0.01) -> Task:
    """Depth in whole units [N, 1, H, W] or [N, H, W], 0 = none; outputs in metres, mean absolute error; judged by it.

    Its statistics are, per image, the sums of ``|o - y|`` and of ``|o - y| / y`` and the number of pixels.

    Args:
        unit: metres.
    """
    return Task(
        name,
        partial(_depth_loss, unit=unit),
        (absolute_error, relative_error),
        missing=0,
        statistics=partial(_depth_errors, unit=unit),
        label=label,
        equivalence=equivalence,
    )


def normals(name: str, label: str = "", equivalence: float = 0.01) -> Task:
    """Directions [N, 3, H, W] of any length, 0 = none; outputs of any length, 1 - cosine; judged by the mean angle.

    Its statistics are, per image, the sum of the angles in degrees and a histogram of them, `BINS_PER_DEGREE` to the
    degree.
    """
    return Task(
        name,
        _cosine_loss,
        (mean_angle, median_angle, *within),
        outputs=3,
        missing=0,
        statistics=_angles,
        label=label,
        equivalence=equivalence,
    )


def _pixel_cross_entropy(outputs: Tensor, targets: Tensor, ignored: int) -> Tensor:
    return F.cross_entropy(outputs, targets.long(), ignore_index=ignored)


def _confusion(outputs: Tensor, targets: Tensor, classes: int, ignored: int) -> Tensor:
    predicted, targets = outputs.argmax(1).flatten(1), targets.flatten(1).long()
    known = (targets != ignored) & (targets >= 0) & (targets < classes)
    # One more cell takes the pixels without a label.
    cells = torch.where(known, targets * classes + predicted, classes * classes)
    counts = torch.zeros(len(targets), classes * classes + 1, device=cells.device)
    counts.scatter_add_(1, cells, torch.ones((), device=cells.device).expand(cells.shape))
    return counts[:, :-1].reshape(-1, classes, classes)


def _mean_iou(statistics: Tensor, targets: Tensor) -> float:
    """Mean of ``hits / (labelled + predicted - hits)`` over the classes that occur among the labels."""
    matrix = statistics.double().sum(0)
    hits, labels = matrix.diagonal(), matrix.sum(1)
    iou = hits / (labels + matrix.sum(0) - hits)
    return float(iou[labels > 0].mean())


def _pixel_accuracy(statistics: Tensor, targets: Tensor) -> float:
    matrix = statistics.double().sum(0)
    return float(matrix.diagonal().sum() / matrix.sum())


def _depth_loss(outputs: Tensor, targets: Tensor, unit: float) -> Tensor:
    targets = _pixel_by_pixel(outputs, targets)
    known = targets > 0
    return torch.where(known, outputs - targets.float() * unit, 0).abs().sum() / known.sum()


def _pixel_by_pixel(outputs: Tensor, targets: Tensor) -> Tensor:
    """Targets in the shape of the outputs: [N, H, W] beside [N, 1, H, W] would be stretched."""
    channel = outputs.dim() - targets.dim()
    there = targets.unsqueeze(1) if channel == 1 else targets.squeeze(1) if channel == -1 else targets
    if there.shape != outputs.shape:
        raise ProblemError(
            f"depth needs outputs and targets of one size, got {list(outputs.shape)} and {list(targets.shape)}"
        )
    return there


def _depth_errors(outputs: Tensor, targets: Tensor, unit: float) -> Tensor:
    targets = _pixel_by_pixel(outputs, targets)
    known, metres = targets > 0, targets.float() * unit
    error = torch.where(known, outputs - metres, 0).abs()
    parts = (error, error / torch.where(known, metres, 1), known)
    where = float64_device(error.device)
    return torch.stack([part.flatten(1).to(where).sum(1, dtype=torch.float64) for part in parts], dim=1)


def _mean_error(column: int) -> Callable[[Tensor, Tensor], float]:
    def function(statistics: Tensor, targets: Tensor) -> float:
        sums = statistics.sum(0)
        return float(sums[column] / sums[-1])

    return function


def _cosine_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    # Written out: torch.nn.functional's own over three channels takes eight times as long on the CPU.
    wanted = targets.float()
    squares = wanted.square().sum(1)
    lengths = (squares * outputs.square().sum(1)).clamp(min=1e-12).sqrt()
    return 1 - ((outputs * wanted).sum(1) / lengths).sum() / (squares > 0).sum()


def _angles(outputs: Tensor, targets: Tensor) -> Tensor:
    known = _has_direction(targets)
    chord = (_unit(outputs) - _unit(targets.float())).square().sum(1).sqrt()
    # By the chord: near zero, an arc cosine of single-precision numbers is off by hundredths of a degree.
    angle = 2 * torch.rad2deg(torch.asin((chord / 2).clamp(max=1)))
    where = float64_device(angle.device)
    angle, known = angle.to(where), known.to(where)
    total = torch.where(known, angle, 0).flatten(1).sum(1, dtype=torch.float64)
    bins = (angle.nan_to_num() * BINS_PER_DEGREE).long().clamp(max=BINS - 1)
    histogram = torch.zeros(len(targets), BINS, dtype=torch.float64, device=total.device)
    histogram.scatter_add_(1, bins.flatten(1), known.flatten(1).double())
    return torch.cat([total[:, None], histogram], dim=1)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()


def _has_direction(targets: Tensor) -> Tensor:
    return (targets != 0).any(1)


def _mean_angle(statistics: Tensor, targets: Tensor) -> float:
    sums = statistics.sum(0)
    return float(sums[0] / sums[1:].sum())


def _median_angle(statistics: Tensor, targets: Tensor) -> float:
    """Exact to the width of a bin, within which pixels count as evenly spread."""
    histogram = statistics[:, 1:].sum(0)
    reached = histogram.cumsum(0)
    half = reached[-1] / 2
    place = int(torch.searchsorted(reached, half))
    return float(place + 1 - (reached[place] - half) / histogram[place]) / BINS_PER_DEGREE


def _within(degrees: float) -> Callable[[Tensor, Tensor], float]:
    edge = round(degrees * BINS_PER_DEGREE)

    def function(statistics: Tensor, targets: Tensor) -> float:
        histogram = statistics[:, 1:].sum(0)
        return float(histogram[:edge].sum() / histogram.sum())

    return function


mean_iou = Metric("mIoU", _mean_iou, higher_is_better=True, ideal=1.0, percent=True)
pixel_accuracy = Metric("pixel accuracy", _pixel_accuracy, higher_is_better=True, ideal=1.0, percent=True)
absolute_error = Metric("absolute error (m)", _mean_error(0), higher_is_better=False, ideal=0.0)
relative_error = Metric("relative error", _mean_error(1), higher_is_better=False, ideal=0.0)
mean_angle = Metric("mean angle (°)", _mean_angle, higher_is_better=False, ideal=0.0)
median_angle = Metric("median angle (°)", _median_angle, higher_is_better=False, ideal=0.0)
within = tuple(
    Metric(f"within {degrees:g}°", _within(degrees), higher_is_better=True, ideal=1.0, percent=True)
    for degrees in WITHIN
)

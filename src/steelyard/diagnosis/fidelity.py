"""How well a cheap look shows what the exact one does: cosines and norms, over the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.diagnosis.measurements import Measurements

CLEAR = 0.1
"""Cosines at least this far from zero have a sign worth knowing."""


@dataclass(frozen=True)
class Fidelity:
    """What a place shows, against the exact gradients of the trunk.

    Attributes:
        place: where gradients were read.
        looks: over how many batches.
        correlation: of the pairs' cosines with the exact ones; NaN where either never changes.
        wrong_sign: of the pairs whose exact cosine is beyond ±0.1, the part shown with the other sign or none; NaN
            where there are none.
        norms_off: the typical factor by which a norm is off, less 1, once both are free of a common scale.
    """

    place: str
    looks: int
    correlation: float
    wrong_sign: float
    norms_off: float


def fidelity(place: str, seen: Sequence[Measurements], exact: Sequence[Measurements]) -> Fidelity:
    """Compare looks at a place with exact looks at the same batches.

    Args:
        place: its name.
        seen, exact: one of each batch, with the same tasks.
    """
    cosines = torch.cat(
        [torch.stack([_pairs(a.cosines), _pairs(b.cosines)]) for a, b in zip(seen, exact, strict=True)], 1
    )
    cosines = cosines[:, cosines.isfinite().all(0)]
    clear = cosines[:, cosines[1].abs() > CLEAR]
    wrong = float((clear[0] * clear[1] <= 0).double().mean()) if clear.numel() else float("nan")
    varies = cosines.shape[1] > 1 and bool((cosines.amax(1) - cosines.amin(1) > 0).all())
    correlation = float(torch.corrcoef(cosines)[0, 1]) if varies else float("nan")
    off = torch.cat([_relative(a.norms, b.norms) for a, b in zip(seen, exact, strict=True)])
    return Fidelity(place, len(seen), correlation, wrong, float(off.abs().mean().expm1()))


def _pairs(matrix: Tensor) -> Tensor:
    rows, columns = torch.triu_indices(len(matrix), len(matrix), 1)
    return matrix[rows, columns]


def _relative(seen: Tensor, exact: Tensor) -> Tensor:
    """Logarithms of the norms' ratios, about their mean."""
    both = (seen > 0) & (exact > 0) & seen.isfinite() & exact.isfinite()
    ratios = (seen[both] / exact[both]).log()
    return ratios - ratios.mean() if len(ratios) else ratios

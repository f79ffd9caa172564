"""Products of the gradients of two further global batches, for methods that probe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steelyard.balancing.distributed.ranks import Ranks
from steelyard.balancing.observe import Batch
from steelyard.base.method import Method
from steelyard.errors import MissingInputError
from steelyard.gradients.reading import rows_of_probes
from steelyard.gradients.shared_option import Place


def cross_gramian(
    ranks: Ranks, method: Method, names: Sequence[str], required: Sequence[str], batch: Batch, place: Place
) -> Tensor:
    """``J₁ J₂ᵀ`` of two further global batches, or (``"local-mean"``) the mean of the ranks' own."""
    probes = rows_of_probes(method, names, required, batch.probes, place)
    size, device = len(names), batch.values.device
    labels = torch.zeros(2, size, dtype=torch.float64, device=device)
    width = max(matrix.shape[1] for _, matrix, _ in probes)
    rows = torch.zeros(2, size, width, dtype=probes[0][1].dtype, device=device)
    for k, (positions, matrix, counts) in enumerate(probes):
        labels[k, positions] = labels.new_tensor(counts)
        rows[k, positions] = matrix * rows.new_tensor(counts)[:, None]
    if method.sync == "local-mean":
        both = labels[0][:, None] * labels[1]
        total, weight = ranks.sum(torch.stack([rows[0].double() @ rows[1].double().T, both]))
        _check_probed(names, weight.amin(0))
        mean: Tensor = total / weight
        return mean
    ranks.sum(labels)
    _check_probed(names, labels.amin(0))
    ranks.sum(rows)
    rows = rows / labels[:, :, None].to(rows)
    return rows[0].double() @ rows[1].double().T


def _check_probed(names: Sequence[str], labels: Tensor) -> None:
    absent = [name for name, count in zip(names, labels.tolist(), strict=True) if not count > 0]
    if absent:
        raise MissingInputError(f"the probes lack the task {absent[0]!r} on all ranks, which the batch at hand has")

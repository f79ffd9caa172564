"""GCS: gradient cosine similarity with the main task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.base.observation import Seen
from steelyard.base.options import one_of
from steelyard.base.state import State
from steelyard.methods.bases import ComparingBalancer, cosines_with

Variant = Literal["unweighted", "weighted"]


class GCS(ComparingBalancer):
    """An auxiliary task takes part in a step while its gradient does not point against the main one's.

    ``w_main = 1``; for the others ``w_k = [cos(g_main, g_k) > 0]`` (``unweighted``) or ``max(0, cos(g_main, g_k))``
    (``weighted``).

    Args:
        tasks: task names.
        main: the main task; must be given.
        variant: ``"unweighted"`` or ``"weighted"``.
        common: the options of `Balancer`.

    In a batch without the main task nothing can be compared: each task keeps the weight of the last batch with both, 1
    before any, which is ours. With a zero gradient the cosine counts as 0.

    Cost: one backward pass through each task's head to the features.

    Source: Du, Czarnecki, Jayakumar, Farajtabar, Pascanu, Lakshminarayanan, "Adapting Auxiliary Losses Using Gradient
    Similarity" (2018), arXiv 1812.02224. Certainty: from third-party descriptions and code, not from the paper.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b, c = torch.tensor([[1.0, 0.0], [1.0, 2.0], [-1.0, 2.0]]) @ w
        >>> balancer = steelyard.GCS(["a", "b", "c"], main="a", shared=[w])
        >>> _ = balancer({"a": a, "b": b, "c": c})
        >>> balancer.last_weights  # the gradient of c points against that of a
        tensor([1., 1., 0.], dtype=torch.float64)
    """

    name = "gcs"
    paper = "Du et al. (2018), arXiv 1812.02224"
    reads = "gramian"
    uses_angles = True

    def __init__(
        self, tasks: Sequence[str], *, main: str | None = None, variant: Variant = "unweighted", **common: Any
    ) -> None:
        super().__init__(tasks, main=main, **common)
        one_of("variant", variant, Variant)
        self.variant = variant
        self.rescaling = "weights"

    def compare(self, seen: Seen, state: State) -> Tensor:
        cosines = cosines_with(seen.tasks.index(self.main), seen)
        similar = cosines.clamp(min=0) if self.variant == "weighted" else cosines.sign().clamp(min=0)
        known = cosines.isfinite().all()  # NaN anywhere makes every weight NaN
        weights = torch.where(self.is_main(seen), torch.ones_like(similar), similar)
        return torch.where(known, weights, torch.full_like(weights, float("nan")))

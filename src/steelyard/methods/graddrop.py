"""GradDrop: gradient sign dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Balance, Seen
from steelyard.base.state import State
from steelyard.errors import OptionError, SharedError


class GradDrop(Balancer):
    """Where tasks disagree on the sign of a feature's gradient, one sign is drawn and the other dropped.

    With ``G_k = Σ_batch sign(z) ∘ ∂L_k/∂z`` per feature and ``P = ½ (1 + Σ_k G_k / Σ_k |G_k|)``, a uniform ``U`` is
    drawn per feature; where ``P > U`` the positive ``G_k`` pass, elsewhere the negative ones, the rest with factor
    ``leak``; a ``G_k`` of exactly zero, as of features that start at zero, always passes. The direction at ``z`` is
    ``Σ_k (leak + (1 - leak) M_k) ∘ ∂L_k/∂z``, the mask ``M_k`` shared by the whole batch.

    Args:
        tasks: task names.
        leak: ``0 ≤ leak ≤ 1``, what a masked gradient keeps; 1 is the plain sum.
        common: the options of `Balancer`; ``generator`` draws.

    Cost: features only, each head's backward; the first dimension of the features is the batch.

    Source: Chen, Ngiam, Huang, Luong, Kretzschmar, Chai, Anguelov, "Just Pick a Sign: Optimizing Deep Multitask
    Models with Gradient Sign Dropout" (2020), arXiv 2010.06808, and the authors' code. Deviations: that code has a
    leak for each task, and multiplies the result, unless told not to, by its length over that of the plain sum.
    Features are not normalised before, which the authors leave open.

    Example:
        >>> z = torch.ones(1, 2, requires_grad=True)  # the features of one sample
        >>> a, b = torch.tensor([[1.0, 2.0], [-1.0, 3.0]]) @ z[0]  # disagree on the first
        >>> balancer = steelyard.GradDrop(["a", "b"])
        >>> balancer({"a": a, "b": b}, shared=z).backward()
        >>> z.grad.abs()  # of 1 and -1, one is dropped
        tensor([[1., 5.]])
    """

    name = "graddrop"
    paper = "Chen et al. (2020), arXiv 2010.06808"
    reads = "rows"
    weighs = False
    where = frozenset({"features"})
    default_heads = "plain"
    draws = True
    uses_angles = True
    revision = 1  # votes of zero were dropped: behind a layer of zeros nothing was learnt

    def __init__(self, tasks: Sequence[str], *, leak: float = 0.0, **common: Any) -> None:
        super().__init__(tasks, **common)
        if not 0 <= leak <= 1:
            raise OptionError(f"leak must lie in [0, 1], got {leak}")
        self.leak = leak

    def weigh(self, seen: Seen, state: State) -> Balance:
        if seen.rows is None or seen.features is None:
            # A window of micro-batches is being committed, which has no features of its own: only the draws move on,
            # to a stream of their own. After one draw more the next step's would be those of this one, shifted by one.
            assert self.generator is not None
            self.generator.manual_seed(int(torch.randint(2**62, (), generator=self.generator, device="cpu")))
            return Balance(torch.ones_like(seen.losses))
        if any(feature.is_complex() for feature in seen.features):
            raise SharedError(
                "graddrop votes by the sign of each feature, and a complex number has none: let the heads read its "
                "parts, parts = torch.view_as_real(z), z = torch.view_as_complex(parts), and pass shared=parts"
            )
        masked = []
        sizes = [feature.numel() for feature in seen.features]
        for feature, rows in zip(seen.features, torch.split(seen.rows, sizes, dim=1), strict=True):
            gradients = rows.view(len(rows), *feature.shape)
            votes = feature.sign() * gradients
            votes = seen.batch_sum(votes) if feature.dim() > 1 else votes
            total = votes.abs().sum(0)
            purity = 0.5 * (1 + torch.where(total > 0, votes.sum(0) / total, torch.zeros_like(total)))
            drawn = torch.rand(purity.shape, generator=self.generator, device="cpu").to(purity)
            passes = torch.where(purity > drawn, votes >= 0, votes <= 0).to(gradients)
            mask = self.leak + (1 - self.leak) * passes
            mask = mask.unsqueeze(1) if feature.dim() > 1 else mask
            masked.append((mask * gradients).flatten(1))
        return Balance(torch.ones_like(seen.losses), rows=torch.cat(masked, 1))

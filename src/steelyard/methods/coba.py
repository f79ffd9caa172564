"""CoBa: convergence balancing by validation losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Seen
from steelyard.base.options import at_least
from steelyard.base.ratios import ratio
from steelyard.base.state import State
from steelyard.errors import MissingInputError, OptionError

_PATIENCE = 10_000
"""Steps without any validation losses after which it is an error."""
_LONGEST = 100_000
"""Validations that are kept: the window is part of the state."""


class CoBa(Balancer):
    """Tasks whose validation losses converge slowest weigh most, and those that diverge least.

    At each validation ``t``, ``α_k`` is the slope of a straight line through the last ``window`` ratios
    ``V_k(t)/V_k(1)`` of the validation loss. With ``n`` slopes in the window,

    - ``RCS = softmax(T α_k / Σ_j |α_j|)`` over tasks: slow ones first,
    - ``ACS = softmax(-n α_k / Σ_i |α_k(i)|)`` over tasks: diverging ones last,
    - ``DF = min(1, n · softmax_i(-τ n a(i) / Σ_i |a(i)|) at i = t)`` over time, with ``a = max_k α_k``: 1 while
      the steepest slope is constant; it falls as convergence slows down, and towards 0 where a task diverges,
    - ``w = DF · RCS + (1 - DF) · ACS``, which sums to 1.

    A task's slope is 0 until ``warm_up`` of its validation losses are known, so weights start at ``1/T``.

    Args:
        tasks: task names.
        window: validations behind a slope and behind the normalisations. The authors validate one batch in every step
            and have ``window=200``; here one call of ``observe(validation=losses)`` is one validation, typically once
            per epoch.
        warm_up: validations before a task's first slope, 2 at least. (The authors, likewise: ``warm_up=100``.)
        temperature: ``τ ≥ 0``; how sharply divergence is told from convergence.
        common: the options of `Balancer`.

    Errors: a negative loss raises `LossError`; two epochs (``end_epoch``) or 10,000 steps without any validation
    losses raise `MissingInputError`.

    Source: Gong, Yu, Liao, Liu, Chen, Li, "CoBa: Convergence Balancer for Multitask Finetuning of Large Language
    Models" (2024), arXiv 2410.06741. Certainty: from a third party's summary of the formulas, held against the authors'
    code. Deviations from the formulas: ``DF`` looks back over the window, not over all of training. The code, for its
    part, takes ``a`` from the slope of the largest ratio, leaves out the ``min``, and applies one more softmax and a
    least weight of ``1/(10 T)``.

    Example:
        >>> balancer = steelyard.CoBa(["a", "b"])
        >>> for a, b in torch.tensor([[1.0, 1.0], [0.5, 1.0], [0.5, 1.0]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        ...     balancer.observe(validation={"a": a, "b": b})
        >>> balancer.last_weights  # slopes are -1/2 and 0: softmax(-2, 0)
        tensor([0.1192, 0.8808], dtype=torch.float64)
    """

    name = "coba"
    paper = "Gong et al. (2024), arXiv 2410.06741"
    positive_losses = True
    rescaling = "weights"
    needs_validation = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        window: int = 10,
        warm_up: int = 2,
        temperature: float = 5.0,
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        for name, value in (("window", window), ("warm_up", warm_up)):
            if not 2 <= value <= _LONGEST:
                raise OptionError(f"{name} must be a whole number from 2 to {_LONGEST:,}, got {value!r}")
        at_least("temperature", temperature, 0)
        self.window, self.warm_up, self.temperature = window, warm_up, temperature
        unknown = float("nan")
        self.declare("validations", reduce="max")
        self.declare("first", default=unknown, reduce="mean")
        self.declare("ratios", (window, "T"), default=unknown, reduce="mean")
        self.declare("slopes", (window, "T"), default=unknown, reduce="mean")
        self.declare("steepest", (window,), default=unknown, reduce="mean")
        self.declare("unheard_epochs", (), reduce="max")
        self.declare("unheard_steps", (), reduce="max")

    def weigh(self, seen: Seen, state: State) -> Tensor:
        if not bool(state.steepest.isnan().all()):
            return self._weights(state)
        state.unheard_steps = state.unheard_steps + 1
        if bool(state.unheard_steps > _PATIENCE):
            raise self._unheard(f"{_PATIENCE:,} steps")
        return torch.full_like(seen.losses, 1 / len(seen.losses))

    def validated(self, losses: Tensor, state: State) -> None:
        state.unheard_steps = torch.zeros_like(state.unheard_steps)
        state.unheard_epochs = torch.zeros_like(state.unheard_epochs)
        state.first = torch.where(state.first.isnan(), losses, state.first)
        state.validations = state.validations + 1
        state.ratios = _push(state.ratios, ratio(losses, state.first))
        ready = state.validations >= self.warm_up
        if not bool(ready.any()):
            return
        slopes = torch.where(ready, line_slopes(state.ratios), torch.full_like(losses, float("nan")))
        state.slopes = _push(state.slopes, slopes)
        state.steepest = _push(state.steepest, slopes[ready].max())

    def end_epoch(self) -> None:
        super().end_epoch()
        state = self.working_state()
        state.unheard_epochs = state.unheard_epochs + 1
        self.commit(state)
        # Validation may come before or after the end of its epoch: the second silent one is an error.
        if bool((state.validations == 0).all()) and int(state.unheard_epochs) >= 2:
            raise self._unheard("two epochs")

    def _unheard(self, how_long: str) -> MissingInputError:
        return MissingInputError(
            f"{self.name} weighs by validation losses and has seen none in {how_long}: call "
            "balancer.observe(validation={task: loss, ...}) after each validation"
        )

    def _weights(self, state: State) -> Tensor:
        slope = state.slopes[-1].nan_to_num(0.0)
        relative = (len(slope) * _share(slope, slope.abs().sum())).softmax(0)
        known = (~state.slopes.isnan()).sum(0)
        absolute = (-known * _share(slope, state.slopes.nan_to_num(0.0).abs().sum(0))).softmax(0)
        steepest = state.steepest[~state.steepest.isnan()]
        count = len(steepest)
        ease = (-self.temperature * count * _share(steepest, steepest.abs().sum())).softmax(0)[-1]
        converging = (count * ease).clamp(max=1.0)
        return converging * relative + (1 - converging) * absolute


def line_slopes(points: Tensor) -> Tensor:
    """Slopes ``[T]`` of the least-squares lines through the known entries of ``points [n, T]``, one unit apart."""
    known = ~points.isnan()
    count = known.sum(0)
    place = torch.arange(len(points), dtype=points.dtype, device=points.device)[:, None] * known
    place = torch.where(known, place - place.sum(0) / count, torch.zeros_like(place))
    return (place * points.nan_to_num(0.0)).sum(0) / (place**2).sum(0)


def _push(history: Tensor, newest: Tensor) -> Tensor:
    return torch.cat([history[1:], newest[None]])


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, torch.zeros_like(part))

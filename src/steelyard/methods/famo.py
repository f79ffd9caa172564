"""FAMO: fast adaptive multitask optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.method import Product
from steelyard.base.observation import Along, Balance, Seen
from steelyard.base.options import at_least, one_of
from steelyard.base.state import State
from steelyard.errors import LossError, OptionError

Form = Literal["after", "lagged", "before"]


class FAMO(Balancer):
    """All log losses fall at the same rate: weights grow where the last step helped least.

    With ``z = softmax(ξ)``, descend ``c Σ_k z_k log(L_k - b_k + ε)`` where ``c = 1 / Σ_k z_k / (L_k - b_k + ε)`` is
    held fixed, hence ``w_k = c z_k / (L_k - b_k + ε)``, which sum to 1. After the step,
    ``δ_k = log(L_k^old - b_k + ε) - log(L_k^new - b_k + ε)``, and Adam moves ``ξ`` along
    ``J_softmax(ξ)ᵀ δ = z ∘ (δ - zᵀδ)``.

    Args:
        tasks: task names.
        form: ``"after"`` is the paper's: the new losses come from the same batch, by a second forward pass
            (``observe(after=losses)`` once the optimizer has stepped, or ``again=`` with an attached optimizer).
            ``"lagged"`` takes them from the next batch that holds the task, over the steps until then: nothing to
            recompute, and ``δ`` is noisy by the difference of the batches. ``"before"`` is what the paper's ``δ``
            stands for, how fast each log loss falls along the gradient ``d`` of the step, ``⟨∇L_k, d⟩ / (L_k - b_k +
            ε)``: exact, of the step's own batch and of no learning rate, and known before the step.
        product: of the form ``"before"``: how that is found, see `MGDA`.
        learning_rate: of ``ξ``; the paper's 0.025.
        decay: L2 decay of ``ξ``.
        minimum: ``b``, a lower bound of the losses, the same for all.
        epsilon: ``ε``, in the unit of the losses.
        common: the options of `Balancer`.

    Errors: a negative loss, or one below ``minimum``, raises `LossError`; in the form ``"after"``, a step whose new
    losses were never shown raises `MissingInputError`.

    Source: Liu, Feng, Stone, Liu, "FAMO: Fast Adaptive Multitask Optimization" (2023), arXiv 2306.03792, and the
    authors' code. Deviations: that code clips the gradient of the shared parameters to length 1, which is left to the
    loop; it has ``decay=0.01``, 1e-3 or 1e-5, by file.

    Example:
        >>> balancer = steelyard.FAMO(["a", "b"])
        >>> for a, b in torch.tensor([[2.0, 2.0], [1.0, 2.0]], requires_grad=True):
        ...     _ = balancer({"a": a, "b": b})
        ...     balancer.observe(after={"a": a / 2, "b": b})  # the step has halved a, and left b
        ...     print(balancer.last_weights)
        tensor([0.5000, 0.5000], dtype=torch.float64)
        tensor([0.6555, 0.3445], dtype=torch.float64)
    """

    name = "famo"
    paper = "Liu, Feng, Stone, Liu (2023), arXiv 2306.03792"
    positive_losses = True
    revision = 2  # 1: losses after the step, behind a loss stage; 2: lagged, a task's fall over several steps was one's
    needs_after = True  # of the form "after"

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        form: Form = "after",
        product: Product | None = None,
        learning_rate: float = 0.025,
        decay: float = 1e-3,
        minimum: float = 0.0,
        epsilon: float = 1e-8,
        **common: Any,
    ) -> None:
        super().__init__(tasks, learning_rate=learning_rate, **common)
        one_of("form", form, Form)
        at_least("decay", decay, 0)
        at_least("epsilon", epsilon, 0)
        self.form, self.decay, self.minimum, self.epsilon = form, decay, minimum, epsilon
        self.needs_after, self.needs_along = form == "after", form == "before"
        if form == "before":
            one_of("product", product or "auto", Product)
            self.product = product or "auto"
            if self.heads == "plain":
                raise OptionError("famo(form=before) looks along the step of weighted heads: leave out heads='plain'")
        elif product is not None:
            raise OptionError(f"product={product!r} belongs to form='before': give that too, or leave it out")
        self.declare_learned("logits")
        self.declare("log_before", default=float("nan"), reduce="mean")
        if form == "lagged":
            self.declare("step_before", reduce="max")

    def weigh(self, seen: Seen, state: State) -> Balance:
        excess = self._excess(seen.losses)
        log_excess = excess.log()
        if self.form == "lagged":
            self._learn((state.log_before - log_excess) / (self.steps - state.step_before).clamp(min=1), state)
            state.step_before = torch.full_like(log_excess, float(self.steps))
        if self.form != "before":
            state.log_before = log_excess
        z = state.logits.softmax(0)
        c = 1 / (z / excess).sum()
        return Balance(c * z / excess, c * (z * log_excess).sum())

    def look_along(self, along: Along, state: State) -> None:
        self._learn(along.products / self._excess(along.losses), state)

    def after_step(self, losses: Tensor, state: State) -> None:
        if self.form != "after":
            super().after_step(losses, state)
        self._learn(state.log_before - self._excess(losses).log(), state)
        state.log_before = torch.full_like(losses, float("nan"))

    def _excess(self, losses: Tensor) -> Tensor:
        excess = losses - self.minimum + self.epsilon
        if (self.minimum > 0 or self.epsilon == 0) and not bool((excess > 0).all()):
            raise LossError(
                f"{self.name} takes log(L - minimum + epsilon), and a loss is {losses.min().item():.6g} where minimum "
                f"is {self.minimum:g} and epsilon {self.epsilon:g}: lower the minimum, or raise epsilon"
            )
        return excess

    def _learn(self, delta: Tensor, state: State) -> None:
        known = delta.isfinite()
        if not bool(known.any()):
            return
        z = state.logits.softmax(0)
        delta = torch.where(known, delta, (z * delta.nan_to_num(0.0)).sum() / z[known].sum())
        self.learn(state, "logits", z * (delta - (z * delta).sum()), self.decay)

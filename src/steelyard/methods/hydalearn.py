"""HydaLearn: auxiliary weights from what each task's own step would do for the main task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from steelyard.base.lookahead import LookAhead, StepRule
from steelyard.base.observation import Reads, Seen
from steelyard.base.options import Heads, at_least, one_of
from steelyard.base.state import State
from steelyard.errors import OptionError
from steelyard.methods.bases import ComparingBalancer

Mode = Literal["exact", "first-order"]
Judged = Literal["batch", "held-out"]


class HydaLearn(ComparingBalancer):
    """Per mini-batch, an auxiliary weighs what the main task would gain by a step along its gradient.

    ``w_a : w_main = δ_a : δ_main`` with ``δ_t = L_main(θ) - L_main(θ - η ∇L_t(θ))``, ``θ`` all parameters, heads
    included, and ``w_main = 1``. As ``η → 0`` the ratio becomes ``⟨g_main, g_a⟩ / ‖g_main‖²``, which is the mode
    ``"first-order"``. Three guards are ours: an auxiliary that would harm the main task (``δ_a < 0``) weighs 0; where
    the main task's own step does not help it (``δ_main ≤ 0``), it is trained alone; no ratio exceeds ``max_ratio``.

    Use it where one task matters, the others are there to help it, and how much they help changes as training goes
    on or from one mini-batch to the next. Where a constant weight would do, a constant weight is cheaper.

    Example::

        def losses_on(call, batch):  # the step's losses, with call(...) in the model's place
            x, default, rate = batch
            risk, interest = call(x)
            return {"default": cross_entropy(risk, default), "rate": mse_loss(interest, rate)}

        balancer = steelyard.make("hydalearn", ["default", "rate"], main="default").attach(optimizer)
        loss = balancer(losses_on(model, batch), again=steelyard.losses_of(model, losses_on, batch))

    Args:
        tasks: task names; any number of auxiliaries.
        main: the main task; must be given.
        mode: ``"exact"`` looks ahead through ``again=``; ``"first-order"`` reads the Gramian at ``shared=``. There,
            with the whole model as ``shared=``, ``‖g_main‖²`` counts the main head as the limit does; with the trunk
            it does not, and ratios are larger; with features, gradients of different samples do not meet.
        judged: in the exact mode, the main loss of the same ``"batch"``, or of a ``"held-out"`` one.
        step: in the exact mode, ``"plain"``, or through the attached ``"optimizer"``: a copy of it, with its momenta
            and decay, steps along each task's gradient alone.
        max_ratio: the largest ``w_a / w_main``.
        common: the options of `Balancer`. ``learning_rate`` is ``η`` of a plain step, by default the attached
            optimizer's, else 1e-3. ``every=n`` looks at each n-th step only, at a fraction of the cost.

    In a batch without the main task no gain can be measured, and no step is looked at: each task keeps the weight of
    the last batch with both, 1 before any, which is ours too.

    Errors: a step after which the main loss overflows counts as harm. In float32 a gain below about 1e-7 of the loss is
    rounding: where ``η`` is so small, use the first-order mode.

    Cost: exact, per look, a backward pass for each task and one forward pass more than there are tasks; first-order,
    a look at the gradients where ``shared=`` points.

    Source: Verboven, Chaudhary, Berrevoets, Ginis, Verbeke, "HydaLearn: Highly Dynamic Task Weighting for Multi-task
    Learning with Auxiliary Tasks" (2020), arXiv 2008.11643. Certainty: the ratio rule from the abstract; the steps that
    are not taken, the batch they are judged on and ``w_main = 1`` are reconstructed (the authors' repository holds
    other code). A gain in a metric in place of the loss is not offered.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> a, b, c = torch.tensor([[2.0, 0.0], [1.0, 5.0], [-1.0, 0.0]]) @ w
        >>> balancer = steelyard.HydaLearn(["a", "b", "c"], main="a", mode="first-order", shared=[w])
        >>> _ = balancer({"a": a, "b": b, "c": c})
        >>> balancer.last_weights  # ⟨g_a, g⟩ / ‖g_a‖² is 1, 1/2 and below zero
        tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """

    name = "hydalearn"
    whole_network = True
    paper = "Verboven et al. (2020), arXiv 2008.11643"
    reads: Reads = "lookahead"  # in the exact mode
    default_heads: ClassVar[Heads] = "weighted"
    look_cost = "a backward per task, T + 1 forwards"

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        main: str | None = None,
        mode: Mode = "exact",
        judged: Judged = "batch",
        step: StepRule = "plain",
        max_ratio: float = 10.0,
        **common: Any,
    ) -> None:
        super().__init__(tasks, main=main, **common)
        one_of("mode", mode, Mode)
        one_of("judged", judged, Judged)
        one_of("step", step, StepRule)
        at_least("max_ratio", max_ratio, 0, strictly=True)
        if mode == "first-order":
            if judged != "batch" or step != "plain":
                raise OptionError("hydalearn(mode=first-order) takes no step: leave out judged= and step=")
            self.reads, self.uses_angles = "gramian", True
        if step == "optimizer" and self.learning_rate is not None:
            raise OptionError("hydalearn(step=optimizer) steps at the optimizer's own rate: leave out learning_rate=")
        self.needs_held_out = judged == "held-out"
        self.step, self.max_ratio = step, max_ratio

    def look_ahead(self, ahead: LookAhead, state: State) -> Tensor | None:
        if self.main not in ahead.tasks:
            return None
        rate = 0.0 if self.step == "optimizer" else self.current_learning_rate()  # that step has a rate of its own
        return ahead.gains(self.main, rate, held_out=self.needs_held_out, step=self.step)

    def compare(self, seen: Seen, state: State) -> Tensor:
        main = seen.tasks.index(self.main)
        gains = seen.gramian[main] if seen.gramian is not None and self.reads == "gramian" else seen.outlook
        assert gains is not None
        alone = self.is_main(seen).to(gains)
        ratios = (gains / gains[main]).clamp(0, self.max_ratio)
        weights = torch.where((gains[main] <= 0) | alone.bool(), alone, ratios)
        if self.reads == "lookahead":  # over micro-batches, a task that met the main one in none of them
            unmet = gains.isnan() & ~gains[main].isnan()
            weights = torch.where(unmet, state.weights_beside_main.to(weights), weights)
        # A step that would end in inf is a harmful one; a gradient that is inf is no gradient.
        spoiled = gains[main].isnan() if self.reads == "lookahead" else ~gains.isfinite().all()
        return torch.where(spoiled, torch.full_like(weights, float("nan")), weights)

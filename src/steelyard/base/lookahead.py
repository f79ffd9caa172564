"""Steps that are not taken: what the losses would be after them.

`LookAhead` is what a method's `Method.look_ahead` is handed. Parameters one step ahead exist beside the model's own,
for one call of ``again``; the model, its running statistics and the random generators stay as they are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard.base.float64 import double
from steelyard.base.looks import grad
from steelyard.errors import LossError, MissingInputError, OptionError

Losses = Mapping[str, Tensor | None]
Recompute = Callable[..., Losses]
StepRule = Literal["plain", "optimizer"]
"""A look's step: ``θ - η g``, or where the attached optimizer would go with ``g``."""

_PROBE = 0.01
"""Length in parameter space of the finite difference behind a directional derivative (Liu et al. 2019, DARTS)."""


class LookAhead:
    """The losses of one batch, and those that they would be at other parameters.

    Args:
        method: its name, for messages.
        tasks: the present ones.
        losses: theirs, with a graph, which is kept for the backward pass to come.
        slopes: ``[T]``, what each loss's gradient is multiplied by before it is stepped along: the derivatives of the
            loss stages in front.
        again: the function that `losses_of` makes.
        optimizer: the attached one, if there is one.
    """

    def __init__(
        self,
        method: str,
        tasks: Sequence[str],
        losses: Sequence[Tensor],
        slopes: Tensor | None,
        again: Recompute | None,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        parameters = getattr(again, "parameters", None)
        if again is None or parameters is None:
            raise MissingInputError(
                f"{method} looks one step ahead: write balancer(losses, again=steelyard.losses_of(model, losses_on, "
                "batch)), where losses_on(call, batch) returns the losses by task from call(...) in place of model(...)"
                + ("" if again is None else ". What was passed as again= has no `parameters`")
            )
        self.tasks = tuple(tasks)
        self._method, self._again, self._optimizer = method, again, optimizer
        self._losses, self._slopes = losses, slopes
        self._parameters: dict[str, Tensor] = dict(parameters)
        if not self._parameters:
            raise MissingInputError(f"{method} looks one step ahead, and every parameter of again='s model is frozen")
        self.squared_norms: Tensor | None = None
        """``[T]``, squared norms of the gradients that were stepped along, once `gains` has been called."""

    def gains(self, main: str, rate: float, *, held_out: bool = False, step: StepRule = "plain") -> Tensor:
        """``[T]`` float64: ``δ_t = L_main(θ) - L_main(θ^(t))``, what the main task gains by task ``t``'s own step.

        ``θ^(t)`` is one step along ``g_t = ∇L_t(θ)`` over all trainable parameters of the model. A step after which
        the main loss is not finite gains -inf.

        Args:
            main: whose loss is compared.
            rate: ``η`` of a plain step.
            held_out: whether the main loss is that of the held-out batch, not of the one at hand.
            step: ``"plain"``, or ``"optimizer"`` for a step of a copy of the attached optimizer.

        Cost: a backward pass per task, ``T + 1`` forward passes without a graph, and a second set of parameters (with
        ``"optimizer"``: of its state too).
        """
        batch = self._held_out() if held_out else None
        now = self._loss(main, {}, batch)
        gains, norms = [], []
        for position in range(len(self.tasks)):
            gradients = self._gradients([position])
            norms.append(_squared_norm(gradients.values()))
            ahead = self._loss(main, self._stepped(gradients, rate, step), batch)
            gains.append(now - torch.where(ahead.isfinite(), ahead, torch.full_like(ahead, math.inf)))
        self.squared_norms = torch.stack(norms)
        return torch.stack(gains)

    def slopes(self, weights: Tensor, mains: Sequence[str], rate: float, *, step: StepRule = "plain") -> Tensor:
        """``[T]`` float64: ``⟨∇L_t(θ), d⟩``, with ``d`` the gradient of the main losses one weighted step ahead.

        ``θ' = θ - η Σ_t w_t ∇L_t(θ)``, ``d = ∇ Σ_main L_main(θ')`` on the held-out batch, and the derivative along
        ``d`` is the central difference ``(L_t(θ + ε d) - L_t(θ - ε d)) / 2ε`` with ``ε = 0.01 / ‖d‖``.

        Args:
            weights: ``[T]``, ``w``.
            mains: whose losses are judged; without any of them in the held-out batch, NaN comes back.
            rate: ``η`` of a plain step.
            step: as in `gains`.

        Cost: two backward passes, three forward passes of which one has a graph, and two further sets of parameters.
        """
        gradients = self._gradients(range(len(self.tasks)), weights)
        ahead = {**self._parameters, **self._stepped(gradients, rate, step)}
        with torch.enable_grad():
            ahead = {name: value.detach().requires_grad_() for name, value in ahead.items()}
            losses = self._again(ahead, self._held_out())
            main_losses = [loss for main in mains if (loss := losses.get(main)) is not None]
            if not main_losses:
                return torch.full_like(weights, math.nan)
            judged = torch.stack(main_losses).sum()
            found = grad(judged, list(ahead.values()))
        direction = {name: d for name, d in zip(ahead, found, strict=True) if d is not None}
        length = math.sqrt(_squared_norm(direction.values()).item())
        if length == 0:
            return torch.zeros_like(weights)
        reach = _PROBE / length
        plus, minus = (
            self._again({name: self._parameters[name] + sign * d for name, d in direction.items()})
            for sign in (reach, -reach)
        )
        here = "the batch at hand, recomputed"
        differences = torch.stack(
            [double(self._found(plus, task, here)) - double(self._found(minus, task, here)) for task in self.tasks]
        )
        return differences / (2 * reach) * (1.0 if self._slopes is None else self._slopes)

    # --- pieces -------------------------------------------------------------------------------------------------------
    def _gradients(self, positions: Sequence[int], weights: Tensor | None = None) -> dict[str, Tensor]:
        """``Σ_k w_k ∇L_k`` of the tasks at some positions, seen through the stages, where there is a gradient."""
        losses = [self._losses[position] for position in positions]
        scales = torch.ones(len(losses), dtype=torch.float64, device="cpu") if weights is None else weights
        if self._slopes is not None:
            scales = self._slopes[list(positions)] * scales.to(self._slopes)
        seeds = [scale.to(loss) for scale, loss in zip(scales, losses, strict=True)]
        with torch.enable_grad():
            found = grad(losses, list(self._parameters.values()), seeds, retain_graph=True)
        gradients = {name: value for name, value in zip(self._parameters, found, strict=True) if value is not None}
        if not gradients:
            raise MissingInputError(
                f"{self._method} looks one step ahead, and a loss depends on no parameter of again='s model: build it "
                "from the model that made the losses, losses_of(model, losses_on, batch)"
            )
        return gradients

    def _stepped(self, gradients: Mapping[str, Tensor], rate: float, step: StepRule) -> dict[str, Tensor]:
        if step == "plain":
            return {name: self._parameters[name] - rate * gradient for name, gradient in gradients.items()}
        if self._optimizer is None or isinstance(self._optimizer, torch.optim.LBFGS):
            raise OptionError(
                f"{self._method}(step=optimizer) goes where the attached optimizer would, "
                + ("and none is attached: call balancer.attach(optimizer)" if self._optimizer is None else
                   "and LBFGS evaluates losses of its own on the way: leave out step=")
            )  # fmt: skip
        twin = copy.deepcopy(self._optimizer)  # its parameters and state, none of its hooks
        by_parameter = {self._parameters[name]: gradient for name, gradient in gradients.items()}
        copies: dict[Any, Tensor] = {}
        for group, twin_group in zip(self._optimizer.param_groups, twin.param_groups, strict=True):
            copies.update(zip(group["params"], twin_group["params"], strict=True))
        for parameter, copied in copies.items():
            copied.grad = by_parameter.get(parameter)
        twin.step()
        return {name: copies[value].detach() for name, value in self._parameters.items() if value in copies}

    def _loss(self, task: str, parameters: Mapping[str, Tensor], batch: Any) -> Tensor:
        where = "the batch at hand, recomputed" if batch is None else "the held-out batch"
        return double(self._found(self._again(parameters, batch), task, where).detach())

    def _found(self, losses: Losses, task: str, where: str) -> Tensor:
        loss = losses.get(task)
        if loss is None:
            raise LossError(f"{self._method} looks one step ahead, and {task!r} has no loss in {where}")
        return loss

    def _held_out(self) -> Any:
        batch = getattr(self._again, "held_out", None)
        if batch is None:
            raise MissingInputError(
                f"{self._method} judges a step on a second batch: write "
                "again=steelyard.losses_of(model, losses_on, batch, held_out=other_batch)"
            )
        return batch


def _squared_norm(gradients: Iterable[Tensor]) -> Tensor:
    return torch.stack([double(torch.linalg.vector_norm(gradient)).square() for gradient in gradients]).sum()

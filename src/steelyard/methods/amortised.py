"""``solver="amortised"``: each training step moves the weights a step towards the solution, at one price for any T."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.method import Product
from steelyard.base.observation import Along, Seen
from steelyard.base.options import at_least, one_of
from steelyard.base.state import State
from steelyard.errors import OptionError
from steelyard.methods.solvers.mirror_descent import squared_lengths

Solver = Literal["exact", "amortised"]


def amortised_rate(
    method: Balancer, solver: Solver, product: Product | None, rate: float | None, default: float
) -> float | None:
    """Turn an instance of a Gramian method, whose ``__init__`` has run, into what ``solver="amortised"`` makes of it.

    Its state is ``log_weights [T]``, and ``squared_lengths [T]``, bounds of those of the task gradients.

    Args:
        method: the instance.
        solver: what was asked for.
        product: how ``G w`` is found; ``None``: as it fits.
        rate: ``η`` of the mirror-descent step; ``None``: the method's own.
        default: that one.

    Returns:
        ``η``; ``None`` for the exact solver, which changes nothing.

    Raises:
        OptionError: an option needs the Gramian itself, or belongs to the other solver.
    """
    one_of("solver", solver, Solver)
    if solver == "exact":
        for name, value in (("product", product), ("rate", rate)):
            if value is not None:
                raise OptionError(f"{name}={value!r} belongs to solver='amortised': give that too, or leave it out")
        return None
    rate = default if rate is None else rate
    at_least("rate", rate, 0.0, strictly=True)
    one_of("product", product or "auto", Product)
    for option, chosen, fits in (("memory", method.memory, ("none",)), ("sync", method.sync, ("exact", "off"))):
        if chosen not in fits:
            raise OptionError(
                f"{option}={chosen!r} needs the Gramian, and {method.name}(solver=amortised) never sees it: leave "
                "it out, or use solver='exact'"
            )
    method.reads, method.needs_along, method.product = "along", True, product or "auto"
    method.uses_angles, method.native_priorities, method.rescaling = False, True, "none"
    method.declare("log_weights", reduce="mean")
    method.declare("squared_lengths", reduce="mean")
    return rate


def powers(method: Balancer, tasks: tuple[str, ...], like: Tensor) -> Tensor:
    """The priorities ``[T]`` of the present tasks."""
    return torch.tensor([method.priorities[task] for task in tasks], dtype=like.dtype, device=like.device)


def bounded_lengths(along: Along, state: State) -> Tensor | None:
    """Remember what a step shows of the gradients' lengths; ``None`` where its direction has none to speak of."""
    squared_length = along.squared_length
    if not bool(squared_length > 0):
        return None
    state.squared_lengths = squared_lengths(state.squared_lengths, along.products, squared_length)
    return state.squared_lengths


def shares(method: Balancer, seen: Seen, state: State) -> Tensor:
    """Weights ``v_k / π_k`` whose shares are those of the state; 0 for a task of priority 0."""
    power = powers(method, seen.tasks, seen.losses)
    playing = power > 0
    if not bool(playing.any()):
        return torch.zeros_like(power)
    share = state.log_weights.masked_fill(~playing, -torch.inf).softmax(0)
    return torch.where(playing, share / power.where(playing, torch.ones_like(power)), torch.zeros_like(power))

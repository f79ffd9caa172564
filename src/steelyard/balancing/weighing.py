"""From one observation to weights: stages, the method, stages again, scale, guards and priorities, in this order.

`propose` is a pure function of the committed state and what was seen, so a proposal may be thrown away (a skipped
step) or made again from a whole window of micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steelyard.balancing.absent_tasks import Whole, recall, remember
from steelyard.balancing.check_losses import check_positive
from steelyard.balancing.history import added
from steelyard.base.constants import constant
from steelyard.base.method import Method
from steelyard.base.observation import Balance, Seen
from steelyard.base.state import State, Stateful

LARGEST = 2.0**108  # 3e32: float32 ends at 2^128, and a loss may multiply what it receives by numbers of its own


@dataclass(frozen=True)
class Proposal:
    """What one observation leads to; nothing of it is committed yet.

    Attributes:
        index: which tasks it speaks of; ``None``: all.
        weights: ``[T]``, the multipliers of the task gradients.
        head_weights: ``[T]``, the multipliers of the head gradients.
        value: of the returned scalar.
        direction: for element-wise methods, what arrives at the features.
        commits: what of the stages' and the method's state is to be committed: the module, the working state, and
            the positions of its tasks.
        parameter_gradients: of weights that an outside optimizer learns.
        generator_state: after the method's draws.
    """

    index: Tensor | None
    weights: Tensor
    head_weights: Tensor
    value: Tensor
    direction: Tensor | None
    commits: tuple[tuple[Stateful, State, Tensor | None], ...]
    parameter_gradients: Mapping[str, Tensor]
    generator_state: Tensor | None


def propose(method: Method, seen: Seen, index: Tensor | None, refresh: bool) -> Proposal:
    """Weigh what was seen, without committing anything.

    Args:
        method: its committed state is read, never changed.
        seen: the present tasks.
        index: their positions; ``None`` where all are present.
        refresh: whether the method weighs anew, or the weights that it holds are used (``every``).
    """
    losses, factor, commits = _through_stages(method, seen, index)
    whole = recall(method, seen.transformed(losses, factor), index, factor, refresh)
    state = method.working_state(whole.index)

    answer, generator_state = _weigh(method, whole.seen, state, refresh)
    balance = _back_through_stages(method, answer, whole, index, commits)
    priorities = _priorities(method, whole.index, balance.weights)
    final = _final(method, balance, whole, state, priorities)
    state.weight_sums = added(state.weight_sums, final.weights)
    remember(method, whole.seen, whole.factor, state, refresh)
    if whole.present is not None:  # what is remembered has had its say: the batch holds these
        if method.every > 1:
            commits.append((method, state.only("held_weights"), whole.index))
        state = method.narrowed(state, whole.present, leave="held_weights")
        final = final.of(whole.present)
    commits.append((method, state, index))
    if method.on_nonfinite == "ignore":
        final = _unlooked_at(method, seen, final, commits)

    direction = None
    if final.rows is not None:
        applied = final.weights if factor is None else final.weights / factor  # the rows have been through the stages
        direction = applied.to(final.rows) @ final.rows
    if method.heads == "plain" or direction is not None:
        value = (seen.losses if final.priorities is None else seen.losses * final.priorities).sum()
    elif final.value is not None:
        value = final.value
    else:
        value = ((final.weights if factor is None else final.weights / factor) * losses).sum()
    return Proposal(
        index,
        final.weights,
        final.on_heads,
        value,
        direction,
        tuple(commits),
        state.parameter_gradients,
        generator_state,
    )


Commits = list[tuple[Stateful, State, Tensor | None]]


def _through_stages(method: Method, seen: Seen, index: Tensor | None) -> tuple[Tensor, Tensor | None, Commits]:
    """The losses ``[T]`` behind the stages, what these multiply gradients by, and what they commit."""
    losses, factor = seen.losses, None
    commits: Commits = []
    for stage in method.loss_stages():
        if stage.positive_losses:
            _check_transformed(method, type(stage).__name__, seen, losses)
        stage_state = stage.working_state(index)
        losses, slope = stage.transform(losses, stage_state)
        factor = slope if factor is None else factor * slope
        commits.append((stage, stage_state, index))
    if method.positive_losses:
        _check_transformed(method, method.name, seen, losses)
    return losses, factor, commits


def _back_through_stages(
    method: Method, answer: Balance, whole: Whole, index: Tensor | None, commits: Commits
) -> Balance:
    """The method's answer as multipliers of the task gradients in front of the stages, which may reweigh them."""
    weights, value = answer.weights if whole.factor is None else answer.weights * whole.factor, answer.value
    for stage in reversed(method.loss_stages()):
        if stage.reweighs:
            state = stage.working_state(whole.index)
            weights, value = stage.reweigh(weights, state), None
            state = state if whole.present is None else stage.narrowed(state, whole.present)
            commits.append((stage, state, index))
    return Balance(weights, value, answer.rows)


def _unlooked_at(method: Method, seen: Seen, final: _Final, commits: Commits) -> _Final:
    """Of what is not finite where nobody looks (``on_nonfinite="ignore"``) no state moves, and a weight that may depend
    on it is NaN: nothing stands in for it, and a gradient scaler leaves the step out.

    Decided where the numbers are, so that the host does not wait.
    """
    told = (seen.squared_norms, seen.gramian, seen.cross_gramian, seen.outlook)
    fine = seen.losses.isfinite()
    every = torch.stack([fine.all(), *(each.isfinite().all() for each in told if each is not None)]).all()
    for module, state, index in commits:
        hold_unless(every, module, state, index)
    if method.is_blind:
        return final
    by_itself = method.independent and method.scale == "paper" and seen.squared_norms is None
    known = fine if by_itself else every
    nan = float("nan")
    on_heads = final.on_heads if method.heads == "plain" else final.on_heads.masked_fill(~known, nan)
    return replace(final, weights=final.weights.masked_fill(~known, nan), on_heads=on_heads)


def hold_unless(fine: Tensor, module: Stateful, state: State, index: Tensor | None) -> None:
    """Leave a working state as it was committed where ``fine``, a number on the device, is false."""
    before = module.working_state(index)
    for name, value in state.rebound():
        kept = getattr(before, name)
        kept = kept.to(value) if kept.shape == value.shape else torch.zeros_like(value)  # before the first rows
        setattr(state, name, torch.where(fine, value, kept))


@dataclass(frozen=True)
class _Final:
    """Multipliers of the task gradients, scaled, limited and multiplied by the priorities.

    Attributes:
        value: of the method's own objective; ``None`` where the weights are no longer those it has.
    """

    weights: Tensor
    on_heads: Tensor
    priorities: Tensor | None
    rows: Tensor | None
    value: Tensor | None

    def of(self, present: Tensor) -> _Final:
        """Of the tasks at these positions alone; the objective was that of all."""
        priorities = None if self.priorities is None else self.priorities[present]
        rows = None if self.rows is None else self.rows[present]
        return _Final(self.weights[present], self.on_heads[present], priorities, rows, None)


def _final(method: Method, balance: Balance, whole: Whole, state: State, priorities: Tensor | None) -> _Final:
    """Scale, guards and priorities, in this order."""
    weights, value = balance.weights, balance.value
    if method.scale == "sum":
        weights, value = _to_sum(weights), None
    if method.guards:
        previous = state.guarded_weights if method.guards.max_change is not None else None
        weights, value = method.guards.apply(weights, previous), None
        if previous is not None:
            state.guarded_weights = weights
    if priorities is not None and not method.native_priorities:
        weights, value = weights * priorities, None
    weights = within_reach(weights)
    on_heads = weights if method.heads == "weighted" else _plain(method, whole.factor, priorities, weights)
    return _Final(weights, on_heads, priorities, balance.rows, value)


def stage_slopes(method: Method, losses: Tensor, index: Tensor | None) -> Tensor | None:
    """``[T]``, what the stages in front will multiply the losses' gradients by; ``None`` without stages."""
    factor = None
    for stage in method.loss_stages():
        losses, slope = stage.transform(losses, stage.working_state(index))
        factor = slope if factor is None else factor * slope
    return factor


def _plain(method: Method, factor: Tensor | None, priorities: Tensor | None, like: Tensor) -> Tensor:
    """``[T]``, what plain heads receive: the stages' slopes and the priorities alone."""
    plain = torch.ones_like(like) if factor is None else factor
    if method.scale == "sum":
        plain = _to_sum(plain)
    return within_reach(plain if priorities is None else plain * priorities)


def within_reach(weights: Tensor) -> Tensor:
    """Finite weights, kept to what the backward pass of a float32 loss can multiply without overflow.

    A task that fits its batch to the last bit has a gradient of 1e-38, and a method that gives all gradients one length
    a weight of 1e38 for it: twice that is inf in float32, and inf times a zero further down is NaN in every parameter.
    """
    return torch.where(weights.isinf(), weights, weights.clamp(-LARGEST, LARGEST))


def _check_transformed(method: Method, reader: str, seen: Seen, losses: Tensor) -> None:
    """Log losses are negative below 1: refuse them where their reader takes logarithms or ratios in turn."""
    if losses is not seen.losses and method.on_nonfinite != "ignore":
        check_positive(seen.tasks, losses.tolist(), f"{reader}, which reads it after the stages in front,")


def _weigh(method: Method, seen: Seen, state: State, refresh: bool) -> tuple[Balance, Tensor | None]:
    """The method's answer, and the generator's state after its draws; the generator itself is put back."""
    if not refresh:
        # A task that was absent when weights were refreshed holds none: it gets their mean until the next refresh.
        held = state.held_weights
        mean = held.nanmean() if not bool(held.isnan().all()) else torch.ones_like(held[0])
        return Balance(torch.where(held.isnan(), mean, held)), None
    generator = method.generator if method.draws else None
    before = None if generator is None else generator.get_state()
    answer = method.weigh(seen, state)
    balance = answer if isinstance(answer, Balance) else Balance(answer)
    if not isinstance(balance.weights, Tensor) or balance.weights.shape != seen.losses.shape:
        shape = getattr(balance.weights, "shape", None)
        given = type(balance.weights).__name__ if shape is None else tuple(shape)
        raise TypeError(
            f"{type(method).__name__}.weigh must return one weight for each of the {len(seen.losses)} present tasks, a "
            f"tensor of shape {tuple(seen.losses.shape)}, got {given}"
        )
    if method.every > 1:
        state.held_weights = balance.weights
    if generator is None or before is None:
        return balance, None
    after = generator.get_state()
    generator.set_state(before)
    return balance, after


def _priorities(method: Method, index: Tensor | None, like: Tensor) -> Tensor | None:
    if all(value == 1.0 for value in method.priorities.values()):
        return None
    values = constant(tuple(method.priorities[task] for task in method.tasks), like.device)
    return values if index is None else values[index]


def _to_sum(weights: Tensor) -> Tensor:
    """Weights whose sizes sum to the number of tasks: of weights that may be negative, the plain sum may vanish."""
    # Relative to the largest, so that sums of extreme weights neither overflow nor vanish.
    largest = weights.abs().max()
    relative = weights / largest
    # Where the tasks in the batch all weigh 0 (held weights, a plan), they go on weighing 0.
    return torch.where(largest == 0, weights, relative * (len(weights) / relative.abs().sum()))

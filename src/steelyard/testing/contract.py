"""What holds for every method, one function per promise.

Each check takes ``make(tasks, **options) -> Balancer`` and raises AssertionError with the promise that was broken.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.observation import Balance, Seen
from steelyard.errors import NonFiniteLossError, OptionError
from steelyard.testing.toy import Toy, WideToy, same_state, snapshot

Make = Callable[..., Balancer]
Check = Callable[[Make], None]

TASKS = ("left", "right", "depth")
RTOL = 1e-9


def scalar_with_the_right_gradient(make: Make) -> None:
    """The gradient is ``Σ w_k ∇L_k`` at the trunk; at the heads ``w_k ∇L_k``, or ``∇f(L_k)`` where they are plain."""
    toy, balancer = _toy(make, TASKS), make(list(TASKS))
    for number in range(4):
        losses, where = toy.losses()
        slopes = _stage_slopes(balancer, torch.stack([losses[task].detach() for task in TASKS]))
        plain = {task: toy.gradients(losses[task]) for task in TASKS}
        result = balancer(losses, **where)
        assert result.shape == (), f"the result has shape {tuple(result.shape)}, expected a scalar"
        assert result.requires_grad, "the result has no graph"
        assert math.isfinite(result.item()), f"the result is {result.item()}"
        weights = dict(zip(TASKS, balancer.last_weights.tolist(), strict=True))
        on_heads = weights if balancer.heads == "weighted" else dict(zip(TASKS, slopes.tolist(), strict=True))
        for name, gradient in toy.gradients(result).items():
            multipliers = weights if name.startswith("trunk") else on_heads
            expected = sum((multipliers[task] * plain[task][name] for task in TASKS), torch.zeros_like(gradient))
            scale = sum(abs(multipliers[task]) * float(plain[task][name].norm()) for task in TASKS)
            if balancer.reads == "rows" and name.startswith("trunk"):
                continue  # an element-wise direction is not a weighted sum; its own test holds it to the paper
            error = float((gradient - expected).norm())
            assert error <= RTOL * scale, (
                f"step {number}, {name}: the gradient is off by {error / scale:.1e} of its size"
            )
        if balancer.needs_after:
            balancer.observe(after=toy.losses()[0])
        if number == 1:
            balancer.end_epoch()


def order_of_tasks_does_not_matter(make: Make) -> None:
    """Permuting the tasks permutes the weights."""
    if make(list(TASKS)).draws:
        return  # the draws are made in the order of the tasks
    order = [2, 0, 1]
    permuted = [TASKS[position] for position in order]
    straight = _toy(make, TASKS).train(make(list(TASKS)), 5)
    other = _toy(make, permuted).train(make(permuted), 5)
    _close(other, straight[:, order], "weights of permuted tasks")


def rescaling_is_as_documented(make: Make) -> None:
    """Multiplying each loss by a constant does to the weights what ``rescaling`` says."""
    factors = torch.tensor([1e-3, 1.0, 512.0], dtype=torch.float64)
    by_task = dict(zip(TASKS, factors.tolist(), strict=True))
    balancer = make(list(TASKS), generator=torch.Generator().manual_seed(3))
    if balancer.rescaling == "none":
        return
    assert balancer.rescaling in ("weights", "contribution", "proportion"), f"unknown rescaling {balancer.rescaling!r}"
    plain, scaled = _toy(make, TASKS), _toy(make, TASKS, rescale=lambda task, loss: loss * by_task[task])
    other = make(list(TASKS), generator=torch.Generator().manual_seed(3))
    for number in range(5):
        weights, rescaled = _weights_on(plain, balancer), _weights_on(scaled, other)
        if number % 2:
            for each, toy in ((balancer, plain), (other, scaled)):
                if each.needs_validation:
                    each.observe(validation=toy.losses()[0])
                each.end_epoch()
        contribution = rescaled * factors
        if balancer.rescaling == "weights":
            _close(rescaled, weights, "weights of rescaled losses", 1e-5)
        elif balancer.rescaling == "contribution":
            _close(contribution, weights, "contributions w·L of rescaled losses", 1e-5)
        else:
            ratio = contribution / weights
            _close(ratio, ratio[0].expand_as(ratio), "ratios of contributions w·L of rescaled losses", 1e-5)


def absent_task_is_left_alone(make: Make) -> None:
    """An absent task, or ``None``, has no term in the loss, weight 0, and state that does not move."""
    absent, present = TASKS[1], [TASKS[0], TASKS[2]]
    by_absence, by_none = make(list(TASKS)), make(list(TASKS))
    by_none.load_state_dict(by_absence.state_dict())
    toy = _toy(make, TASKS)
    toy.train(by_absence, 3)
    before = snapshot(by_absence)
    by_none.load_state_dict(by_absence.state_dict())

    losses, where = toy.losses()
    without = by_none({task: losses[task] if task in present else None for task in TASKS}, **where)
    gradients = toy.gradients(without)
    assert all(float(g.abs().max()) == 0 for name, g in gradients.items() if absent in name), (
        "the absent task's head moves"
    )
    weights = toy.step(by_absence, tasks=present)
    assert float(weights[1]) == 0, f"the absent task has weight {float(weights[1])}"
    assert torch.equal(by_none.last_weights, weights), "None and absence differ"
    for declaration in by_absence.declarations() if by_absence.period is None else ():
        value, old = by_absence.state_dict().get(declaration.name), before.get(declaration.name)
        for axis in declaration.task_axes[:1]:
            assert isinstance(value, Tensor)
            assert isinstance(old, Tensor)
            kept = torch.equal(value.select(axis, 1).nan_to_num(0.5), old.select(axis, 1).nan_to_num(0.5))
            assert kept, f"the absent task's state {declaration.name!r} moved"
    toy.train(by_absence, 2)


def non_finite_losses_follow_the_policy(make: Make) -> None:
    """An inf or NaN loss raises, is dropped or skips the step as asked; state is unharmed and no gradient is NaN."""
    for bad in (float("inf"), float("nan")):
        spoiled = _toy(make, TASKS, rescale=lambda task, loss, bad=bad: loss * bad if task == TASKS[1] else loss)

        balancer = make(list(TASKS), on_nonfinite="raise")
        _toy(make, TASKS).train(balancer, 2)
        before = snapshot(balancer)
        losses, where = spoiled.losses()
        try:
            balancer(losses, **where)
        except NonFiniteLossError as error:
            assert TASKS[1] in str(error), f"the error does not name the task: {error}"
        else:
            raise AssertionError(f"a loss of {bad} does not raise")
        assert same_state(before, snapshot(balancer)), "a loss that raised has moved the state"

        dropping, reference = make(list(TASKS), on_nonfinite="drop_task"), make(list(TASKS), on_nonfinite="drop_task")
        reference.load_state_dict(dropping.state_dict())
        losses, where = spoiled.losses()
        gradients = spoiled.gradients(dropping(losses, **where))
        assert all(bool(g.isfinite().all()) for g in gradients.values()), "a dropped loss spoils gradients"
        clean, clean_where = _toy(make, TASKS).losses()
        clean.pop(TASKS[1])
        reference(clean, **clean_where)
        same = torch.equal(dropping.last_weights, reference.last_weights)
        assert same, "dropping a task differs from its absence"
        assert same_state(snapshot(dropping), snapshot(reference)), (
            "dropping a task leaves another state than its absence"
        )

        skipping = make(list(TASKS), on_nonfinite="skip_step")
        _toy(make, TASKS).train(skipping, 2)
        before = snapshot(skipping)
        losses, where = spoiled.losses()
        result = skipping(losses, **where)
        assert result.requires_grad, "a skipped step has no graph"
        assert math.isfinite(result.item()), f"a skipped step returns {result.item()}"
        gradients = spoiled.gradients(result)
        assert all(float(g.abs().max()) == 0 for g in gradients.values()), "a skipped step has gradients"
        assert same_state(before, snapshot(skipping)), "a skipped step has moved the state"

        losses, where = spoiled.losses()
        make(list(TASKS), on_nonfinite="ignore")(losses, **where)


def bfloat16_losses_work(make: Make) -> None:
    """Losses in bfloat16 are weighed in float64, as their rounded values are."""
    rounded, half = make(list(TASKS)), make(list(TASKS))
    rounded.load_state_dict(half.state_dict())
    toy = _toy(make, TASKS)
    for number in range(4):
        losses, where = toy.losses()
        result = half({task: loss.bfloat16() for task, loss in losses.items()}, **where)
        assert result.dtype == torch.float32, f"bfloat16 losses give a {result.dtype} scalar"
        gradients = toy.gradients(result)
        assert all(bool(g.isfinite().all()) for g in gradients.values()), "bfloat16 losses give non-finite gradients"
        if _by_losses_alone(half):
            rounded({task: loss + (loss.bfloat16() - loss).detach() for task, loss in losses.items()}, **where)
            _close(half.last_weights, rounded.last_weights, f"step {number}: weights of bfloat16 losses")
        for balancer in (half, rounded):
            if balancer.needs_after:
                balancer.observe(after=toy.losses()[0])


def state_survives_a_checkpoint(make: Make) -> None:
    """Saved in the middle of training and loaded into a fresh instance, training goes on bit for bit."""
    toy, balancer = _toy(make, TASKS), make(list(TASKS))
    toy.train(balancer, 4)
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    resumed = make(list(TASKS))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert same_state(snapshot(balancer), snapshot(resumed)), "the state differs after a round trip"
    other = copy.deepcopy(toy)
    for name in ("uninterrupted", "resumed"):
        balancer_, toy_ = (balancer, toy) if name == "uninterrupted" else (resumed, other)
        toy_.optimizer = torch.optim.SGD(toy_.parameters(), lr=0.01)
        if name == "uninterrupted":
            expected = toy_.train(balancer_, 4)
        else:
            assert torch.equal(toy_.train(balancer_, 4), expected), "resumed training differs"
    assert same_state(snapshot(balancer), snapshot(resumed)), "the state differs after resumed training"


def same_seed_same_weights(make: Make) -> None:
    """Two runs under one generator seed agree bit for bit; a method that draws differs under another."""

    def run(seed: int) -> Tensor:
        return _toy(make, TASKS).train(make(list(TASKS), generator=torch.Generator().manual_seed(seed)), 5)

    method, first = make(list(TASKS)), run(1)
    if not method.draws:
        assert torch.equal(first, run(2)), "the generator changes the weights of a method that declares no draws"
        return
    assert torch.equal(first, run(1)), "the same seed gives other weights"
    if method.reads != "rows":  # what is drawn shows in the direction there, not in the weights
        assert not torch.equal(first, run(2)), "another seed gives the same weights, though the method draws"


def one_task_and_many(make: Make) -> None:
    """One task and forty tasks train; a thousand too where only losses are read."""
    one = make(["one"])
    for size in (1, 40, 1000) if one.reads == "losses" else (1, 40):
        names = [f"task{number}" for number in range(size)]
        toy = WideToy(names) if size > 40 and one.heads != "plain" else _toy(make, names)
        weights = toy.train(make(names), 3)
        assert weights.shape[1] == size
        assert bool(weights.isfinite().all()), f"{size} tasks: weights are not finite"


def a_window_of_micro_batches_commits_once(make: Make) -> None:
    """With ``attach``, micro-batches propose and the step commits their average; a discarded window leaves no trace."""
    # A fixed rate, since learned weights would otherwise follow the attached optimizer.
    toy, balancer = _toy(make, TASKS), make(list(TASKS), learning_rate=0.01)
    balancer.attach(toy.optimizer)
    _weights_on(toy, balancer)
    before = snapshot(balancer)
    assert before["_extra_state"]["steps"] == 1, "one optimizer step counts as one step"  # type: ignore[index]

    def window(rows: list[slice]) -> list[Tensor]:
        toy.optimizer.zero_grad()
        seen = []
        for part in rows:
            losses, where = toy.losses(part)
            (balancer(losses, **where) / len(rows)).backward()
            seen.append(balancer.last_weights)
        return seen

    halves = [slice(0, 6), slice(6, 12)]
    first = window(halves)
    assert same_state(before, snapshot(balancer)), "a micro-batch has moved the state before the optimizer stepped"
    balancer.discard()
    again = window(halves)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "a discarded window leaves a trace"
    if _by_losses_alone(balancer) and not balancer.draws:
        # The window's observation is the mean of the losses: the same state follows from one call that sees that mean.
        whole = make(list(TASKS), learning_rate=0.01)
        whole.load_state_dict(before)
        losses, where = toy.losses()
        whole(losses, **where)
    toy.optimizer.step()
    assert balancer.steps == 2, f"a window of two micro-batches counts as {balancer.steps - 1} steps"
    if _by_losses_alone(balancer) and not balancer.draws:
        if whole.needs_after:
            whole.observe(after=toy.losses()[0])
        after, expected = snapshot(balancer), snapshot(whole)
        for name, value in after.items():
            if isinstance(value, Tensor):
                _close(value, expected[name], f"state {name!r} after a window")  # type: ignore[arg-type]

    before = snapshot(balancer)
    toy.optimizer.step()
    assert same_state(before, snapshot(balancer)), "a step without an observation has moved the state"


def eval_is_the_plain_sum(make: Make) -> None:
    """In ``eval()`` mode: the priority-weighted plain sum, no state moved, no features needed."""
    toy, balancer = _toy(make, TASKS), make(list(TASKS), priorities={TASKS[0]: 2.0})
    before = snapshot(balancer)
    balancer.eval()
    losses, _ = toy.losses()
    with torch.no_grad():
        expected = 2 * losses[TASKS[0]] + losses[TASKS[1]] + losses[TASKS[2]]
        assert torch.allclose(balancer(losses), expected, rtol=1e-12), "eval() is not the priority-weighted plain sum"
    assert same_state(before, snapshot(balancer)), "a call in eval() mode has moved the state"


def priorities_multiply_the_result(make: Make) -> None:
    """A priority of 2 doubles the weight, unless the method has a preference of its own."""
    if make(list(TASKS)).native_priorities:
        return
    plain, prioritised = make(list(TASKS)), make(list(TASKS), priorities={TASKS[1]: 2.0})
    prioritised.load_state_dict(plain.state_dict())
    toy = _toy(make, TASKS)
    for _ in range(2):
        expected = _weights_on(toy, plain) * torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
        _close(_weights_on(toy, prioritised), expected, "weights with a priority of 2")


def options_hold(make: Make) -> None:
    """``scale="sum"`` makes the weights' sizes sum to T, guards bound the weights, ``every`` holds them."""
    toy = _toy(make, TASKS)
    summed = toy.train(make(list(TASKS), scale="sum"), 3)
    _close(summed.abs().sum(1), torch.full((3,), 3.0, dtype=torch.float64), "sizes of the weights with scale='sum'")
    guarded = _toy(make, TASKS).train(make(list(TASKS), floor=0.8, cap=1.1), 3)
    assert bool(((guarded >= 0.8) & (guarded <= 1.1)).all()), "a weight lies outside floor and cap"
    slow = _toy(make, TASKS).train(make(list(TASKS), max_change=0.05), 5)
    reach = 0.05 * slow[:-1].abs().mean(1, keepdim=True) * (1 + 1e-12)
    assert bool(((slow[1:] - slow[:-1]).abs() <= reach).all()), "a weight moved further than max_change"
    try:
        balancer = make(list(TASKS), every=3)
    except OptionError as error:
        assert "every" in str(error), f"the refusal does not name the option: {error}"
        return
    if not balancer.loss_stages():
        held = _toy(make, TASKS).train(balancer, 6, epoch=100)
        for start in (0, 3):
            assert torch.equal(held[start], held[start + 1]), "weights moved between refreshes"
            assert torch.equal(held[start], held[start + 2]), "weights moved between refreshes"


def copies_stand_alone(make: Make) -> None:
    """A deep copy of an attached balancer has the state, not the optimizer."""
    toy, balancer = _toy(make, TASKS), make(list(TASKS))
    balancer.attach(toy.optimizer)
    _weights_on(toy, balancer)
    twin = copy.deepcopy(balancer)
    assert same_state(snapshot(balancer), snapshot(twin)), "a copy has another state"
    before = snapshot(twin)
    _weights_on(toy, balancer)
    assert same_state(before, snapshot(twin)), "the copy's state moves with the original's optimizer"
    assert same_state(before, snapshot(copy.deepcopy(twin)))


def a_spoiled_gramian_gives_nan(make: Make) -> None:
    """A method that reads the Gramian answers NaN or inf in it with NaN, never with a fall-back, and moves no state.

    Only ``on_nonfinite="ignore"`` lets it through, and whoever chose that wants to see it.
    """
    for bad in (float("nan"), float("inf")):
        balancer = make(list(TASKS))
        if balancer.reads != "gramian":
            return
        gramian = torch.eye(len(TASKS), dtype=torch.float64)
        gramian[1] = gramian[:, 1] = bad
        seen = Seen(
            TASKS, torch.ones(len(TASKS), dtype=torch.float64), torch.ones(len(TASKS)), gramian.diagonal(), gramian
        )
        state = balancer.working_state()
        with torch.no_grad():
            answer = balancer.weigh(seen, state)
        weights = answer.weights if isinstance(answer, Balance) else answer
        assert bool(weights.isnan().all()), f"a Gramian with {bad} in it gives the weights {weights.tolist()}"
        moved = [name for name, value in state.rebound() if not torch.equal(value, balancer.committed(name))]
        assert not moved, f"a Gramian with {bad} in it moves {', '.join(moved)}"


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        scalar_with_the_right_gradient,
        order_of_tasks_does_not_matter,
        rescaling_is_as_documented,
        absent_task_is_left_alone,
        non_finite_losses_follow_the_policy,
        bfloat16_losses_work,
        state_survives_a_checkpoint,
        same_seed_same_weights,
        one_task_and_many,
        a_window_of_micro_batches_commits_once,
        eval_is_the_plain_sum,
        priorities_multiply_the_result,
        options_hold,
        copies_stand_alone,
        a_spoiled_gramian_gives_nan,
    )
}


def check_method(make: Make) -> None:
    """Hold a method to the whole contract.

    Args:
        make: ``make(tasks, **options) -> Balancer``; a `Balancer` subclass itself, or a function that fixes some
            options.

    Raises:
        AssertionError: names the check and the promise that was broken.

    Example:
        >>> from steelyard.testing import check_method
        >>> check_method(steelyard.Equal)  # says nothing where the whole contract holds
    """
    for name, check in CHECKS.items():
        try:
            check(make)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def _toy(make: Make, tasks: Sequence[str], **options: Any) -> Toy:
    """A toy whose gradients are read where the method is defined."""
    method = make(list(tasks))
    return Toy(
        tasks,
        at_trunk="features" not in method.where,
        probing=method.reads == "cross_gramian",
        looking=method.recomputes,
        **options,
    )


def _by_losses_alone(balancer: Balancer) -> bool:
    """Whether its weights follow from the losses, and from nothing else."""
    return balancer.reads == "losses" and not balancer.needs_along


def _weights_on(toy: Toy, balancer: Balancer) -> Tensor:
    """Weights of one step on the whole batch, as `Toy.step` but without moving the network."""
    losses, where = toy.losses()
    result = balancer(losses, **where)
    if balancer._attachment is not None:
        toy.optimizer.zero_grad()
        result.backward()
        toy.optimizer.step()
    if balancer.needs_after:
        balancer.observe(after=toy.losses()[0])
    return balancer.last_weights


def _stage_slopes(balancer: Balancer, losses: Tensor) -> Tensor:
    slopes = torch.ones_like(losses)
    for stage in balancer.loss_stages():
        losses, slope = stage.transform(losses, stage.working_state())
        slopes = slopes * slope
    return slopes


def _close(actual: Tensor, expected: Tensor, what: str, rtol: float = RTOL) -> None:
    same = torch.allclose(actual, expected, rtol=rtol, atol=1e-300, equal_nan=True)
    assert same, f"{what} differ: {actual.tolist()} instead of {expected.tolist()}"

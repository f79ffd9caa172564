"""Batches that a loop gives up without a word to the balancer: what they saw is no part of a step that is taken."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import steelyard
from cells import every
from loops.resuming import Run
from steelyard.errors import OptionError, SteelyardWarning
from steelyard.method_registry import method_names
from steelyard.testing.toy import same_state, snapshot

OPTIONS = ("moco(memory=rows)", "mgda(memory=rows)", "mgda(every=2)", "log+ema-scale+pcgrad", "cr-mogm+mgda")


def step(run: Run, clear: str, until: str = "step") -> None:
    """One step, or as much of it as comes before the batch is given up."""
    losses, where = run.toy.losses()
    if clear == "before the call":
        run.toy.optimizer.zero_grad()
    result = run.balancer(losses, **where)
    if until == "call":
        return
    if clear == "after the call":
        run.toy.optimizer.zero_grad()
    result.backward()
    if until == "backward":
        return
    run.toy.optimizer.step()
    if run.balancer.needs_after:
        run.balancer.observe(after=run.toy.losses()[0])


def give_up(run: Run, clear: str, until: str) -> None:
    """A batch with targets thirty times as large."""
    targets = run.toy.targets
    run.toy.targets = {task: 30 * target for task, target in targets.items()}
    step(run, clear, until)
    run.toy.targets = targets


@every("until", ["call", "backward"])
@every("clear", ["before the call", "after the call"])
@pytest.mark.parametrize("spec", [*method_names(), *OPTIONS])
def test_a_batch_that_is_given_up_leaves_no_trace(spec: str, clear: str, until: str) -> None:
    runs = [Run(spec, attached=True, seed=0) for _ in range(2)]
    for number in range(5):
        if number in (1, 3):
            give_up(runs[0], clear, until)
        for run in runs:
            step(run, clear)
    first, second = (run.balancer for run in runs)
    assert first.steps == second.steps == 5
    assert same_state(snapshot(first), snapshot(second))
    assert torch.equal(first.last_weights, second.last_weights)


def attached(spec: str = "ema(start=first-loss)") -> tuple[nn.Parameter, torch.optim.SGD, steelyard.Balancer]:
    shared = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([shared], lr=0.0)
    return shared, optimizer, steelyard.make(spec, ["a", "b"]).attach(optimizer)


def test_micro_batches_that_are_left_over_at_an_epochs_end() -> None:
    shared, optimizer, balancer = attached()
    for value in (2.0, 4.0, 100.0):
        balancer({"a": value * shared, "b": shared}).backward()
        if value == 4.0:
            optimizer.step()
            optimizer.zero_grad()
    optimizer.zero_grad()  # the next epoch begins
    balancer.reset()
    for value in (1.0, 3.0):
        balancer({"a": value * shared, "b": shared}).backward()
    optimizer.step()
    assert balancer.average.tolist() == [2.0, 1.0]


def test_a_result_that_is_sent_after_the_step_before_belongs_to_its_own_step() -> None:
    """Where the next batch's forward pass comes before the optimizer steps: it goes on from what that step left."""
    shared, optimizer, balancer = attached("ema(beta=0.5,start=first-loss)")
    first = balancer({"a": 2 * shared, "b": shared})
    first.backward()
    following = balancer({"a": 10 * shared, "b": shared})
    optimizer.step()
    assert balancer.average.tolist() == [2.0, 1.0]
    following.backward()
    optimizer.step()
    assert balancer.steps == 2
    assert balancer.average.tolist() == [6.0, 1.0]


def test_results_that_are_added_up_before_they_are_sent() -> None:
    shared, optimizer, balancer = attached()
    (balancer({"a": 2 * shared, "b": shared}) + balancer({"a": 4 * shared, "b": shared})).backward()
    optimizer.step()
    assert balancer.steps == 1
    assert balancer.average.tolist() == [3.0, 1.0]


def test_products_of_one_micro_batch_are_not_those_of_two_that_are_added_up() -> None:
    run = Run("mgda(solver=amortised,product=backward)", attached=True, seed=0)
    (losses, where), (others, there) = run.toy.losses(slice(0, 6)), run.toy.losses(slice(6, 12))
    total = run.balancer(losses, **where) + run.balancer(others, **there)
    with pytest.raises(OptionError, match="looks along the step of several micro-batches"):
        total.backward()


def test_a_result_that_is_sent_twice_counts_once() -> None:
    shared, optimizer, balancer = attached()
    result = balancer({"a": 2 * shared, "b": shared})
    result.backward(retain_graph=True)
    result.backward()
    balancer({"a": 4 * shared, "b": shared}).backward()
    optimizer.step()
    assert balancer.average.tolist() == [3.0, 1.0]


@pytest.mark.parametrize("forget", [steelyard.Balancer.discard, steelyard.Balancer.reset])
def test_what_was_discarded_is_not_counted_when_it_is_sent(forget: Callable[[steelyard.Balancer], None]) -> None:
    shared, optimizer, balancer = attached()
    result = balancer({"a": 2 * shared, "b": shared})
    forget(balancer)
    result.backward()
    optimizer.step()
    assert balancer.steps == 0


def test_gradients_that_never_arrive_are_not_taken_for_given_up() -> None:
    """Sharded parameters hold none until the last micro-batch, and a loop may keep gradients of its own."""
    elsewhere = nn.Parameter(torch.ones(()))
    _, optimizer, balancer = attached()
    for value in (2.0, 4.0):
        balancer({"a": value * elsewhere, "b": elsewhere}).backward()
    optimizer.step()
    assert balancer.average.tolist() == [3.0, 1.0]


def test_gradients_that_are_zeroed_in_place_are_not_seen_to_be_given_up() -> None:
    """As `discard` is for: zeros may be anything."""
    shared, optimizer, balancer = attached()
    balancer({"a": 100 * shared, "b": shared}).backward()
    optimizer.zero_grad(set_to_none=False)
    balancer.discard()
    balancer({"a": 2 * shared, "b": shared}).backward()
    optimizer.step()
    assert balancer.average.tolist() == [2.0, 1.0]


def test_a_step_that_failed_half_way_through_its_backward_pass() -> None:
    shared, optimizer, balancer = attached()

    def fail(gradient: torch.Tensor) -> None:
        raise MemoryError("no room")

    loss = 100 * shared
    loss.register_hook(fail)
    with pytest.raises(MemoryError):
        balancer({"a": loss, "b": shared}).backward()
    optimizer.zero_grad()
    balancer({"a": 2 * shared, "b": shared}).backward()
    optimizer.step()
    assert balancer.average.tolist() == [2.0, 1.0]


def test_after_a_failed_backward_pass_gradients_that_never_arrive_count_as_before() -> None:
    elsewhere = nn.Parameter(torch.ones(()))
    _, optimizer, balancer = attached()
    failing = 100 * elsewhere
    handle = failing.register_hook(lambda gradient: gradient.reshape(7))
    with pytest.raises(RuntimeError):
        balancer({"a": failing, "b": elsewhere}).backward()
    handle.remove()
    for value in (2.0, 4.0):
        balancer({"a": value * elsewhere, "b": elsewhere}).backward()
    optimizer.step()
    assert balancer.average.tolist() == [3.0, 1.0]


def test_a_step_that_is_to_be_skipped_stays_so_where_the_one_before_was_taken() -> None:
    """Gradients of a step that was taken are gone as well, and nothing was given up."""
    shared = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([shared], lr=0.1)
    balancer = steelyard.make("equal", ["a", "b"], on_nonfinite="skip_step").attach(optimizer)
    balancer({"a": 2 * shared, "b": 3 * shared}).backward()
    optimizer.step()
    optimizer.zero_grad()
    before = shared.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SteelyardWarning)
        balancer({"a": shared * float("nan"), "b": 2 * shared * float("nan")}).backward()
    balancer({"a": 2 * shared, "b": 3 * shared}).backward()
    optimizer.step()
    assert torch.equal(shared, before)


def test_a_batch_that_was_given_up_is_no_micro_batch_of_the_next_step() -> None:
    run = Run("mgda(solver=amortised,product=backward)", attached=True, seed=0)
    give_up(run, "before the call", "backward")
    run.toy.optimizer.zero_grad()
    losses, where = run.toy.losses()
    run.balancer(losses, shared=where["shared"]).backward()  # else refused: several micro-batches want again=
    run.toy.optimizer.step()
    assert run.balancer.steps == 1


def test_a_scaler_that_nobody_named_leaves_no_trace_of_the_steps_that_it_skips() -> None:
    shared, optimizer, balancer = attached()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    steps = []
    for _ in range(6):
        optimizer.zero_grad()
        scaler.scale(balancer({"a": 1e3 * shared, "b": shared})).backward()
        scaler.step(optimizer)
        scaler.update()
        steps.append(balancer.steps)
    assert steps == [0, 1, 2, 3, 4, 5]
    assert balancer.average.tolist() == [1e3, 1.0]


def test_a_step_of_which_nothing_was_sent_is_warned_of_once() -> None:
    shared, optimizer, balancer = attached()
    balancer({"a": 2 * shared, "b": shared})
    with pytest.warns(SteelyardWarning, match="no result of ema, which is attached to it, was sent backward"):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        balancer({"a": 2 * shared, "b": shared})
        optimizer.step()
    assert balancer.steps == 0


def test_results_that_are_never_sent_are_not_kept() -> None:
    shared, _, balancer = attached("mgda")
    for _ in range(3):
        features = torch.zeros(1000) + shared
        balancer({"a": features.sum(), "b": features.square().sum()}, shared=features)
    gc.collect()
    assert len(balancer._attachment._sent._waiting) == 0


@pytest.mark.parametrize("spec", ["equal", "ema(start=first-loss)"])
def test_a_batch_without_anything_to_balance_that_is_given_up_before_backward(spec: str) -> None:
    """With `skip_step` a step with such a batch is withheld: not the next one, to which it does not belong."""
    shared = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([shared], lr=0.1)
    balancer = steelyard.make(spec, ["a", "b"], on_nonfinite="skip_step").attach(optimizer)
    balancer({"a": shared * float("nan"), "b": shared})
    balancer({"a": 2 * shared, "b": shared}).backward()
    optimizer.step()
    assert shared.item() < 1
    assert balancer.steps == 1

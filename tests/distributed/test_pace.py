"""What one rank does alone is noticed on all, by name, and not waited out."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import torch.distributed as dist

from distributed.launch import launch
from distributed.test_ddp import MODES
from distributed.test_decisions import COLUMNS, Loop, message
from distributed.training import TASKS, build, shard

pytestmark = pytest.mark.takes(
    "ranks are processes, which import torch; the first test of a file waits for all that they train"
)

PERIODIC = [("dwa", "losses"), ("initial-scale+mgda", "features"), ("initial-scale+inverse-norm", "trunk")]
# Left out: methods that want probes or another look after the step, which a bare call does not give.
PLACES = {spec: at for spec, at in MODES if build(spec).reads != "cross_gramian" and not build(spec).needs_after}
ALL = [*COLUMNS, ("inverse-norm", "features"), ("pcgrad", "trunk"), ("moco", "trunk"), ("graddrop", "features")]
# What tells is the result's backward, whatever the method: these by `make test`, and by `make slow` all that `ALL` has
# not, in one place each.
OTHERS = [column for column in PLACES.items() if column not in ALL]


def unwrapped(rank: int, spec: str, at: str, **options: Any) -> Loop:
    """What a wrapper's own collectives would do after an error is not the question."""
    loop = Loop(0, 1, spec, at, **options)
    loop.rows = shard(rank, 2)
    return loop


def called(loop: Loop, step: int) -> None:
    """The balancer's call alone."""
    losses, features = loop.losses(step)
    known = {task: loss for task, loss in losses.items() if task in loop.balancer.tasks}
    loop.balancer(known, shared=loop.shared(features))


def trained(loop: Loop, step: int, times: int = 1) -> None:
    """The call and its backward."""
    losses, features = loop.losses(step)
    result = loop.balancer(losses, shared=loop.shared(features))
    for _ in range(times):
        result.backward(retain_graph=True)


def unattached(rank: int, columns: list[tuple[str, str]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}

    # Nothing is attached: what tells is whether the last result went backward.
    for spec, at in columns:
        loop = unwrapped(rank, spec, at)
        trained(loop, 0)
        trained(loop, 1)
        if rank == 1:
            found["more", spec, at] = [
                message(lambda loop=loop: called(loop, 2) or called(loop, 2)),
                loop.balancer.steps,
            ]
        else:
            found["more", spec, at] = [
                message(lambda loop=loop: trained(loop, 2) or called(loop, 3)),
                loop.balancer.steps,
            ]

    # What no rank sends backward, or some more often than others, is no sign.
    for spec, at in columns:
        loop = unwrapped(rank, spec, at)
        for step in range(2):
            called(loop, step)
        for step in range(2):
            trained(loop, step, times=1 + rank)
        found["alike", spec, at] = [message(lambda loop=loop: called(loop, 4)), loop.balancer.steps]
    return found


def unattached_others(rank: int, ranks: int) -> dict[Any, Any]:
    return unattached(rank, OTHERS)


def everything(rank: int, ranks: int) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def alone(name: str, columns: list[tuple[str, str]], act: Any, **options: Any) -> None:
        for spec, at in columns:
            loop = unwrapped(rank, spec, at, **options)
            called(loop, 0)
            called(loop, 1)
            if rank == 1:
                act(loop)
            found[name, spec, at] = [message(lambda loop=loop: called(loop, 2)), loop.balancer.steps]

    alone("set_tasks", ALL, lambda loop: loop.balancer.set_tasks([*TASKS[:2]]))
    alone("more tasks", ALL, lambda loop: loop.balancer.set_tasks([*TASKS, "new"]))
    alone("reset", ALL, lambda loop: loop.balancer.reset())
    alone("end_epoch", PERIODIC, lambda loop: loop.balancer.end_epoch())

    for spec, at in ALL:
        loop = unwrapped(rank, spec, at, attached=True)
        trained(loop, 0)
        loop.optimizer.step()
        trained(loop, 1)
        if rank == 1:  # an optimizer step between two micro-batches
            loop.optimizer.step()
        found["step", spec, at] = [message(lambda loop=loop: called(loop, 2)), loop.balancer.steps]

    for spec, at in ALL:
        loop = unwrapped(rank, spec, at, attached=True)

        def goes_on(loop: Loop = loop) -> None:
            if rank == 1:  # a call more, which answers the other's
                trained(loop, 1)
            trained(loop, 1)
            loop.optimizer.step()
            called(loop, 2)

        trained(loop, 0)
        loop.optimizer.step()
        found["call", spec, at] = [message(goes_on), loop.balancer.steps]

    found |= unattached(rank, ALL)

    # What all do together goes on.
    for spec, at in ALL:
        loop = unwrapped(rank, spec, at)
        called(loop, 0)
        loop.balancer.set_tasks([*TASKS[:2]])
        called(loop, 1)
        loop.balancer.end_epoch()
        called(loop, 2)
        loop.balancer.reset()
        called(loop, 3)
        found["together", spec, at] = [message(lambda loop=loop: called(loop, 4)), loop.balancer.last_weights]

    # A rank with a balancer of its own beside the common one is in nobody's way.
    if rank == 1:
        called(unwrapped(rank, "log", "losses", sync="off"), 0)
    loop = unwrapped(rank, "log", "losses")
    found["beside"] = message(lambda: called(loop, 0))
    # From here on it never comes: above, it may be late.
    dist.distributed_c10d._get_default_store().set_timeout(datetime.timedelta(seconds=0.1))
    for spec, at in COLUMNS:
        loop = unwrapped(rank, spec, at, sync="off" if rank == 1 else "exact")
        found["off", spec, at] = [message(lambda loop=loop: called(loop, 0)), loop.balancer.steps]
    return found


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return launch(everything, 2)


@pytest.mark.parametrize("what", ["set_tasks", "more tasks", "reset"])
def test_tasks_that_change_on_one_rank(found: list[dict[str, Any]], what: str) -> None:
    for column in ALL:
        texts = {each[(what, *column)][0] for each in found}
        assert len(texts) == 1
        (text,) = texts
        assert text.startswith("StateError: set_tasks() or reset() was called on 1 of 2 ranks (rank 0 balances left"), (
            text
        )
        assert "rank 1 balances left" in text


@pytest.mark.parametrize("what", ["end_epoch", "step"])
def test_steps_and_epochs_that_one_rank_counts_alone(found: list[dict[str, Any]], what: str) -> None:
    for column in PERIODIC if what == "end_epoch" else ALL:
        texts = {each[(what, *column)][0] for each in found}
        assert len(texts) == 1
        (text,) = texts
        assert "the ranks have not gone the same way" in text
        assert ("rank 1 has taken 2 steps" in text) == (what == "step" or "0 of them since" in text)


def test_a_call_more_on_one_rank(found: list[dict[str, Any]]) -> None:
    for column in ALL:
        (text,) = {each[("call", *column)][0] for each in found}
        assert "the ranks have not gone the same way" in text
        assert "rank 0 has taken 2 steps" in text
        assert "rank 1 has taken 1 steps" in text


def told(found: list[dict[str, Any]], columns: list[tuple[str, str]]) -> None:
    for column in columns:
        (text,) = {each[("more", *column)][0] for each in found}
        assert "the balancer was called again on rank 1 without a backward of its last result" in text
        assert [each[("alike", *column)] for each in found] == [["", 5], ["", 5]]


def test_a_call_more_on_one_rank_without_an_attached_optimizer(found: list[dict[str, Any]]) -> None:
    told(found, ALL)


@pytest.mark.slow("two ranks train under every method")
def test_such_a_call_is_told_under_every_other_method() -> None:
    told(launch(unattached_others, 2), OTHERS)


def test_what_all_ranks_do_goes_on(found: list[dict[str, Any]]) -> None:
    for column in ALL:
        (first, weights), (second, others) = (each[("together", *column)] for each in found)
        assert first == second == ""
        assert weights.equal(others)
        assert len(weights) == 2


def test_a_rank_that_was_told_to_balance_alone(found: list[dict[str, Any]]) -> None:
    for column in COLUMNS:
        (text, steps), (own, own_steps) = (each[("off", *column)] for each in found)
        assert "rank 1 has not come" in text
        assert "a balancer with sync='off' has been called on rank 1" in text
        assert (steps, own, own_steps) == (0, "", 1)


def test_a_balancer_beside_the_common_one(found: list[dict[str, Any]]) -> None:
    assert [each["beside"] for each in found] == ["", ""]

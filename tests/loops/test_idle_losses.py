"""A loss that is exactly zero and moves nothing is an absent task, in every method and place, and said once."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from loops.test_left_out import MODES, TASKS, make, toy_of
from steelyard.errors import MissingInputError, OptionError, SteelyardWarning
from steelyard.testing.toy import Toy, same_state, snapshot

ZEROS: dict[str, Callable[[Tensor], Tensor]] = {
    "0 * sum": lambda output: 0 * output.sum(),
    "sum of products": lambda output: (output * 0.0).sum() + 0 * output[0].mean(),
    "hinge": lambda output: (output - 1e3).relu().mean(),
    "mask": lambda output: (output.square() * torch.zeros_like(output)).sum(),
}


def idle(toy: Toy, zero: str) -> None:
    """The toy's task "bad" has no labels."""

    def loss_of(output: Tensor, target: Tensor) -> Tensor:
        return ZEROS[zero](output) if bool(target.isnan().any()) else (output - target).square().mean()

    toy.loss_of = loss_of  # type: ignore[method-assign]
    toy.targets["bad"][:] = float("nan")


def plain(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


def pair(name: str, place: str, zero: str) -> tuple[Toy, Toy]:
    toys = toy_of(name, place, plain), toy_of(name, place, plain)
    idle(toys[0], zero)
    return toys


def steps(toy: Toy, balancer: steelyard.Balancer, tasks: tuple[str, ...]) -> list[Tensor]:
    weights = [toy.step(balancer, tasks) for _ in range(3)]
    if balancer.needs_validation:
        balancer.observe(validation=toy.losses(tasks=[task for task in tasks if task != "bad"])[0])
    balancer.end_epoch()
    return [*weights, toy.step(balancer, tasks), *(parameter.detach() for parameter in toy.parameters())]


def said(action: Callable[[], list[Tensor]]) -> tuple[list[str], list[Tensor]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
    return [str(each.message) for each in caught if "exactly 0" in str(each.message)], result


OTHERS = tuple(task for task in TASKS if task != "bad")


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@pytest.mark.parametrize("memory", ["none", "numbers", "rows"])
@every(("name", "place"), MODES)
def test_it_is_absent(name: str, place: str, memory: str) -> None:
    try:
        balancer, without = (make(name, memory=memory) for _ in range(2))
    except OptionError:
        pytest.skip(f"{name} has no memory of {memory}")
    if memory == "rows" and place != "trunk":
        pytest.skip("rows are remembered at the trunk")
    if memory == "numbers" and balancer.looks_for(place == "trunk") == "rows":
        pytest.skip("numbers say nothing of rows")
    toy, clean = pair(name, place, "0 * sum")
    if memory != "none":  # so that there is something to remember
        for each, one in ((balancer, toy_of(name, place, plain)), (without, toy_of(name, place, plain))):
            one.step(each)
    messages, found = said(lambda: steps(toy, balancer, TASKS))
    expected = steps(clean, without, OTHERS)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert same_state(snapshot(balancer), snapshot(without))
    assert len(messages) == 1
    assert "'bad'" in messages[0]


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@pytest.mark.parametrize("zero", ZEROS)
@every(("name", "place"), [("uw", "losses"), ("famo", "losses"), ("mgda", "features"), ("mgda", "trunk")])
def test_however_it_is_written(name: str, place: str, zero: str) -> None:
    toy, clean = pair(name, place, zero)
    found, expected = steps(toy, make(name), TASKS), steps(clean, make(name), OTHERS)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_zero_that_moves_something_takes_part() -> None:
    layer = nn.Linear(3, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    x = torch.ones(2, 3)
    balancer = steelyard.make("equal", ["a", "b"])
    balancer({"a": layer(x).sum(), "b": (layer(x) - 1).square().mean()}).backward()  # a's value is 0, its gradient not
    assert balancer.last_weights.tolist() == [1, 1]


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@every(("name", "place"), MODES)
def test_nothing_moves_where_all_are_zero(name: str, place: str) -> None:
    toy = toy_of(name, place, lambda output, target: 0 * output.sum())
    balancer = make(name)
    before = snapshot(balancer)
    losses, where = toy.losses()
    result = balancer(losses, **where)
    result.backward()
    assert result.item() == 0
    assert all(parameter.grad is None or not bool(parameter.grad.any()) for parameter in toy.parameters())
    assert same_state(before, snapshot(balancer))


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@every(("name", "place"), MODES)
def test_a_window_counts_the_micro_batches_that_have_labels(name: str, place: str) -> None:
    states = []
    for as_zero in (True, False):
        toy = toy_of(name, place, plain)
        balancer = make(name, learning_rate=0.01).attach(toy.optimizer)
        for number, rows in enumerate((slice(0, 6), slice(6, 12))):
            losses, where = toy.losses(rows)
            if number and as_zero:
                losses["bad"] = 0 * losses["bad"]
            elif number:
                del losses["bad"]
            balancer(losses, **where).backward()
        toy.optimizer.step()
        states.append(snapshot(balancer))
    assert same_state(*states)


def test_said_as_a_warning_of_ours() -> None:
    x = torch.ones(2, requires_grad=True)
    with pytest.warns(SteelyardWarning, match="the loss of 'a' is exactly 0, and so is its gradient"):
        steelyard.make("equal", ["a", "b"])({"a": 0 * x.sum(), "b": x.sum()})


def test_a_compiled_loss_is_weighed_and_said() -> None:
    compiled = torch.compile(lambda output: 0 * output.square().sum(), backend="aot_eager")
    x = torch.ones(2, requires_grad=True)
    balancer = steelyard.make("equal", ["a", "b"])
    with pytest.warns(SteelyardWarning, match="'a' is exactly 0, and whether its gradient is too does not show"):
        balancer({"a": compiled(x), "b": x.sum()})
    assert balancer.last_weights.tolist() == [1, 1]


PROBING = [mode for mode in MODES if make(mode[0]).reads == "cross_gramian"]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("name", "place"), PROBING)
def test_a_probe_without_labels_lacks_the_task(name: str, place: str, number: int) -> None:
    toy = toy_of(name, place, plain)
    losses, where = toy.losses()
    where["probes"][number]["bad"] = 0 * where["probes"][number]["bad"]
    with pytest.raises(MissingInputError, match=rf"probes\[{number}\] has no labels for the task 'bad'"):
        make(name)(losses, **where)


VALIDATING = [mode for mode in MODES if make(mode[0]).needs_validation]


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize(("name", "place"), VALIDATING)
def test_a_validation_loss_without_labels(name: str, place: str, graph: bool) -> None:
    """Absent where its gradient shows that; said either way, once."""
    balancer, without = make(name), make(name)

    def act() -> list[Tensor]:
        for each, toy in ((balancer, toy_of(name, place, plain)), (without, toy_of(name, place, plain))):
            for _ in range(3):
                toy.step(each)
                losses = toy.losses()[0]
                losses["bad"] = 0 * losses["bad"]
                if each is without:
                    del losses["bad"]
                each.observe(validation=losses if graph else {task: loss.detach() for task, loss in losses.items()})
        return []

    messages, _ = said(act)
    assert len(messages) == 1
    assert ("absent from this batch" in messages[0]) == graph
    assert same_state(snapshot(balancer), snapshot(without)) == graph


def _famo_of(order: list[list[str]], manual: bool) -> steelyard.Balancer:
    """Two steps of micro-batches, each of which has labels of the tasks named, and zeros for the others."""
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    balancer = steelyard.make("famo", ["a", "b"]).attach(optimizer)

    def losses(tasks: list[str]) -> dict[str, Tensor]:
        parts = {"a": weight[0].square(), "b": 3 * weight[1].square()}
        return {task: loss if task in tasks else 0 * weight.sum() for task, loss in parts.items()}

    for _ in range(2):
        optimizer.zero_grad()
        for tasks in order:
            again = None if manual else lambda params=None, batch=None, tasks=tasks: losses(tasks)
            balancer(losses(tasks), again=again).backward()
        optimizer.step()
        if manual:
            balancer.observe(after=losses(["a", "b"]))
    return balancer


@pytest.mark.filterwarnings("ignore::steelyard.SteelyardWarning")
@pytest.mark.parametrize("manual", [True, False])
def test_losses_after_a_step_are_of_all_that_had_labels_in_any_of_its_micro_batches(manual: bool) -> None:
    orders = [[["a", "b"], ["a"]], [["a"], ["a", "b"]]]
    first, second = (_famo_of(order, manual) for order in orders)
    assert same_state(snapshot(first), snapshot(second))
    assert first.committed("logits").abs().min() > 0

"""A closure is one function however often it is evaluated: every method, both places, attached and frozen."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.specs import parse_spec
from steelyard.errors import LossError, OptionError, SteelyardWarning
from steelyard.method_registry import method_class
from steelyard.testing.toy import Toy, same_state, snapshot
from testing.test_contract import VARIANTS, build, options_slow

TASKS = ["left", "right", "depth"]
DIRECTIONS = {
    ("graddrop", "features"): "chooses element by element",
    ("moco", "trunk"): "sends averages of rows",
    ("adatask", "trunk"): "sends steps",
    **dict.fromkeys(
        [
            ("max-norm", "trunk"),
            ("db-mtl", "trunk"),
            ("max-norm(heads=weighted,common_scale=median)", "trunk"),
            ("log+initial-scale(steps=2)+max-norm", "trunk"),
        ],
        "sends averages of rows; its weights with beta=0 are held",
    ),
}
"""What arrives at the shared place is no function's gradient: refused."""
OUTSIDE = [spec for spec in VARIANTS if "learn=external" in spec]
"""Their weights are Parameters of an outside optimizer, whose gradient a held function has not: refused."""


def method_of(spec: str) -> type[Balancer]:
    return method_class(parse_spec(spec.split("+")[-1]).name)


PLACED = [
    (spec, place)
    for spec in [*VARIANTS, "max-norm(beta=0)", "db-mtl(beta=0)"]
    for place in ("features", "trunk")
    if place in method_of(spec).where and (place == "features" or method_of(spec).reads not in ("losses", "lookahead"))
]
HELD = [each for each in PLACED if each not in DIRECTIONS and each[0] not in OUTSIDE]


def toy_for(balancer: Balancer, place: str, tasks: list[str] = TASKS) -> Toy:
    return Toy(
        tasks,
        at_trunk=place == "trunk",
        probing=balancer.reads == "cross_gramian",
        looking=balancer.reads == "lookahead",
    )


def weighted(spec: str, tasks: list[str] = TASKS) -> Balancer:
    """A fixed rate, since learnt weights would otherwise follow the optimizer; heads as they can be held."""
    return build(spec.replace("heads=plain", "heads=weighted"), tasks, learning_rate=0.05, **_heads(spec))


def _heads(spec: str) -> dict[str, str]:
    return {} if "heads=" in spec else {"heads": "weighted"}


def lbfgs(toy: Toy, **options: float) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(toy.parameters(), **options)


def standing(toy: Toy, evaluations: int) -> torch.optim.LBFGS:
    """Evaluates its closure some times, at one point."""
    return lbfgs(toy, lr=0.0, max_iter=evaluations, tolerance_grad=-1, tolerance_change=-1)


def evaluate(toy: Toy, balancer: Balancer, way: str, closure: Callable[[], Tensor]) -> None:
    if way == "attached":
        optimizer = standing(toy, 3)
        balancer.attach(optimizer)
        optimizer.step(closure)
    else:
        with balancer.frozen():
            for _ in range(3):
                closure()


@pytest.mark.parametrize(("spec", "place"), options_slow(HELD))
def test_equal_points_have_equal_values_and_gradients(spec: str, place: str) -> None:
    """The value is ``Σ w L`` from the first evaluation on, the gradient that of this with constant weights."""
    attached = weighted(spec)
    toy = toy_for(attached, place)
    toy.train(attached, 3)
    once, frozen = copy.deepcopy(attached), copy.deepcopy(attached)
    call(toy, once)
    for way, balancer in (("attached", attached), ("frozen", frozen)):
        found: list[tuple[float, Tensor, Tensor]] = []

        def closure(balancer: Balancer = balancer, found: list[tuple[float, Tensor, Tensor]] = found) -> Tensor:
            result = call(toy, balancer)
            gradient = torch.cat([each.flatten() for each in toy.gradients(result).values()])
            found.append((result.item(), balancer.last_weights, gradient))
            return result

        evaluate(toy, balancer, way, closure)
        assert len(found) == 3
        losses, _ = toy.losses()
        weights = found[0][1]
        function = sum(weight * losses[task] for task, weight in zip(TASKS, weights.tolist(), strict=True))
        expected = torch.cat([each.flatten() for each in toy.gradients(function).values()])
        for value, same_weights, gradient in found:
            assert value == found[0][0]
            assert value == pytest.approx(function.item(), rel=1e-12, abs=1e-12)
            assert torch.equal(same_weights, weights)
            assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
        assert same_state(snapshot(once), snapshot(balancer)), "one step commits one observation, that of the first"


def call(toy: Toy, balancer: Balancer) -> Tensor:
    losses, where = toy.losses()
    result: Tensor = balancer(losses, **where)
    return result


def call_and_send(toy: Toy, balancer: Balancer) -> Tensor:
    """As a closure does it."""
    toy.optimizer.zero_grad()
    result = call(toy, balancer)
    result.backward()
    return result


@pytest.mark.parametrize("way", ["attached", "frozen"])
@pytest.mark.parametrize(("spec", "place"), [*DIRECTIONS, *((spec, "features") for spec in OUTSIDE)])
def test_what_is_no_function_is_refused_from_the_start(spec: str, place: str, way: str) -> None:
    balancer = weighted(spec)
    toy = toy_for(balancer, place)
    before = snapshot(balancer)
    fix = "Use learn='inside'" if spec in OUTSIDE else "cannot be held while losses.*(beta=0|another method)"
    if spec == "adatask" and way == "attached":
        fix = "sends.*and LBFGS would change them.*attach torch.optim.SGD"
    with pytest.raises(OptionError, match=rf"{balancer.name} .*{fix}"):
        evaluate(toy, balancer, way, lambda: call(toy, balancer))
    assert same_state(before, snapshot(balancer))
    if way == "attached":
        balancer.attach(toy.optimizer)
    call(toy, balancer).backward()  # and goes on
    toy.optimizer.step()
    assert balancer.steps == 1


@pytest.mark.parametrize("way", ["attached", "frozen"])
def test_plain_heads_are_refused_from_the_start(way: str) -> None:
    for spec in ("equal(heads=plain)", "db-mtl", "inverse-norm(heads=plain)"):
        balancer = build(spec, TASKS)
        toy = toy_for(balancer, "features")
        with pytest.raises(OptionError, match=r"plain heads cannot hold.*Use heads='weighted'"):
            evaluate(toy, balancer, way, lambda toy=toy, balancer=balancer: call(toy, balancer))


class Probing(torch.optim.SGD):
    """Evaluates its closure several times, which nobody can know beforehand."""

    def step(self, closure):
        with torch.enable_grad():
            values = [closure() for _ in range(3)]
        super().step()
        return values


def test_an_optimizer_that_nobody_knows_gets_one_function_too() -> None:
    """Its first evaluation is the method's own; what follows differs from ``Σ w L`` by a constant."""
    for spec in ("log", "uw", "stch", "log+mgda"):
        balancer = weighted(spec)
        toy = toy_for(balancer, "features")
        own = call(toy, copy.deepcopy(balancer)).item()
        optimizer = Probing(toy.parameters(), lr=0.0)
        balancer.attach(optimizer)
        values = optimizer.step(lambda toy=toy, balancer=balancer: call_and_send(toy, balancer))
        assert [value.item() for value in values] == pytest.approx([own] * 3, rel=1e-12)
        assert balancer.steps == 1
    balancer = build("moco", TASKS)
    toy = toy_for(balancer, "trunk")
    optimizer = Probing(toy.parameters(), lr=0.0)
    balancer.attach(optimizer)
    with pytest.raises(OptionError, match="moco sends the trunk a direction of its own"):
        optimizer.step(lambda: call(toy, balancer))


def test_a_closure_that_is_evaluated_once_keeps_the_methods_own_value() -> None:
    """Trainers hand a closure to every optimizer."""
    for spec, place in (("log", "features"), ("db-mtl", "trunk"), ("graddrop", "features"), ("uw", "features")):
        balancer = build(spec, TASKS)
        toy = toy_for(balancer, place)
        torch.manual_seed(0)
        own = call(toy, copy.deepcopy(balancer)).item()
        for optimizer in (torch.optim.SGD(toy.parameters(), lr=0.0), lbfgs(toy, max_iter=1)):
            balancer.reset()
            balancer.attach(optimizer)
            assert optimizer.step(lambda toy=toy, balancer=balancer: call_and_send(toy, balancer)).item() == own


def test_a_task_that_comes_in_half_way_is_refused() -> None:
    balancer = build("log", TASKS)
    toy = toy_for(balancer, "features")
    with balancer.frozen():
        balancer(toy.losses(tasks=["left", "right"])[0])
        with pytest.raises(LossError, match="'depth' was absent from the first evaluation"):
            balancer(toy.losses()[0])


# --- training -----------------------------------------------------------------------------------------------------
PAIR = TASKS[:2]
ELSEWHERE = {
    **dict.fromkeys(
        [("mgda", "trunk"), ("mgda(look=last)", "features"), ("mgda(look=last)", "trunk")],
        "a task that is nearly fitted has the shortest gradient, and with it nearly all the weight",
    ),
    **dict.fromkeys(
        [(spec, place) for spec in ("pcd", "pcd(look=last)") for place in ("features", "trunk")],
        "serves its main task: another one has no weight while it is not hurt",
    ),
    ("log+hydalearn(judged=held-out,heads=plain)", "features"): "a task that is fitted first has all the gain",
}
"""End elsewhere, with any optimizer: not every method seeks a point where all losses are small."""


def regressions(balancer: Balancer, place: str) -> Toy:
    """Of linear targets through a linear trunk: both tasks can be fitted to the last bit, whatever they weigh."""
    toy = toy_for(balancer, place, PAIR)
    toy.trunk[1] = torch.nn.Identity()
    generator = torch.Generator().manual_seed(4)
    for scale, task in zip((1.0, 3.0), PAIR, strict=True):
        toy.targets[task] = scale * toy.inputs @ torch.randn(5, 2, generator=generator, dtype=torch.float64)
    return toy


@pytest.mark.parametrize(("spec", "place"), options_slow(each for each in HELD if each not in ELSEWHERE))
def test_lbfgs_trains_to_the_loss_of_the_plain_sum(spec: str, place: str) -> None:
    """The plain sum is at 1e-4 of the first losses after one step; 15 steps allow for weights that change between."""
    balancer = weighted(spec, PAIR)
    toy = regressions(balancer, place)
    optimizer = lbfgs(toy, max_iter=20, line_search_fn="strong_wolfe")
    balancer.attach(optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        result = call(toy, balancer)
        result.backward()
        return result

    def now() -> dict[str, Tensor]:
        return {task: loss.detach() for task, loss in toy.losses()[0].items()}

    start = now()
    for _ in range(15):
        optimizer.step(closure)
        losses = now()
        if balancer.needs_after:
            balancer.observe(after=losses)
        if all(losses[task] < 1e-4 * start[task] for task in PAIR):
            return
    pytest.fail(f"{balancer.name} stands still at {losses}, from {start}")


# --- steps of optimizers that the balancer does not know ----------------------------------------------------------
@pytest.mark.parametrize(
    ("spec", "elsewhere"),
    # Elsewhere the state stands still, and uw's weights, which are nothing else, with it.
    [*((spec, way) for spec in ("ema", "log", "mgda", "moco") for way in (False, True)), ("uw", False)],
)
def test_weights_that_move_within_a_step_are_warned_of_once(spec: str, elsewhere: bool) -> None:
    balancer = build(spec, TASKS)
    toy = toy_for(balancer, "trunk" if spec == "moco" else "features")
    if elsewhere:  # attached, and to another optimizer
        balancer.attach(torch.optim.SGD(toy.parameters(), lr=0.1))
    optimizer = lbfgs(toy, lr=0.1, max_iter=3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        result = call(toy, balancer)
        result.backward()
        return result

    with pytest.warns(SteelyardWarning, match=rf"{spec} was evaluated several times within one step of LBFGS.*attach"):
        optimizer.step(closure)
    optimizer.step(closure)  # a second warning would be an error


def test_nothing_is_said_of_what_holds_still() -> None:
    for spec in ("equal", "fixed"):
        balancer = build(spec, TASKS)
        toy = toy_for(balancer, "features")
        lbfgs(toy, max_iter=3).step(lambda toy=toy, balancer=balancer: call(toy, balancer))
    for spec in ("ema", "log", "db-mtl", "moco"):
        balancer = build(spec, TASKS)
        toy = toy_for(balancer, "trunk")
        for _ in range(3):  # once in each step, and between steps
            toy.optimizer.step(lambda toy=toy, balancer=balancer: call(toy, balancer))
            call(toy, balancer)
            call(toy, balancer)
        if balancer.reads == "losses":
            with balancer.frozen():
                lbfgs(toy, max_iter=3).step(lambda toy=toy, balancer=balancer: call(toy, balancer))


def test_a_step_that_failed_is_over() -> None:
    """Micro-batches that follow are in no closure."""
    balancer = build("log", TASKS)
    toy = toy_for(balancer, "features")

    def fails() -> Tensor:
        call(toy, balancer)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        toy.optimizer.step(fails)
    for _ in range(3):
        toy.step(balancer)
        call(toy, balancer)

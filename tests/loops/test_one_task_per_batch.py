"""Batches that hold one task each, and batches of the tasks' own: what is weighed by memory, and what is refused."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from helpers import task_gradients, weighted_sum
from steelyard.base.specs import parse_spec
from steelyard.errors import AngleWarning, OptionError, SharedError, SteelyardWarning
from steelyard.method_registry import method_class, method_names, options_of
from steelyard.testing.toy import Toy, same_state, snapshot

TASKS = ["a", "b", "c"]


def alternate(balancer: steelyard.Balancer, toy: Toy, where: str, steps: int) -> dict[str, float]:
    """One task per batch in turn, the network standing still; each task's last weight."""
    weights = {}
    for number in range(steps):
        task = TASKS[number % len(TASKS)]
        losses, _ = toy.losses(tasks=[task])
        shared = {"none": None, "trunk": toy.trunk}[where]
        balancer(losses, shared=shared).backward()
        weights[task] = float(balancer.last_weights[TASKS.index(task)])
    return weights


def together(balancer: steelyard.Balancer, toy: Toy, where: str, steps: int = 1) -> dict[str, float]:
    for _ in range(steps):
        losses, _ = toy.losses()
        balancer(losses, shared=toy.trunk if where == "trunk" else None)
    return dict(zip(TASKS, balancer.last_weights.tolist(), strict=True))


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ("ema(beta=0.5,variant=normalised)", "none"),
        ("gls", "none"),
        ("log", "none"),
        ("ema(variant=to-max)", "none"),
        ("inverse-norm(beta=0)", "trunk"),
        ("max-norm(beta=0)", "trunk"),
        ("db-mtl(beta=0)", "trunk"),
        ("ema(start=first-loss,scale=sum)", "none"),
    ],
)
def test_a_task_alone_is_weighed_against_what_was_last_seen_of_the_others(spec: str, where: str) -> None:
    """With a network that stands still, one task per batch gives the weights that all together have."""
    toy = Toy(TASKS)
    alone = alternate(steelyard.make(spec, TASKS, memory="numbers"), toy, where, 6)
    assert alone == pytest.approx(together(steelyard.make(spec, TASKS), toy, where, 2), rel=1e-9)
    if spec not in ("log", "gls"):
        without = alternate(steelyard.make(spec, TASKS), toy, where, 6)
        assert without != pytest.approx(alone, rel=1e-3), "this test would pass without a memory"


def test_held_weights_do_not_depend_on_the_heads() -> None:
    """Plain heads read norms in every step; those of steps that only hold the weights are not remembered."""
    found = []
    for heads in ("plain", "weighted"):
        toy = Toy(TASKS)
        balancer = steelyard.make("max-norm(beta=0)", TASKS, memory="numbers", every=2, heads=heads)
        for task, size in (("a", 1), ("b", 1), ("c", 1), ("c", 1000), ("b", 1)):  # 1000 comes while weights are held
            losses, _ = toy.losses(tasks=[task])
            balancer({task: losses[task] * size}, shared=toy.trunk)
        found.append(balancer.last_weights)
    assert torch.allclose(*found, rtol=1e-12)


def test_numbers_do_not_stand_in_for_rows() -> None:
    toy = Toy(TASKS)
    balancer = steelyard.make("db-mtl", TASKS, memory="numbers")
    with pytest.raises(SharedError, match=r"memory='numbers' keeps .* db-mtl reads .* at the trunk: use memory='rows'"):
        balancer(toy.losses()[0], shared=toy.trunk)
    losses, where = toy.losses()
    balancer(losses, shared=where["shared"])


@pytest.mark.parametrize("spec", ["mgda", "pcgrad", "cagrad", "nash-mtl", "upgrad", "aligned-mtl", "db-mtl"])
def test_rows_are_remembered_at_the_trunk(spec: str) -> None:
    toy = Toy(TASKS)
    options = {"generator": torch.Generator().manual_seed(0)}
    balancer = steelyard.make(spec, TASKS, memory="rows", **options)
    alone = alternate(balancer, toy, "trunk", 6)
    if spec in ("pcgrad", "db-mtl", "nash-mtl"):  # draws or averages differ by the number of steps
        assert len(set(alone.values())) == 3, "one task alone would have weight 1"
    else:
        assert alone == pytest.approx(together(steelyard.make(spec, TASKS), toy, "trunk"), rel=1e-5)


def test_what_arrives_is_the_tasks_own_gradient_times_its_weight() -> None:
    toy = Toy(TASKS)
    balancer = steelyard.make("cagrad", TASKS, memory="rows")
    alternate(balancer, toy, "trunk", 3)
    losses, _ = toy.losses(tasks=["b"])
    parameters = list(toy.trunk.parameters())
    plain = task_gradients(losses, parameters)
    arrived = torch.autograd.grad(balancer(losses, shared=toy.trunk), parameters)
    weight = float(balancer.last_weights[1])
    assert weight != pytest.approx(1, abs=1e-3)
    for gradient, expected in zip(arrived, weighted_sum({"b": weight}, plain), strict=True):
        assert torch.allclose(gradient, expected, rtol=1e-6)


def test_the_memory_survives_a_checkpoint() -> None:
    toy = Toy(TASKS)
    balancer = steelyard.make("mgda", TASKS, memory="rows")
    alternate(balancer, toy, "trunk", 4)
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    resumed = steelyard.make("mgda", TASKS, memory="rows")
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert alternate(balancer, toy, "trunk", 3) == alternate(resumed, toy, "trunk", 3)
    assert same_state(snapshot(balancer), snapshot(resumed))


def test_only_the_state_of_the_task_in_the_batch_moves() -> None:
    toy = Toy(TASKS)
    balancer = steelyard.make("ema(beta=0.5)", TASKS, memory="numbers")
    together(balancer, toy, "none", 2)
    before = balancer.average.clone()
    toy.rescale = lambda task, loss: 2 * loss
    balancer(toy.losses(tasks=["b"])[0])
    moved = (balancer.average != before).tolist()
    assert moved == [False, True, False]


@pytest.mark.parametrize("spec", ["mgda", "pcgrad", "db-mtl", "moco"])
def test_comparing_gradients_of_tasks_that_never_meet_is_refused(spec: str) -> None:
    with pytest.raises(SharedError, match=r"the first 10 batches held one task alone: make it with memory='rows'"):
        alternate(steelyard.make(spec, TASKS), Toy(TASKS), "trunk", 10)


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ("dwa", "none"),
        ("gls", "none"),
        ("inverse-norm", "trunk"),
        ("log(scale=sum)", "none"),
        ("initial-scale(scale=sum)", "none"),
    ],
)
def test_weights_that_say_nothing_are_warned_of(spec: str, where: str) -> None:
    with pytest.warns(SteelyardWarning, match="held one task alone: all had the weight 1"):
        alternate(steelyard.make(spec, TASKS), Toy(TASKS), where, 10)


@pytest.mark.parametrize("spec", ["equal", "fixed", "ema", "uw", "log", "initial-scale", "ema-scale+equal"])
def test_weights_that_do_not_depend_on_other_tasks_are_not(spec: str) -> None:
    alternate(steelyard.make(spec, TASKS), Toy(TASKS), "none", 20)


def test_learnt_weights_that_wait_for_the_optimizer_are_not() -> None:
    """Within a window of many micro-batches every weight is the same, and each still learns from its own task."""
    toy, balancer = Toy(TASKS), steelyard.make("uw", TASKS)
    balancer.attach(torch.optim.SGD(toy.parameters(), lr=0.1))
    alternate(balancer, toy, "none", 20)
    toy, balancer = Toy(TASKS), steelyard.make("uw", TASKS, scale="sum")
    with pytest.warns(SteelyardWarning, match="held one task alone: all had the weight 1"):
        alternate(balancer, toy, "none", 10)


RELATED_LATER = {
    "stch": "stch(warm_up=0)",  # its warm-up weighs each task by itself
    "igb": "igb(base_epoch=1,log_losses=False,period=1)",  # as do its first epochs
}


@every("name", [*method_names(), "ema(variant=normalised)", "ema(variant=proportional)"])
def test_methods_say_whether_a_task_is_weighed_by_its_own_losses(name: str) -> None:
    balancers = [steelyard.make(RELATED_LATER.get(name, name), TASKS, **main(name)) for _ in range(2)]
    if balancers[0].reads != "losses" or balancers[0].is_blind or balancers[0].heads == "plain":
        return  # nothing is weighed by losses
    weights: list[list[float]] = []
    for balancer, others in zip(balancers, (1.0, 3.0), strict=True):
        weights.append([])
        for step in range(6):
            sizes = {"a": 1 + 0.1 * step, "b": others * (2 + step % 3), "c": others * 0.5 + step}
            losses = {task: torch.tensor(size, requires_grad=True) * 1.0 for task, size in sizes.items()}
            balancer(losses)
            weights[-1].append(float(balancer.last_weights[0]))
            if balancer.needs_after:
                balancer.observe(after=losses)
            if balancer.needs_validation:
                balancer.observe(validation=losses)
            balancer.end_epoch()
    assert (weights[0] == weights[1]) == balancers[0].independent


def main(name: str) -> dict[str, str]:
    return {"main": "a"} if "main" in options_of(method_class(parse_spec(name).name)) else {}


def test_one_batch_with_several_tasks_is_enough_to_go_on() -> None:
    toy, balancer = Toy(TASKS), steelyard.make("mgda", TASKS)
    together(balancer, toy, "trunk")
    alternate(balancer, toy, "trunk", 20)


def test_micro_batches_of_one_task_make_one_window() -> None:
    """Rows of a window add up, so that its Gramian is the whole batch's."""
    toy = Toy(TASKS)
    parts, whole = (steelyard.make("gradvac", TASKS, memory="rows", generator=torch.Generator()) for _ in range(2))
    parts.attach(optimizer := torch.optim.SGD(toy.parameters(), lr=0))
    for task in TASKS:
        parts(toy.losses(tasks=[task])[0], shared=toy.trunk).backward()
    optimizer.step()
    whole(toy.losses()[0], shared=toy.trunk)
    assert parts.steps == 1
    assert torch.allclose(parts.last_rows, whole.last_rows, rtol=1e-6)
    for declaration in parts.declarations():
        if declaration.name not in ("weight_sums", "last_losses", "last_rows"):
            first, second = getattr(parts, declaration.name), getattr(whole, declaration.name)
            assert torch.allclose(first, second, rtol=1e-5, equal_nan=True), declaration.name


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("mgda", {"memory": "numbers"}, "mgda reads the tasks' gramian: use memory='rows'"),
        ("ema", {"memory": "rows"}, "ema has no use for them"),
        ("graddrop", {"memory": "rows"}, "graddrop has no use for them"),
        ("sdmgrad", {"memory": "rows"}, "two fresh batches"),
        ("mgda", {"memory": "rows", "every": 2}, "does not go with every=2"),
        ("mgda", {"memory": "all"}, "unknown value of memory"),
    ],
)
def test_memories_that_make_no_sense(spec: str, options: dict[str, object], message: str) -> None:
    with pytest.raises((OptionError, steelyard.errors.UnknownNameError), match=message):
        steelyard.make(spec, TASKS, **options)


def test_rows_of_different_batches_do_not_correspond_at_features() -> None:
    losses, where = Toy(TASKS).losses()
    with pytest.raises(SharedError, match="correspond at the trunk's parameters and not at features"):
        steelyard.make("mgda", TASKS, memory="rows")(losses, **where)


class TestABatchForEachTask:
    """All tasks in every step, each with inputs of its own."""

    def losses(self) -> tuple[nn.Module, dict[str, Tensor], tuple[Tensor, ...]]:
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Linear(5, 8), nn.Tanh()).double()
        heads = {task: nn.Linear(8, 1).double() for task in TASKS}
        features = tuple(trunk(torch.randn(6 + 2 * number, 5).double()) for number in range(len(TASKS)))
        losses = {task: (heads[task](z) - len(z)).square().mean() for task, z in zip(TASKS, features, strict=True)}
        return trunk, losses, features

    @pytest.mark.parametrize("spec", ["inverse-norm(beta=0)", "mgda", "upgrad"])
    def test_the_trunk_is_exact(self, spec: str) -> None:
        trunk, losses, _ = self.losses()
        parameters = list(trunk.parameters())
        rows = task_gradients(losses, parameters)
        J = torch.stack([torch.cat([piece.flatten() for piece in row]) for row in rows.values()])
        balancer = steelyard.make(spec, TASKS, heads="weighted")
        arrived = torch.cat([g.flatten() for g in torch.autograd.grad(balancer(losses, shared=trunk), parameters)])
        for i, first in enumerate(TASKS):
            for j in range(i + 1, len(TASKS)):
                if balancer.reads == "gramian":
                    cosine = float(J[i] @ J[j] / (J[i].norm() * J[j].norm()))
                    assert balancer.metrics()[f"cosine/{first},{TASKS[j]}"] == pytest.approx(cosine, rel=1e-9)
        assert torch.allclose(arrived, balancer.last_weights @ J, rtol=1e-9)

    def test_norms_at_features_are_right_and_angles_are_warned_of(self) -> None:
        _, losses, features = self.losses()
        balancer = steelyard.make("inverse-norm(beta=0)", TASKS)
        balancer(losses, shared=features)
        for task, z in zip(TASKS, features, strict=True):
            (own,) = torch.autograd.grad(losses[task], z, retain_graph=True)
            assert balancer.metrics()[f"norm/{task}"] == pytest.approx(float(own.norm()), rel=1e-9)
        with pytest.warns(AngleWarning, match="conflict is invisible"):
            steelyard.make("mgda", TASKS)(losses, shared=features)

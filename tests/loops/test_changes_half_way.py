"""What changes while training: parameters that are frozen, tasks that come and go."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

import steelyard
from cells import every
from helpers import TwoLayer, task_gradients, weighted_sum
from steelyard.errors import OptionError, SharedError, StateError, UnknownNameError
from steelyard.method_registry import method_class, method_names, options_of
from steelyard.testing.toy import Toy, same_state, snapshot

TASKS = ["a", "b", "c"]
# Those that look ahead need a model to do so; their state is declared like all others'.
STATEFUL = [name for name in method_names() if method_class(name).reads != "lookahead" and name != "schedule"]


def _main(spec: str) -> dict[str, str]:
    return {"main": "a"} if "main" in options_of(method_class(spec.partition("(")[0])) else {}


BY_ELEMENT = [
    spec
    for spec in (*STATEFUL, "max-norm(decay=0)", "mgda(memory=rows)", "db-mtl(memory=rows)")
    if any(each.by_element for each in steelyard.make(spec, ["a", "b"], **_main(spec)).declarations())
]


class TestFreezing:
    @pytest.mark.parametrize("spec", ["ema", "mgda", "max-norm(beta=0)"])
    @pytest.mark.parametrize("where", ["features", "trunk"])
    def test_a_layer_of_the_trunk(self, spec: str, where: str) -> None:
        network = TwoLayer({"a": 1.0, "b": 5.0})
        network.trunk.append(torch.nn.Linear(9, 9).double())
        balancer = steelyard.make(spec, ["a", "b"], heads="weighted")
        balancer(*network.losses()) if where == "features" else balancer(network.losses()[0], shared=network.trunk)
        network.trunk[0].requires_grad_(False)
        losses, features = network.losses()
        trainable = [parameter for parameter in network.trunk_parameters() if parameter.requires_grad]
        plain = task_gradients(losses, trainable)
        balancer(losses, shared=features if where == "features" else network.trunk).backward()
        weights = dict(zip(["a", "b"], balancer.last_weights.tolist(), strict=True))
        for parameter, expected in zip(trainable, weighted_sum(weights, plain), strict=True):
            assert torch.allclose(parameter.grad, expected, rtol=1e-9)
        assert network.trunk[0].weight.grad is None

    def test_the_whole_trunk_leaves_nothing_to_balance(self) -> None:
        network = TwoLayer({"a": 1.0, "b": 5.0})
        balancer = steelyard.make("mgda", ["a", "b"])
        balancer(*network.losses())
        network.trunk.requires_grad_(False)
        losses, features = network.losses()
        with pytest.raises(SharedError, match=r"shared\[0\] has no graph.*trunk is frozen"):
            balancer(losses, shared=features)
        with pytest.raises(SharedError, match="every parameter of the trunk given as shared= is frozen"):
            balancer(losses, shared=network.trunk)

    def test_averages_of_rows_say_that_the_trunk_has_changed(self) -> None:
        network = TwoLayer({"a": 1.0, "b": 5.0})
        balancer = steelyard.make("db-mtl", ["a", "b"])
        balancer(network.losses()[0], shared=network.trunk)
        network.trunk[0].bias.requires_grad_(False)
        with pytest.raises(StateError, match=r"trainable parameters have changed; call balancer\.reset\(\)"):
            balancer(network.losses()[0], shared=network.trunk)
        balancer.reset()
        balancer(network.losses()[0], shared=network.trunk).backward()

    @every("spec", BY_ELEMENT)
    def test_so_they_do_of_another_layer_of_the_same_size(self, spec: str) -> None:
        """Layers that take turns: as many numbers are trained, and they are others."""
        first, second = nn.Linear(3, 3), nn.Linear(3, 3)
        balancer = steelyard.make(spec, ["a", "b"], **_main(spec))

        def call() -> torch.Tensor:
            features = second(first(torch.ones(4, 3)).tanh())
            losses = {"a": features.square().mean(), "b": (features - 1).square().mean()}
            return balancer(losses, shared=[first, second])

        second.requires_grad_(False)
        for _ in range(2):
            call().backward()
        first.requires_grad_(False)
        second.requires_grad_(True)
        for _ in range(2):  # a caught error does not let the next step pass
            with pytest.raises(StateError, match=r"trainable parameters have changed; call balancer\.reset\(\)"):
                call()
        balancer.reset()
        call().backward()


class TestTasks:
    def trained(self, spec: str, tasks: list[str], steps: int = 4, **options: object) -> steelyard.Balancer:
        balancer = steelyard.make(spec, tasks, **options)
        Toy(tasks, at_trunk="features" not in balancer.where, probing=balancer.reads == "cross_gramian").train(
            balancer, steps
        )
        return balancer

    @every("spec", STATEFUL)
    def test_kept_tasks_keep_their_state_and_new_ones_start_afresh(self, spec: str) -> None:
        options = {"main": "a"} if "main" in options_of(method_class(spec)) else {}
        balancer = self.trained(spec, TASKS, **options)
        before = snapshot(balancer)
        balancer.set_tasks(["d", "c", "a"])  # b goes, d comes, and the order changes
        fresh = steelyard.make(spec, ["d", "c", "a"], **options)
        for declaration in balancer.declarations():
            now, old = getattr(balancer, declaration.name), before[declaration.name]
            default = fresh.state_dict()[declaration.name]
            if not declaration.task_axes:
                assert torch.equal(now.nan_to_num(7.0), old.nan_to_num(7.0)), declaration.name
                continue
            for axis in declaration.task_axes:
                assert now.shape[axis] == 3
            axis = declaration.task_axes[0]
            if len(declaration.task_axes) == 1:
                for new, was in ((1, 2), (2, 0)):
                    kept = torch.equal(now.select(axis, new).nan_to_num(7.0), old.select(axis, was).nan_to_num(7.0))
                    assert kept, declaration.name
                if not declaration.by_element:
                    first = now.select(axis, 0).nan_to_num(7.0), default.select(axis, 0).nan_to_num(7.0)
                    assert torch.equal(*first), declaration.name
            else:
                assert torch.equal(now[1:, 1:].nan_to_num(7.0), old[[2, 0]][:, [2, 0]].nan_to_num(7.0))
                assert torch.equal(now[0].nan_to_num(7.0), default[0].nan_to_num(7.0))
        assert balancer.steps == 4
        where = {"at_trunk": "features" not in balancer.where, "probing": balancer.reads == "cross_gramian"}
        weights = Toy(["d", "c", "a"], **where).train(balancer, 3)
        assert bool(weights.isfinite().all())

    def test_priorities_are_kept_given_and_dropped(self) -> None:
        balancer = steelyard.make("ema", TASKS, priorities={"a": 2.0, "b": 3.0})
        balancer.set_tasks(["a", "c", "d"], priorities={"d": 0.5})
        assert balancer.priorities == {"a": 2.0, "c": 1.0, "d": 0.5}
        balancer.set_tasks(["a", "d"], priorities={"a": 1.0})
        assert balancer.priorities == {"a": 1.0, "d": 0.5}

    def test_fixed_weights_of_kept_tasks_stay(self) -> None:
        balancer = steelyard.make("fixed", TASKS, weights={"a": 2.0})
        balancer.set_tasks(["a", "d"])
        toy = Toy(["a", "d"])
        balancer(toy.losses()[0])
        assert balancer.last_weights.tolist() == [2.0, 1.0]

    def test_stages_follow(self) -> None:
        balancer = self.trained("ema-scale+ema", TASKS)
        average = balancer.stages[0].average.clone()
        balancer.set_tasks(["c", "a"])
        assert torch.equal(balancer.stages[0].average, average[[2, 0]])

    def test_the_optimizers_checkpoint_follows(self) -> None:
        toy = Toy(TASKS)
        balancer = steelyard.make("ema", TASKS).attach(toy.optimizer)
        toy.train(balancer, 2)
        balancer.set_tasks(["a", "b"])
        file = io.BytesIO()
        torch.save(toy.optimizer.state_dict(), file)
        file.seek(0)
        other = Toy(TASKS)
        resumed = steelyard.make("ema", ["a", "b"]).attach(other.optimizer)
        other.optimizer.load_state_dict(torch.load(file, weights_only=True))
        assert same_state(snapshot(balancer), snapshot(resumed))

    def test_a_loss_of_a_new_task_says_what_to_call(self) -> None:
        toy = Toy(["a", "d"])
        with pytest.raises(UnknownNameError, match=r"'d'.*balancer\.set_tasks"):
            steelyard.make("ema", ["a", "b"])(toy.losses()[0])

    def test_refusals_change_nothing(self) -> None:
        toy = Toy(TASKS)
        balancer = steelyard.make("ema", TASKS).attach(toy.optimizer)
        balancer(toy.losses()[0]).backward()
        before = snapshot(balancer)
        with pytest.raises(StateError, match="in the middle of a step"):
            balancer.set_tasks(["a"])
        balancer.discard()
        with pytest.raises(UnknownNameError, match="'e'"):
            balancer.set_tasks(["a", "b"], priorities={"e": 2.0})
        with pytest.raises(OptionError, match="given twice"):
            balancer.set_tasks(["a", "a"])
        assert same_state(before, snapshot(balancer))
        assert balancer.tasks == tuple(TASKS)
        with pytest.raises(OptionError, match="serves the main task 'a'"):
            steelyard.make("ol-aux", TASKS, main="a").set_tasks(["b", "c"])
        with pytest.raises(OptionError, match="the schedule was written for a, b, c"):
            steelyard.make("schedule", TASKS, weights="a: 1.0 until 5, then 0.1").set_tasks(["b", "c"])
        with pytest.raises(StateError, match="learn='external'"):
            steelyard.make("uw", TASKS, learn="external").set_tasks(["b", "c"])


def test_a_step_that_a_scaler_has_skipped_is_over() -> None:
    """Whether the epoch's last step overflows is chance, and `set_tasks` after it must not depend on that."""
    toy = Toy(["a", "b"])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    balancer = steelyard.make("dwa", ["a", "b"]).attach(toy.optimizer, scaler)
    toy.optimizer.zero_grad()
    scaler.scale(balancer(toy.losses()[0])).backward()
    with pytest.raises(StateError, match="in the middle of a step"):
        balancer.set_tasks(["a"])
    for parameter in toy.optimizer.param_groups[0]["params"]:
        parameter.grad = torch.full_like(parameter, torch.inf)
    scaler.step(toy.optimizer)
    scaler.update()
    balancer.end_epoch()
    balancer.set_tasks(["a"])
    assert balancer.tasks == ("a",)
    assert balancer.steps == 0


@pytest.mark.parametrize("name", ["uw", "gradvac"])  # one axis over tasks, and two
def test_tasks_that_are_all_new_start_afresh(name: str) -> None:
    balancer = steelyard.make(name, ["a", "b"], generator=torch.Generator().manual_seed(0))
    balancer.set_tasks(["x", "y", "z"])
    fresh = steelyard.make(name, ["x", "y", "z"], generator=torch.Generator().manual_seed(0))
    assert same_state(snapshot(balancer), snapshot(fresh))


def test_a_block_of_held_weights_is_the_middle_of_a_step() -> None:
    balancer = steelyard.UW(["a", "b"])
    with balancer.frozen(), pytest.raises(StateError, match=r"outside of balancer\.frozen\(\)"):
        balancer.set_tasks(["a"])

"""Whatever happens on one rank, all decide the same, and none waits for another in vain."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import steelyard
from distributed.launch import launch
from distributed.training import TASKS, Network, build, data, errors, shard
from steelyard.errors import SteelyardError

POLICIES = ("raise", "drop_task", "skip_step", "ignore")
CASES: dict[str, Callable[[int, int], Any]] = {}


def case(function: Callable[[int, int], Any]) -> Callable[[int, int], Any]:
    """Runs on both ranks, in the one launch of this file."""
    CASES[function.__name__] = function
    return function


def all_cases(rank: int, ranks: int) -> dict[str, Any]:
    return {name: function(rank, ranks) for name, function in CASES.items()}


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return launch(all_cases, 2)


class Loop:
    """One wrapped network, a balancer, an optimizer."""

    def __init__(self, rank: int, ranks: int, spec: str, attached: bool = False, **options: Any) -> None:
        self.network = Network()
        self.model = DistributedDataParallel(self.network) if ranks > 1 else self.network
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.02, momentum=0.9)
        self.balancer = build(spec, **options)
        if attached:
            self.balancer.attach(self.optimizer)
        self.rows = shard(rank, ranks)

    def losses(self, step: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        inputs, targets = data(step)
        features, outputs = self.model(inputs[self.rows])
        return {task: each.mean() for task, each in errors(outputs, targets, self.rows).items()}, features

    def step(
        self, step: int = 0, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None, **call: Any
    ) -> None:
        self.optimizer.zero_grad()
        losses, features = self.losses(step)
        self.balancer(losses if change is None else change(losses), shared=features, **call).backward()
        self.optimizer.step()

    def parameters(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.network.parameters()])

    def where(self) -> dict[str, Any]:
        balancer = self.balancer
        return {"parameters": self.parameters(), "metrics": balancer.metrics(), "steps": balancer.steps}


def message(action: Callable[[], Any]) -> str:
    try:
        action()
    except SteelyardError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def spoiled(rank: int, factor: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """The second rank's loss of "middle" becomes inf or NaN; the graph stays."""
    return lambda losses: {
        task: loss * (factor if (rank, task) == (1, "middle") else 1) for task, loss in losses.items()
    }


@case
def non_finite(rank: int, ranks: int) -> Any:
    results = {}
    for policy in POLICIES:
        for spec in ("uw", "mgda"):
            loop = Loop(rank, ranks, spec, attached=True, on_nonfinite=policy)
            loop.step(0)
            before = loop.parameters()
            said = message(lambda loop=loop: loop.step(1, spoiled(rank, float("nan"))))
            moved = not torch.equal(before, loop.parameters())
            if policy != "ignore":
                loop.step(2)
            results[policy, spec] = {**loop.where(), "said": said, "moved": moved}
    return results


def test_a_nan_on_one_rank(found: list[dict[str, Any]]) -> None:
    for key, first in found[0]["non_finite"].items():
        second = found[1]["non_finite"][key]
        assert first["said"] == second["said"]
        assert first["steps"] == second["steps"]
        assert torch.equal(first["parameters"].nan_to_num(7.0), second["parameters"].nan_to_num(7.0)), key
        if key[0] == "raise":
            assert "NonFiniteLossError: the loss of 'middle' is nan on rank 1." in first["said"]
        else:
            assert not first["said"]
        assert first["moved"] == (key[0] in ("drop_task", "ignore"))
        assert bool(first["parameters"].isfinite().all()) == (key[0] != "ignore")


@case
def dropping(rank: int, ranks: int) -> Any:
    loop = Loop(rank, ranks, "mgda", on_nonfinite="drop_task")
    loop.step(0, spoiled(rank, float("inf")))
    return loop.where()


def test_a_dropped_task_is_dropped_everywhere(found: list[dict[str, Any]]) -> None:
    alone = Loop(0, 1, "mgda")
    alone.step(0, lambda losses: {**losses, "middle": None})
    for each in found:
        assert torch.allclose(each["dropping"]["parameters"], alone.parameters(), rtol=1e-12)


@case
def negative(rank: int, ranks: int) -> str:
    loop = Loop(rank, ranks, "dwa")
    return message(lambda: loop.step(0, lambda losses: {**losses, "left": losses["left"] - 9.0 * rank}))


def test_a_negative_loss_on_one_rank(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert "the loss of 'left' is negative on rank 1" in each["negative"]


@case
def nothing_on_one_rank(rank: int, ranks: int) -> Any:
    refused = Loop(rank, ranks, "mgda")
    losses, features = refused.losses()
    said = message(lambda: refused.balancer(losses if rank == 0 else {}, shared=features))
    loop = Loop(rank, ranks, "mgda")
    loop.step(0, counts=dict.fromkeys(TASKS, 0 if rank else 6))
    return {"said": said, **loop.where()}


def test_a_rank_without_any_label(found: list[dict[str, Any]]) -> None:
    """It is refused without a loss, and sends nothing with losses that have no labels behind them."""
    alone = Network()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.02, momentum=0.9)
    inputs, targets = data(0)
    features, outputs = alone(inputs[:6])
    losses = {task: each.mean() for task, each in errors(outputs, targets, slice(0, 6)).items()}
    build("mgda")(losses, shared=features).backward()
    optimizer.step()
    expected = torch.cat([parameter.detach().flatten() for parameter in alone.parameters()])
    for each in found:
        assert "absent from the batch of rank 1" in each["nothing_on_one_rank"]["said"]
        assert torch.allclose(each["nothing_on_one_rank"]["parameters"], expected, rtol=1e-12)


@case
def accumulating(rank: int, ranks: int) -> Any:
    results = {}
    for spec in ("uw", "inverse-norm", "famo"):
        loop = Loop(rank, ranks, spec, attached=True)
        for step in range(4):
            loop.optimizer.zero_grad()
            for number in range(2):
                with loop.model.no_sync() if number == 0 and ranks > 1 else torch.enable_grad():
                    losses, features = loop.losses(2 * step + number)

                    def again(number: int = number, step: int = step, loop: Loop = loop) -> dict[str, Tensor]:
                        return loop.losses(2 * step + number)[0]

                    loop.balancer(losses, shared=features, again=lambda *_, again=again: again()).backward()
            loop.optimizer.step()
        results[spec] = loop.where()
    return results


def test_accumulation_without_synchronisation(found: list[dict[str, Any]]) -> None:
    alone = accumulating(0, 1)
    for spec, expected in alone.items():
        for each in found:
            assert torch.allclose(each["accumulating"][spec]["parameters"], expected["parameters"], rtol=1e-10), spec
            assert each["accumulating"][spec]["steps"] == expected["steps"] == 4
        assert torch.equal(*(each["accumulating"][spec]["parameters"] for each in found))


@case
def closures(rank: int, ranks: int) -> Any:
    loop = Loop(rank, ranks, "uw")
    optimizer = torch.optim.LBFGS(loop.network.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
    loop.balancer.attach(optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loop.balancer(loop.losses(0)[0])
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    return loop.where()


def test_closures_that_are_evaluated_often(found: list[dict[str, Any]]) -> None:
    alone = closures(0, 1)
    assert torch.equal(*(each["closures"]["parameters"] for each in found))
    assert torch.allclose(found[0]["closures"]["parameters"], alone["parameters"], rtol=1e-7)


@case
def draws(rank: int, ranks: int) -> Any:
    results = {}
    for spec in ("random", "pcgrad", "graddrop"):
        torch.manual_seed(100 + rank)  # every rank would draw its own
        balancer = steelyard.make(spec, list(TASKS))
        loop = Loop(rank, ranks, "equal")
        for step in range(3):
            losses, features = loop.losses(step)
            loop.optimizer.zero_grad()
            balancer(losses, shared=features).backward()
            loop.optimizer.step()
        results[spec] = (loop.parameters(), balancer.last_weights, balancer.generator.get_state())
    return results


def test_random_methods_draw_the_same(found: list[dict[str, Any]]) -> None:
    for spec, first in found[0]["draws"].items():
        for mine, other in zip(first, found[1]["draws"][spec], strict=True):
            assert torch.equal(mine, other), spec


@case
def checkpoint_on_the_first_rank(rank: int, ranks: int) -> Any:
    torch.manual_seed(0)
    trained = Loop(0, 1, "uw")
    trained.balancer.sync = "off"
    for step in range(3):
        trained.step(step)
    loop = Loop(rank, ranks, "uw")
    if rank == 0:
        loop.balancer.load_state_dict(trained.balancer.state_dict())
    loop.step(0)
    return loop.balancer.steps, loop.balancer.state_dict()["log_variance"]


def test_a_checkpoint_that_the_first_rank_has_loaded_is_everybodys(found: list[dict[str, Any]]) -> None:
    (steps, first), (others, second) = (each["checkpoint_on_the_first_rank"] for each in found)
    assert steps == others == 4
    assert torch.equal(first, second)


@case
def disagreement(rank: int, ranks: int) -> list[str]:
    loop = Loop(rank, ranks, "equal")
    said = []
    for balancer in (
        build("mgda" if rank else "equal"),
        build("equal", priorities={"left": 1.0 + rank}),
        steelyard.make("equal", TASKS if rank else TASKS[::-1]),
    ):
        losses, features = loop.losses()
        said.append(message(lambda balancer=balancer, a=losses, b=features: balancer(a, shared=b)))
    return said


def test_ranks_that_balance_differently_are_told(found: list[dict[str, Any]]) -> None:
    for each in found:
        method, priorities, tasks = each["disagreement"]
        assert "the method is equal on rank 0 and mgda on rank 1" in method
        assert "priorities= is" in priorities
        assert "the list of tasks is right, middle, left on rank 0" in tasks


@case
def drift(rank: int, ranks: int) -> Any:
    results = {}
    for way in ("wrapped", "gone round", "off"):
        loop = Loop(rank, ranks, "uw", attached=True, sync="off" if way == "off" else "exact")
        loop.step(0)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            if way != "wrapped":
                loop.model = loop.network
            for step in range(4):
                loop.step(step)
        results[way] = [str(each.message) for each in heard if "ranks' parameters differ" in str(each.message)]
    return results


def test_replicas_that_drift_apart_are_noticed(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert not each["drift"]["wrapped"]
        assert any("never model.module(x)" in text for text in each["drift"]["gone round"])
        assert not each["drift"]["off"]


@case
def own_group(rank: int, ranks: int) -> Any:
    groups = [dist.new_group([0]), dist.new_group([1])]
    pair = dist.new_group([0, 1])
    loop = Loop(rank, ranks, "uw", process_group=groups[rank])
    loop.step()
    shared = Loop(rank, ranks, "uw", process_group=pair)
    shared.step()
    twin = copy.deepcopy(shared.balancer)
    foreign = message(lambda: build("uw", process_group=groups[1 - rank]))
    pickled = message(lambda: copy.copy(shared.balancer.process_group).__reduce__())
    off = Loop(rank, ranks, "uw", sync="off")
    off.step()
    return {
        "alone": loop.balancer.metrics()["loss/sum"],
        "off": off.balancer.metrics()["loss/sum"],
        "pair": shared.balancer.metrics()["loss/sum"],
        "same group": twin.process_group.group is pair,
        "foreign": foreign,
        "pickled": pickled,
    }


def test_which_ranks_share_a_batch(found: list[dict[str, Any]]) -> None:
    first, second = (each["own_group"] for each in found)
    assert first["alone"] != second["alone"]
    assert (first["off"], second["off"]) == (first["alone"], second["alone"])
    assert first["pair"] == second["pair"] == pytest.approx((first["alone"] + second["alone"]) / 2)
    assert first["same group"]
    assert "process_group must be" in first["foreign"]
    assert "cannot be pickled" in first["pickled"]


@case
def local_means(rank: int, ranks: int) -> Any:
    loop = Loop(rank, ranks, "mgda", sync="local-mean")
    losses, _ = loop.losses()
    loop.balancer(losses, shared=loop.network.trunk)
    rows = Loop(rank, ranks, "moco", sync="local-mean")
    losses, _ = rows.losses()
    refused = message(lambda: rows.balancer(losses, shared=rows.network.trunk))
    cross = Loop(rank, ranks, "modo", sync="local-mean")
    losses, _ = cross.losses()
    cross.balancer(losses, shared=cross.network.trunk, probes=[cross.losses(1)[0], cross.losses(2)[0]])
    return {"metrics": loop.balancer.metrics(), "refused": refused, "cross": cross.balancer.last_weights}


def test_the_mean_of_local_gramians(found: list[dict[str, Any]]) -> None:
    local = []
    for rank in range(2):
        network = Network()
        inputs, targets = data(0)
        _, outputs = network(inputs[shard(rank, 2)])
        losses = {task: each.mean() for task, each in errors(outputs, targets, shard(rank, 2)).items()}
        rows = torch.stack(
            [
                torch.cat(
                    [
                        g.flatten()
                        for g in torch.autograd.grad(loss, list(network.trunk.parameters()), retain_graph=True)
                    ]
                )
                for loss in losses.values()
            ]
        )
        local.append(rows @ rows.T)
    mean = (local[0] + local[1]) / 2
    for each in found:
        metrics = each["local_means"]["metrics"]
        assert metrics["norm/left"] == pytest.approx(float(mean[0, 0].sqrt()), rel=1e-10)
        cosine = float(mean[0, 1] / (mean[0, 0] * mean[1, 1]).sqrt())
        assert metrics["cosine/left,middle"] == pytest.approx(cosine, rel=1e-9)
        assert "use sync='exact'" in each["local_means"]["refused"]
    assert torch.equal(*(each["local_means"]["cross"] for each in found))


@case
def looking_ahead(rank: int, ranks: int) -> str:
    loop = Loop(rank, ranks, "auto-lambda")
    losses, features = loop.losses()
    return message(lambda: loop.balancer(losses, shared=features))


def test_methods_that_look_ahead_are_refused(found: list[dict[str, Any]]) -> None:
    assert all("steps ahead along the gradients of the batch at hand" in each["looking_ahead"] for each in found)


class Mixed(Network):
    """Outputs of every kind around the features, as the wrapper's node hands them on."""

    def forward(self, inputs: Tensor) -> dict[str, Any]:
        features, outputs = super().forward(inputs)
        kinds = {"size": 3, "index": torch.arange(3), "apart": features.detach(), "none": None}
        return {**kinds, **outputs, "name": "x", "features": features, "again": outputs}


@case
def first_looks(rank: int, ranks: int) -> Any:
    results = {}
    for name, options in {"static": {"static_graph": True}, "unused": {"find_unused_parameters": True}}.items():
        network = Mixed()
        model = DistributedDataParallel(network, **options)
        balancer = build("pcgrad")
        for step in range(2):
            inputs, targets = data(step)
            outputs = model(inputs[shard(rank, ranks)])
            losses = {t: each.mean() for t, each in errors(outputs, targets, shard(rank, ranks)).items()}
            balancer(losses, shared=outputs["features"]).backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter -= 0.02 * parameter.grad
                    parameter.grad = None
        results[name] = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    model = DistributedDataParallel(Mixed(), static_graph=True)
    outputs = model(data(0)[0][shard(rank, ranks)])
    losses = {t: each.mean() for t, each in errors(outputs, data(0)[1], shard(rank, ranks)).items()}
    del model._static_graph_delay_allreduce_enqueued  # a torch that keeps it elsewhere
    results["refused"] = message(lambda: build("mgda")(losses, shared=outputs["features"]))
    model._static_graph_delay_allreduce_enqueued = False
    torch.stack(list(losses.values())).sum().backward()
    return results


def test_a_first_look_behind_outputs_of_every_kind(found: list[dict[str, Any]]) -> None:
    alone = Loop(0, 1, "pcgrad")
    alone.optimizer = torch.optim.SGD(alone.network.parameters(), lr=0.02)
    for step in range(2):
        alone.step(step)
    for each in found:
        for name in ("static", "unused"):
            assert torch.allclose(each["first_looks"][name], alone.parameters(), rtol=1e-10), name
        assert "make the first step a plain one" in each["first_looks"]["refused"]


@case
def validation(rank: int, ranks: int) -> Any:
    balancer = build("coba")
    losses = {task: torch.tensor(1.0 + rank + number) for number, task in enumerate(TASKS)}
    balancer.observe(validation=losses, counts={"left": 1 + 2 * rank})
    return balancer.state_dict()["first"]


def test_validation_losses_are_averaged_by_their_counts(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each["validation"].tolist() == [1 + 3 / 4, 2.5, 3.5]


@case
def evaluating(rank: int, ranks: int) -> float:
    balancer = build("uw").eval()
    return float(balancer({task: torch.tensor(1.0 + rank) for task in TASKS})) if rank == 0 else 0.0


def test_evaluation_speaks_to_nobody(found: list[dict[str, Any]]) -> None:
    assert found[0]["evaluating"] == 3.0


def test_local_mean_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(steelyard.errors.OptionError, match="reads losses only"):
        build("uw", sync="local-mean")

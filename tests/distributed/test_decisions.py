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
from distributed.training import BATCH, TASKS, Network, build, data, errors, shard, train
from steelyard.balancing.distributed.ranks import Ranks
from steelyard.errors import SteelyardError, SteelyardWarning

pytestmark = pytest.mark.takes(
    "ranks are processes, which import torch; the first test of a file waits for all that they train"
)

COLUMNS = [("uw", "losses"), ("mgda", "features"), ("mgda", "trunk"), ("db-mtl", "trunk")]
"""Those of docs/works-with.md; the trunk by its Gramian, and by averaged rows with plain heads."""
READING = COLUMNS[1:]
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
    """One wrapped network, a balancer that reads at some place, an optimizer."""

    def __init__(
        self, rank: int, ranks: int, spec: str, at: str = "features", attached: bool = False, **options: Any
    ) -> None:
        self.at = at
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

    def shared(self, features: Tensor) -> Any:
        return {"losses": None, "features": features, "trunk": self.network.trunk}[self.at]

    def step(
        self, step: int = 0, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None, **call: Any
    ) -> None:
        self.optimizer.zero_grad()
        losses, features = self.losses(step)
        losses = losses if change is None else change(losses)
        self.balancer(losses, shared=self.shared(features), **call).backward()
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
        for spec, at in COLUMNS:
            loop = Loop(rank, ranks, spec, at, attached=True, on_nonfinite=policy)
            loop.step(0)
            before = loop.parameters()
            said = message(lambda loop=loop: loop.step(1, spoiled(rank, float("nan"))))
            moved = not torch.equal(before, loop.parameters())
            if policy != "ignore":
                loop.step(2)
            results[policy, spec, at] = {**loop.where(), "said": said, "moved": moved}
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


def steep(rank: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """The second rank's loss of "middle" stays as it is, and its gradient becomes NaN."""
    return lambda losses: {
        task: loss + (0 * (loss - loss.detach()).sqrt() if (rank, task) == (1, "middle") else 0)
        for task, loss in losses.items()
    }


@case
def dropping(rank: int, ranks: int) -> Any:
    results = {}
    for spec, at in COLUMNS:
        for what, change in {"loss": spoiled(rank, float("inf")), "gradient": steep(rank)}.items():
            if what == "gradient" and at == "losses":
                continue  # nobody looks
            loop = Loop(rank, ranks, spec, at, on_nonfinite="drop_task")
            loop.step(0, change)
            results[what, spec, at] = loop.parameters()
    return results


def test_a_dropped_task_is_dropped_everywhere(found: list[dict[str, Any]]) -> None:
    for what, spec, at in found[0]["dropping"]:
        alone = Loop(0, 1, spec, at)
        alone.step(0, lambda losses: {**losses, "middle": None})
        for each in found:
            assert torch.allclose(each["dropping"][what, spec, at], alone.parameters(), rtol=1e-10), (what, spec, at)
        assert torch.equal(*(each["dropping"][what, spec, at] for each in found))


@case
def cut_from_one(rank: int, ranks: int) -> Any:
    """The second rank's losses are elements of one tensor, and "middle" is NaN in it."""

    def cut(losses: dict[str, Tensor]) -> dict[str, Tensor]:
        factor = torch.tensor([1.0, float("nan"), 1.0], dtype=torch.float64)
        return dict(zip(losses, torch.stack(list(losses.values())) * factor, strict=True)) if rank else losses

    results = {}
    for spec, at in COLUMNS:
        loop = Loop(rank, ranks, spec, at, on_nonfinite="drop_task")
        before = loop.parameters()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.step(0, cut)
        moved = not torch.equal(before, loop.parameters())
        results[spec, at] = moved, [str(each.message) for each in caught]
    return results


def test_losses_of_one_tensor_on_one_rank(found: list[dict[str, Any]]) -> None:
    for key in COLUMNS:
        (moved, quiet), (second, said) = (each["cut_from_one"][key] for each in found)
        assert not moved
        assert not second
        assert not quiet
        assert any("'left', 'right' are finite with gradients that are not" in text for text in said)


@case
def steep_on_one_rank(rank: int, ranks: int) -> list[str]:
    loops = [Loop(rank, ranks, spec, at) for spec, at in READING]
    return [message(lambda loop=loop: loop.step(0, steep(rank))) for loop in loops]


def test_a_nan_gradient_on_one_rank(found: list[dict[str, Any]]) -> None:
    for each in found:
        for said in each["steep_on_one_rank"]:
            assert "the squared gradient norm over all ranks of 'middle' is nan" in said


@case
def negative(rank: int, ranks: int) -> str:
    loop = Loop(rank, ranks, "dwa")
    return message(lambda: loop.step(0, lambda losses: {**losses, "left": losses["left"] - 9.0 * rank}))


def test_a_negative_loss_on_one_rank(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert "the loss of 'left' is negative on rank 1" in each["negative"]


@case
def nothing_on_one_rank(rank: int, ranks: int) -> Any:
    results = {}
    for spec, at in COLUMNS:
        refused = Loop(rank, ranks, spec, at)
        losses, features = refused.losses()
        shared = refused.shared(features)
        said = message(lambda a=losses, b=shared, loop=refused: loop.balancer(a if rank == 0 else {}, shared=b))
        loop = Loop(rank, ranks, spec, at)
        for step in range(2):
            loop.step(step, counts=dict.fromkeys(TASKS, 0 if rank else 6))
        results[spec, at] = {"said": said, **loop.where()}
    return results


@pytest.mark.parametrize(("spec", "at"), COLUMNS)
def test_a_rank_without_any_label(found: list[dict[str, Any]], spec: str, at: str) -> None:
    """It is refused without a loss, and sends nothing with losses that have no labels behind them."""
    alone = Loop(0, 1, spec, at)
    alone.rows = shard(0, 2)
    for step in range(2):
        alone.step(step)
    for each in found:
        result = each["nothing_on_one_rank"][spec, at]
        assert "absent from the batch of rank 1" in result["said"]
        assert torch.allclose(result["parameters"], alone.parameters(), rtol=1e-10)


@case
def accumulating(rank: int, ranks: int) -> Any:
    results = {}
    for spec, at in [*COLUMNS, ("famo", "losses"), ("inverse-norm", "features"), ("pcgrad", "trunk")]:
        loop = Loop(rank, ranks, spec, at, attached=True)
        for step in range(4):
            loop.optimizer.zero_grad()
            for number in range(2):
                with loop.model.no_sync() if number == 0 and ranks > 1 else torch.enable_grad():
                    losses, features = loop.losses(2 * step + number)

                    def again(number: int = number, step: int = step, loop: Loop = loop) -> dict[str, Tensor]:
                        return loop.losses(2 * step + number)[0]

                    shared = loop.shared(features)
                    loop.balancer(losses, shared=shared, again=lambda *_, again=again: again()).backward()
            loop.optimizer.step()
        results[spec, at] = loop.where()
    return results


def test_accumulation_without_synchronisation(found: list[dict[str, Any]]) -> None:
    alone = accumulating(0, 1)
    for key, expected in alone.items():
        for each in found:
            assert torch.allclose(each["accumulating"][key]["parameters"], expected["parameters"], rtol=1e-10), key
            assert each["accumulating"][key]["steps"] == expected["steps"] == 4
        assert torch.equal(*(each["accumulating"][key]["parameters"] for each in found))


@case
def closures(rank: int, ranks: int) -> Any:
    results = {}
    for spec, at in COLUMNS[:-1]:  # plain heads are refused: loops/test_plain_loops.py
        loop = Loop(rank, ranks, spec, at)
        optimizer = torch.optim.LBFGS(loop.network.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
        loop.balancer.attach(optimizer)

        def closure(loop: Loop = loop, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            losses, features = loop.losses(0)
            loss = loop.balancer(losses, shared=loop.shared(features))
            loss.backward()
            return loss

        for _ in range(2):
            optimizer.step(closure)
        results[spec, at] = loop.parameters()
    return results


def test_closures_that_are_evaluated_often(found: list[dict[str, Any]]) -> None:
    for key, alone in closures(0, 1).items():
        assert torch.equal(*(each["closures"][key] for each in found)), key
        assert torch.allclose(found[0]["closures"][key], alone, rtol=1e-7), key


@case
def draws(rank: int, ranks: int) -> Any:
    results = {}
    for spec, at in [("random", "losses"), ("pcgrad", "features"), ("graddrop", "features"), ("pcgrad", "trunk")]:
        loop = Loop(rank, ranks, "equal", at)
        torch.manual_seed(100 + rank)  # every rank would draw its own
        loop.balancer = steelyard.make(spec, list(TASKS))
        for step in range(3):
            loop.step(step)
        balancer = loop.balancer
        results[spec, at] = (loop.parameters(), balancer.last_weights, balancer.generator.get_state())
    return results


def test_random_methods_draw_the_same(found: list[dict[str, Any]]) -> None:
    """As one process does with the first rank's generator."""
    for key, alone in draws(0, 1).items():
        for mine, other, expected in zip(found[0]["draws"][key], found[1]["draws"][key], alone, strict=True):
            assert torch.equal(mine, other), key
            assert torch.allclose(mine.double(), expected.double(), rtol=1e-9), key


@case
def checkpoint_on_the_first_rank(rank: int, ranks: int) -> Any:
    results = {}
    for spec, at in [*COLUMNS, ("inverse-norm", "features"), ("inverse-norm", "trunk")]:
        for every in (1, 2):  # with 2, the third step holds weights: only the first rank knows
            trained = Loop(0, 1, spec, at, every=every)
            trained.balancer.sync = "off"
            for step in range(3):
                trained.step(step)
            loop = Loop(rank, ranks, spec, at, every=every)
            if rank == 0:
                loop.balancer.load_state_dict(trained.balancer.state_dict())
            loop.step(0)
            state = {name: value for name, value in loop.balancer.state_dict().items() if isinstance(value, Tensor)}
            results[spec, at, every] = loop.balancer.steps, state, loop.parameters()
    return results


def test_a_checkpoint_that_the_first_rank_has_loaded_is_everybodys(found: list[dict[str, Any]]) -> None:
    first, second = (each["checkpoint_on_the_first_rank"] for each in found)
    for key, (steps, state, parameters) in checkpoint_on_the_first_rank(0, 1).items():
        assert first[key][0] == second[key][0] == steps == 4, key
        assert torch.equal(first[key][2], second[key][2]), key
        assert torch.allclose(first[key][2], parameters, rtol=1e-9), key
        for name, value in state.items():
            assert torch.equal(first[key][1][name].nan_to_num(7.0), second[key][1][name].nan_to_num(7.0)), (key, name)
            assert torch.allclose(first[key][1][name], value, rtol=1e-9, equal_nan=True), (key, name)


@case
def disagreement(rank: int, ranks: int) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    for at, (one, another) in {
        "losses": ("uw", "dwa"),
        "features": ("mgda", "pcgrad"),
        "trunk": ("mgda", "db-mtl"),
    }.items():
        loop = Loop(rank, ranks, "equal", at)
        losses, features = loop.losses()
        shared = loop.shared(features)
        said[at] = [
            message(lambda balancer=balancer, a=losses, b=shared: balancer(a, shared=b))
            for balancer in (
                build(another if rank else one),
                build(one, priorities={"left": 1.0 + rank}),
                build(f"ema(beta=0.{5 + rank})" if at == "losses" else f"max-norm(beta=0.{5 * rank})"),
                steelyard.make(one, TASKS if rank else TASKS[::-1]),
            )
        ]
    loop = Loop(rank, ranks, "mgda", "trunk" if rank else "features")
    said["places"] = [message(loop.step)]
    return said


def test_ranks_that_balance_differently_are_told(found: list[dict[str, Any]]) -> None:
    for each in found:
        methods = []
        for at in ("losses", "features", "trunk"):
            method, priorities, option, tasks = each["disagreement"][at]
            methods.append(method)
            assert "priorities= is" in priorities
            assert "beta= is 0.5 on rank 0 and 0.6 on rank 1" in option or "beta= is 0.0 on rank 0 and 0.5" in option
            assert "the list of tasks is right, middle, left on rank 0" in tasks
        pairs = [("uw", "dwa"), ("mgda", "pcgrad"), ("mgda", "db-mtl")]
        for said, (one, another) in zip(methods, pairs, strict=True):
            assert f"the method is {one} on rank 0 and {another} on rank 1" in said
        (places,) = each["disagreement"]["places"]
        assert "shared= is features on rank 0 and a trunk of 36 numbers on rank 1" in places


@case
def drift(rank: int, ranks: int) -> Any:
    results = {}
    for spec, at, attached in [
        ("uw", "losses", True),
        ("mgda", "features", True),
        ("mgda", "trunk", True),
        ("mgda", "trunk", False),
    ]:
        for way in ("wrapped", "gone round", "off"):
            loop = Loop(rank, ranks, spec, at, attached, sync="off" if way == "off" else "exact")
            loop.step(0)
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                if way != "wrapped":
                    loop.model = loop.network
                for step in range(4):
                    loop.step(step)
            texts = [str(each.message) for each in heard]
            results[way, spec, at, attached] = [text for text in texts if "ranks' parameters differ" in text]
    return results


def test_replicas_that_drift_apart_are_noticed(found: list[dict[str, Any]]) -> None:
    for each in found:
        for (way, *column), heard in each["drift"].items():
            assert bool(heard) == (way == "gone round"), (way, column)
            assert all("never model.module(x)" in text for text in heard)


@case
def own_group(rank: int, ranks: int) -> Any:
    groups = [dist.new_group([0]), dist.new_group([1])]
    pair = dist.new_group([0, 1])
    results: dict[Any, Any] = {}
    for spec, at in COLUMNS:
        for name, options in {
            "alone": {"process_group": groups[rank]},
            "off": {"sync": "off"},
            "pair": {"process_group": pair},
        }.items():
            loop = Loop(rank, ranks, spec, at, **options)
            loop.step()
            results[name, spec, at] = loop.balancer.metrics()
    twin = copy.deepcopy(loop.balancer)
    foreign = message(lambda: build("uw", process_group=groups[1 - rank]))
    pickled = message(lambda: copy.copy(loop.balancer.process_group).__reduce__())
    return {
        "metrics": results,
        "same group": twin.process_group.group is pair,
        "foreign": foreign,
        "pickled": pickled,
    }


@pytest.mark.parametrize(("spec", "at"), COLUMNS)
def test_which_ranks_share_a_batch(found: list[dict[str, Any]], spec: str, at: str) -> None:
    whole = Loop(0, 1, spec, at)
    whole.step()
    for rank, each in enumerate(found):
        own = Loop(0, 1, spec, at)
        own.rows = shard(rank, 2)
        own.step()
        metrics = each["own_group"]["metrics"]
        assert metrics["alone", spec, at] == metrics["off", spec, at] == pytest.approx(own.balancer.metrics())
        assert metrics["pair", spec, at] == pytest.approx(whole.balancer.metrics())
        assert metrics["pair", spec, at] != pytest.approx(metrics["alone", spec, at])


def test_a_process_group_belongs_to_the_process(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each["own_group"]["same group"]
        assert "process_group must be" in each["own_group"]["foreign"]
        assert "cannot be pickled" in each["own_group"]["pickled"]


@case
def local_means(rank: int, ranks: int) -> Any:
    loop = Loop(rank, ranks, "mgda", sync="local-mean")
    losses, _ = loop.losses()
    loop.balancer(losses, shared=loop.network.trunk)
    behind = Loop(rank, ranks, "mgda(look=last)", sync="local-mean")
    behind.balancer(*behind.losses())
    rows = Loop(rank, ranks, "moco", sync="local-mean")
    losses, _ = rows.losses()
    refused = message(lambda: rows.balancer(losses, shared=rows.network.trunk))
    cross = Loop(rank, ranks, "modo", sync="local-mean")
    losses, _ = cross.losses()
    cross.balancer(losses, shared=cross.network.trunk, probes=[cross.losses(1)[0], cross.losses(2)[0]])
    at_features = {}
    for spec in ("mgda", "db-mtl", "graddrop"):
        for sync in ("exact", "local-mean"):
            same = Loop(rank, ranks, spec, sync=sync)
            for step in range(3):
                same.step(step)
            at_features[spec, sync] = same.parameters()
    return {
        "metrics": loop.balancer.metrics(),
        "behind": behind.balancer.metrics(),
        "refused": refused,
        "cross": cross.balancer.last_weights,
        "features": at_features,
    }


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
        assert each["local_means"]["behind"] == pytest.approx(metrics, rel=1e-9)  # the trunk is but one layer
        assert "use sync='exact'" in each["local_means"]["refused"]
    assert torch.equal(*(each["local_means"]["cross"] for each in found))


def test_a_local_mean_changes_nothing_at_features(found: list[dict[str, Any]]) -> None:
    for each in found:
        trained = each["local_means"]["features"]
        for spec in ("mgda", "db-mtl", "graddrop"):
            assert torch.equal(trained[spec, "exact"], trained[spec, "local-mean"]), spec


@case
def without_main(rank: int, ranks: int) -> Any:
    """The main task (the first) is on the first rank alone in one step, and nowhere in the next."""

    def mask(step: int, task: str) -> Tensor:
        there = torch.ones(BATCH, dtype=torch.bool)
        if task == TASKS[0] and step in (1, 2):
            there[BATCH // 2 if step == 1 else 0 :] = False
        return there

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SteelyardWarning)
        return {
            (spec, at): train(spec, at, rank, ranks, steps=4, mask=mask, attached=True)
            for spec in ("gcs", "pcd", "hydalearn(mode=first-order)", "ol-aux", "metabalance")
            for at in ("features", "trunk")
        }


def test_a_batch_without_the_main_task(found: list[dict[str, Any]]) -> None:
    for key, expected in without_main(0, 1).items():
        assert float(expected["weights"][2, 0]) == 0
        for each in found:
            result = each["without_main"][key]
            assert torch.allclose(result["weights"], expected["weights"], rtol=1e-8), key
            assert torch.allclose(result["parameters"], expected["parameters"], rtol=1e-8), key


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
    lone = build("coba")
    lone.observe(validation=losses if rank == 0 else {})
    return balancer.state_dict()["first"], lone.state_dict()["first"]


def test_validation_losses_are_averaged_by_their_counts(found: list[dict[str, Any]]) -> None:
    for each in found:
        averaged, of_the_first = each["validation"]
        assert averaged.tolist() == [1 + 3 / 4, 2.5, 3.5]
        assert of_the_first.tolist() == [1, 2, 3]


@case
def misspelt(rank: int, ranks: int) -> str:
    balancer = build("coba")
    return message(lambda: balancer.observe(validation={"lefft": torch.tensor(1.0)}))


def test_losses_that_are_shown_have_known_names(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert "unknown task 'lefft'" in each["misspelt"]


@case
def devices(rank: int, ranks: int) -> list[str]:
    groups = (dist.group.WORLD, dist.new_group([0, 1], backend="cuda:gloo"))
    return [str(Ranks(group).device) for group in groups]


def test_a_rank_without_losses_speaks_where_its_group_listens(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each["devices"] == ["cpu", "cuda"]


@case
def parameters_of_one_rank(rank: int, ranks: int) -> Any:
    """The loss of b reads two more numbers on rank 1 alone."""
    w, more = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    a, b = (torch.tensor([[4.0, 1.0], [0.1, 0.3]]) * (1 + rank)) @ w
    balancer = steelyard.LRAnnealing(["a", "b"], main="a", shared=[w, more, torch.nn.Parameter(torch.ones(9))])
    balancer({"a": a, "b": b + 0.1 * more.sum() if rank else b})
    return balancer.last_weights


def test_a_mean_over_what_a_loss_reads_on_any_rank(found: list[dict[str, Any]]) -> None:
    largest, mean = 1.5 * 4, (1.5 * (0.1 + 0.3) + 0.5 * (0.1 + 0.1)) / 4
    for each in found:
        assert each["parameters_of_one_rank"].tolist() == pytest.approx([1.0, largest / mean], rel=1e-6)


@case
def evaluating(rank: int, ranks: int) -> float:
    balancer = build("uw").eval()
    return float(balancer({task: torch.tensor(1.0 + rank) for task in TASKS})) if rank == 0 else 0.0


def test_evaluation_speaks_to_nobody(found: list[dict[str, Any]]) -> None:
    assert found[0]["evaluating"] == 3.0


def test_local_mean_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(steelyard.errors.OptionError, match="reads losses only"):
        build("uw", sync="local-mean")

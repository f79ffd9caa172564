"""A window of micro-batches, kept as a running mean, against the sums over all of them; and what it holds meanwhile."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from loops.resuming import TASKS, Run
from steelyard.balancing.commit import commit
from steelyard.balancing.weighing import propose
from steelyard.base.observation import Seen
from steelyard.method_registry import method_class, method_names
from steelyard.testing.toy import snapshot

OPTIONS = [
    *("db-mtl(memory=rows)", "moco(memory=rows)", "mgda(memory=rows)", "gradvac(memory=rows)", "uw(memory=numbers)"),
    *("mgda(every=2)", "log+ema-scale+pcgrad", "log+moco", "cr-mogm+mgda", "ema(max_change=0.1)", "gradnorm(every=2)"),
]


def places(spec: str) -> list[str]:
    """Methods that read losses alone look nowhere."""
    cls = method_class(spec.split("(")[0].split("+")[-1])
    if "=rows" in spec:
        return ["trunk"]
    return [where for where in ("features", "trunk") if where in cls.where][: 1 if cls.reads == "losses" else 2]


PLACES = [(spec, where) for spec in (*method_names(), *OPTIONS) for where in places(spec)]
FIRST = [(spec, places(spec)[0]) for spec in method_names()]
ONE_PLACE = [
    pytest.param(*each, marks=[] if each in FIRST else pytest.mark.slow("again at the other place, and under options"))
    for each in PLACES
]
BATCHES: list[tuple[tuple[str, ...], dict[str, float]]] = [
    (("a", "b"), {"a": 3, "b": 1}),
    (("a", "b"), {"a": 5, "b": 1e6}),
    (("a",), {"a": 0.5}),
    (("b", "a"), {}),
    (("a", "b"), {"a": 1e-3, "b": 7}),
]
"""Present tasks and labels of each micro-batch; here ``c`` has none, and with ``whole`` it is in all but one."""


def summed(window: list[tuple[Seen, Tensor | None]], tasks: tuple[str, ...]) -> tuple[Seen, Tensor | None]:
    """``Σ_r c_i^r L_i^r`` and so on, task by task, from everything that the window saw."""
    found = {
        task: [(r, seen.tasks.index(task)) for r, (seen, _) in enumerate(window) if task in seen.tasks]
        for task in tasks
    }
    present = [task for task in tasks if found[task]]
    first = window[0][0]

    def share(task: str, r: int, k: int) -> Tensor:
        return window[r][0].counts[k] / sum(window[s][0].counts[j] for s, j in found[task])

    def vector(field: str, power: int = 1) -> Tensor | None:
        if getattr(first, field) is None:
            return None
        return torch.stack(
            [
                sum(share(task, r, k) ** power * getattr(window[r][0], field)[k] for r, k in found[task])
                for task in present
            ]
        )

    def matrix(field: str) -> Tensor | None:
        if getattr(first, field) is None:
            return None
        total = torch.zeros(len(present), len(present), dtype=torch.float64)
        for i, one in enumerate(present):
            for j, other in enumerate(present):
                both = [(r, k, m) for r, k in found[one] for s, m in found[other] if r == s]
                terms = [getattr(window[r][0], field)[k, m] for r, k, m in both]
                if field == "gramian":
                    factors = [share(one, r, k) * share(other, r, m) for r, k, m in both]
                else:
                    labels = [window[r][0].counts[k] * window[r][0].counts[m] for r, k, m in both]
                    factors = [each / sum(labels) for each in labels]
                total[i, j] = sum(factor * term for factor, term in zip(factors, terms, strict=True))
        return total

    rows = vector("rows") if first.features is None else None
    gramian = matrix("gramian") if rows is None else rows @ rows.T
    seen = Seen(
        tuple(present),
        vector("losses"),
        torch.stack([sum(window[r][0].counts[k] for r, k in found[task]) for task in present]),
        vector("squared_norms", 2) if rows is None else gramian.diagonal(),
        gramian,
        matrix("cross_gramian"),
        rows,
        None,
        vector("outlook"),
    )
    return seen, None if len(present) == len(tasks) else torch.tensor([tasks.index(task) for task in present])


def close(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.allclose(first, second, rtol=1e-9, atol=1e-12, equal_nan=True)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(close(first[name], second[name]) for name in first)
    return bool(first == second)


@every("whole", [False, True], ids=["a task is absent", "all tasks"])
@pytest.mark.parametrize(("spec", "where"), ONE_PLACE)
def test_the_state_is_that_of_the_sums(spec: str, where: str, whole: bool) -> None:
    run = Run(spec, attached=True, seed=0)
    run.toy.at_trunk = where == "trunk"
    run.train(2)
    seen: list[tuple[Seen, Tensor | None]] = []
    add = run.balancer._attachment.add
    run.balancer._attachment.add = lambda *given: seen.append((given[1], given[2].index)) or add(*given)
    for number, (tasks, counts) in enumerate(BATCHES):
        if whole and number != 3:
            tasks, counts = TASKS, {**counts, "c": number + 1.0}
        losses, arguments = run.toy.losses(slice(2 * number, 2 * number + 2), tasks)
        run.balancer(losses, counts=counts, **arguments).backward()
    twin = copy.deepcopy(run.balancer)
    twin._attachment = run.balancer._attachment  # learned weights follow its learning rate
    with torch.no_grad():
        commit(twin, propose(twin, *summed(seen, run.balancer.tasks), twin.refreshing()))
    run.toy.optimizer.step()
    assert run.balancer.steps == 3
    assert close(snapshot(run.balancer), snapshot(twin))


@pytest.fixture
def little_to_look_through() -> Iterator[None]:
    """What was there before is no longer looked at by the garbage collector: half a second each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def held() -> int:
    """Bytes of all tensors that Python knows, but for those from before the test."""
    gc.collect()
    found = [each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter) and each.layout == torch.strided]
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in found}.values())


@pytest.mark.usefixtures("little_to_look_through")
@pytest.mark.parametrize("spec", ["db-mtl", "moco", "excess-mtl", "lr-annealing(main=a)", "mgda(memory=rows)"])
def test_what_a_window_holds_does_not_grow(spec: str) -> None:
    trunk = nn.Linear(100, 500)
    heads = nn.ModuleDict({task: nn.Linear(500, 1) for task in TASKS})
    optimizer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=0.01)
    balancer = steelyard.make(spec, TASKS).attach(optimizer)
    sizes, before = [], held()
    for number in range(12):
        z = trunk(torch.randn(2, 100))
        balancer({task: head(z).square().mean() for task, head in heads.items()}, shared=trunk).backward()
        del z
        if number in (1, 11):
            sizes.append(held() - before)
    assert sizes[0] > 0
    assert sizes[1] <= 1.1 * sizes[0]

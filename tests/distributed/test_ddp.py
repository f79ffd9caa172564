"""Data-parallel training gives the weights, values and parameters of one process with the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cells import every
from distributed.launch import launch
from distributed.training import BATCH, build, train
from steelyard.method_registry import method_class, method_names

pytestmark = pytest.mark.takes(
    "ranks are processes, which import torch; the first test of a file waits for all that they train"
)

MODES: list[tuple[str, str]] = []
for _name in method_names():
    _method = build(_name)
    if _method.reads == "lookahead":
        continue  # refused, see test_decisions.py
    _reads = _method.reads != "losses" or _method.heads == "plain"
    MODES += [(_name, place) for place in (sorted(method_class(_name).where) if _reads else ["features"])]
    if _name in ("mgda", "pcgrad", "gradnorm", "db-mtl", "sdmgrad"):  # each kind of what is read there
        MODES.append((f"{_name}(look=last)", "features"))

OPTIONS: dict[str, dict[str, Any]] = {
    "find unused": {"find_unused_parameters": True},
    "static graph": {"static_graph": True},
    "bucket view": {"gradient_as_bucket_view": True},
}
AMONG_OTHERS = [
    ("uw", "features"),  # loss-only, learned weights
    ("equal(heads=plain)", "trunk"),
    ("famo", "features"),  # looks again after the step
    ("pcgrad", "features"),  # plain heads, draws
    ("graddrop", "features"),  # element-wise
    ("mgda", "trunk"),
    ("cr-mogm+mgda", "trunk"),  # weights averaged over the steps
    ("upgrad", "trunk"),  # plain heads at the trunk
    ("db-mtl", "trunk"),  # a direction of averaged rows
    ("adatask", "trunk"),  # steps
    ("modo", "trunk"),  # a cross Gramian
    ("mgda(look=last)", "features"),
    ("pcgrad(look=trunk)", "features"),  # plain heads at features, weights of the trunk
]
# Past the ten steps in which first looks are taken, and until DualProj's rows have met a conflict.
LONG = [*AMONG_OTHERS, ("dualproj", "features")]


# And what else is read, sent or needed, in plain training.
OF_EACH_KIND = [
    *AMONG_OTHERS,
    ("coba", "features"),  # validation
    ("gradnorm", "features"),  # norms, weighted heads
    ("gradnorm", "trunk"),
    ("db-mtl", "features"),  # norms, plain heads
    ("db-mtl(look=last)", "features"),
    ("excess-mtl", "trunk"),  # rows, weighted heads
]
OTHERS = [mode for mode in MODES if mode not in OF_EACH_KIND]


def steps(spec: str, at: str) -> int:
    return 12 if (spec, at) in LONG else 6


def uneven(step: int, task: str) -> Tensor:
    """Labels that the ranks hold different numbers of; the first of two, and of three, has none for "middle"."""
    there = torch.ones(BATCH, dtype=torch.bool)
    if task == "left":
        there[1:4] = False
    elif task == "middle":
        there[:7] = False
    elif step % 3 == 0:
        there[6:] = False
    return there


def all_of_it(rank: int, ranks: int) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = {}
    for spec, at in OF_EACH_KIND:
        found[spec, at, "plain"] = train(spec, at, rank, ranks, steps(spec, at))
    for spec, at in AMONG_OTHERS:
        found[spec, at, "uneven"] = train(spec, at, rank, ranks, 4, mask=uneven)
        found[spec, at, "attached"] = train(spec, at, rank, ranks, 4, attached=True)
        for name, options in OPTIONS.items():
            found[spec, at, name] = train(spec, at, rank, ranks, 4, **options)
    return found


def all_others(rank: int, ranks: int) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(spec, at, "plain"): train(spec, at, rank, ranks, steps(spec, at)) for spec, at in OTHERS}


def some_on_three(rank: int, ranks: int) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(spec, at, "uneven"): train(spec, at, rank, ranks, 4, mask=uneven) for spec, at in AMONG_OTHERS}


@pytest.fixture(scope="module")
def two() -> list[dict]:
    return launch(all_of_it, 2)


@pytest.fixture(scope="module")
def others() -> list[dict]:
    return launch(all_others, 2)


@pytest.fixture(scope="module")
def three() -> list[dict]:
    return launch(some_on_three, 3)


def agree(ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """The ranks are bit-identical to each other, and equal to one process up to the order of sums."""
    first = ranks[0]
    for what in ("weights", "values", "parameters"):
        for other in ranks[1:]:
            assert torch.equal(first[what], other[what]), f"{what} differ between ranks"
        assert torch.allclose(first[what], alone[what], rtol=1e-8, atol=1e-10), f"{what} are not the whole batch's"
    for name, value in first["state"].items():
        for other in ranks[1:]:
            assert torch.equal(value.nan_to_num(0.5), other["state"][name].nan_to_num(0.5)), name
    # Where only the place of plain heads is looked for, norms that nobody weighs by are not summed over ranks.
    expected = {name: alone["metrics"][name] for name in first["metrics"]}
    assert first["metrics"] == pytest.approx(expected, rel=1e-7, abs=1e-10)
    assert all(other["metrics"] == first["metrics"] for other in ranks[1:])


def test_the_kinds_are_all_there() -> None:
    def kinds(modes: list[tuple[str, str]]) -> set[tuple[str, str, bool]]:
        return {(method.reads, method.heads, method.needs_validation) for method in (build(spec) for spec, _ in modes)}

    assert kinds(OF_EACH_KIND) >= kinds(MODES)


@every(("spec", "at"), OF_EACH_KIND)
def test_one_method_of_each_kind_weighs_the_global_batch(two: list[dict], spec: str, at: str) -> None:
    agree([found[spec, at, "plain"] for found in two], train(spec, at, steps=steps(spec, at)))


@every(("spec", "at"), OTHERS)
@pytest.mark.slow("two ranks and one process train under every method at every place")
def test_every_other_method_does(others: list[dict], spec: str, at: str) -> None:
    agree([found[spec, at, "plain"] for found in others], train(spec, at, steps=steps(spec, at)))


@pytest.mark.filterwarnings("ignore::steelyard.errors.AngleWarning")
@every(("spec", "at"), AMONG_OTHERS)
def test_ranks_with_different_numbers_of_labels(two: list[dict], three: list[dict], spec: str, at: str) -> None:
    agree([found[spec, at, "uneven"] for found in two], train(spec, at, steps=4, mask=uneven))
    agree([found[spec, at, "uneven"] for found in three], train(spec, at, steps=4, mask=uneven))


@every(("spec", "at"), AMONG_OTHERS)
def test_an_attached_optimizer_commits_the_same_on_all_ranks(two: list[dict], spec: str, at: str) -> None:
    agree([found[spec, at, "attached"] for found in two], train(spec, at, steps=4, attached=True))


@pytest.mark.parametrize("option", OPTIONS)
@every(("spec", "at"), AMONG_OTHERS)
def test_options_of_the_wrapper(two: list[dict], spec: str, at: str, option: str) -> None:
    """A look before the first backward under static_graph, and features behind the wrapper's node, among them."""
    agree([found[spec, at, option] for found in two], train(spec, at, steps=4))

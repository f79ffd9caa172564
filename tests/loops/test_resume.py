"""A checkpoint, a new process, and training that goes on as if nothing had happened, bit for bit."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import steelyard
from cells import every
from loops import resuming
from loops.resuming import AFTER, BEFORE, SPECS, TASKS, Run
from steelyard.errors import StateError
from steelyard.testing.toy import same_state, snapshot

ROUTES = ["state_dict", "optimizer", "distributed"]
Outcomes = dict[str, dict[str, Any]]


FEW = ["uw", "famo", "mgda", "db-mtl", "nash-mtl", "moco", "random"]
"""States of each kind: learned, after the step, none, averages, a solver's, rows, a generator's."""


def both(route: str, specs: list[str], folder: Path) -> tuple[Outcomes, Outcomes]:
    """What followed in one process, and in another that goes on with all of it, for every method."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    straight: Outcomes = {}
    for spec in specs:
        run = Run(spec, attached=route == "optimizer", seed=0)
        run.train(BEFORE)
        resuming.save(run, route, folder / resuming.file_name(spec, route))
        straight[spec] = run.outcome(run.train(AFTER, BEFORE))
    torch.use_deterministic_algorithms(before)
    subprocess.run([sys.executable, resuming.__file__, str(folder), route, *specs], check=True, timeout=600)
    return straight, torch.load(folder / f"resumed-{route}.pt", weights_only=True)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcomes, Outcomes]:
    return both(ROUTES[0], SPECS, tmp_path_factory.mktemp("checkpoints"))


def same(outcomes: tuple[Outcomes, Outcomes], spec: str) -> None:
    straight, resumed = (each[spec] for each in outcomes)
    assert torch.equal(straight["weights"], resumed["weights"])
    assert same_state(straight["state"], resumed["state"])
    for first, second in zip(straight["parameters"], resumed["parameters"], strict=True):
        assert torch.equal(first, second)


@every("spec", SPECS)
@pytest.mark.takes("every method is trained, and again in a process of its own")
def test_a_new_process_goes_on_bit_for_bit(outcomes: tuple[Outcomes, Outcomes], spec: str) -> None:
    same(outcomes, spec)


@pytest.mark.parametrize("route", ROUTES[1:])
@pytest.mark.takes("a process of its own")
def test_so_it_does_from_other_checkpoints(tmp_path: Path, route: str) -> None:
    outcomes = both(route, FEW, tmp_path)
    for spec in FEW:
        same(outcomes, spec)


@pytest.mark.parametrize("route", ROUTES[1:])
@pytest.mark.slow("every method again, in a process of its own")
def test_and_under_every_other_method(tmp_path: Path, route: str) -> None:
    others = [spec for spec in SPECS if spec not in FEW]
    outcomes = both(route, others, tmp_path)
    for spec in others:
        same(outcomes, spec)


def saved_by(spec: str, tasks: list[str] = TASKS) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(steelyard.make(spec, tasks).state_dict(), file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


@pytest.mark.parametrize(
    ("spec", "tasks", "message"),
    [
        ("dwa", TASKS, "holds the state of 'dwa', but this balancer is 'ema'"),
        ("ema", ["a", "b"], "balances a, b, but this balancer has a, b, c"),
        ("ema", ["c", "b", "d"], "balances c, b, d, but this balancer has a, b, c: .*set_tasks"),
    ],
)
def test_another_methods_or_tasks_state_is_refused_by_name(spec: str, tasks: list[str], message: str) -> None:
    balancer = steelyard.make("ema", TASKS)
    before = snapshot(balancer)
    with pytest.raises(StateError, match=message):
        balancer.load_state_dict(saved_by(spec, tasks))
    assert same_state(before, snapshot(balancer))


def test_an_optimizer_that_carries_another_methods_state_is_refused_by_name() -> None:
    run, other = Run("ema", True, 0), Run("dwa", True, 0)
    run.train(2)
    with pytest.raises(StateError, match="holds the balancer state of ema: a, b, c, and this balancer is dwa"):
        other.toy.optimizer.load_state_dict(run.toy.optimizer.state_dict())

"""Accelerate: the plain loop's one line, whatever the accelerator does around it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: make test-integrations")

import steelyard
from steelyard.errors import SharedError
from steelyard.testing.toy import same_state, snapshot
from two_tasks import BATCH, TASKS, TwoTasks, data, losses_of, plain_loop, same


def train(
    method: str,
    where: str = "features",
    *,
    accumulate: int = 1,
    precision: str = "no",
    attach: str = "before",
    hook: bool = False,
) -> tuple[TwoTasks, steelyard.Balancer]:
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate, mixed_precision=precision)
    network = TwoTasks()
    hidden = steelyard.features_of(network.encoder) if hook else None
    torch.manual_seed(2)
    balancer = steelyard.make(method, TASKS)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    if attach == "before":
        balancer.attach(optimizer)
    model, optimizer, loader = accelerator.prepare(
        network, optimizer, DataLoader(TensorDataset(*data()), batch_size=BATCH)
    )
    if attach == "after":
        balancer.attach(optimizer)
    for _ in range(2):
        for x, y in loader:
            with accelerator.accumulate(model):
                outputs, features = model(x)
                with accelerator.autocast():
                    shared = network.encoder if where == "trunk" else features if hidden is None else hidden()
                    loss = balancer(losses_of(outputs, y), shared=shared)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        balancer.end_epoch()
    return network, balancer


@pytest.mark.parametrize("attach", ["before", "after"])
@pytest.mark.parametrize(("method", "where"), [("uw", "features"), ("db-mtl", "features"), ("mgda", "trunk")])
def test_it_trains_as_the_plain_loop_does(method: str, where: str, attach: str) -> None:
    network, balancer = train(method, where, attach=attach)
    assert same(network, plain_loop(method, where)[0])
    assert balancer.steps == 16


@pytest.mark.parametrize("attach", ["before", "after"])
@pytest.mark.parametrize(("method", "where"), [("uw", "features"), ("db-mtl", "features"), ("db-mtl", "trunk")])
def test_accumulation(method: str, where: str, attach: str) -> None:
    network, balancer = train(method, where, accumulate=4, attach=attach)
    assert balancer.steps == 4, "the wrapper's step is called for each micro-batch, the optimizer's once"
    assert same(network, plain_loop(method, where, accumulate=4)[0])


@pytest.mark.parametrize(("method", "where"), [("uw", "features"), ("upgrad", "features"), ("upgrad", "trunk")])
def test_bf16(method: str, where: str) -> None:
    network, _ = train(method, where, precision="bf16", hook=where == "features")
    assert same(network, plain_loop(method, where, autocast=True)[0])


def test_features_that_were_copied_on_the_way_out_are_refused() -> None:
    """In mixed precision the prepared model returns float32 copies; `features_of` takes the features inside."""
    with pytest.raises(SharedError, match="features_of"):
        train("upgrad", precision="bf16")


def test_save_state_keeps_the_balancer(tmp_path: Path) -> None:
    """With the optimizer's state, which is where it rides."""

    def setting():
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = accelerate.Accelerator(cpu=True)
        network = TwoTasks()
        torch.manual_seed(2)
        balancer = steelyard.make("relobralo", TASKS)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        balancer.attach(optimizer)
        return accelerator, network, balancer, *accelerator.prepare(network, optimizer)

    def steps(accelerator, network, balancer, model, optimizer, number: int) -> None:
        x, y = data()
        for _ in range(number):
            accelerator.backward(balancer(losses_of(model(x)[0], y)))
            optimizer.step()
            optimizer.zero_grad()

    whole = setting()
    steps(*whole, number=3)
    whole[0].save_state(str(tmp_path))
    steps(*whole, number=3)
    resumed = setting()
    torch.manual_seed(99)
    resumed[0].load_state(str(tmp_path))
    steps(*resumed, number=3)
    assert same(whole[1], resumed[1])
    assert same_state(snapshot(whole[2]), snapshot(resumed[2]))

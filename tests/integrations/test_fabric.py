"""Lightning Fabric: the plain loop's one line; `attach` takes what `fabric.setup` returns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

fabric_module = pytest.importorskip("lightning.fabric", reason="Lightning is not installed: make test-integrations")

import steelyard
from steelyard.testing.toy import same_state, snapshot
from two_tasks import BATCH, TASKS, TwoTasks, data, losses_of, place, plain_loop, same


def setting(method: str, precision: str = "32-true"):
    fabric = fabric_module.Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.launch()
    network = TwoTasks()
    torch.manual_seed(2)
    balancer = steelyard.make(method, TASKS)
    model, optimizer = fabric.setup(network, torch.optim.AdamW(network.parameters(), lr=1e-2))
    balancer.attach(optimizer)
    loader = fabric.setup_dataloaders(DataLoader(TensorDataset(*data()), batch_size=BATCH))
    return fabric, network, model, optimizer, balancer, loader


def train(setting, where: str, *, epochs: int = 2, accumulate: int = 1) -> None:
    fabric, network, model, optimizer, balancer, loader = setting
    for _ in range(epochs):
        for number, (x, y) in enumerate(loader):
            last = (number + 1) % accumulate == 0
            with fabric.no_backward_sync(model, enabled=not last), fabric.autocast():
                outputs, features = model(x)
                loss = balancer(losses_of(outputs, y), shared=place(network, features, where))
                fabric.backward(loss / accumulate)
            if last:
                optimizer.step()
                optimizer.zero_grad()
        balancer.end_epoch()


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize(("method", "where"), [("uw", "features"), ("db-mtl", "features"), ("mgda", "trunk")])
def test_it_trains_as_the_plain_loop_does(method: str, where: str, accumulate: int) -> None:
    ours = setting(method)
    train(ours, where, accumulate=accumulate)
    assert ours[4].steps == 16 // accumulate
    plain = plain_loop(method, where, accumulate=accumulate)[0]
    # Fabric hooks what the model returns, and the look goes another way round: the same to rounding.
    if where == "features" and method != "uw":
        for one, other in zip(ours[1].parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    else:
        assert same(ours[1], plain)


@pytest.mark.parametrize(
    ("method", "where"), [("dwa", "features"), ("relobralo", "features"), ("db-mtl", "features"), ("db-mtl", "trunk")]
)
def test_resume_is_bit_identical(tmp_path: Path, method: str, where: str) -> None:
    whole, before, after = setting(method), setting(method), setting(method)
    train(whole, where, epochs=3)
    train(before, where, epochs=2)
    before[0].save(tmp_path / "state.ckpt", {"model": before[2], "optimizer": before[3], "balancer": before[4]})
    torch.manual_seed(99)
    after[0].load(tmp_path / "state.ckpt", {"model": after[2], "optimizer": after[3], "balancer": after[4]})
    train(after, where, epochs=1)
    assert same(whole[1], after[1])
    assert same_state(snapshot(whole[4]), snapshot(after[4]))

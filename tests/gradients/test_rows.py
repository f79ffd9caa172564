"""Methods that read rows: what reaches the trunk's parameters, their state, and the hooks they leave behind."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor

import steelyard
from helpers import TwoLayer, task_gradients
from steelyard.errors import StateError
from steelyard.testing.toy import same_state, snapshot

TASKS = {"a": 1.0, "b": 40.0}


def flat(gradients: list[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def reference(network: TwoLayer, steps: int, beta: float, decay: float, rate: float) -> list[Tensor]:
    """DB-MTL as in the paper, on rows of the trunk: the directions of some steps of plain descent."""
    average = {task: torch.zeros(sum(p.numel() for p in network.trunk_parameters())).double() for task in TASKS}
    directions = []
    for step in range(1, steps + 1):
        losses, _ = network.losses()
        logs = {task: (loss + 1e-8).log() for task, loss in losses.items()}
        rows = {task: flat(g) for task, g in task_gradients(logs, network.trunk_parameters()).items()}
        part = beta / step**decay
        average = {task: part * average[task] + (1 - part) * rows[task] for task in TASKS}
        norms = {task: average[task].norm() for task in TASKS}
        direction = max(norms.values()) * sum(average[task] / norms[task] for task in TASKS)
        directions.append(direction)
        for parameter, piece in zip(
            network.trunk_parameters(),
            direction.split([p.numel() for p in network.trunk_parameters()]),
            strict=True,
        ):
            parameter.data -= rate * piece.view_as(parameter)
    return directions


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_db_mtl_at_the_trunk_is_the_papers(decay: float) -> None:
    expected = reference(TwoLayer(TASKS), 5, 0.9, decay, 0.01)
    network = TwoLayer(TASKS)
    balancer = steelyard.make("db-mtl", list(TASKS), beta=0.9, decay=decay)
    optimizer = torch.optim.SGD(network.trunk_parameters(), lr=0.01)
    for direction in expected:
        losses, _ = network.losses()
        at_heads = task_gradients({t: (x + 1e-8).log() for t, x in losses.items()}, network.head_parameters())
        for parameter in (*network.trunk_parameters(), *network.head_parameters()):
            parameter.grad = None
        balancer(losses, shared=network.trunk).backward()
        arrived = flat([parameter.grad for parameter in network.trunk_parameters()])
        assert float((arrived - direction).norm() / direction.norm()) < 1e-6, "the average is kept in float32"
        plain = flat([sum(each) for each in zip(*at_heads.values(), strict=True)])
        heads = flat([parameter.grad for parameter in network.head_parameters()])
        assert float((heads - plain).norm() / plain.norm()) < 1e-12
        optimizer.step()


def test_hooks_do_not_gather_on_parameters() -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("db-mtl", list(TASKS))
    for _ in range(5):
        losses, _ = network.losses()
        loss = balancer(losses, shared=network.trunk)  # never differentiated
    del loss
    assert all(not parameter._backward_hooks for parameter in network.trunk_parameters())


def test_rows_survive_a_checkpoint_into_a_fresh_instance() -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("db-mtl", list(TASKS))
    for _ in range(2):
        balancer(network.losses()[0], shared=network.trunk)
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    fresh = steelyard.make("db-mtl", list(TASKS))
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for each in (balancer, fresh):
        each(network.losses()[0], shared=network.trunk)
    assert same_state(snapshot(balancer), snapshot(fresh))


def test_a_late_task_and_a_trunk_of_another_size() -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("db-mtl", list(TASKS))
    losses, _ = network.losses()
    balancer({"a": losses["a"]}, shared=network.trunk)
    balancer(losses, shared=network.trunk)
    assert float(balancer.average.norm(dim=1).min()) > 0
    network.trunk[0].bias.requires_grad_(False)
    with pytest.raises(StateError, match=r"keeps an average of gradients with 63 elements.*now has 54"):
        balancer(network.losses()[0], shared=network.trunk)


def test_rows_of_micro_batches_add_up_to_the_whole_batch() -> None:
    network = TwoLayer(TASKS)
    whole = steelyard.make("db-mtl", list(TASKS))
    parts = steelyard.make("db-mtl", list(TASKS)).attach(optimizer := torch.optim.SGD(network.trunk_parameters(), lr=0))
    for each, slices in ((whole, [slice(0, 16)]), (parts, [slice(0, 4), slice(4, 16)])):
        for rows in slices:
            features = network.trunk(network.inputs[rows])
            # The plain mean, so that losses of micro-batches average to the batch's.
            losses = {
                task: scale * (network.heads[task](features) - network.targets[task][rows]).square().mean()
                for task, scale in TASKS.items()
            }
            each(losses, shared=network.trunk, counts=dict.fromkeys(TASKS, len(features))).backward()
    optimizer.step()
    assert torch.allclose(parts.average, whole.average, rtol=1e-5)

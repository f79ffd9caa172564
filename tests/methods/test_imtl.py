"""IMTL: IMTL-L's scales, learnt as that method learns them, then IMTL-G on the scaled losses."""

from __future__ import annotations

import pytest
import torch

from gramian_cases import balancer, random_rows, weigh
from steelyard import make
from steelyard.testing.toy import Toy


@pytest.mark.parametrize("tasks", [1, 3, 10])
def test_it_is_imtl_l_then_imtl_g(tasks: int) -> None:
    both, losses_half = balancer("imtl(learning_rate=0.1)", tasks), balancer("imtl-l(learning_rate=0.1)", tasks)
    for number in range(6):
        rows = random_rows(tasks, 60, number, 10.0)
        losses = (random_rows(1, tasks, number)[0].abs() + 0.1).tolist()
        scales = weigh(losses_half, rows, losses)
        expected = scales * weigh(balancer("imtl-g", tasks), scales[:, None] * rows)
        assert torch.allclose(weigh(both, rows, losses), expected, rtol=1e-9)


def test_heads_receive_the_scaled_losses() -> None:
    tasks = ("left", "right")
    toy, method, scales = Toy(tasks), make("imtl(initial=0.7)", tasks), make("imtl-l(initial=0.7)", tasks)
    losses, where = toy.losses()
    expected = toy.gradients(scales(losses))
    found = toy.gradients(method(losses, **where))
    for name, gradient in found.items():
        if name.startswith("heads"):
            assert torch.allclose(gradient, expected[name], rtol=1e-12)


def test_the_scale_follows_the_attached_optimizers_rate() -> None:
    toy, other = Toy(("left", "right")), Toy(("left", "right"))
    attached = make("imtl", ["left", "right"]).attach(toy.optimizer)
    explicit = make("imtl(learning_rate=0.01)", ["left", "right"]).attach(other.optimizer)
    for _ in range(3):
        assert torch.equal(toy.step(attached), other.step(explicit))

"""`masked_mean` in a process group: graphs are kept, numbers are not made up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

import steelyard


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_a_task_without_labels_keeps_its_graph_where_it_has_one() -> None:
    values, nowhere = torch.ones(3, requires_grad=True), torch.zeros(3, dtype=torch.bool)
    kept = steelyard.masked_mean(values * 2, nowhere)
    assert kept.item() == 0
    assert kept.label_count == 0
    assert kept.requires_grad
    with torch.no_grad():  # a 0 among validation losses would pass for a perfect one
        assert steelyard.masked_mean(values * 2, nowhere) is None


def network() -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    layer, target = torch.nn.Linear(4, 3), torch.randn(5, 3)
    target[1, 2] = target[4, 0] = float("nan")
    return layer, layer(torch.randn(5, 4)), target, ~target.isnan()


LOSSES = {
    "square": lambda output, target: (output - target) ** 2,
    "absolute": lambda output, target: (output - target).abs() * (1 + target),
    "mse_loss": lambda output, target: torch.nn.functional.mse_loss(output, target, reduction="none"),
    "huber": lambda output, target: torch.nn.functional.huber_loss(output, target, reduction="none"),
    "bce": lambda output, target: torch.nn.functional.binary_cross_entropy_with_logits(
        output, target, reduction="none"
    ),
    "log": lambda output, target: (target.nan_to_num() * output.exp() - target).log1p(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_nan_that_reaches_the_gradient_is_refused(loss: str) -> None:
    layer, output, target, mask = network()
    unreduced = LOSSES[loss](output, target)
    unreduced[mask].mean().backward(retain_graph=True)
    assert not bool(layer.weight.grad.isfinite().all())
    with pytest.raises(steelyard.errors.LossError, match=r"2 inf or NaN.*torch.where\(mask, target, 0\)"):
        steelyard.masked_mean(unreduced, mask)


def test_a_nan_that_torch_where_made_is_harmless() -> None:
    layer, output, target, mask = network()
    clean = (output - torch.where(mask, target, 0)) ** 2
    steelyard.masked_mean(torch.where(mask, clean, torch.nan), mask).backward()
    assert bool(layer.weight.grad.isfinite().all())


def test_what_is_written_in_the_error_works() -> None:
    layer, output, target, mask = network()
    first = steelyard.masked_mean((output - torch.where(mask, target, 0)) ** 2, mask)
    second = ((output[mask] - target[mask]) ** 2).mean()
    assert torch.allclose(first, second)
    first.backward()
    assert bool(layer.weight.grad.isfinite().all())


def test_a_compiled_loss_is_warned_of() -> None:
    _, output, target, mask = network()
    compiled = torch.compile(LOSSES["square"], backend="aot_eager")
    with pytest.warns(steelyard.SteelyardWarning, match="does not show"):
        steelyard.masked_mean(compiled(output, target), mask)

"""k micro-batches with `attach`, against the one large batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import steelyard
from loops.resuming import Run
from steelyard.method_registry import method_class, method_names
from steelyard.testing.toy import snapshot

LOSS_ONLY = [name for name in method_names() if method_class(name).reads == "losses"]
FROM_THE_PAST = [
    *("equal", "fixed", "schedule", "random", "initial-scale", "uw", "uw-revised", "dwa", "cov", "lbtw", "imtl-l"),
    *("coba", "gradnorm", "ol-aux", "modo"),
]
"""Methods whose weights in a step follow from earlier steps alone: every micro-batch has the large batch's."""
BY_ROWS = [
    "db-mtl",
    "moco",
    "adatask",
    "excess-mtl",
    "lr-annealing",
    "gradvac(memory=rows)",
    "inverse-norm(memory=rows)",
]


def window(spec: str, parts: int, where: str) -> tuple[Tensor, dict[str, object], list[Tensor]]:
    """After four ordinary steps, one of 12 samples in equal parts: its gradient, the state after it, the weights."""
    run = Run(spec, attached=True, seed=0)
    run.train(4)
    run.toy.at_trunk = where == "trunk"
    run.toy.optimizer.zero_grad()
    weights, size = [], 12 // parts
    for number in range(parts):
        losses, arguments = run.toy.losses(slice(number * size, (number + 1) * size))
        (run.balancer(losses, **arguments) / parts).backward()
        weights.append(run.balancer.last_weights)
    gradient = torch.cat([parameter.grad.flatten() for parameter in run.toy.parameters()])
    run.toy.optimizer.step()
    assert run.balancer.steps == 5
    return gradient, snapshot(run.balancer), weights


def same(first: dict[str, object], second: dict[str, object]) -> bool:
    """Equal states up to rounding; sums of final weights aside, which are counted once per step."""
    tensors = [name for name, value in first.items() if isinstance(value, Tensor) and name != "weight_sums"]
    pairs = [(first[name], second[name]) for name in tensors]
    return all(torch.allclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True) for a, b in pairs)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", FROM_THE_PAST)
def test_weights_that_come_from_earlier_steps_give_the_large_batchs_update(spec: str) -> None:
    where = "trunk" if "features" not in method_class(spec).where else "features"
    whole, _, _ = window(spec, 1, where)
    parts, _, _ = window(spec, 4, where)
    assert float((parts - whole).norm() / whole.norm()) < 1e-12


@pytest.mark.parametrize("spec", LOSS_ONLY)
def test_the_state_of_loss_only_methods_is_the_large_batchs(spec: str) -> None:
    assert same(window(spec, 4, "features")[1], window(spec, 1, "features")[1])


@pytest.mark.parametrize("spec", ["inverse-norm", "max-norm", "gradnorm", "gradvac", "imtl", "metabalance"])
def test_the_state_at_features_is_the_large_batchs(spec: str) -> None:
    """Features of different samples are orthogonal, so that Gramians of micro-batches add up."""
    assert same(window(spec, 4, "features")[1], window(spec, 1, "features")[1])


@pytest.mark.parametrize("spec", BY_ROWS)
def test_the_state_at_the_trunk_is_the_large_batchs_where_rows_are_read(spec: str) -> None:
    assert same(window(spec, 4, "trunk")[1], window(spec, 1, "trunk")[1])


@pytest.mark.parametrize("spec", ["inverse-norm", "gradvac"])
def test_norms_at_the_trunk_miss_what_micro_batches_share(spec: str) -> None:
    """As documented: ``Σ_r ‖g^r‖² / k²`` is the large batch's ``‖Σ_r g^r / k‖²`` without its cross terms."""
    assert not same(window(spec, 4, "trunk")[1], window(spec, 1, "trunk")[1])
    losses, norms = {}, []
    for parts in (1, 4):
        run = Run("inverse-norm(beta=0)", attached=True, seed=0)
        size = 12 // parts
        for number in range(parts):
            losses, _ = run.toy.losses(slice(number * size, (number + 1) * size))
            run.balancer(losses, shared=run.toy.trunk).backward()
            norms.append(run.balancer.metrics()["norm/a"])
        run.toy.optimizer.step()
        expected = norms[0] if parts == 1 else sum(norm**2 for norm in norms[1:]) ** 0.5 / parts
        assert float(run.balancer.average[0]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("spec", "where"), [("log", "features"), ("mgda", "features"), ("mgda", "trunk")])
def test_weights_that_look_at_the_batch_are_each_micro_batchs_own(spec: str, where: str) -> None:
    """As documented: the update is ``Σ_r Σ_k w_k^r ∇L_k^r / k``, each with the weights of a step on that part."""
    _, _, weights = window(spec, 4, where)
    run = Run(spec, attached=False, seed=0)
    run.train(4)
    for number, seen in enumerate(weights):
        losses, arguments = run.toy.losses(slice(3 * number, 3 * number + 3))
        alone = steelyard.make(spec, list(losses))
        alone(losses, shared=run.toy.trunk if where == "trunk" else arguments["shared"])
        assert torch.allclose(alone.last_weights, seen, rtol=1e-9)


def test_what_the_scalar_is_divided_by_does_not_change_weights() -> None:
    """Divide the scalar by k, not the losses: those are what is weighed."""
    _, state, _ = window("ema", 4, "features")
    assert same(state, window("ema", 1, "features")[1])
    run = Run("ema", attached=True, seed=0)
    run.train(4)
    for number in range(4):
        losses, _ = run.toy.losses(slice(3 * number, 3 * number + 3))
        run.balancer({task: loss / 4 for task, loss in losses.items()}).backward()
    run.toy.optimizer.step()
    assert not same(state, snapshot(run.balancer))

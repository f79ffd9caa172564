"""Heads whose products have the digits of TF32: what their rounding leaves is nobody's gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from steelyard.gradients import redirection, short_products

NVIDIA = torch.device("cuda")


def shortened(values: Tensor) -> Tensor:
    """Rounded to the ten digits that a device of TF32 multiplies."""
    return (values.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)


class Short(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(values, weight)
        return shortened(values) @ shortened(weight)

    @staticmethod
    def backward(ctx: Any, arrived: Tensor) -> Any:
        values, weight = map(shortened, ctx.saved_tensors)
        return shortened(arrived) @ weight.T, values.T @ shortened(arrived)


def arrived(divided_by: float, beside: float = 0.0) -> tuple[Tensor, Tensor]:
    """At features of two tasks, one of them a million times the other: what arrives, and what should."""
    torch.manual_seed(0)
    features = torch.randn(32, 8).requires_grad_()
    heads = [nn.Parameter(torch.randn(8, 3)) for _ in "ab"]
    losses = {"a": 1e6 * Short.apply(features, heads[0]).square().mean(), "b": Short.apply(features, heads[1]).mean()}
    rows = [torch.autograd.grad(loss, features, retain_graph=True)[0] for loss in losses.values()]
    balancer = steelyard.make("fixed(weights='a: 0, b: 1')", ["a", "b"], heads="plain")
    total = balancer(losses, shared=features) / divided_by
    (total + beside * features.sum()).backward()
    assert features.grad is not None
    return features.grad, rows[1] / divided_by + beside


@pytest.mark.parametrize(("divided_by", "short"), [(4.0, "none"), (3.0, "convolution"), (3.0, "matmul")])
def test_the_rounding_of_a_large_task_is_not_passed_on(
    monkeypatch: pytest.MonkeyPatch, divided_by: float, short: str
) -> None:
    for kind in ("matmul", "convolution"):
        monkeypatch.setattr(redirection, f"{kind}_is_short", lambda device, kind=kind: kind == short)
    found, expected = arrived(divided_by)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-6)


def test_devices_that_multiply_all_digits_have_the_narrower_bound() -> None:
    found, expected = arrived(3.0)
    assert (found - expected).norm() > 100 * expected.norm()  # what the two above have taken for rounding


@pytest.mark.parametrize("short", ["convolution", "matmul"])
def test_what_is_sent_beside_it_is_kept(monkeypatch: pytest.MonkeyPatch, short: str) -> None:
    monkeypatch.setattr(redirection, f"{short}_is_short", lambda device: True)
    found, expected = arrived(3.0, beside=1e5)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)


def test_complex_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redirection, "convolution_is_short", lambda device: True)
    features = torch.randn(4, 3, dtype=torch.complex64, requires_grad=True)
    losses = {"a": features.abs().square().mean(), "b": features.real.square().mean()}
    (steelyard.make("mgda", ["a", "b"], heads="plain")(losses, shared=features) / 3).backward()
    assert features.grad is not None
    assert bool(features.grad.isfinite().all())


def test_one_bound_stays_one_in_another_precision() -> None:
    """Devices without float64 need not have the functions that tell powers of two."""
    bound = torch.ones((), dtype=torch.float64)
    moved = redirection.Rounding(bound, bound).to(torch.device("cpu"), torch.float32)
    assert moved.scaled is moved.same
    two = redirection.Rounding(2 * bound, bound).to(torch.device("cpu"), torch.float32)
    assert [two.of(torch.tensor(each)).item() for each in (4.0, 3.0, -0.5)] == [4.0, 6.0, 0.5]


def _set(precision: str) -> None:
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def _set_by_name(precision: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = precision  # type: ignore[attr-defined]


@pytest.mark.parametrize("switch", [_set, _set_by_name], ids=["switches", "names"])
def test_what_torch_is_set_to(switch: Any) -> None:
    if switch is _set_by_name and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("precisions have names since torch 2.9")
    kinds = [short_products.matmul_is_short, short_products.convolution_is_short]
    assert [kind(NVIDIA) for kind in kinds] == [False, True]  # as torch has it
    try:
        switch("tf32")
        assert [kind(NVIDIA) for kind in kinds] == [True, True]
        assert not any(kind(torch.device("cpu")) for kind in kinds)
        switch("ieee")
        assert [kind(NVIDIA) for kind in kinds] == [False, False]
    finally:
        switch("ieee")
        torch.backends.cudnn.allow_tf32 = True

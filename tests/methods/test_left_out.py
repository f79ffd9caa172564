"""Why BayesAgg-MTL is no method here: what it weighs by is not in what a call is given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import steelyard


def bayesagg(features: Tensor, labels: Tensor) -> Tensor:
    """The expected gradient of ``(w·h - y)²`` at each sample's features, with ``w`` of its posterior given all rows.

    Achituve et al. (2024), arXiv 2402.04005, for one regression: unit prior and noise. With one task the direction is
    this mean, whatever its variance.
    """
    covariance = torch.linalg.inv(torch.eye(features.shape[1], dtype=features.dtype) + features.T @ features)
    mean = covariance @ features.T @ labels
    second = covariance + torch.outer(mean, mean)
    return 2 * (features @ second - labels[:, None] * mean) / len(features)


def test_two_problems_that_no_call_can_tell_apart_have_two_directions() -> None:
    torch.manual_seed(0)
    features = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    head = nn.Linear(3, 1, bias=False).double()
    first = torch.randn(8, dtype=torch.float64)
    seen, directions = [], []
    for factor in (1.0, 0.5):
        outputs = head(features).squeeze(1)
        # At half the scale twice as far away: one gradient at the outputs, and with a constant one value.
        labels = outputs.detach() - (outputs.detach() - first) / factor
        loss = factor * (outputs - labels).square().mean()
        loss = loss + ((outputs.detach() - first).square().mean() - loss.detach())
        balancer = steelyard.MGDA(["a"])
        gradients = torch.autograd.grad(loss, [features, head.weight], retain_graph=True)
        sent = torch.autograd.grad(balancer({"a": loss}, shared=features), features)
        seen.append([loss.detach(), *gradients, *sent])
        directions.append(bayesagg(features.detach(), labels))
    assert all(torch.allclose(one, other, rtol=1e-12) for one, other in zip(*seen, strict=True))
    assert float((directions[0] - directions[1]).norm() / directions[0].norm()) > 0.5

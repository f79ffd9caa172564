"""What `MGDA` promises of losses in other units, for each way to normalise gradients."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

import steelyard
from steelyard.errors import LossError
from steelyard.methods.mgda import Normalise


@pytest.mark.parametrize("normalise", get_args(Normalise))
def test_weights_stay_as_losses_are_rescaled_where_that_is_promised(normalise: str) -> None:
    def weights(factor: float) -> list[float]:
        w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
        balancer = steelyard.make("mgda", ["a", "b"], normalise=normalise, shared=[w])
        promised.add(balancer.rescaling)
        balancer({"a": factor * (w[0] + 0.5 * w[1] + 0.5), "b": 3 * w[1] - 2})
        return balancer.last_weights.tolist()

    promised = set[str]()
    same = weights(5.0) == pytest.approx(weights(1.0), rel=1e-9)
    assert promised == {"weights" if same else "none"}


@pytest.mark.parametrize("spec", ["mgda(normalise=loss)", "mgda(normalise=loss+)", "log+mgda(normalise=loss)"])
def test_gradients_are_divided_by_no_negative_loss(spec: str) -> None:
    w = torch.nn.Parameter(torch.full((2,), 0.1))
    balancer = steelyard.make(spec, ["a", "b"], shared=[w])
    below = 0.0 if spec.startswith("log") else 2.0
    with pytest.raises(LossError, match="mgda"):
        balancer({"a": w[0].square() - below, "b": w[1].square()})

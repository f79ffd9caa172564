"""A caller's program under ``mypy --strict`` (`make check`): what it is told about types must be what is written here.

`assert_type` fails where an annotation is lost, widened to `Any` or changed; the import fails where `py.typed` is gone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import steelyard
from steelyard.balancing.balancer import Balancer

encoder, head = nn.Linear(4, 8), nn.Linear(8, 2)
optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.1)

balancer = steelyard.make("uw", ["a", "b"])
assert_type(balancer, Balancer)
assert_type(balancer.attach(optimizer), Balancer)
assert_type(steelyard.MGDA(["a", "b"]), steelyard.MGDA)

features = encoder(torch.randn(16, 4))
losses: dict[str, Tensor | None] = {
    "a": head(features)[:, 0].square().mean(),
    "b": steelyard.masked_mean(head(features)[:, 1].square(), torch.ones(16, dtype=torch.bool)),
}
loss: Tensor = balancer(losses, shared=features)  # a call of an `nn.Module` has no type of its own
assert_type(balancer.forward(losses, shared=features), Tensor)
assert_type(balancer.metrics(), dict[str, float])
assert_type(steelyard.__version__, str)

"""On an accelerator: same weights as on the CPU, state beside the losses, checkpoints that travel."""

from __future__ import annotations

import pytest
import torch

import steelyard
from cells import every
from steelyard.method_registry import method_class, method_names, options_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

NAMES = [name for name in method_names() if name not in ("fixed", "schedule")]


@every("name", NAMES)
def test_weights_agree_with_the_cpu(name: str) -> None:
    tasks = ["a", "b", "c"]

    def losses_of(features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {task: (features * (k + 1)).square().mean() + k for k, task in enumerate(tasks)}

    weights = {}
    for device in ("cpu", "cuda"):
        options = {"main": "a"} if "main" in options_of(method_class(name)) else {}
        balancer = steelyard.make(name, tasks, generator=torch.Generator().manual_seed(0), **options)
        generator = torch.Generator().manual_seed(1)
        trunk = torch.nn.Linear(5, 5, dtype=torch.float64)
        with torch.no_grad():
            trunk.weight.copy_(torch.randn(5, 5, generator=generator, dtype=torch.float64))
            trunk.bias.zero_()
        trunk.to(device)
        for _ in range(4):
            inputs = torch.randn(8, 5, generator=generator, dtype=torch.float64).to(device)
            features = trunk(inputs)
            losses = losses_of(features)
            again = steelyard.losses_of(trunk, lambda call, x: losses_of(call(x)), inputs, held_out=inputs)
            shared = features if "features" in balancer.where else trunk
            probes = [losses, losses_of(trunk(2 * inputs))]
            balancer(losses, shared=shared, again=again, probes=probes).backward()
            if balancer.needs_after:
                balancer.observe(after={task: loss.detach() * 0.9 for task, loss in losses.items()})
            if balancer.needs_validation:
                balancer.observe(validation={task: loss.detach() for task, loss in losses.items()})
            balancer.end_epoch()
        assert {buffer.device.type for buffer in balancer.buffers()} <= {device}
        weights[device] = balancer.last_weights.cpu()
        fresh = steelyard.make(name, tasks, **options)
        fresh.load_state_dict(balancer.state_dict())
    assert torch.allclose(weights["cpu"], weights["cuda"], rtol=1e-9)

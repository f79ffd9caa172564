"""
A physics-informed network
==========================

An equation and two boundary values are three losses of one network:

.. math:: u'' = -(4\\pi)^2 \\sin 4\\pi x, \\qquad u(0) = 0, \\quad u(1) = 1

whose solution is :math:`\\sin 4\\pi x + x`. The equation's loss starts near 10,000,
those of the boundary near 1. Their plain sum solves the equation and neglects the
boundary.
"""

# %%
# There are no heads: all three losses reach every parameter, so ``shared=`` is the
# whole network. ``upgrad`` takes a step that harms none of the three losses.
import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import steelyard

TASKS, STEPS, RATE = ["equation", "left", "right"], 1500, 4 * math.pi
x = torch.linspace(0, 1, 128)[:, None].requires_grad_()
ends = torch.tensor([[0.0], [1.0]])


def losses_of(network: nn.Module) -> dict[str, Tensor]:
    u = network(x)
    du = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    ddu = torch.autograd.grad(du.sum(), x, create_graph=True)[0]
    residual = ddu + RATE**2 * torch.sin(RATE * x.detach())
    left, right = network(ends).flatten()
    losses = {"equation": residual.square().mean()}
    return losses | {"left": left.square(), "right": (right - 1).square()}


def train(method: str) -> tuple[nn.Module, list[dict[str, float]]]:
    torch.manual_seed(0)
    layers = nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    network = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    balancer = steelyard.make(method, TASKS).attach(optimizer)
    history = []
    for _ in range(STEPS):
        loss = balancer(losses_of(network), shared=network)  # was: sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        history.append(balancer.metrics())
    return network, history


trained = {method: train(method) for method in ("equal", "upgrad")}

# %%
# The losses under both, and what became of the solution. The curve of the plain sum has
# the right shape (the equation holds) and hangs in the wrong place.
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
truth = (torch.sin(RATE * x) + x).detach()
axes[2].plot(x.detach(), truth, color="0.8", linewidth=6, label="solution")
for axis, (method, (network, history)) in zip(axes, trained.items(), strict=False):
    for task in TASKS:
        axis.semilogy([step[f"loss/{task}"] for step in history], label=task)
    axis.set(title=f"losses, {method}", xlabel="step", ylim=(1e-9, 1e5))
    u = network(x).detach()
    axes[2].plot(x.detach(), u, label=method)
    print(f"{method}: relative error {(u - truth).norm() / truth.norm():.3f}")
axes[0].legend()
axes[2].legend()

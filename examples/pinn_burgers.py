"""A physics-informed network for Burgers' equation: residual, boundary and initial losses, summed or balanced.

    u_t + u u_x = ν u_xx,  ν = 0.01/π,  x ∈ [-1, 1], t ∈ [0, 1],  u(x, 0) = -sin πx,  u(±1, t) = 0

    STEELYARD_DATA=/data python examples/pinn_burgers.py
    STEELYARD_DATA=/data python examples/pinn_burgers.py --methods equal upgrad config --seeds 3

Prints the relative L2 error against a reference solution, pinn_reference_solutions/burgers_shock.mat below a folder of
STEELYARD_DATA. Needs the `study` extra (SciPy reads the file).

All three losses reach every parameter of one network: there are no heads, and the trunk is the whole of it. u = 0
solves the equation and forgets where it started, so methods that weigh by the inverse of a loss or of its gradient,
which is soon smallest for the residual, stay there. Relative L2 error (u = 0 scores 1), 2,000 steps, seeds 0, 1, 2:

    equal   0.412  0.351  0.315
    upgrad  0.197  0.190  0.210

and of seed 0 alone: config 0.258, dualproj 0.335, aligned-mtl 0.342, uw 0.376, lr-annealing(main=residual) 0.414 with
cap=20 and 0.438 with cap=100, inverse-norm 0.878. After 3,000 steps with twice the points, seeds 0 and 1: equal 0.143
0.230, relobralo 0.221 0.145, lr-annealing 0.460 0.626, db-mtl 0.970 0.954, ema 1.000 1.000. A step of upgrad takes
2.4 of the sum's, and with 5,000 steps the sum gets to 0.114 (seed 0): it is steps that are saved here, not time.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import steelyard
from steelyard.problems.files import DataFile, find

VISCOSITY = 0.01 / math.pi
TASKS = ["residual", "boundary", "initial"]
REFERENCE = DataFile(
    "pinn_reference_solutions",
    "burgers_shock.mat",
    how="it comes with the code of Raissi, Perdikaris and Karniadakis, Journal of Computational Physics 378 (2019)",
)


class Network(nn.Sequential):
    """``u(x, t)``: four tanh layers of 32."""

    def __init__(self, width: int = 32, depth: int = 4) -> None:
        sizes = [2] + [width] * depth
        hidden = [(nn.Linear(inputs, outputs), nn.Tanh()) for inputs, outputs in itertools.pairwise(sizes)]
        super().__init__(*itertools.chain(*hidden), nn.Linear(width, 1))
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)


def residual(u_of: nn.Module, points: Tensor) -> Tensor:
    """``u_t + u u_x - ν u_xx`` at points ``[N, 2]`` of (x, t)."""
    points = points.requires_grad_()
    u = u_of(points)
    first = torch.autograd.grad(u.sum(), points, create_graph=True)[0]
    u_x, u_t = first[:, :1], first[:, 1:]
    u_xx = torch.autograd.grad(u_x.sum(), points, create_graph=True)[0][:, :1]
    return u_t + u * u_x - VISCOSITY * u_xx


def losses_of(network: nn.Module, generator: torch.Generator, points: int) -> dict[str, Tensor]:
    """Mean squares at fresh random points: of the residual, of u on the boundary, of u + sin πx at the start."""

    def uniform(number: int) -> Tensor:
        return torch.rand(number, 1, generator=generator)

    inside = torch.cat([2 * uniform(points) - 1, uniform(points)], 1)
    few = points // 8
    sides = torch.cat([torch.where(uniform(few) < 0.5, -1.0, 1.0), uniform(few)], 1)
    x = 2 * uniform(few) - 1
    return {
        "residual": residual(network, inside).square().mean(),
        "boundary": network(sides).square().mean(),
        "initial": (network(torch.cat([x, torch.zeros_like(x)], 1)) + torch.sin(math.pi * x)).square().mean(),
    }


def train(method: str, seed: int, steps: int, points: int = 512) -> nn.Module:
    """The network after ``steps`` of Adam; the same start and the same points for every method."""
    torch.manual_seed(seed)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    balancer = steelyard.make(method, TASKS).attach(optimizer)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        loss = balancer(losses_of(network, generator, points), shared=network)  # was: sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def reference() -> tuple[Tensor, Tensor]:
    """Points ``[N, 2]`` of (x, t), and ``u`` there, ``[N, 1]``."""
    from scipy.io import loadmat

    data = loadmat(find(REFERENCE))  # x [256, 1], t [100, 1], usol [256, 100]
    x, t, u = (torch.from_numpy(data[key]).float() for key in ("x", "t", "usol"))
    grid = torch.stack(torch.meshgrid(x.flatten(), t.flatten(), indexing="ij"), 2)
    return grid.reshape(-1, 2), u.reshape(-1, 1)


def relative_error(network: nn.Module, points: Tensor, u: Tensor) -> float:
    """``‖û - u‖₂ / ‖u‖₂`` over the grid; 1 is what u = 0 scores."""
    with torch.no_grad():
        return float((network(points) - u).norm() / u.norm())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Burgers' equation, summed or balanced")
    parser.add_argument("--methods", nargs="+", default=["equal", "upgrad"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000)
    chosen = parser.parse_args(arguments)
    points, u = reference()
    for method, seed in itertools.product(chosen.methods, range(chosen.seeds)):
        start = time.perf_counter()
        error = relative_error(train(method, seed, chosen.steps), points, u)
        print(f"{method}, seed {seed}: relative L2 error {error:.3f} ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()

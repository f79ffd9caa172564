"""Complex parameters and features: their gradients' inner products are those of real and imaginary parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import steelyard
from helpers import task_gradients
from steelyard.errors import SharedError

TASKS = ("a", "b", "c")


class Fourier(nn.Module):
    """A layer of a Fourier neural operator."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(8, 8).double()
        self.modes = nn.Parameter(torch.randn(6, 6, 5, dtype=torch.complex128))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bif,iof->bof", torch.fft.rfft(self.lift(x)), self.modes)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(30, 30, dtype=torch.complex128)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


SETTINGS = {
    "Fourier layer": (Fourier, lambda: torch.randn(3, 6, 8).double()),
    "linear": (Linear, lambda: torch.randn(5, 30, dtype=torch.complex128)),
}


@pytest.mark.parametrize("heads", ["plain", "weighted"])
@pytest.mark.parametrize("at", ["trunk", "features"])
@pytest.mark.parametrize("name", SETTINGS)
def test_complex_gradients_are_weighed_and_arrive(name: str, at: str, heads: str) -> None:
    torch.manual_seed(0)
    build, inputs = SETTINGS[name]
    trunk = build()
    z = trunk(inputs())
    readers = nn.ModuleList([nn.Linear(z.shape[-1], 2, dtype=torch.complex128) for _ in TASKS])
    losses = {task: (k + 1) * head(z).abs().mean() for k, (task, head) in enumerate(zip(TASKS, readers, strict=True))}

    def flat(gradients: list[Tensor]) -> Tensor:
        return torch.cat([torch.view_as_real(g.to(torch.complex128).resolve_conj()).flatten() for g in gradients])

    parameters = list(trunk.parameters())
    J = torch.stack([flat(row) for row in task_gradients(losses, parameters if at == "trunk" else [z]).values()])
    at_trunk = torch.stack([flat(row) for row in task_gradients(losses, parameters).values()])
    balancer = steelyard.make("mgda(normalise=l2)", TASKS, heads=heads)
    (balancer(losses, shared=trunk if at == "trunk" else z) / 3).backward()
    norms = [balancer.metrics()[f"norm/{task}"] for task in TASKS]
    assert norms == pytest.approx(J.norm(dim=1).tolist(), rel=1e-10)
    assert balancer.metrics()["cosine/a,b"] == pytest.approx(float(nn.functional.cosine_similarity(J[0], J[1], dim=0)))
    arrived = 3 * flat([parameter.grad for parameter in parameters])
    assert torch.allclose(arrived, balancer.last_weights @ at_trunk, rtol=1e-9)


def test_a_vote_by_signs_takes_the_parts_of_complex_features() -> None:
    torch.manual_seed(0)
    trunk = Linear()
    z = trunk(torch.randn(5, 30, dtype=torch.complex128))

    def losses(z: Tensor) -> dict[str, Tensor]:
        return {task: (z * (k + 1j)).real.sin().mean() for k, task in enumerate(TASKS)}

    with pytest.raises(SharedError, match=r"graddrop votes by the sign.*torch\.view_as_real\(z\).*shared=parts"):
        steelyard.make("graddrop", TASKS)(losses(z), shared=z)
    parts = torch.view_as_real(z)
    z = torch.view_as_complex(parts)
    real = parts.detach().clone().requires_grad_()
    expected, arrived = (
        torch.autograd.grad(
            steelyard.make("graddrop", TASKS, generator=torch.Generator().manual_seed(1))(losses(at), shared=shared),
            shared,
        )[0]
        for at, shared in ((torch.view_as_complex(real), real), (z, parts))
    )
    assert torch.equal(expected, arrived)
    assert float(expected.norm()) > 0

"""Parameters used several times and in several ways: random networks of them against the Jacobian."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers import task_gradients
from steelyard.gradients.layers import formula
from steelyard.gradients.trunk import trunk_gradients

BATCH, LENGTH, WIDTH = 2, 3, 6
Use = Callable[["Pool", Tensor, random.Random], Tensor]


class Pool(nn.Module):
    """One or two parameters of each kind, so that most are met again."""

    def __init__(self, number: int, dtype: torch.dtype) -> None:
        super().__init__()

        def some(*shape: int) -> nn.ParameterList:
            return nn.ParameterList([nn.Parameter(torch.randn(*shape, dtype=dtype) / 2) for _ in range(number)])

        self.matrices, self.vectors, self.kernels = some(WIDTH, WIDTH), some(WIDTH), some(WIDTH, WIDTH, 3)


def matrix(pool: Pool, draw: random.Random) -> Tensor:
    return draw.choice(list(pool.matrices))


def vector(pool: Pool, draw: random.Random) -> Tensor:
    return draw.choice(list(pool.vectors))


def linear(pool: Pool, x: Tensor, draw: random.Random) -> Tensor:
    return F.linear(x, matrix(pool, draw), vector(pool, draw) if draw.random() < 0.5 else None)


def linear_on_rows(pool: Pool, x: Tensor, draw: random.Random) -> Tensor:
    W = matrix(pool, draw).T  # transposed once, used twice
    return (x.flatten(0, 1) @ W).tanh().mm(W).view_as(x)


def transposed(pool: Pool, x: Tensor, draw: random.Random) -> Tensor:
    W = matrix(pool, draw)
    return F.linear(x, W.T) if draw.random() < 0.5 else x @ W


def its_own_input(pool: Pool, x: Tensor, draw: random.Random) -> Tensor:
    W = matrix(pool, draw)
    return x + F.linear(W, matrix(pool, draw)).mean(0) + F.linear(W, W, vector(pool, draw)).mean(0)


def embedding(pool: Pool, x: Tensor, draw: random.Random) -> Tensor:
    shape = draw.choice([(), (BATCH * LENGTH,), (BATCH, LENGTH)])
    found = F.embedding(torch.randint(WIDTH, shape), matrix(pool, draw))
    return x + (found if shape == () else found.view_as(x))


def kernel(pool: Pool, x: Tensor, draw: random.Random, call: Callable[..., Tensor]) -> Tensor:
    bias = vector(pool, draw) if draw.random() < 0.5 else None
    step = draw.choice([1, 2])
    convolved = call(x.mT, draw.choice(list(pool.kernels)), bias, padding=step, dilation=step)
    return convolved.mT


def conv(pool: Pool, x: Tensor, draw: random.Random) -> Tensor:
    return kernel(pool, x, draw, F.conv1d)


def conv_transpose(pool: Pool, x: Tensor, draw: random.Random) -> Tensor:
    return kernel(pool, x, draw, F.conv_transpose1d)


def elementwise(pool: Pool, x: Tensor, draw: random.Random) -> Tensor:
    W, b = matrix(pool, draw), vector(pool, draw)
    return draw.choice([lambda: x * b, lambda: x + W[draw.randrange(WIDTH)], lambda: x * W.mean() + b])()


def layer_norm(pool: Pool, x: Tensor, draw: random.Random) -> Tensor:
    return F.layer_norm(x, (WIDTH,), vector(pool, draw), vector(pool, draw))


USES: list[Use] = [
    *(linear, linear_on_rows, transposed, its_own_input, embedding, conv, conv_transpose, elementwise, layer_norm),
]


def network(seed: int, dtype: torch.dtype, uses: list[Use], number: int) -> tuple[Pool, list[Tensor]]:
    """A chain of uses with shortcuts, and three losses that read it at depths of their own, at scales of their own."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    pool = Pool(number, dtype)
    stream = [torch.randn(BATCH, LENGTH, WIDTH, dtype=dtype)]
    for use in uses:
        x = use(pool, stream[-1], draw).tanh()
        stream.append(x + draw.choice(stream) if draw.random() < 0.3 else x)
    depths = [len(stream) - 1, *(draw.randrange(1, len(stream)) for _ in range(2))]
    heads = [nn.Linear(WIDTH, 2, dtype=dtype) for _ in depths]
    return pool, [
        1e3**k * head(stream[depth]).square().mean() for k, (head, depth) in enumerate(zip(heads, depths, strict=True))
    ]


def error(pool: Pool, losses: list[Tensor]) -> float:
    parameters = list(pool.parameters())
    rows = task_gradients({str(k): loss for k, loss in enumerate(losses)}, parameters)
    J = torch.stack([torch.cat([piece.flatten().double() for piece in row]) for row in rows.values()])
    expected = J @ J.T
    gramian = trunk_gradients([str(k) for k in range(len(losses))], losses, parameters, at_boundary=False).gramian
    norms = expected.diagonal().sqrt()
    return float(((gramian - expected).abs() / (norms[:, None] * norms)).max())


@pytest.fixture(params=[False, True], ids=["where cheaper", "always"])
def formulas(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices this small are mostly left to autograd: the second time no formula is."""
    if request.param:
        always = {
            name: tuple((find, formula.Formula(each.gramian, lambda uses, tasks: True)) for find, each in entries)
            for name, entries in formula._FORMULAS.items()
        }
        monkeypatch.setattr(formula, "_FORMULAS", always)


@pytest.mark.usefixtures("formulas")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
class TestGramianIsTheJacobians:
    @pytest.mark.parametrize("first", USES)
    def test_of_any_two_uses(self, first: Use, dtype: torch.dtype, tolerance: float) -> None:
        for second in USES:
            for seed in range(3 if dtype == torch.float64 else 1):
                assert error(*network(seed, dtype, [first, second], 1)) < tolerance, (second, seed)

    def test_of_random_networks(self, dtype: torch.dtype, tolerance: float) -> None:
        for seed in range(30):
            uses = random.Random(f"uses {seed}").choices(USES, k=3 + seed % 5)
            assert error(*network(seed, dtype, uses, 2)) < tolerance, seed

"""Several balancers of plain heads at one place, in one backward pass: each one's gradient arrives, however small."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import steelyard
from steelyard.method_registry import method_class

SIZES = [1.0, 1e-2, 1e-4, 1e-6]
ORDERS = [
    ("first", "second"),
    ("second", "first"),
    ("first", "second", "third"),
    ("third", "outer"),
    ("second", "own", "third"),
]
# Both kinds of place, the trunk's end and its parameters, and features that outlive a step.
PLACES = [
    (spec, where)
    for spec in ("db-mtl", "moco", "adatask", "max-norm", "cagrad", "mgda")
    for where in ("features", "trunk", "leaf")
    if where.replace("leaf", "features") in method_class(spec).where
]
Scalars = dict[str, Callable[[], Tensor]]


class Setting:
    def __init__(self, dtype: torch.dtype, where: str, size: float) -> None:
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.Tanh()).to(dtype)
        self.heads = nn.ModuleDict({name: nn.Linear(16, 3) for name in "abcdef"}).to(dtype)
        self.x, self.where, self.size = torch.randn(8, 6, dtype=dtype), where, size

    def scalars(self, z: Tensor | None = None) -> Scalars:
        z = self.trunk(self.x) if z is None else z
        losses = {name: head(z).square().mean() for name, head in self.heads.items()}
        place = z if self.where == "features" else self.trunk

        def one(spec: str, *names: str, size: float = 1.0) -> Tensor:
            balancer = steelyard.make(spec, list(names), heads="plain")
            return balancer({name: size * losses[name] for name in names}, shared=place)

        def inner() -> Tensor:
            return one("mgda", "a", "b")

        def outer(spec: str, inside: Tensor) -> Tensor:
            return steelyard.make(spec, ["inner", "c"], heads="plain")(
                {"inner": inside, "c": losses["c"]}, shared=place
            )

        return {
            "first": inner,
            "second": lambda: one("cagrad", "c", "d", size=self.size),
            "third": lambda: one("upgrad", "e", "f", size=self.size),
            "outer": lambda: outer("cagrad", inner()),
            "own": lambda: losses["e"],
            "within": lambda: outer("pcgrad", one("cagrad", "c", "d", size=self.size)),
            "task": lambda: losses["c"],
        }

    def gradient(self, *names: str, create_graph: bool = False) -> Tensor:
        made = self.scalars()
        parameters = list(self.trunk.parameters())  # heads receive what they always do
        total = torch.stack([made[name]() for name in names]).sum()
        found = torch.autograd.grad(total, parameters, create_graph=create_graph)
        return torch.cat([gradient.detach().flatten() for gradient in found]).double()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("where", ["features", "trunk"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", ORDERS, ids="+".join)
def test_a_sum_of_scalars_brings_the_sum_of_their_gradients(
    dtype: torch.dtype, where: str, size: float, order: tuple[str, ...]
) -> None:
    setting = Setting(dtype, where, size)
    alone = {name: setting.gradient(name) for name in order}
    total = sum(alone.values(), torch.zeros(()))
    eps = (8 if dtype == torch.bfloat16 else 64) * torch.finfo(dtype).eps
    assert (setting.gradient(*order) - total).norm() < eps * max(each.norm() for each in alone.values())


@pytest.mark.parametrize(("dtype", "size"), [(torch.bfloat16, 1e-2), (torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("where", ["features", "trunk"])
@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")], ids="+".join)
def test_a_small_one_is_no_rounding(where: str, order: tuple[str, str], dtype: torch.dtype, size: float) -> None:
    """It lies below the rounding of the other one's gradient, and so much of it is there."""
    setting = Setting(dtype, where, size)
    second = setting.gradient("second")
    for create_graph in (False, True):
        rest = setting.gradient(*order, create_graph=create_graph) - setting.gradient("first")
        assert rest @ second / second.square().sum() == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("where", ["features", "trunk"])
@pytest.mark.parametrize("order", [*ORDERS, ("outer",), ("outer", "own")], ids="+".join)
def test_a_pass_that_is_differentiated_in_turn_brings_the_same(where: str, order: tuple[str, ...]) -> None:
    setting = Setting(torch.float64, where, 1.0)
    found = setting.gradient(*order, create_graph=True)
    torch.testing.assert_close(found, setting.gradient(*order), rtol=1e-9, atol=1e-12)


class _Fails(torch.autograd.Function):
    """In its backward, while it is told to."""

    now = False

    @staticmethod
    def forward(ctx: object, z: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        if _Fails.now:
            raise MemoryError("of the test")
        return gradient


@pytest.mark.parametrize(("spec", "where"), PLACES)
def test_a_pass_that_failed_leaves_nothing_to_the_next_step(
    spec: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that catches it goes on while the scalar of the step before is still there."""
    torch.manual_seed(0)
    trunk, heads = nn.Sequential(nn.Linear(6, 16), nn.Tanh()), nn.ModuleList([nn.Linear(16, 3) for _ in "ab"])
    batches = torch.randn(2, 8, 6)
    leaf = torch.randn(8, 16, requires_grad=True)
    targets = [leaf] if where == "leaf" else list(trunk.parameters())

    def scalar(x: Tensor) -> Tensor:
        z = leaf if where == "leaf" else trunk(x)
        read = _Fails.apply(z)  # type: ignore[no-untyped-call]
        losses = {name: (k * head(read)).square().mean() for name, head, k in zip("ab", heads, (1, 3), strict=True)}
        place = trunk if where == "trunk" else z
        return steelyard.make(spec, ["a", "b"], heads="plain")(losses, shared=place)

    expected = torch.autograd.grad(scalar(batches[1]), targets)
    kept = scalar(batches[0])
    monkeypatch.setattr(_Fails, "now", True)
    with pytest.raises(MemoryError):
        kept.backward()
    monkeypatch.setattr(_Fails, "now", False)
    found = torch.autograd.grad(scalar(batches[1]), targets)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("where", ["features", "trunk"])
@pytest.mark.parametrize("beside", [(), ("first",)], ids=["alone", "beside another"])
def test_a_small_one_within_another_comes_once(
    where: str, dtype: torch.dtype, size: float, beside: tuple[str, ...]
) -> None:
    """Where its gradient and the other task's do not conflict, `pcgrad` around them is their sum."""
    setting = Setting(dtype, where, size)
    second, task = setting.gradient("second"), setting.gradient("task")
    assert second @ task > 0
    for order in ((*beside, "within"), ("within", *beside)):
        rest = setting.gradient(*order) - setting.gradient(*beside, "task")
        assert rest @ second / second.square().sum() == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("where", ["features", "trunk"])
@pytest.mark.parametrize("beside", [(), ("third",)], ids=["alone", "beside a third"])
def test_one_around_another_balances_what_that_one_sends(where: str, beside: tuple[str, ...]) -> None:
    """The outer one's rows are the inner one's direction and the other task's gradient; as losses of their own here."""
    setting = Setting(torch.float64, where, 1.0)
    z = setting.trunk(setting.x)
    inner, other = (
        torch.autograd.grad(scalar(), z, retain_graph=True)[0]
        for scalar in (setting.scalars(z)["first"], lambda: setting.heads["c"](z).square().mean())
    )
    if where == "trunk":
        parameters = list(setting.trunk.parameters())
        inner = setting.gradient("first")
        other = torch.cat([g.flatten() for g in torch.autograd.grad(z, parameters, other)])
        place = torch.zeros_like(inner, requires_grad=True)
    else:
        place = z
    balancer = steelyard.make("cagrad", ["inner", "c"], heads="plain")
    balanced = balancer({"inner": (inner * place).sum(), "c": (other * place).sum()}, shared=place)
    if where == "trunk":
        (expected,) = torch.autograd.grad(balanced, place)
    else:
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(balanced, list(setting.trunk.parameters()))])
    if beside:
        expected = expected + setting.gradient(*beside)
    for order in ((*beside, "outer"), ("outer", *beside)):
        torch.testing.assert_close(setting.gradient(*order), expected, rtol=1e-9, atol=1e-12)


def test_steps_leave_no_trace_on_the_network() -> None:
    """Features that are no step's own outlive it: what it has installed there is gone with its graph."""
    torch.manual_seed(0)
    table = torch.randn(8, 4, requires_grad=True)
    node = torch.autograd.graph.get_gradient_edge(table).node  # held, as DistributedDataParallel holds it
    for _ in range(3):
        losses = {"a": table.square().mean(), "b": (table - 1).square().mean()}
        scalars = [steelyard.make("pcgrad", ["a", "b"], heads="plain")(losses, shared=table) for _ in range(2)]
        assert [len(each) for each in node.metadata.values()] == [2]
        torch.stack(scalars).sum().backward()
        del scalars
    assert [len(each) for each in node.metadata.values()] == [0]

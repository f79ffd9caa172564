"""Autocast and gradient scaling: the weights of float32, small losses that stay, overflows that leave no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import steelyard
from steelyard.method_registry import method_class, options_of
from steelyard.testing.toy import same_state, snapshot

TASKS = ["a", "b", "c"]
METHODS = ["ema", "inverse-norm(beta=0)", "mgda", "db-mtl(beta=0)", "nash-mtl", "upgrad", "cagrad"]
HALVES = [torch.bfloat16, torch.float16]

Network = tuple[nn.Module, nn.ModuleDict, Callable[..., tuple[dict[str, Tensor], Tensor]]]


class InFloat32(nn.Module):
    """What GPUs' autocast does to a layer norm."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def setting(scale: float = 1.0, norm: bool = False) -> Network:
    """A trunk and a head per task; with ``norm`` it ends in float32 also under autocast."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), InFloat32() if norm else nn.Identity())
    heads = nn.ModuleDict({task: nn.Linear(32, 4) for task in TASKS})
    x = torch.randn(64, 6)
    y = {task: (number + 1) * torch.randn(64, 4) for number, task in enumerate(TASKS)}

    def losses() -> tuple[dict[str, Tensor], Tensor]:
        z = trunk(x)
        return {task: scale * (heads[task](z).float() - y[task]).square().mean() for task in TASKS}, z

    return trunk, heads, losses


def look(spec: str, where: str, dtype: torch.dtype | None, network: Network) -> tuple[dict[str, float], Tensor]:
    """The metrics of one call, and the trunk's gradient."""
    trunk, _, losses = network
    balancer = steelyard.make(spec, TASKS)
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        found, z = losses()
    result = balancer(found, shared={"features": z, "trunk": trunk, "none": None}[where])
    gradients = torch.autograd.grad(result * 2.0**10, list(trunk.parameters()))
    return balancer.metrics(), torch.cat([gradient.flatten() for gradient in gradients]) / 2.0**10


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("spec", "where"),
    [(spec, where) for spec in METHODS for where in ("features", "trunk") if spec != "ema"] + [("ema", "none")],
)
def test_autocast_gives_the_weights_of_float32_within_rounding(spec: str, where: str, dtype: torch.dtype) -> None:
    plain, expected = look(spec, where, None, setting())
    half, arrived = look(spec, where, dtype, setting())
    rounding = 16 * torch.finfo(dtype).eps
    for task in TASKS:
        assert half[f"weight/{task}"] == pytest.approx(plain[f"weight/{task}"], rel=rounding, abs=rounding)
    assert float((arrived - expected).norm() / expected.norm()) < rounding


@pytest.mark.parametrize("norm", [False, True], ids=["float16 features", "float32 features"])
@pytest.mark.parametrize("where", ["features", "trunk"])
def test_losses_of_1e_minus_6_do_not_vanish_in_float16(where: str, norm: bool) -> None:
    """Their gradients lie far below float16's smallest number, 6e-8."""
    reference, _ = look("mgda", where, None, setting(1e-6, norm))
    found, _ = look("mgda", where, torch.float16, setting(1e-6, norm))
    for task in TASKS:
        assert found[f"norm/{task}"] == pytest.approx(reference[f"norm/{task}"], rel=1e-2)
        assert found[f"weight/{task}"] == pytest.approx(reference[f"weight/{task}"], rel=3e-2, abs=1e-2)


@pytest.mark.parametrize("where", ["features", "trunk"])
def test_the_seed_steps_down_where_it_would_overflow(where: str) -> None:
    """Gradients of a few thousand at float16 features: 65536 times them is inf, and inf would drop the task."""
    reference, _ = look("mgda", where, None, setting(1e6))
    found, _ = look("mgda", where, torch.float16, setting(1e6))
    for task in TASKS:
        assert found[f"norm/{task}"] == pytest.approx(reference[f"norm/{task}"], rel=1e-2)


def test_a_float16_loss_is_seeded_within_its_range() -> None:
    z = torch.randn(8, 4).half().requires_grad_()
    losses = {"a": (z * 1e-3).mean() * 1e-2, "b": (z * 3e-3).mean() * 1e-2}
    balancer = steelyard.make("inverse-norm(beta=0)", ["a", "b"])
    balancer(losses, shared=z)
    assert balancer.metrics()["norm/b"] / balancer.metrics()["norm/a"] == pytest.approx(3, rel=1e-2)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("where", ["features", "trunk"])
def test_plain_heads_under_autocast_at_a_norm_ratio_of_ten_thousand(dtype: torch.dtype, where: str) -> None:
    """Features in float32, heads in half: what arrives misses the look by half's rounding, which is no other loss."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(6, 32), InFloat32())
    heads = {"a": nn.Linear(32, 1), "b": nn.Linear(32, 1)}
    x, scales = torch.randn(64, 6), {"a": 1e4, "b": 1.0}

    def found(enabled: bool) -> Tensor:
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            z = trunk(x)
            losses = {task: scales[task] * heads[task](z).float().square().mean() for task in heads}
        balancer = steelyard.make("inverse-norm(beta=0,heads=plain)", list(heads), priorities={"a": 0.3})
        result = balancer(losses, shared=z if where == "features" else trunk)
        return torch.cat([g.flatten() for g in torch.autograd.grad(result, list(trunk.parameters()))])

    error = (found(True) - found(False)).norm() / found(False).norm()
    assert float(error) < 32 * torch.finfo(dtype).eps


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("where", ["none", "features", "trunk"])
def test_a_step_that_overflows_is_skipped_and_leaves_no_trace(where: str, fused: bool) -> None:
    trunk, heads, losses = setting()
    parameters = [*trunk.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=1000, backoff_factor=2.0**-30)
    balancer = steelyard.make("ema" if where == "none" else "inverse-norm", TASKS).attach(optimizer, scaler)
    initial, weights = snapshot(balancer), [parameter.detach().clone() for parameter in parameters]
    for number in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            found, z = losses()
            loss = balancer(found, shared={"features": z, "trunk": trunk, "none": None}[where])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if number == 0:
            assert scaler.get_scale() == 2.0**10, "the first step did not overflow"
            assert all(torch.equal(p, w) for p, w in zip(parameters, weights, strict=True))
            assert same_state(initial, snapshot(balancer)), "an overflowed step has moved the state"
    assert balancer.steps == 2
    assert not any(torch.equal(p, w) for p, w in zip(parameters, weights, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: float16 on the CPU is tested above")
@pytest.mark.parametrize("where", ["features", "trunk"])
def test_float16_on_a_gpu(where: str) -> None:
    trunk, heads, _ = setting(norm=True)
    trunk.cuda(), heads.cuda()
    x = torch.randn(64, 6, device="cuda")
    optimizer = torch.optim.AdamW([*trunk.parameters(), *heads.parameters()], lr=1e-3, fused=True)
    scaler = torch.amp.GradScaler("cuda")
    balancer = steelyard.make("mgda", TASKS).attach(optimizer, scaler)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            z = trunk(x)
            losses = {task: 1e-6 * heads[task](z).float().square().mean() for task in TASKS}
            loss = balancer(losses, shared=z if where == "features" else trunk)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert all(balancer.metrics()[f"norm/{task}"] > 0 for task in TASKS)


LOOKS_AGAIN = ["famo", "famo(form=before)", "mgda(solver=amortised)", "hydalearn", "auto-lambda"]


@pytest.mark.parametrize("spec", LOOKS_AGAIN)
def test_losses_are_recomputed_in_the_precision_of_the_call(spec: str) -> None:
    """Also behind the optimizer's step, where autocast is over: half inputs fit, and no step has changed nothing."""
    torch.manual_seed(0)
    network = nn.Linear(6, 2)
    options = {"main": "a"} if "main" in options_of(method_class(spec.partition("(")[0])) else {}
    balancer = steelyard.make(spec, ["a", "b"], **options)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    balancer.attach(optimizer)
    before = {name: value.clone() for name, value in balancer.state_dict().items() if torch.is_tensor(value)}
    dtypes = set()

    def losses_on(call: Callable[..., Tensor], batch: Tensor) -> dict[str, Tensor]:
        out = call(batch)
        dtypes.add(out.dtype)
        return {name: (out.float()[:, k] - k).square().mean() for k, name in enumerate("ab")}

    for _ in range(3):
        x = torch.randn(8, 6, dtype=torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            again = steelyard.losses_of(network, losses_on, x, held_out=x)
            loss = balancer(losses_on(network, x), again=again, shared=network)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert dtypes == {torch.bfloat16}
    if spec == "famo":  # what it learns is how far a step moved the losses: this one moved none
        assert torch.equal(balancer.state_dict()["logits"], before["logits"])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("heads", "apart"), [("plain", True), ("weighted", False)])
def test_small_scalars_beside_the_call_arrive_by_either_way_round(dtype: torch.dtype, heads: str, apart: bool) -> None:
    """A loss and a second balancer, far below the first one's gradient: `balance/places.md` says how they are kept."""
    trunk, _, losses = setting()

    def gradient(*parts: str) -> Tensor:
        trunk.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            found, z = losses()
            made = {
                "first": lambda: steelyard.make("pcgrad", ["a", "b"], heads=heads)(
                    {"a": found["a"], "b": found["b"]}, shared=z
                ),
                "second": lambda: steelyard.make("cagrad", ["c", "d"], heads=heads)(
                    {"c": 0.003 * found["c"], "d": 0.003 * found["a"]}, shared=z
                ),
                "own": lambda: 0.03 * z.float().square().mean(),
            }
            scalars = [made[part]() for part in parts]
        if apart:
            for each in scalars:
                each.backward(retain_graph=True)
        else:
            torch.stack(scalars).sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in trunk.parameters()])

    first = gradient("first")
    for small in ("second", "own"):
        alone, both = gradient(small), gradient("first", small)
        share = (both - first) @ alone / alone.square().sum()
        assert alone.norm() < 0.05 * first.norm()
        assert share == pytest.approx(1.0, abs=0.1), small

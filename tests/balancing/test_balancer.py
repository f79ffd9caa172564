"""The call: value, options, metrics, copies, stages."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import steelyard
from helpers import TwoLayer, task_gradients, weighted_sum
from steelyard.base.observation import Seen
from steelyard.base.state import State

TASKS = {"a": 1.0, "b": 4.0}


def constant(**values: float) -> dict[str, Tensor]:
    return {task: torch.tensor(value, dtype=torch.float64, requires_grad=True) * 1 for task, value in values.items()}


class TestValue:
    def test_loss_only_methods_return_their_objective(self) -> None:
        assert steelyard.make("equal", ["a", "b"])(constant(a=1, b=3)).item() == 4
        assert steelyard.make("log", ["a", "b"])(constant(a=1, b=3)).item() == pytest.approx(
            torch.log(torch.tensor(3.0))
        )
        uw = steelyard.make("uw(initial=1)", ["a", "b"])
        assert uw(constant(a=1, b=3)).item() == pytest.approx(0.5 * (4 * torch.tensor(-1.0).exp().item() + 2))

    def test_plain_heads_return_the_prioritised_plain_sum(self) -> None:
        network = TwoLayer(TASKS)
        losses, features = network.losses()
        balancer = steelyard.make("db-mtl", list(TASKS), priorities={"b": 3.0})
        assert balancer(losses, shared=features).item() == pytest.approx(losses["a"].item() + 3 * losses["b"].item())

    def test_rescaled_weights_return_the_weighted_sum(self) -> None:
        balancer = steelyard.make("log", ["a", "b"], scale="sum")
        value = balancer(constant(a=1, b=3)).item()
        weights = torch.tensor([1.5, 0.5])  # proportional to 1/L, summing to 2
        assert torch.allclose(balancer.last_weights.float(), weights)
        assert torch.isfinite(torch.tensor(value))


def test_absent_tasks_may_join_late_and_in_any_order() -> None:
    balancer = steelyard.make("ema(beta=0.9)", ["a", "b", "c"])
    balancer(constant(c=2.0))
    assert balancer.last_weights.tolist() == [0, 0, 0.5]
    balancer(constant(b=4.0, a=8.0))
    assert balancer.last_weights.tolist() == pytest.approx([0.125, 0.25, 0])


def test_metrics_are_flat_numbers() -> None:
    network = TwoLayer(TASKS)
    losses, features = network.losses()
    balancer = steelyard.make("mgda", list(TASKS))
    balancer(losses, shared=features)
    metrics = balancer.metrics()
    assert set(metrics) == {
        *[f"{kind}/{task}" for kind in ("loss", "weight", "share", "norm") for task in TASKS],
        "loss/sum",
        "cosine/a,b",
    }
    gradients = {task: g[0].flatten() for task, g in task_gradients(losses, [features]).items()}  # type: ignore[list-item]
    cosine = nn.functional.cosine_similarity(gradients["a"], gradients["b"], dim=0)
    assert metrics["cosine/a,b"] == pytest.approx(cosine.item())
    assert metrics["norm/a"] == pytest.approx(gradients["a"].norm().item())
    assert metrics["loss/sum"] == pytest.approx(losses["a"].item() + losses["b"].item())
    assert metrics["share/a"] + metrics["share/b"] == pytest.approx(1)
    assert all(isinstance(value, float) for value in metrics.values())


def test_a_task_called_sum_and_the_plain_sum_are_told_apart() -> None:
    balancer = steelyard.make("equal", ["sum", "b"])
    balancer(constant(sum=1.0, b=4.0))
    assert {key: value for key, value in balancer.metrics().items() if key.startswith("loss")} == {
        "loss": 5.0,
        "loss/sum": 1.0,
        "loss/b": 4.0,
    }
    balancer(constant(b=4.0))  # nor does a key change its meaning with the batch
    assert balancer.metrics()["loss"] == 4.0
    assert "loss/sum" not in balancer.metrics()


def test_loss_only_methods_with_plain_heads_weigh_the_trunk_alone() -> None:
    network = TwoLayer(TASKS)
    losses, features = network.losses()
    weights = {"a": 1 / losses["a"].item(), "b": 1 / losses["b"].item()}
    at_trunk = weighted_sum(weights, task_gradients(losses, network.trunk_parameters()))
    at_heads = weighted_sum({"a": 1.0, "b": 1.0}, task_gradients(losses, network.head_parameters()))
    steelyard.make("ema", list(TASKS), heads="plain")(losses, shared=features).backward()
    for expected, parameters in ((at_trunk, network.trunk_parameters()), (at_heads, network.head_parameters())):
        for gradient, parameter in zip(expected, parameters, strict=True):
            assert torch.allclose(parameter.grad, gradient, rtol=1e-10)


def test_every_holds_weights_and_looks_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    import steelyard.balancing.observe as module

    looks = []
    original = module.read
    monkeypatch.setattr(module, "read", lambda *a: looks.append(1) or original(*a))
    network = TwoLayer(TASKS)
    balancer = steelyard.make("mgda", list(TASKS), every=3)
    for _ in range(7):
        losses, features = network.losses()
        balancer(losses, shared=features)
    assert len(looks) == 3, "weights are refreshed at steps 0, 3 and 6"


def test_priorities_reach_head_and_trunk_with_plain_heads() -> None:
    network = TwoLayer(TASKS)
    losses, features = network.losses()
    plain = task_gradients(losses, network.head_parameters())
    steelyard.make("max-norm", list(TASKS), priorities={"a": 2.0})(losses, shared=features).backward()
    for parameter, expected in zip(network.head_parameters(), weighted_sum({"a": 2.0, "b": 1.0}, plain), strict=True):
        assert torch.allclose(parameter.grad, expected, rtol=1e-10)


def test_external_learning_gives_parameters_with_the_closed_form_gradient() -> None:
    balancer = steelyard.make("uw(learn=external,initial=0.3)", ["a", "b"])
    assert [name for name, _ in balancer.named_parameters()] == ["log_variance"]
    losses = constant(a=2.0, b=5.0)
    balancer(losses).backward()
    s = torch.full((2,), 0.3, requires_grad=True)
    (0.5 * (torch.exp(-s) * torch.tensor([2.0, 5.0]) + s)).sum().backward()
    assert torch.allclose(balancer.log_variance.grad, s.grad)
    assert not list(steelyard.make("uw", ["a", "b"]).parameters()), "weights learnt inside are no parameters"


def test_casting_the_model_leaves_the_state_in_double() -> None:
    model = nn.Module()
    model.balancer = steelyard.make("ema", ["a", "b"])
    model.half().bfloat16()
    assert {buffer.dtype for buffer in model.balancer.buffers()} == {torch.float64}


def test_balancers_pickle() -> None:
    balancer = steelyard.make("log+random", ["a", "b"])
    balancer(constant(a=1, b=2))
    twin = pickle.loads(pickle.dumps(balancer))
    balancer(constant(a=1, b=2))
    twin(constant(a=1, b=2))
    assert torch.equal(balancer.last_weights, twin.last_weights)


def test_a_state_dict_taken_earlier_stays_what_it_was() -> None:
    balancer = steelyard.make("ema", ["a"])
    balancer(constant(a=1))
    saved = balancer.state_dict()
    before = saved["average"].clone()
    balancer(constant(a=9))
    assert torch.equal(saved["average"], before)
    other = steelyard.make("ema", ["a"])
    other.load_state_dict(saved)
    other(constant(a=5))
    assert torch.equal(saved["average"], before)


def test_reset_returns_to_a_fresh_instance() -> None:
    balancer = steelyard.make("log+ema-scale+dwa(period=1)", ["a", "b"])
    fresh = {name: value for name, value in balancer.state_dict().items() if isinstance(value, Tensor)}
    for _ in range(3):
        balancer(constant(a=1, b=2))
    balancer.reset()
    assert balancer.steps == 0
    for name, value in fresh.items():
        assert torch.equal(balancer.state_dict()[name].nan_to_num(7), value.nan_to_num(7))


class TestChain:
    def test_stages_apply_from_left_to_right_by_the_chain_rule(self) -> None:
        balancer = steelyard.Chain(
            steelyard.EMAScale(0.5), steelyard.LogLosses(0.0), steelyard.make("equal", ["a", "b"])
        )
        total = torch.zeros((), dtype=torch.float64)
        for values in ((2.0, 3.0), (8.0, 1.0)):
            losses = constant(a=values[0], b=values[1])
            result = balancer(losses)
            total = result
        average = torch.tensor([0.5 * 0.5 * 2 + 0.5 * 8, 0.5 * 0.5 * 3 + 0.5 * 1], dtype=torch.float64) / 0.75
        scaled = torch.tensor([8.0, 1.0], dtype=torch.float64) / average
        assert total.item() == pytest.approx(scaled.log().sum().item())
        assert torch.allclose(balancer.last_weights, torch.tensor([1 / 8, 1.0], dtype=torch.float64))

    def test_initial_scale_freezes_after_its_steps(self) -> None:
        balancer = steelyard.make("initial-scale(steps=2)+equal", ["a"])
        for value in (2.0, 4.0, 100.0, 7.0):
            balancer(constant(a=value))
        assert balancer.last_weights.tolist() == pytest.approx([1 / 3])

    def test_initial_scale_over_the_first_epoch(self) -> None:
        balancer = steelyard.make("initial-scale+equal", ["a"])
        for value in (2.0, 4.0):
            balancer(constant(a=value))
        balancer.end_epoch()
        for value in (9.0, 11.0):
            balancer(constant(a=value))
        balancer.end_epoch()
        balancer(constant(a=50.0))
        assert balancer.last_weights.tolist() == pytest.approx([1 / 3])

    def test_the_last_part_is_a_method(self) -> None:
        with pytest.raises(steelyard.errors.OptionError, match="last part of a Chain is a method"):
            steelyard.Chain(steelyard.LogLosses())
        with pytest.raises(steelyard.errors.OptionError, match="Equal is not a loss stage"):
            steelyard.Chain(steelyard.make("equal", ["a"]), steelyard.make("equal", ["a"]))


class TestMaskedMean:
    def test_mean_over_what_is_there(self) -> None:
        values = torch.tensor([[1.0, float("nan")], [3.0, 5.0]], requires_grad=True)
        mean = steelyard.masked_mean(values * 2, torch.tensor([[True, False], [True, True]]))
        assert mean.item() == 6
        assert mean.label_count == 3
        mean.backward()
        assert torch.equal(values.grad, torch.tensor([[2 / 3, 0.0], [2 / 3, 2 / 3]]))

    def test_no_label_is_an_absent_task(self) -> None:
        values = torch.ones(3, requires_grad=True)
        assert steelyard.masked_mean(values, torch.zeros(3, dtype=torch.bool)) is None

    def test_masks_broadcast(self) -> None:
        values = torch.arange(6.0).view(2, 3)
        assert steelyard.masked_mean(values, torch.tensor([[True], [False]])).item() == 1


def test_losses_of_leaves_the_model_untouched() -> None:
    model = nn.Linear(2, 1)
    batch = torch.ones(3, 2)
    again = steelyard.losses_of(model, lambda call, x: {"a": call(x).mean()}, batch)
    zeros = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    assert again()["a"].item() == pytest.approx(model(batch).mean().item())
    assert again(params=zeros)["a"].item() == 0
    assert again(batch=batch * 0)["a"].item() == pytest.approx(model.bias.item())
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_a_method_of_ones_own_is_one_small_class() -> None:
    class SquareRoot(steelyard.Balancer):
        name = "square-root"
        positive_losses = True

        def weigh(self, seen: steelyard.Seen, state: State) -> Tensor:
            return seen.losses.rsqrt()

    from steelyard.testing import check_method

    check_method(SquareRoot)


def test_the_contract_catches_a_broken_method() -> None:
    class Forgetful(steelyard.Balancer):
        """Keeps its average outside the declared state."""

        name = "forgetful"

        def weigh(self, seen: steelyard.Seen, state: State) -> Tensor:
            self.average = getattr(self, "average", 0) * 0.5 + seen.losses.sum() * 0.5
            return seen.losses / self.average

    from steelyard.testing import check_method

    with pytest.raises(AssertionError, match=r"non_finite|state_survives|absent|window"):
        check_method(Forgetful)


def test_the_record_of_a_call_lets_go_of_the_rows() -> None:
    trunk = torch.nn.Linear(3, 3)
    balancer = steelyard.make("moco", ["a", "b"])
    z = trunk(torch.randn(4, 3))
    balancer({"a": z.square().mean(), "b": z.abs().mean()}, shared=trunk)
    assert balancer._now.record is not None
    assert balancer._now.record.seen.rows is None
    assert set(balancer.metrics()) > {"norm/a", "cosine/a,b"}


class HostNumbers(TorchDispatchMode):
    """Names the operations that bring numbers from the host to a device or back: on CUDA, each waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation.name() in ("aten::lift_fresh", "aten::_local_scalar_dense"):
            self.found.append(operation.name())
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["equal", "fixed", "uw", "dwa", "ema"])
def test_a_step_without_checks_moves_no_number_between_host_and_device(name: str) -> None:
    scale = torch.ones((), requires_grad=True)
    optimizer = torch.optim.SGD([scale], lr=0.0)
    balancer = steelyard.make(name, ["a", "b", "c"], on_nonfinite="ignore", priorities={"a": 2.0}).attach(optimizer)
    for step in range(3):
        losses = {"a": scale * 2, "b": scale * 3, "c": scale * 4 if step % 2 else None}
        with HostNumbers() as moved:
            balancer(losses).backward()
            optimizer.step()
    assert moved.found == []


def test_weights_that_are_all_zero_cannot_be_rescaled_and_stay() -> None:
    class OnlyB(steelyard.Balancer):
        name = "only-b"

        def weigh(self, seen: Seen, state: State) -> Tensor:
            return torch.tensor([float(task == "b") for task in seen.tasks], dtype=torch.float64)

    balancer = OnlyB(["a", "b"], scale="sum")
    balancer(constant(a=1))
    assert balancer.last_weights.tolist() == [0.0, 0.0]
    balancer(constant(a=1, b=1))
    assert balancer.last_weights.tolist() == [0.0, 2.0]


@pytest.mark.parametrize(
    ("answer", "named"), [(torch.tensor(2.0), r"got \(\)"), ([1.0, 2.0], "got list"), (torch.ones(3), r"got \(3,\)")]
)
def test_a_method_that_weighs_something_else_is_told(answer: object, named: str) -> None:
    class Wrong(steelyard.Balancer):
        name = "wrong"

        def weigh(self, seen: object, state: object) -> object:
            return answer

    z = torch.ones(2, requires_grad=True)
    with pytest.raises(
        TypeError, match=rf"Wrong.weigh must return one weight for each of the 2 present tasks.*{named}"
    ):
        Wrong(["a", "b"])({"a": z[0] ** 2, "b": z[1] ** 2})

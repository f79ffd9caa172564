"""Misuse: each error names the thing, the value and the fix."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import steelyard
from steelyard.balancing import commit
from steelyard.errors import (
    AngleWarning,
    LossError,
    MissingInputError,
    OptionError,
    PeriodWarning,
    SharedError,
    StateError,
    UnknownNameError,
)


def loss(value: float = 1.0) -> Tensor:
    return torch.tensor(value, requires_grad=True) * 1.0


@pytest.fixture
def balancer() -> steelyard.Balancer:
    return steelyard.make("equal", ["seg", "depth"])


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda: torch.tensor([1.0, 2.0]), r"map task names.*torch.tensor\(\[l1, l2\]\) has lost the graph"),
        (lambda: [loss(), loss()], "map task names to scalar tensors, got list"),
        (lambda: {"seg": torch.tensor(1.0), "depth": loss()}, "'seg' has no graph.*torch.tensor"),
        (lambda: {"seg": loss(), "depth": loss().detach()}, "'depth' has no graph"),
        (lambda: {"seg": torch.ones(3, requires_grad=True)}, r"'seg' has shape \(3,\).*masked_mean"),
        (lambda: {"seg": torch.ones(1, requires_grad=True)}, r"'seg' has shape \(1,\)"),
        (lambda: {"seg": 1.5}, "'seg' is a float.*not its .item"),
        (lambda: {"seg": 0.0, "depth": loss()}, "'seg' is the number 0.0.*leave the task out, or pass None"),
        (lambda: {"seg": 0, "depth": loss()}, "'seg' is the number 0:"),
        (lambda: {"seg": torch.tensor(3)}, "'seg' has dtype torch.int64"),
        (lambda: {"sge": loss()}, "unknown task 'sge'. Did you mean 'seg'"),
        (lambda: {}, "every task is absent"),
        (lambda: {"seg": None}, "every task is absent"),
    ],
)
def test_losses_that_cannot_be_balanced(balancer: steelyard.Balancer, losses, message: str) -> None:
    with pytest.raises((LossError, UnknownNameError), match=message):
        balancer(losses())


def test_losses_on_different_devices(balancer: steelyard.Balancer) -> None:
    elsewhere = torch.empty((), device="meta", requires_grad=True)
    with pytest.raises(LossError, match=r"'seg' on cpu, 'depth' on meta.*loss.to\('cpu'\)"):
        balancer({"seg": loss(), "depth": elsewhere})


def test_training_mode_under_no_grad_says_to_call_eval(balancer: steelyard.Balancer) -> None:
    with torch.no_grad(), pytest.raises(LossError, match=r"balancer.eval\(\) before validation"):
        balancer({"seg": loss(), "depth": loss()})


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "tasks is empty"),
        (2, "tasks must be a list of names, got 2"),
        (["a", "a"], "'a' is given twice"),
        (["a", "b,c"], r"'b,c' has a comma, which stands between two names in metrics\(\).*write e\.g\. 'b-c'"),
        ("seg", r"got the text 'seg': write \['seg'\]"),
        (["a", ""], "non-empty text, got ''"),
        (["a", 3], "non-empty text, got 3"),
    ],
)
def test_task_names(tasks, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        steelyard.make("equal", tasks)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("emma", {}, "unknown method 'emma'. Did you mean 'ema'"),
        ("ema(bta=0.9)", {}, "unknown option of ema 'bta'. Did you mean 'beta'"),
        ("ema(beta=1.5)", {}, r"beta must lie in \[0, 1\), got 1.5"),
        ("ema(variant=to-maxx)", {}, "value of variant 'to-maxx'. Did you mean 'to-max'"),
        ("logg+ema", {}, "unknown loss stage 'logg'. Did you mean 'log'"),
        ("single-task", {}, "the baseline of studies"),
        ("ema(beta=0.5)", {"beta": 0.9}, "'beta' of 'ema' is given twice"),
        ("ema(beta", {}, "unbalanced"),
        ("ema(0.9)", {}, "write it as key=value"),
        ("dwa,", {}, "cannot read"),
        ("equal", {"priorities": {"x": 1.0}}, "unknown task 'x'.*priorities="),
        ("equal", {"priorities": {"a": -1.0}}, "priority of 'a' must be a finite number"),
        ("equal", {"every": 0}, "every must be a whole number"),
        ("equal", {"on_nonfinite": "skip"}, "Did you mean 'skip_step'"),
        ("equal", {"heads": "plane"}, "Did you mean 'plain'"),
        ("equal", {"scale": "mean"}, "unknown value of scale 'mean'"),
        ("equal", {"floor": 2.0, "cap": 1.0}, "floor 2 exceeds cap 1"),
        ("equal", {"max_change": 0.0}, "max_change must be greater than 0"),
        ("uw", {"learning_rate": -1.0}, "learning_rate must be greater than 0"),
        ("dwa(period=0)", {}, "period must be a whole number"),
        ("ema(period=3)", {}, "per='epoch'"),
    ],
)
def test_names_and_options(spec: str, options, message: str) -> None:
    with pytest.raises((OptionError, UnknownNameError), match=message):
        steelyard.make(spec, ["a", "b"], **options)


@pytest.mark.parametrize("spec", ["log", "db-mtl", "log+mgda", "famo(form=lagged)", "ema"])
def test_negative_losses_are_refused_where_logarithms_are_taken(spec: str) -> None:
    features = torch.randn(3, requires_grad=True)
    with pytest.raises(LossError, match=r"'b' is negative \(-0.5\)"):
        steelyard.make(spec, ["a", "b"])({"a": features.sum() * 0 + 1, "b": features.sum() * 0 - 0.5}, shared=features)


class TestShared:
    def losses(self, features: Tensor) -> dict[str, Tensor]:
        return {"a": features.square().mean(), "b": features.sum().square()}

    def test_forgotten(self) -> None:
        features = torch.randn(4, 3, requires_grad=True)
        with pytest.raises(SharedError, match=r"db-mtl reads the tasks' norms.*balancer\(losses, shared=features\)"):
            steelyard.make("db-mtl", ["a", "b"])(self.losses(features))
        with pytest.raises(SharedError, match="equal leaves the heads plain"):
            steelyard.make("equal", ["a", "b"], heads="plain")(self.losses(features))

    def test_a_copy_that_the_losses_do_not_depend_on(self) -> None:
        features = torch.randn(4, 3, requires_grad=True)
        with pytest.raises(SharedError, match="the very tensor that the heads were called with"):
            steelyard.make("mgda", ["a", "b"])(self.losses(features), shared=features * 1)

    @pytest.mark.parametrize(
        ("shared", "message"),
        [
            (lambda f: f.detach(), "no graph.*frozen"),
            (lambda f: (), "shared= is empty"),
            (lambda f: [f, 3], r"shared\[1\] is a int"),
            (lambda f: 3, r"shared\[0\] is a int"),
            (lambda f: "trunk", r"shared\[0\] is a str"),
            (lambda f: [f, nn.Linear(2, 2)], "mixes features and parameters"),
            (lambda f: [nn.Tanh(), nn.ReLU()], "shared= is empty"),
            (lambda f: nn.Linear(2, 2), "depends on a trainable parameter of the trunk"),
            (lambda f: [f, nn.Parameter(f.detach())], "mixes features and parameters"),
            (lambda f: nn.Linear(2, 2).requires_grad_(False), "every parameter of the trunk.*frozen"),
            (lambda f: (f, f.tanh()), r"shared\[1\] is computed from another"),
        ],
    )
    def test_unusable(self, shared, message: str) -> None:
        features = torch.randn(4, 3, requires_grad=True)
        with pytest.raises(SharedError, match=message):
            steelyard.make("mgda", ["a", "b"])(self.losses(features), shared=shared(features))


def test_disjoint_samples_are_warned_of_by_methods_that_use_angles() -> None:
    features = torch.randn(8, 3, requires_grad=True)
    losses = {"a": features[:4].square().mean(), "b": features[4:].square().mean()}
    with pytest.warns(AngleWarning, match="mgda uses the angles.*share no samples"):
        steelyard.make("mgda", ["a", "b"])(losses, shared=features)


@pytest.mark.parametrize("method", ["mgda", "db-mtl", "inverse-norm", "gradnorm", "graddrop"])
def test_a_task_that_shared_does_not_reach_is_warned_of(method: str) -> None:
    """Its head reads detached features: the method that balances it would say nothing for a whole training."""
    balancer, head = steelyard.make(method, ["a", "b"]), torch.nn.Linear(3, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(12):
            features = torch.randn(8, 3, requires_grad=True)
            balancer({"a": features.square().mean(), "b": head(features.detach()).square().mean()}, shared=features)
    (warning,) = caught
    assert "the gradient of 'b' at shared= was exactly zero in each of the first 10 steps" in str(warning.message)


def test_a_last_layer_that_starts_at_zero_is_not_warned_of() -> None:
    balancer, head = steelyard.make("mgda", ["a", "b"]), torch.nn.Linear(3, 1)
    torch.nn.init.zeros_(head.weight)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(12):
        features = torch.randn(8, 3, requires_grad=True)
        loss_ = balancer({"a": features.square().mean(), "b": (head(features) - 1).square().mean()}, shared=features)
        optimizer.zero_grad()
        loss_.backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("written", "meant"),
    [("PCGrad", "pcgrad"), ("CAGrad", "cagrad"), ("NashMTL", "nash-mtl"), ("DB_MTL", "db-mtl"), ("MGDA", "mgda")],
)
def test_a_method_spelt_as_in_its_paper_is_recognised(written: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean '{meant}'"):
        steelyard.make(written, ["a", "b"])


def test_an_epoch_that_never_ends_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit._PATIENCE == 10_000
    monkeypatch.setattr(commit, "_PATIENCE", 50)
    balancer = steelyard.make("dwa", ["a", "b"])
    losses = {"a": loss(), "b": loss()}
    for _ in range(49):
        balancer(losses)
    with pytest.warns(PeriodWarning, match=r"dwa waits.*balancer.end_epoch\(\)"):
        balancer(losses)


def test_famo_without_its_second_look() -> None:
    balancer = steelyard.make("famo", ["a", "b"])
    balancer({"a": loss(), "b": loss()})
    with pytest.raises(MissingInputError, match=r"balancer.observe\(after=losses\)"):
        balancer({"a": loss(), "b": loss()})


def test_observations_nobody_asked_for() -> None:
    with pytest.raises(MissingInputError, match="equal has no use for losses after the step"):
        steelyard.make("equal", ["a"]).observe(after={"a": loss()})
    with pytest.raises(MissingInputError, match="equal has no use for validation losses"):
        steelyard.make("equal", ["a"]).observe(validation={"a": loss()})


def test_weights_before_the_first_call(balancer: steelyard.Balancer) -> None:
    with pytest.raises(StateError, match="has not been called yet"):
        _ = balancer.last_weights
    assert balancer.metrics() == {}


def test_checkpoint_of_another_method_or_of_other_tasks(balancer: steelyard.Balancer) -> None:
    with pytest.raises(StateError, match="holds the state of 'equal', but this balancer is 'dwa'"):
        steelyard.make("dwa", ["seg", "depth"]).load_state_dict(balancer.state_dict())
    with pytest.raises(StateError, match="balances seg, depth, but this balancer has depth, edges"):
        steelyard.make("equal", ["depth", "edges"]).load_state_dict(balancer.state_dict())


def test_scale_sum_takes_the_sizes_of_weights_that_cancel() -> None:
    class Signed(steelyard.Balancer):
        name = "signed"
        signed_weights = True

        def weigh(self, seen, state):
            return torch.tensor([3.0, -3.0], dtype=torch.float64)

    balancer = Signed(["a", "b"], scale="sum")
    balancer({"a": loss(), "b": loss()})
    assert balancer.last_weights.tolist() == [1.0, -1.0]


def test_undeclared_state_cannot_be_set() -> None:
    class Typo(steelyard.Balancer):
        name = "typo"

        def __init__(self, tasks, **common):
            super().__init__(tasks, **common)
            self.declare("average")

        def weigh(self, seen, state):
            state.avrage = seen.losses
            return seen.losses

    with pytest.raises(AttributeError, match=r"no state 'avrage' was declared; declared: .*average"):
        Typo(["a"])({"a": loss()})

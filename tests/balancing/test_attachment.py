"""Propose and commit: state moves with the optimizer's steps, and only with them."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict

import steelyard
from helpers import TwoLayer
from steelyard.errors import OptionError, SteelyardWarning
from steelyard.testing.toy import same_state, snapshot

TASKS = {"a": 1.0, "b": 5.0}


def setting(spec: str = "ema(beta=0.9)", optimizer: type = torch.optim.SGD, **options):
    network = TwoLayer(TASKS, torch.float32)
    parameters = [*network.trunk_parameters(), *network.head_parameters()]
    step = optimizer(parameters, lr=0.05)
    balancer = steelyard.make(spec, list(TASKS), **options)
    return network, step, balancer


def test_windows_are_averaged_by_label_counts() -> None:
    _, optimizer, balancer = setting("ema(beta=0.5,start=first-loss)")
    balancer.attach(optimizer)
    for value, count in ((1.0, 3.0), (5.0, 1.0)):
        loss = torch.tensor(value, requires_grad=True)
        balancer({"a": loss * 1, "b": loss * 1}, counts={"a": count, "b": 1.0}).backward()
    optimizer.step()
    assert balancer.average.tolist() == pytest.approx([2.0, 3.0])


def test_masked_mean_brings_its_own_count() -> None:
    _, optimizer, balancer = setting("ema(start=first-loss)")
    balancer.attach(optimizer)
    for values in ([1.0, 1.0, 1.0], [5.0]):
        unreduced = torch.tensor(values, requires_grad=True) * 1
        there = torch.ones(len(values), dtype=torch.bool)
        balancer({task: steelyard.masked_mean(unreduced, there) for task in "ab"}).backward()
    optimizer.step()
    assert balancer.average.tolist() == pytest.approx([2.0, 2.0])


def test_a_task_in_one_micro_batch_of_the_window_only() -> None:
    _, optimizer, balancer = setting("ema(start=first-loss)")
    balancer.attach(optimizer)
    one = torch.tensor(1.0, requires_grad=True)
    balancer({"a": one * 2, "b": one * 3}).backward()
    balancer({"a": one * 4}).backward()
    optimizer.step()
    assert balancer.average.tolist() == pytest.approx([3.0, 3.0])
    assert balancer.steps == 1


def test_gramian_of_a_window_is_that_of_the_whole_batch_at_features() -> None:
    network, optimizer, _ = setting()
    losses, features = network.losses()
    whole = steelyard.make("inverse-norm(beta=0)", list(TASKS))
    whole(losses, shared=features)
    balancer = steelyard.make("inverse-norm(beta=0)", list(TASKS)).attach(optimizer)
    for part in (slice(0, 4), slice(4, 16)):
        features = network.trunk(network.inputs[part])
        losses = {
            task: scale * (network.heads[task](features) - network.targets[task][part]).square().mean()
            for task, scale in TASKS.items()
        }
        size = features.shape[0]
        balancer(losses, shared=features, counts=dict.fromkeys(TASKS, size)).backward()
    optimizer.step()
    assert torch.allclose(balancer.average, whole.average, rtol=1e-5)


def test_learned_weights_follow_the_optimizers_rate() -> None:
    network, optimizer, balancer = setting("uw")
    balancer.attach(optimizer)
    for rate in (0.05, 0.5):
        optimizer.param_groups[0]["lr"] = rate
        assert balancer.current_learning_rate() == rate
    balancer(network.losses()[0]).backward()
    optimizer.step()
    # The first step of Adam moves by the learning rate, whatever the gradient.
    assert balancer.log_variance.abs().tolist() == pytest.approx([0.5, 0.5], rel=1e-6)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ([(0.0, 0.1)] * 25, 1),  # a backbone that is frozen by its rate
        ([(0.0, 0.1)] * 8 + [(0.1, 0.1)] + [(0.0, 0.1)] * 8, 0),
        ([(0.0, 0.0)] * 25, 0),
        ([(0.1, 0.0)] * 25, 0),
    ],
)
@pytest.mark.parametrize("spec", ["uw", "uw-revised", "imtl-l", "ldc-mtl", "uw(every=2)", "gradnorm", "dwa"])
def test_weights_that_follow_the_rate_of_a_frozen_group_are_said_once(
    spec: str, rates: list[tuple[float, float]], said: int
) -> None:
    network, _, balancer = setting(spec)
    optimizer = torch.optim.SGD([{"params": network.trunk_parameters()}, {"params": network.head_parameters()}], lr=0.1)
    balancer.attach(optimizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for pair in rates:
            for group, rate in zip(optimizer.param_groups, pair, strict=True):
                group["lr"] = rate
            for _ in range(2):
                losses, features = network.losses()
                balancer(losses, shared=features).backward()
            optimizer.step()
            optimizer.zero_grad()
    texts = [str(each.message) for each in caught if issubclass(each.category, SteelyardWarning)]
    assert len(texts) == (said if balancer.learning_rate is None and spec != "dwa" else 0)
    for text in texts:
        assert "param_groups[0], which was 0 in 10 steps in a row while that of param_groups[1] was 0.1" in text
        assert "learning_rate=0.1" in text


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_gradient_scaler_skips_leaves_no_trace(fused: bool) -> None:
    network, _, balancer = setting()
    parameters = [*network.trunk_parameters(), *network.head_parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    balancer.attach(optimizer, scaler)

    def step(spoil: bool) -> None:
        optimizer.zero_grad()
        scaler.scale(balancer(network.losses()[0])).backward()
        if spoil:
            parameters[0].grad[0] = float("inf")
        scaler.step(optimizer)
        scaler.update()

    step(spoil=False)
    before = snapshot(balancer)
    weights = [p.detach().clone() for p in parameters]
    step(spoil=True)
    assert all(torch.equal(p, w) for p, w in zip(parameters, weights, strict=True)), "the scaler did not skip"
    reference = copy.deepcopy(balancer)
    assert same_state(before, snapshot(balancer))
    step(spoil=False)
    reference(network.losses()[0])
    assert balancer.steps == 2, "the skipped window was committed with the next one"


def test_a_step_that_prepares_a_checkpoint_commits_nothing_of_a_skipped_one() -> None:
    """torch.distributed.checkpoint takes a step at rate 0 with an optimizer that has no state."""
    network = TwoLayer(TASKS)
    optimizer = torch.optim.SGD([*network.trunk_parameters(), *network.head_parameters()], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    balancer = steelyard.make("uw", list(TASKS)).attach(optimizer, scaler)
    scaler.scale(balancer(network.losses()[0])).backward()
    network.trunk_parameters()[0].grad.fill_(float("inf"))
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    before = snapshot(balancer)
    get_state_dict(torch.nn.ModuleList([network.trunk, network.heads]), optimizer)
    assert balancer.steps == 0
    assert same_state(before, snapshot(balancer))


def test_skip_step_moves_neither_momentum_nor_decay() -> None:
    network, _, balancer = setting(on_nonfinite="skip_step")
    parameters = [*network.trunk_parameters(), *network.head_parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
    balancer.attach(optimizer)
    for spoil in (False, True):
        before = [p.detach().clone() for p in parameters]
        losses, _ = network.losses()
        if spoil:
            losses["a"] = losses["a"] * float("nan")
        optimizer.zero_grad(set_to_none=False)
        balancer(losses).backward()
        optimizer.step()
        moved = any(not torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
        assert moved is not spoil
    assert balancer.steps == 1


def test_skip_step_inside_a_closure_moves_nothing_either() -> None:
    """Trainers run the forward pass inside ``optimizer.step(closure)``."""
    network, _, balancer = setting(on_nonfinite="skip_step")
    parameters = [*network.trunk_parameters(), *network.head_parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
    balancer.attach(optimizer)
    for spoil in (False, True, False):
        before = [p.detach().clone() for p in parameters]

        def closure(spoil: bool = spoil) -> Tensor:
            losses, _ = network.losses()
            if spoil:
                losses["a"] = losses["a"] * float("nan")
            optimizer.zero_grad(set_to_none=False)
            loss = balancer(losses)
            loss.backward()
            return loss

        optimizer.step(closure)
        moved = any(not torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
        assert moved is not spoil
    assert balancer.steps == 2


def test_one_bad_micro_batch_skips_the_window_or_is_left_out_of_it() -> None:
    for policy, steps in (("skip_step", 0), ("drop_task", 1)):
        network, optimizer, balancer = setting(on_nonfinite=policy)
        balancer.attach(optimizer)
        balancer(network.losses()[0]).backward()
        balancer({task: loss * float("inf") for task, loss in network.losses()[0].items()}).backward()
        optimizer.step()
        assert balancer.steps == steps, policy


def test_state_rides_in_the_optimizers_state_dict() -> None:
    network, optimizer, balancer = setting("famo(form=lagged)")
    balancer.attach(optimizer)
    other = steelyard.make("dwa(period=2)", list(TASKS)).attach(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        (balancer(network.losses()[0]) + other(network.losses()[0])).backward()
        optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    _, fresh_optimizer, fresh = setting("famo(form=lagged)")
    fresh.attach(fresh_optimizer)
    fresh_other = steelyard.make("dwa(period=2)", list(TASKS)).attach(fresh_optimizer)
    fresh_optimizer.load_state_dict(torch.load(file, weights_only=True))
    assert same_state(snapshot(balancer), snapshot(fresh))
    assert same_state(snapshot(other), snapshot(fresh_other))


def test_a_checkpoint_without_balancer_state_is_warned_of() -> None:
    _, optimizer, balancer = setting()
    saved = optimizer.state_dict()
    balancer.attach(optimizer)
    with pytest.warns(SteelyardWarning, match="holds no balancer state"):
        optimizer.load_state_dict(saved)


def test_attaching_again_takes_the_first_optimizer_off() -> None:
    network, first, balancer = setting()
    balancer.attach(first)
    second = torch.optim.SGD(network.trunk_parameters(), lr=0.1)
    balancer.attach(second)
    balancer(network.losses()[0]).backward()
    first.step()
    assert balancer.steps == 0
    second.step()
    assert balancer.steps == 1


def test_famo_recomputes_by_itself_with_again() -> None:
    network, optimizer, balancer = setting("famo")
    balancer.attach(optimizer)
    by_hand = steelyard.make("famo", list(TASKS))
    for _ in range(3):
        by_hand(network.losses()[0])
        optimizer.zero_grad()
        balancer(network.losses()[0], again=lambda params=None, batch=None: network.losses()[0]).backward()
        optimizer.step()
        by_hand.observe(after=network.losses()[0])
    assert torch.allclose(balancer.logits, by_hand.logits, rtol=1e-12)
    assert float(balancer.logits.abs().max()) > 0


class TestClosures:
    def test_weights_hold_still_within_an_lbfgs_step(self) -> None:
        network, _, balancer = setting("ema(beta=0.5)")
        optimizer = torch.optim.LBFGS(network.trunk_parameters(), max_iter=5, line_search_fn="strong_wolfe")
        balancer.attach(optimizer)
        seen: list[Tensor] = []
        values: list[float] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = balancer(network.losses()[0])
            loss.backward()
            seen.append(balancer.last_weights)
            values.append(loss.item())
            return loss

        for number in range(2):
            seen.clear()
            values.clear()
            optimizer.step(closure)
            assert len(seen) > 2
            assert all(torch.equal(weights, seen[0]) for weights in seen)
            assert min(values) < values[0], "the line search saw values of one function"
            assert balancer.steps == number + 1

    def test_plain_heads_are_refused(self) -> None:
        network, _, balancer = setting("db-mtl")
        optimizer = torch.optim.LBFGS(network.trunk_parameters(), max_iter=5)
        balancer.attach(optimizer)

        def closure() -> Tensor:
            losses, features = network.losses()
            optimizer.zero_grad()
            loss = balancer(losses, shared=features)
            loss.backward()
            return loss

        with pytest.raises(OptionError, match="db-mtl with plain heads cannot hold its weights"):
            optimizer.step(closure)

    def test_frozen_without_an_optimizer(self) -> None:
        network, _, balancer = setting("ema(beta=0.5)")
        with balancer.frozen():
            first = balancer(network.losses()[0])
            network.inputs = network.inputs * 2
            losses = network.losses()[0]
            second = balancer(losses)
            assert second.item() == pytest.approx(
                sum(w * x.item() for w, x in zip(balancer.last_weights.tolist(), losses.values(), strict=True)),
                rel=1e-6,
            )
            assert balancer.steps == 0
        assert first.item() == pytest.approx(2.0, rel=1e-6)
        assert balancer.steps == 1


def test_what_is_observed_while_a_window_is_open_is_not_overwritten() -> None:
    class Watching(steelyard.Balancer):
        name = "watching"

        def __init__(self, tasks):
            super().__init__(tasks)
            self.declare("average")
            self.declare("validation")

        def weigh(self, seen, state):
            state.average = state.average + seen.losses
            return seen.losses * 0 + 1 + state.validation

        def validated(self, losses, state):
            state.validation = losses

    network, optimizer, _ = setting()
    balancer = Watching(list(TASKS)).attach(optimizer)
    balancer(network.losses()[0]).backward()
    balancer.observe(validation={"a": torch.tensor(7.0), "b": torch.tensor(9.0)})
    optimizer.step()
    assert balancer.validation.tolist() == [7, 9]
    assert float(balancer.average.min()) > 0


def test_what_is_no_optimizer_is_refused_and_leaves_the_first_one_attached() -> None:
    network, optimizer, balancer = setting()
    balancer.attach(optimizer)
    with pytest.raises(OptionError, match=r"takes the optimizer .* got a TwoLayer"):
        balancer.attach(network)
    balancer(network.losses()[0]).backward()
    optimizer.step()
    assert balancer.steps == 1


def test_an_optimizer_that_no_longer_steps_is_warned_of() -> None:
    _, optimizer, balancer = setting("equal")
    balancer.attach(optimizer)
    loss = torch.tensor(1.0, requires_grad=True)
    for _ in range(999):
        balancer({"a": loss * 1, "b": loss * 2})
    with pytest.warns(SteelyardWarning, match=r"attached to an optimizer \(SGD\) that has not stepped in 1,000 calls"):
        balancer({"a": loss * 1, "b": loss * 2})


def test_a_step_that_fails_does_not_hold_the_weights() -> None:
    network, optimizer, balancer = setting("ema(start=first-loss)", heads="plain")
    balancer.attach(optimizer)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = optimizer.register_step_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step()
    handle.remove()
    for _ in range(2):  # plain heads cannot hold: a second micro-batch would be refused
        losses, features = network.losses()
        balancer(losses, shared=features).backward()
    optimizer.step()
    assert balancer.steps == 1


def test_reset_forgets_the_open_window() -> None:
    _, optimizer, balancer = setting("ema(start=first-loss)")
    balancer.attach(optimizer)
    loss = torch.tensor(3.0, requires_grad=True)
    balancer({"a": loss * 1, "b": loss * 1})
    balancer.reset()
    optimizer.step()
    assert balancer.steps == 0
    assert not balancer.average.any()

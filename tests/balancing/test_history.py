"""Mean weights of a run: what they count, what they survive, and what freezing them gives."""

from __future__ import annotations

import math

import pytest
import torch

import steelyard
from helpers import TwoLayer, task_gradients, weighted_sum
from steelyard.errors import StateError
from steelyard.testing.toy import Toy

TASKS = ["left", "right", "depth"]


def columns(balancer: steelyard.Balancer) -> tuple[list[int], list[float], list[float]]:
    summary = balancer.summary()
    return list(summary.steps), list(summary.means), list(summary.deviations)


@pytest.mark.parametrize("spec", ["dwa", "ema", "mgda", "uw"])
def test_it_is_the_mean_and_deviation_of_the_weights_of_all_steps(spec: str) -> None:
    balancer = steelyard.make(spec, TASKS, scale="sum", priorities={"left": 2.0}, every=2)
    weights = Toy(TASKS).train(balancer, 7)
    steps, means, deviations = columns(balancer)
    assert steps == [7, 7, 7]
    assert means == pytest.approx(weights.mean(0).tolist(), rel=1e-12)
    expected = weights.std(0, correction=0)
    assert torch.allclose(torch.tensor(deviations).double(), expected, rtol=1e-5, atol=2e-6)


def test_only_steps_in_which_a_task_was_present_count() -> None:
    toy, balancer = Toy(TASKS), steelyard.make("dwa", TASKS, scale="sum")
    toy.step(balancer)
    toy.step(balancer, tasks=["left", "depth"])
    toy.step(balancer, tasks=["depth"])
    steps, means, _ = columns(balancer)
    assert steps == [2, 1, 3]
    assert means == pytest.approx([1.0, 1.0, 1.0])


def test_constant_weights_do_not_deviate_and_reset_forgets() -> None:
    toy, balancer = Toy(TASKS), steelyard.make("fixed(weights='left: 0.3, depth: 1e-9')", TASKS)
    toy.train(balancer, 50)
    assert columns(balancer)[2] == [0.0, 0.0, 0.0]
    assert "0.3" in str(balancer.summary())
    balancer.reset()
    steps, means, _ = columns(balancer)
    assert steps == [0, 0, 0]
    assert all(math.isnan(mean) for mean in means)


def test_a_skipped_step_a_discarded_window_and_evaluation_do_not_count() -> None:
    toy = Toy(TASKS)
    balancer = steelyard.make("ema", TASKS, on_nonfinite="skip_step").attach(toy.optimizer)
    losses = toy.losses()[0]
    balancer(losses)
    balancer.discard()
    balancer({**losses, "left": losses["left"] * math.inf}).backward()
    toy.optimizer.step()
    balancer.eval()(losses)
    assert columns(balancer)[0] == [0, 0, 0]
    balancer.train()
    for _ in range(2):  # two micro-batches, one step
        balancer(toy.losses()[0]).backward()
    toy.optimizer.step()
    assert columns(balancer)[0] == [1, 1, 1]


def test_it_survives_a_checkpoint() -> None:
    toy, balancer = Toy(TASKS), steelyard.make("ema", TASKS)
    toy.train(balancer, 5)
    resumed = steelyard.make("ema", TASKS)
    resumed.load_state_dict(balancer.state_dict())
    assert resumed.summary() == balancer.summary()
    assert balancer.summary().to_dict()["right"]["steps"] == 5


@pytest.mark.parametrize("heads", ["weighted", "plain"])
def test_freezing_gives_fixed_weights_with_the_same_heads_and_priorities(heads: str) -> None:
    network = TwoLayer({"left": 1.0, "right": 3.0, "depth": 0.2})
    balancer = steelyard.make("inverse-norm", TASKS, heads=heads, scale="sum", priorities={"left": 2.0, "right": 0.0})
    for _ in range(3):
        network.trunk[0].weight.data *= 1.1
        losses, features = network.losses()
        balancer(losses, shared=features)
    frozen = balancer.freeze()
    assert frozen.name == "fixed"
    losses, features = network.losses()
    at = [network.trunk[0].weight, network.heads["left"].weight]
    plain = task_gradients(losses, at)
    assert frozen.eval()(losses).item() == pytest.approx(balancer.eval()(losses).item())
    on_trunk, on_head = torch.autograd.grad(frozen.train()(losses, shared=features), at)
    means = dict(zip(TASKS, balancer.summary().means, strict=True))
    assert frozen.last_weights.tolist() == pytest.approx(list(means.values()), rel=1e-14)
    assert torch.allclose(on_trunk, weighted_sum(means, plain)[0], rtol=1e-9)
    assert torch.allclose(on_head, (means["left"] if heads == "weighted" else 2.0) * plain["left"][1])


def test_there_is_nothing_to_freeze_before_each_task_had_a_step() -> None:
    toy, balancer = Toy(TASKS), steelyard.make("ema", TASKS)
    toy.step(balancer, tasks=["left", "depth"])
    with pytest.raises(StateError, match="right had no step"):
        balancer.freeze()


def test_frozen_weights_can_be_written_as_a_line_for_a_study() -> None:
    toy, balancer = Toy(TASKS), steelyard.make("ema", TASKS)
    toy.train(balancer, 3)
    means = balancer.summary().means
    text = ", ".join(f"{task}: {mean}" for task, mean in zip(TASKS, means, strict=True))
    toy.step(again := steelyard.make(f"fixed(weights='{text}')", TASKS))
    assert again.last_weights.tolist() == list(means)

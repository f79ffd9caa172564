"""Single-task and multi-task networks share their start; building leaves the random state alone."""

import pytest
import torch

from steelyard.errors import UnknownNameError
from steelyard.models import architecture_names, build
from steelyard.problems import load_problem


@pytest.fixture(scope="module")
def digits():
    return load_problem("digits")


def _same(first, second):
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_single_task_network_starts_where_the_multi_task_one_does(digits):
    both = build(digits, ("left", "right"), seed=3)
    right = build(digits, ("right",), seed=3)
    assert _same(both.trunk, right.trunk)
    assert _same(both.heads[both.tasks.index("right")], right.heads[0])


def test_heads_of_one_shape_start_differently_and_seeds_differ(digits):
    network = build(digits, ("left", "right"), seed=0)
    assert not _same(network.heads[0], network.heads[1])
    assert not _same(network.trunk, build(digits, ("left", "right"), seed=1).trunk)


def test_building_leaves_the_random_state_alone(digits):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    build(digits, ("left",), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_forward_returns_outputs_by_task_and_the_features_they_come_from(digits):
    network = build(digits, ("left", "right"), seed=0)
    inputs = digits.data().train.inputs[:5]
    outputs, features = network(inputs)
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        "left": (5, 10),
        "right": (5, 10),
    }
    assert torch.equal(network.heads[1](features), outputs["right"])


def test_an_unknown_architecture_suggests_the_nearest(digits):
    assert "hard-sharing" in architecture_names()
    with pytest.raises(UnknownNameError, match="Did you mean 'hard-sharing'"):
        build(digits, ("left",), seed=0, architecture="hard-shairing")


def test_an_unknown_task_suggests_the_nearest(digits):
    with pytest.raises(UnknownNameError, match="Did you mean 'right'"):
        build(digits, ("rigth",), seed=0)

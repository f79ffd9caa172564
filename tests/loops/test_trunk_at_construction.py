"""``shared=`` given once: read in every call, and no part of the balancer as a module."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import steelyard
from helpers import TwoLayer
from steelyard.errors import OptionError, SharedError

TASKS = {"a": 1.0, "b": 5.0}


@pytest.mark.parametrize("as_parameters", [False, True])
def test_it_is_read_in_every_call(as_parameters: bool) -> None:
    network = TwoLayer(TASKS)
    trunk = network.trunk.parameters() if as_parameters else network.trunk
    balancer = steelyard.make("mgda", list(TASKS), shared=trunk)
    given = steelyard.make("mgda", list(TASKS))
    for _ in range(2):
        balancer(network.losses()[0])
        given(network.losses()[0], shared=network.trunk)
        assert torch.equal(balancer.last_weights, given.last_weights)


def test_the_call_has_the_last_word() -> None:
    network = TwoLayer(TASKS)
    balancer, given = steelyard.make("mgda", list(TASKS), shared=network.trunk), steelyard.make("mgda", list(TASKS))
    losses, features = network.losses()
    balancer(losses, shared=features)
    given(losses, shared=features)
    assert torch.equal(balancer.last_weights, given.last_weights)


def test_it_is_neither_submodule_nor_state() -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("mgda", list(TASKS), shared=network.trunk)
    assert not list(balancer.parameters())
    assert network.trunk not in list(balancer.modules())
    assert balancer.state_dict().keys() == steelyard.make("mgda", list(TASKS)).state_dict().keys()
    balancer.half()
    assert network.trunk[0].weight.dtype == torch.float64


def test_a_copy_does_not_read_the_originals_trunk() -> None:
    network = TwoLayer(TASKS)
    twin = copy.deepcopy(steelyard.make("mgda", list(TASKS), shared=network.trunk))
    with pytest.raises(SharedError, match="needs to know where"):
        twin(network.losses()[0])


@pytest.mark.parametrize("shared", [torch.ones(2, requires_grad=True), [], [torch.ones(2)], "trunk", 3])
def test_features_change_with_every_batch(shared: object) -> None:
    with pytest.raises(OptionError, match="the trunk, a module, several in a list, or its parameters"):
        steelyard.make("mgda", ["a", "b"], shared=shared)


def test_layers_that_come_later_are_read_too() -> None:
    network = TwoLayer(TASKS)
    balancer = steelyard.make("mgda", list(TASKS), shared=network.trunk)
    network.trunk.append(nn.Linear(9, 9).double())
    balancer(network.losses()[0])
    expected = steelyard.make("mgda", list(TASKS))
    expected(network.losses()[0], shared=network.trunk)
    assert torch.equal(balancer.last_weights, expected.last_weights)


def test_a_parameter_that_is_named_twice_counts_once() -> None:
    network = TwoLayer({"a": 1.0, "b": 5.0})
    parameters = network.trunk_parameters()
    balancer = steelyard.make("moco", ["a", "b"], shared=[*parameters, parameters[0]])
    balancer(network.losses()[0]).backward()
    assert balancer.steps == 1

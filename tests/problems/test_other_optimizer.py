"""A registered problem stepped by SGD in place of its own optimizer."""

import pytest
import torch
from torch import nn

from steelyard.errors import UnknownNameError
from steelyard.problems import Problem, load_problem, regression, split
from steelyard.problems.other_optimizer import with_optimizer


def test_sgd_takes_the_place_of_the_problems_own():
    own, other = load_problem("digits"), load_problem("digits(optimizer=sgd)")
    assert load_problem("digits(optimizer=own)") is own
    assert (other.name, other.reference) == ("digits(optimizer=sgd)", "digits(optimizer=sgd)")
    assert own.name == "digits"
    weights = [nn.Parameter(torch.zeros(2))]
    optimizer = other.optimizer(weights)
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (pytest.approx(2e-2), 0.9, 0.0)
    assert type(own.optimizer(weights)) is torch.optim.Adam


def test_groups_keep_their_rates_and_their_decay():
    def two(parameters):
        first, second = parameters
        groups = [{"params": [first], "lr": 1e-3}, {"params": [second], "lr": 1e-4, "weight_decay": 0.5}]
        return torch.optim.AdamW(groups, weight_decay=0.1)

    x = torch.arange(40.0).reshape(20, 2)
    mine = Problem(
        "mine",
        [regression("sum")],
        load=lambda: split(x, {"sum": x.sum(1)}),
        trunk=lambda: nn.Linear(2, 2),
        head=lambda task: nn.Linear(2, 1),
        optimizer=two,
    )
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))]
    first, second = with_optimizer(mine, "sgd").optimizer(weights).param_groups
    assert (first["lr"], first["weight_decay"]) == (pytest.approx(1e-2), 0.1)
    assert (second["lr"], second["weight_decay"]) == (pytest.approx(1e-3), 0.5)


def test_beside_options_of_its_own_and_refused_by_name():
    other = load_problem("gdsc(drugs=20,optimizer=sgd)")
    assert len(other.tasks) == 20
    with pytest.raises(UnknownNameError, match=r"unknown optimizer of digits: 'sgdd'. Did you mean 'sgd'\?"):
        load_problem("digits(optimizer=sgdd)")

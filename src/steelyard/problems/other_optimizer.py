"""A registered problem with another optimizer in place of its own: ``digits(optimizer=sgd)``."""

from __future__ import annotations

import dataclasses

import torch

from steelyard.errors import UnknownNameError
from steelyard.problems.network_parameters import Parameters
from steelyard.problems.problem import Problem

OPTIMIZER, OWN, SGD = "optimizer", "own", "sgd"
FASTER = 10.0
"""By how much the learning rate is larger than that of the problem's own optimizer, which scales each gradient: the
usual distance of 0.001 for Adam from 0.01 for SGD. Which one is right is for tuning to say."""
MOMENTUM = 0.9


def with_optimizer(problem: Problem, wanted: object) -> Problem:
    """The problem as it is (``own``), or one that is stepped by SGD with momentum 0.9 (``sgd``).

    Groups of parameters, their decay and the ratios of their learning rates stay; every rate is ten times as large.

    Raises:
        UnknownNameError: another optimizer.
    """
    if wanted == OWN:
        return problem
    if wanted != SGD:
        raise UnknownNameError(f"optimizer of {problem.name}:", str(wanted), [OWN, SGD])
    own = problem.optimizer

    def sgd(parameters: Parameters) -> torch.optim.Optimizer:
        groups = [
            {"params": group["params"], "lr": FASTER * group["lr"], "weight_decay": group.get("weight_decay", 0.0)}
            for group in own(parameters).param_groups
        ]
        return torch.optim.SGD(groups, momentum=MOMENTUM)

    return dataclasses.replace(problem, optimizer=sgd)

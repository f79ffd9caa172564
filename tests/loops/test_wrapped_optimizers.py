"""Optimizers around optimizers, as many repositories write them: their steps call none of torch's hooks."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import Any

import pytest
import torch

import steelyard
from helpers import TwoLayer
from steelyard.errors import OptionError

TASKS = {"a": 1.0, "b": 5.0}


class Lookahead(torch.optim.Optimizer):
    """Slow weights follow fast ones. Without ``super().__init__()``: its parameters are its base's."""

    def __init__(self, base: torch.optim.Optimizer, held_as: str, hooks: bool) -> None:
        self.__dict__[held_as] = base
        self.base = lambda: base
        self.param_groups, self.defaults, self.state = base.param_groups, base.defaults, defaultdict(dict)
        if hooks:  # what keeps torch from failing, and calls nobody
            for kind in ("step", "state_dict", "load_state_dict"):
                for when in ("pre", "post"):
                    self.__dict__[f"_optimizer_{kind}_{when}_hooks"] = OrderedDict()

    def step(self, closure: Any = None) -> Any:
        return self.base().step(closure)

    def state_dict(self) -> Any:
        return self.base().state_dict()


class Scaled:
    """No `torch.optim.Optimizer` at all."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        self.optim = base

    def step(self) -> None:
        self.optim.step()

    def state_dict(self) -> Any:
        return self.optim.state_dict()


WRAPPERS: dict[str, Any] = {
    **{
        f"{name}{', empty hooks' if hooks else ''}": lambda base, name=name, hooks=hooks: Lookahead(base, name, hooks)
        for name in ("optimizer", "_base_optimizer", "base_optimizer", "original_optimizer")
        for hooks in (False, True)
    },
    "no optimizer": Scaled,
    "twice": lambda base: Scaled(Lookahead(base, "_base_optimizer", True)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_step_commits_and_the_state_rides_along(wrapper: str) -> None:
    network = TwoLayer(TASKS)
    optimizer = WRAPPERS[wrapper](torch.optim.SGD([*network.trunk_parameters(), *network.head_parameters()], lr=0.1))
    balancer = steelyard.make("ema", list(TASKS)).attach(optimizer)
    for number in range(3):
        balancer(network.losses()[0]).backward()
        optimizer.step()
        assert balancer.steps == number + 1
    assert "steelyard" in optimizer.state_dict()


def test_a_step_that_tells_nobody_is_refused() -> None:
    class Lonely(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            self.param_groups = [{"params": list(parameters)}]

        def step(self, closure: Any = None) -> None:
            pass

    network = TwoLayer(TASKS)
    with pytest.raises(OptionError, match=r"Lonely whose steps nobody is told of.*super\(\).__init__"):
        steelyard.make("ema", list(TASKS)).attach(Lonely(network.trunk_parameters()))

"""`model.eval()` in a training loop turns a balancer inside the model into a plain sum: said, once, when it trains."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

import steelyard
from cells import every
from loops.test_closures import toy_for
from steelyard.errors import SteelyardWarning
from steelyard.method_registry import method_class, method_names
from testing.test_contract import build

TASKS = ["left", "right"]
NAMES = [name for name in method_names() if name != "equal"]  # whose weights are those of eval() mode


@every("name", NAMES)
def test_a_balancer_that_trains_in_eval_mode_says_so_once(name: str) -> None:
    balancer = build(name, TASKS)
    toy = toy_for(balancer, "features" if "features" in method_class(name).where else "trunk", TASKS)
    model = torch.nn.ModuleDict({"network": toy.network, "balancer": balancer})
    model.eval()
    with torch.no_grad():
        balancer(toy.losses()[0])
    balancer(toy.losses()[0]).item()  # a validation loss that keeps its graph
    losses, where = toy.losses()
    result = balancer(losses, **where)
    with pytest.warns(SteelyardWarning, match=rf"^{name} was called in eval\(\) mode.*balancer\.train\(\)") as heard:
        result.backward()
    assert heard[0].filename == __file__
    balancer(toy.losses()[0]).backward()  # a second warning would be an error
    balancer.train()
    losses, where = toy.losses()
    balancer(losses, **where).backward()


def test_what_is_logged_is_of_the_call_in_the_mode_at_hand() -> None:
    balancer = steelyard.make("mgda", TASKS, priorities={"left": 2.0})
    toy = toy_for(balancer, "features", TASKS)
    losses, where = toy.losses()
    balancer(losses, **where)
    trained, weights, summary = balancer.metrics(), balancer.last_weights, balancer.summary()
    balancer.eval()
    assert balancer.metrics() == trained
    with torch.inference_mode():
        balancer({"right": torch.tensor(7.0), "left": torch.tensor(3.0)})
    assert balancer.metrics() == {
        "loss/sum": 10.0,
        "loss/left": 3.0,
        "loss/right": 7.0,
        "weight/left": 2.0,
        "weight/right": 1.0,
        "share/left": pytest.approx(6 / 13),
        "share/right": pytest.approx(7 / 13),
    }
    balancer({"right": torch.tensor(7.0)})
    assert balancer.last_weights.tolist() == [0.0, 1.0]
    assert set(balancer.metrics()) == {"loss/sum", "loss/right", "weight/right", "share/right"}
    balancer(dict.fromkeys(TASKS, torch.ones((), device="meta")))  # a dry run of shapes has no values to log
    assert "loss/left" not in balancer.metrics()
    balancer.train()
    assert balancer.metrics() == trained
    assert torch.equal(balancer.last_weights, weights)
    assert balancer.summary() == summary
    losses, where = toy.losses()
    balancer(losses, **where)
    later = balancer.metrics()
    assert balancer.eval().metrics() == later  # the last call of all


def test_what_is_the_users_own_keeps_no_hook() -> None:
    balancer = steelyard.make("uw", ["one"]).eval()
    own = torch.ones((), requires_grad=True) * 2
    assert balancer({"one": own}).item() == 2
    own.backward()
    equal = steelyard.make("equal", TASKS).eval()
    x = torch.ones((), requires_grad=True)
    equal(dict.fromkeys(TASKS, x * 2)).backward()
    assert x.grad.item() == 4


def test_a_balancer_that_is_gone_or_copied_is_no_matter() -> None:
    x = torch.ones((), requires_grad=True)
    result = steelyard.make("uw", TASKS).eval()(dict.fromkeys(TASKS, x * 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result.backward()
    balancer = steelyard.make("uw", TASKS).eval()
    balancer(dict.fromkeys(TASKS, x * 2))
    copy.deepcopy(balancer)

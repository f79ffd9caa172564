"""The parts of a network as an optimizer gets them, in every architecture, and two rates that keep their ratio."""

import dataclasses

import pytest
import torch
from torch import nn

from steelyard.models import architecture_names, build
from steelyard.problems import Parameters, load_problem
from steelyard.study.planning.make_plan import plan
from steelyard.study.training.train import set_rate, train
from steelyard.study.trial import Trial


@pytest.mark.parametrize("architecture", architecture_names())
def test_trunk_and_heads_are_all_and_the_trunk_is_what_tasks_share(architecture):
    problem = load_problem("digits")
    network = build(problem, problem.task_names, 0, architecture)
    parameters = Parameters.of(network)
    assert list(map(id, parameters)) == list(map(id, network.parameters()))
    assert {*map(id, parameters.trunk)} == {*map(id, network.trunk.parameters())}
    assert len(parameters.trunk) + len(parameters.heads) == len(parameters)
    assert parameters.trunk
    assert parameters.heads


def slow_trunk(parameters):
    return torch.optim.SGD([{"params": parameters.trunk, "lr": 0.0}, {"params": parameters.heads, "lr": 0.1}])


def two_rates(parameters):
    return torch.optim.SGD([{"params": parameters.trunk, "lr": 0.01}, {"params": parameters.heads, "lr": 0.1}])


def test_a_study_s_rate_is_the_first_group_s_and_the_ratio_stays():
    trial = Trial("x", "equal", ("a",), 0, (("a", 1.0),), epochs=1, batch_size=1, learning_rate=0.05)
    network = nn.ModuleDict({"trunk": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    for make, rates in ((two_rates, [0.05, 0.5]), (slow_trunk, [0.05, 0.05])):
        optimizer = make(Parameters.of(network))
        set_rate(optimizer, trial)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates)


def test_a_trunk_that_stands_still():
    """Trained for real, alone and together: the heads learn, the trunk is as it was made."""
    problem = dataclasses.replace(load_problem("digits"), optimizer=slow_trunk, epochs=2)
    for method, tasks in (("equal", ("left", "right")), ("single-task", ("left",))):
        states = []
        fractions = tuple((task, 1.0) for task in tasks)
        trial = Trial("digits", method, tasks, 0, fractions, epochs=2, batch_size=256)
        train(trial, problem, on_trained=lambda state, kept=states: kept.append(dict(state)))
        start = build(problem, tasks, 0, "hard-sharing").state_dict()
        moved = {name.split(".")[0] for name, value in states[0].items() if not torch.equal(value, start[name])}
        assert "trunk" not in moved
        assert moved


def test_a_problem_file_may_use_them(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\nfrom steelyard.problems import Problem, regression, split\n"
        "x = torch.linspace(-1, 1, 80).reshape(20, 4)\n"
        'load = lambda: split(x, {"a": x[:, 0], "b": x[:, 1]})\n'
        'groups = lambda p: [{"params": p.trunk, "lr": 1e-4}, {"params": p.heads, "lr": 1e-2}]\n'
        'problem = Problem("mine", [regression("a"), regression("b")], load, lambda: nn.Linear(4, 3),\n'
        "    lambda task: nn.Linear(3, 1), batch_size=4, optimizer=lambda p: torch.optim.Adam(groups(p)))\n"
    )
    made = plan(str(tmp_path / "mine.py"), ["single-task", "equal", "mgda"], tune=3)
    assert sorted(made.tuning.rates) == pytest.approx([1e-4 / 10**0.5, 1e-4, 1e-4 * 10**0.5], rel=0.01)

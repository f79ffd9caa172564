"""The look-ahead affinity, against a step that is really taken; and looking changes nothing."""

import copy

import pytest
import torch
from torch import nn

from steelyard.models import build
from steelyard.problems import Data, Problem, Split, regression
from steelyard.study.training.batch import Forward, recompute
from steelyard.study.training.diagnose_training import COSINES, LOOK_AHEAD, diagnose_training
from steelyard.study.training.hardware import ON_CPU
from steelyard.study.training.task_affinity import look_ahead

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.1),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}


def made(tasks=3, dropout=0.3):
    """One task is another turned round; the third reads other inputs."""
    generator = torch.Generator().manual_seed(0)

    def drawn():
        x = torch.randn(160, 6, generator=generator)
        targets = {"up": x[:, 0], "down": 1 - x[:, 0], "other": x[:, 1] * x[:, 2]}
        return Split(x, dict(list(targets.items())[:tasks]))

    data = Data(drawn(), drawn(), drawn())
    return Problem(
        "made",
        tuple(regression(name) for name in ("up", "down", "other")[:tasks]),
        lambda: data,
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(dropout)),
        lambda task: nn.Linear(8, task.outputs),
        batch_size=32,
        epochs=2,
    )


class Setting:
    """A network in the middle of its training, at a batch in which one task may be missing."""

    def __init__(self, optimizer, missing=None):
        self.problem = made()
        self.network = build(self.problem, self.problem.task_names, 0, "hard-sharing").double()
        self.optimizer = OPTIMIZERS[optimizer](self.network.parameters())
        split = self.problem.data().train
        self.inputs = split.inputs[:32].double()
        self.targets = {
            name: (target[:32].double() if name != missing else target[:0].double(), None)
            for name, target in split.targets.items()
        }
        torch.manual_seed(1)
        for _ in range(3):
            self.step(self.network, self.optimizer, sum(self.forward(self.network).losses.values()))
        torch.manual_seed(2)

    def forward(self, network):
        return Forward(network, self.problem.tasks, self.inputs, self.targets)

    @staticmethod
    def step(network, optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def look(self):
        state = ON_CPU.random_state()
        forward = self.forward(self.network)
        again = recompute(self.network, self.problem.tasks, self.inputs, self.targets, state)
        return forward, look_ahead(forward, again, self.optimizer)

    def losses_at(self, rate, gradients):
        network = copy.deepcopy(self.network)
        with torch.no_grad():
            for parameter, gradient in zip(network.trunk.parameters(), gradients, strict=True):
                parameter -= rate * gradient
            torch.manual_seed(2)
            return {task: float(loss) for task, loss in self.forward(network).losses.items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_is_the_change_that_a_step_for_one_task_makes(optimizer):
    setting = Setting(optimizer)
    _, found = setting.look()
    torch.manual_seed(2)
    losses = setting.forward(setting.network).losses
    trunk = list(setting.network.trunk.parameters())
    gradients = {task: torch.autograd.grad(loss, trunk, retain_graph=True) for task, loss in losses.items()}
    # The optimizer's own step for all tasks, taken by a copy of everything.
    network, stepped = copy.deepcopy((setting.network, setting.optimizer))
    for parameter in network.parameters():
        parameter.grad = None
    for parameter, *parts in zip(network.trunk.parameters(), *gradients.values(), strict=True):
        parameter.grad = sum(parts)
    stepped.step()
    moved = [a - b for a, b in zip(network.trunk.parameters(), trunk, strict=True)]
    whole = [sum(parts) for parts in zip(*gradients.values(), strict=True)]
    rate = sum(m.square().sum() for m in moved).sqrt() / sum(g.square().sum() for g in whole).sqrt()
    if optimizer == "sgd":
        assert rate.item() == pytest.approx(0.05)
    before = setting.losses_at(0.0, whole)
    for column, by in enumerate(losses):
        after = setting.losses_at(rate.item(), gradients[by])
        for row, of in enumerate(losses):
            assert float(found[row, column]) == pytest.approx(1 - after[of] / before[of], rel=1e-9, abs=1e-12)


def test_looking_changes_nothing():
    """Parameters, running statistics, moments, random numbers and the graph are as they were."""
    ends = []
    for looks in (False, True):
        setting = Setting("adam")
        forward = setting.look()[0] if looks else setting.forward(setting.network)
        ends.append(torch.get_rng_state())
        setting.step(setting.network, setting.optimizer, sum(forward.losses.values()))
        moments = [value for state in setting.optimizer.state.values() for value in state.values()]
        ends[-1] = [ends[-1], *setting.network.state_dict().values(), *moments]
    plain, looked = ends
    assert len(plain) > 20
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(plain, looked, strict=True))


def test_a_task_that_is_not_there_is_not_known():
    _, found = Setting("adam", missing="down").look()
    known = torch.tensor([True, False, True])
    assert torch.equal(found.isfinite(), known[:, None] & known)


def test_a_diagnosis_is_the_same_with_affinities():
    plain, course = (diagnose_training(made(), epochs=2, affinity=affinity) for affinity in (False, True))
    assert torch.equal(plain.whole.losses, course.whole.losses)
    assert torch.equal(plain.whole.cosines, course.whole.cosines)
    assert not plain.affinities
    assert set(course.affinities) == {LOOK_AHEAD, *COSINES.values()}
    for matrix in course.affinities.values():
        assert torch.equal(matrix.isnan(), torch.eye(3, dtype=torch.bool))
    for place, name in COSINES.items():
        first, second = torch.triu_indices(3, 3, 1)
        assert course.affinities[name][first, second].tolist() == pytest.approx(
            course.affinities[name].T[first, second].tolist(), rel=1e-9
        ), place


def test_some_tasks_alone():
    course = diagnose_training(made(), epochs=1, affinity=True, tasks=["other", "up"])
    assert course.whole.tasks == ("up", "other")
    assert all(matrix.shape == (2, 2) for matrix in course.affinities.values())

"""A mistake in a problem is named before anything is trained: which task, which shapes, which line."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steelyard.problems import (
    Data,
    Metric,
    ProblemError,
    Split,
    Task,
    accuracy,
    binary,
    classification,
    load_problem,
    regression,
    split,
)
from steelyard.problems.problem import Problem
from steelyard.study.training.problem_rehearsal import rehearse


def problem(task, labels=None, **changes):
    labels = torch.arange(60) % 2 if labels is None else labels
    made = Problem(
        "p",
        [task],
        lambda: split(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), {task.name: labels}),
        lambda: nn.Linear(3, 4),
        lambda task: nn.Linear(4, task.outputs),
    )
    return dataclasses.replace(made, **changes)


TRUNK, HEAD = nn.Linear(3, 4), nn.Linear(4, 1)


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, outputs):
        return outputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ValueError("no way back")


class Named(nn.Linear):
    def __init__(self):
        super().__init__(4, 1)

    def forward(self, features):
        return {"out": super().forward(features)}


def squared(outputs, targets):
    return (outputs[:, 0] - targets) ** 2


def entropy(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)


FAULTS = {
    "a class number that the head does not have": (
        problem(classification("kind", classes=3), torch.tensor([0] * 56 + [3] * 4)),
        r"the loss of task 'kind' on outputs \[\d+, 3\] and targets \[\d+\] from 0 to 3 failed(?s:.*)out of bounds",
    ),
    "a loss for each row": (problem(Task("a", squared, (accuracy,))), r"must be a scalar tensor, not shape \[\d+\]"),
    "a loss that is a number": (
        problem(Task("a", lambda o, t: 1.0, (accuracy,))),
        "must be a scalar tensor, not float",
    ),
    "a loss that forgets the network": (
        problem(Task("a", lambda o, t: t.float().mean(), (accuracy,))),
        "the loss has no gradient",
    ),
    "a metric that fails": (
        problem(binary("a", metrics=(Metric("own", lambda o, t: o.width, higher_is_better=True),))),
        r"^problem 'p': own of task 'a' on the validation data failed\.\n(?!.*problem 'p')",
    ),
    "a loss that is NaN": (
        problem(Task("a", lambda o, t: (o.mean() - 1e9).log(), (accuracy,))),
        "untrained network is nan",
    ),
    "labels of another size": (
        problem(regression("a"), torch.arange(60.0) * 1e20),
        r"network is inf, on .*: labels are as large as .*e\+21\. Write split\(…, standardise_targets=\['a'\]\)",
    ),
    "inputs of another size": (
        problem(
            regression("a"), load=lambda: split(1e30 * (1 + torch.arange(180.0)).reshape(60, 3), {"a": torch.rand(60)})
        ),
        r"network is inf, on .*: outputs are as large as .*e\+3\d\. Write split\(…, standardise=True\) in load",
    ),
    "a trunk of another width": (
        problem(binary("a"), trunk=lambda: nn.Linear(5, 4)),
        r"the network on inputs \[\d+, 3\] failed(?s:.*)cannot be multiplied",
    ),
    "a head that cannot be built": (problem(binary("a"), head=lambda task: task.width), "building the network failed"),
    "an optimizer that is none": (
        problem(binary("a"), optimizer=lambda parameters: None),
        r"optimizer\(\) returned NoneType, not a torch optimizer: write optimizer=lambda parameters",
    ),
    "an optimizer whose step takes a closure": (
        problem(binary("a"), optimizer=torch.optim.LBFGS),
        r"problem 'p': the step of LBFGS asks for the losses again, by a closure, and a study takes one step",
    ),
    "an optimizer of other gradients": (
        problem(binary("a"), optimizer=torch.optim.SparseAdam),
        r"(?s)problem 'p': a step of SparseAdam failed.*does not support dense gradients",
    ),
    "a loss that cannot be differentiated": (
        problem(Task("a", lambda o, t: Broken.apply(o).mean(), (accuracy,), outputs=2), optimizer=torch.optim.SGD),
        r"(?s)problem 'p': the backward pass of task 'a' failed.*no way back",
    ),
    "a schedule that ends in nothing": (
        problem(binary("a"), schedule=lambda done: None if done == 1.0 else 1.0),
        r"problem 'p': schedule\(1\) is None: it is to return what the learning rate is multiplied by",
    ),
    "a schedule that is no number for a while": (
        problem(binary("a"), schedule=lambda done: float("nan") if done == 0.5 else 1.0),
        r"problem 'p': schedule\(0\.5\) is nan",
    ),
    "a schedule that goes up the hill": (
        problem(binary("a"), schedule=lambda done: 0.5 - done),
        r"is -0\.05\d*: it is",
    ),
    "a schedule without bounds": (problem(binary("a"), schedule=lambda done: float("inf")), r"schedule\(0\) is inf"),
    "a schedule of words": (problem(binary("a"), schedule=lambda done: "slow"), r"schedule\(0\) is 'slow'"),
    "preparing that returns nothing": (
        problem(binary("a"), prepare=lambda inputs: None),
        r"problem 'p': prepare\(\) returned NoneType, in which there is no tensor",
    ),
    "labels that a ready metric cannot judge": (
        problem(regression("size"), torch.ones(60)),
        r"problem 'p': R² of task 'size' on the validation data: R² is undefined: all 12 targets are equal",
    ),
    "labels of one kind in the test data": (
        problem(binary("ill"), torch.zeros(60)),
        r"problem 'p': AUC of task 'ill' on the validation data: AUC needs labels 0 and 1",
    ),
    "a metric that returns a tensor": (
        problem(binary("a", metrics=(Metric("m", lambda o, t: o.mean(), True),))),
        "m of task 'a' on the validation data is a Tensor",
    ),
    "statistics of all rows together": (
        problem(Task("a", entropy, (accuracy,), outputs=2, statistics=lambda o, t: o.sum(0))),
        r"statistics of task 'a' on outputs \[\d+, 2\].*one entry per row \(\d+\), not shape \[2\]",
    ),
    "a metric of statistics that returns a tensor": (
        problem(Task("a", entropy, (Metric("m", lambda s, t: s.sum(), True),), outputs=2, statistics=lambda o, t: o)),
        r"m of task 'a' on statistics \[\d+, 2\] is a Tensor",
    ),
    "a table of whole numbers": (
        problem(binary("a"), load=lambda: split(torch.arange(180).reshape(60, 3), {"a": torch.arange(60) % 2})),
        r"problem 'p': the network on inputs \[\d+, 3\] of whole numbers \(int64; nn.Embedding takes these, nn.Linear "
        r"and nn.Conv2d take fractions: .*write prepare=lambda inputs: inputs.float\(\)\) failed",
    ),
    "marks of missing labels among bytes": (
        problem(classification("kind", classes=3), torch.tensor([0, 1, 2, 255] * 15, dtype=torch.uint8)),
        r"targets \[\d+\] from 0 to 255; 255 is what -1 becomes .*mark missing labels in y\.astype\(int\) failed",
    ),
    "numbers of NumPy's type": (
        problem(binary("a"), load=lambda: Data(*[Split(torch.zeros(9, 3).double(), {"a": torch.arange(9) % 2})] * 3)),
        r"\[9, 3\] of type float64 \(networks are of float32: call inputs.to\(torch.float32\) in load\(\)\) failed",
    ),
    "a trunk that is made once": (
        problem(binary("a"), trunk=lambda: TRUNK),
        r"problem 'p': trunk\(\) gives the same weights each time.*make new ones in it, e\.g\. trunk=lambda: nn",
    ),
    "a head that is made once": (
        problem(binary("a"), head=lambda task: nn.Sequential(HEAD)),
        r"problem 'p': head\(\) gives the same weights each time",
    ),
    "a head that gives no tensor": (
        problem(binary("a"), head=lambda task: Named()),
        "'a': the head gives a dict, not a",
    ),
    "a loss that changes the labels": (
        problem(Task("a", lambda o, t: F.mse_loss(o[:, 0], t.mul_(0.5)), (accuracy,)), torch.rand(60)),
        r"the loss of task 'a' changes the data in place",
    ),
    "a metric that changes the labels": (
        problem(
            Task("a", lambda o, t: F.mse_loss(o[:, 0], t), (Metric("m", lambda o, t: float(t.zero_().sum()), True),)),
            torch.rand(60),
        ),
        r"m of task 'a' on the validation data changes the data in place",
    ),
    "inputs that are changed on the way": (
        problem(binary("a"), prepare=lambda inputs: inputs.mul_(2)),
        r"prepare\(\) changes the data in place",
    ),
    "inputs that the network changes": (
        problem(binary("a"), trunk=lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 4))),
        r"the network on inputs \[\d+, 3\] changes the data in place.*leave inplace=True away in a first layer",
    ),
    "labels of one class alone": (problem(binary("a"), torch.ones(60)), "AUC needs labels 0 and 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault):
    faulty, message = FAULTS[fault]
    with pytest.raises(ProblemError, match=message):
        rehearse(faulty)


@pytest.mark.parametrize("fold", range(3))
@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_metric_that_one_fold_does_not_allow_is_named_with_the_fold(fold, part):
    """Before anything is trained, if a seed of the study is tested on that fold; not otherwise."""

    def load(given):
        data = split(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), {"a": torch.randn(60)})
        if given == fold:
            getattr(data, part).targets["a"] = torch.ones(12)
        return data

    faulty = problem(regression("a"), load=load, folds=3)
    named = rf"R² of task 'a' on the {part} data{f' of fold {fold}' if fold else ''}: R² is undefined"
    with pytest.raises(ProblemError, match=named):
        rehearse(faulty, seeds=[3, 4, 5])
    if fold:
        rehearse(faulty, seeds=[6, 3 + 3 - fold])


def test_a_fault_in_a_user_file_is_given_its_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\n"
        "from steelyard.problems import Problem, binary\n"
        "def load():\n"
        "    return open('/nowhere.csv')\n"
        "problem = Problem('mine', [binary('a')], load, nn.Identity, nn.Identity)\n"
    )
    with pytest.raises(ProblemError, match=r"(?s)loading the data failed.*mine\.py, line 4: FileNotFoundError"):
        rehearse(load_problem(str(path)))


def test_a_sound_problem_passes_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    assert rehearse(load_problem("digits")) is load_problem("digits").data()
    assert torch.equal(torch.rand(2), expected)

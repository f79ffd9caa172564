"""Metrics of torchmetrics by name: the numbers that it gives for what a head puts out, and wrong use told by name."""

import doctest

import pytest

torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed: make test-integrations")

import torch

from steelyard import study
from steelyard.errors import ProblemError, UnknownNameError
from steelyard.problems import torchmetric

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 0.3 * torch.randn(50, 1, generator=GENERATOR)  # small: none looks like a probability's logit
LABELS = (LOGITS[:, 0] + 0.2 * torch.randn(50, generator=GENERATOR) > 0).float()


def test_logits_of_two_labels_are_cut_at_zero():
    """Not at a half, where torchmetrics would cut what it takes for probabilities."""
    found = torchmetric("Accuracy", task="binary")
    right = ((LOGITS[:, 0] > 0) == LABELS.bool()).double().mean()
    assert found.function(LOGITS, LABELS) == pytest.approx(float(right))
    assert (found.higher_is_better, found.ideal, found.percent) == (True, 1.0, False)
    positive = torchmetric("F1Score", task="binary", percent=True)
    assert positive.percent
    hits = float(((LOGITS[:, 0] > 0) & LABELS.bool()).sum())
    assert positive.function(LOGITS, LABELS) == pytest.approx(2 * hits / float((LOGITS > 0).sum() + LABELS.sum()))


def test_classes():
    outputs, targets = torch.randn(40, 3, generator=GENERATOR), torch.arange(40) % 3
    found = torchmetric("Accuracy", task="multiclass", num_classes=3, average="micro")
    assert found.function(outputs, targets) == pytest.approx(float((outputs.argmax(1) == targets).double().mean()))


def test_numbers():
    outputs, targets = torch.randn(30, 1, generator=GENERATOR), torch.randn(30, generator=GENERATOR)
    found = torchmetric("MeanSquaredError", squared=False)
    assert found.function(outputs, targets) == pytest.approx(float((outputs[:, 0] - targets).square().mean().sqrt()))
    assert (found.higher_is_better, found.ideal) == (False, 0.0)
    assert torchmetric("SpearmanCorrCoef").function(targets[:, None].exp(), targets) == pytest.approx(1)
    assert torchmetric("PearsonCorrCoef", higher_is_better=True).ideal == 1.0


def test_each_split_is_measured_anew():
    found = torchmetric("MeanAbsoluteError")
    assert [found.function(torch.full((4, 1), value), torch.zeros(4)) for value in (1.0, 3.0)] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: torchmetric("F1Scroe", task="binary"), UnknownNameError, "Did you mean 'F1Score'"),
        (lambda: torchmetric("F1Score"), ProblemError, "F1Score cannot be made with {}"),
        (lambda: torchmetric("F1Score", task="many"), ProblemError, "F1Score cannot be made"),
        (lambda: torchmetric("PearsonCorrCoef"), ProblemError, "give higher_is_better="),
        (
            lambda: torchmetric("Accuracy", task="multiclass", num_classes=3, average=None).function(
                torch.zeros(6, 3), torch.arange(6) % 3
            ),
            ProblemError,
            "not one number",
        ),
        (lambda: torchmetric("R2Score").function(torch.zeros(1, 1), torch.zeros(1)), ProblemError, "R2Score: "),
    ],
)
def test_wrong_use_is_told_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_its_example_runs():
    (found,) = doctest.DocTestFinder(recurse=False).find(torchmetric, "torchmetric", globs={"torch": torch})
    assert found.examples
    assert not doctest.DocTestRunner().run(found).failed


def test_a_study_is_judged_by_them(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\n"
        "from steelyard.problems import Problem, binary, regression, split, torchmetric\n"
        "x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))\n"
        'tasks = [binary("sold", metrics=(torchmetric("MatthewsCorrCoef", task="binary"),)),\n'
        '    regression("price", metrics=(torchmetric("MeanAbsoluteError"),))]\n'
        'load = lambda: split(x, {"sold": (x[:, 0] > 0).float(), "price": x[:, 1]})\n'
        'problem = Problem("mine", tasks, load, lambda: nn.Linear(4, 8), lambda task: nn.Linear(8, 1),\n'
        "    batch_size=32, epochs=3, optimizer=lambda p: torch.optim.Adam(p, lr=0.05))\n"
    )
    judged = study.compare(
        str(tmp_path / "mine.py"), ["single-task", "equal"], seeds=2, store=tmp_path / "s.sqlite", progress=False
    )
    assert not judged.failures, judged.failures[0].error
    assert [task.metric for task in judged.tasks] == ["MatthewsCorrCoef", "MeanAbsoluteError"]

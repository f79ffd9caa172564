"""MNIST-Imbalanced: the first 200, 180, … images of each digit, and the error of all outputs together."""

import pytest
import torch

from steelyard.errors import OptionError, UnknownNameError
from steelyard.problems import load_problem
from steelyard.problems.builtin import mnist_imbalanced


@pytest.fixture
def problem(monkeypatch):
    labels = torch.arange(2500) % 10

    def made_up(name, train):
        rows = slice(0, 2500 if train else 30)
        return torch.arange(2500, dtype=torch.uint8)[rows, None, None].expand(-1, 28, 28), labels[rows]

    monkeypatch.setattr(mnist_imbalanced, "images_and_labels", made_up)
    return mnist_imbalanced.problem(validation=1000)


def test_training_rows_are_the_first_of_each_digit_and_no_image_is_in_two_splits(problem):
    data = problem.data()
    counts = [int(data.train.targets[task].sum()) for task in mnist_imbalanced.TASKS]
    assert counts == [200, 180, 160, 140, 120, 100, 80, 60, 40, 20]
    assert [len(split) for split in data.splits().values()] == [1100, 1000, 30]
    chosen, others = mnist_imbalanced.few_of_each(torch.arange(2500) % 10)
    assert torch.cat([chosen, others]).sort().values.tolist() == list(range(2500))
    assert int(chosen[-1]) == 199  # the twentieth 9
    assert all(data.train.targets[task].shape == (1100,) for task in mnist_imbalanced.TASKS)


def test_the_largest_output_names_the_digit():
    (metric,) = load_problem("mnist-imbalanced").joint
    targets = dict(zip(mnist_imbalanced.TASKS, torch.eye(10), strict=True))
    right = {task: 3 * values[:, None] - 5 for task, values in targets.items()}  # all below zero
    assert metric.function(right, targets) == 0
    swapped = {**right, "digit0": right["digit1"], "digit1": right["digit0"]}
    assert metric.function(swapped, targets) == pytest.approx(0.2)


def test_the_rate_falls_to_a_tenth_after_half_of_the_epochs():
    schedule = load_problem("mnist-imbalanced").schedule
    assert [schedule(done / 4) for done in range(4)] == [1, 1, 0.1, 0.1]


def test_networks_start_and_are_judged_as_the_authors_do_where_that_is_asked():
    ours, theirs = (load_problem(f"mnist-imbalanced{options}") for options in ("", "(start=glorot,choose=last)"))
    assert (ours.choose, theirs.choose) == ("best", "last")
    torch.manual_seed(0)
    layers = [module for module in theirs.trunk().modules() if hasattr(module, "weight")]
    for layer, fans in zip(layers, (25 + 500, 500 + 1250, 800 + 500), strict=True):
        most = (6 / fans) ** 0.5
        assert 0.98 * most < float(layer.weight.detach().abs().max()) <= most
        assert float(layer.weight.detach().std()) == pytest.approx(most / 3**0.5, rel=0.05)
        assert not layer.bias.any()
    head = theirs.head(theirs.tasks[0])
    assert float(head.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert not head.bias.any()
    for wrong in ("start=xavier", "choose=first"):
        with pytest.raises(UnknownNameError, match=wrong.split("=")[0]):
            load_problem(f"mnist-imbalanced({wrong})")


@pytest.mark.parametrize("validation", [10, 58_901, "all"])
def test_a_number_of_validation_images_that_there_is_not_is_refused(validation):
    with pytest.raises(OptionError, match="from 1000 to 58900"):
        load_problem(f"mnist-imbalanced(validation={validation})")

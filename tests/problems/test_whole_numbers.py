"""A value of -1 is never taken for a missing label in silence, nor a fraction for a class."""

import pytest
import torch
from torch import nn

from steelyard.errors import ProblemError
from steelyard.problems import Data, Problem, Split, Task, classification, mae, regression, split

ROWS = 60
TEMPERATURES = torch.arange(ROWS) % 20 - 10


class Rows:
    """A Dataset; `known` has its targets at hand."""

    def __init__(self, targets, known):
        self.values = targets
        if known:
            self.targets = {"a": targets}

    def __len__(self):
        return len(self.values)

    def __getitem__(self, row):
        return torch.ones(2), {"a": self.values[row]}


def checked(task, targets, form="memory"):
    if form == "memory":
        parts = Split(torch.ones(len(targets), 2), {"a": targets})
    else:
        parts = Rows(targets, known=form == "known")
    return Problem("made", [task], lambda: Data(parts, parts, parts), nn.Identity, lambda task: nn.Linear(2, 1)).data()


@pytest.mark.parametrize("form", ["memory", "known", "read"])
@pytest.mark.parametrize("column", [False, True])
def test_values_on_both_sides_of_it(form, column):
    targets = TEMPERATURES[:, None] if column else TEMPERATURES
    with pytest.raises(ProblemError, match=r"-1 marks a missing label, and these run from -10 to .*give them as frac"):
        checked(regression("a"), targets, form)
    checked(regression("a"), targets.float(), form)
    checked(Task("a", nn.functional.mse_loss, metrics=(mae,), missing=-10), targets, form)


def test_before_targets_are_standardised():
    with pytest.raises(ProblemError, match=r"split\(\): targets of 'a' .*run from -10 to 9"):
        split(torch.ones(ROWS, 2), {"a": TEMPERATURES}, standardise_targets=["a"])


def test_classes_that_are_counted_from_it():
    moods = torch.arange(ROWS) % 3 - 1
    with pytest.raises(ProblemError, match=r"from -1 to 1, where 3 classes are 0 to 2.*count them from 0"):
        checked(classification("a", classes=3), moods)
    checked(classification("a", classes=2), moods)  # two classes, and what is missing
    checked(classification("a", classes=9), moods)  # of which some do not occur


def test_what_is_missing_among_few_rows_that_are_read():
    labels = torch.arange(ROWS) % 3 - 1
    checked(classification("a", classes=100), labels.where(labels < 0, torch.arange(ROWS)), "read")
    checked(classification("a", classes=2), torch.where(torch.arange(ROWS) == 3, 0, labels.sign()), "read")


@pytest.mark.parametrize("form", ["memory", "known", "read"])
def test_fractions_as_classes(form):
    labels = torch.arange(ROWS) % 3 + 0.0
    labels[5] = torch.nan
    checked(classification("a", classes=3), labels, form)
    labels[::2] += 0.37
    with pytest.raises(ProblemError, match=r"targets of 'a' hold \d\.37, and its labels are classes.*from 0 to 2"):
        checked(classification("a", classes=3), labels, form)

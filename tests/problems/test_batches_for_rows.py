"""Batches where rows belong are told by name, with what to give; rows that look like them are not."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from steelyard.errors import ProblemError, SteelyardWarning
from steelyard.problems import Data, Problem, Split, Task, mae, regression, split
from steelyard.study.training.problem_rehearsal import rehearse

ROWS = 40
PARTS = ("train", "validation", "test")
TELLS = r"The study makes the batches: give the Dataset, or a function that returns its DataLoader"


class Rows(Dataset):
    def __init__(self, names="ab"):
        self.x, self.names = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(0)), names

    def __len__(self):
        return ROWS

    def __getitem__(self, row):
        return self.x[row], {name: self.x[row, place] for place, name in enumerate(self.names)}


def batches(size, names="ab"):
    return list(DataLoader(Rows(names), batch_size=size))


def as_arrays(given):
    return [(x.numpy(), {name: each.numpy() for name, each in y.items()}) for x, y in given]


class OfBatches(Dataset):
    """A Dataset of one's own that gives a batch for a row."""

    def __init__(self, size):
        self.made = batches(size)

    def __len__(self):
        return len(self.made)

    def __getitem__(self, row):
        return self.made[row]


def made(*parts, **options):
    defaults = {"trunk": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU()), "head": lambda task: nn.Linear(8, 1)}
    return Problem(
        "made", [regression("a"), regression("b")], load=lambda: Data(*parts), batch_size=8, **{**defaults, **options}
    )


def in_one_part(part, given, others):
    return [given if name == part else others for name in PARTS]


FORMS = {
    "list(loader)": batches,
    "a tuple of batches": lambda size: tuple(batches(size)),
    "batches of arrays": lambda size: as_arrays(batches(size)),
    "targets without names": lambda size: [(x, y["a"]) for x, y in batches(size)],
    "a Dataset of batches": OfBatches,
    "put together": lambda size: Split(
        torch.stack([x for x, _ in batches(size)]), {n: torch.stack([y[n] for _, y in batches(size)]) for n in "ab"}
    ),
}


# Of four batches of 12 the last one has four rows, and torch.stack refuses them.
SIZES = [(form, size) for form in FORMS for size in (8, 12) if (form, size) != ("put together", 12)]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("form", "size"), SIZES)
def test_they_are_refused_in_one_part(form, size, part):
    with pytest.raises(ProblemError, match=f"(?s){part}.*{TELLS}"):
        made(*in_one_part(part, FORMS[form](size), Rows())).data()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("size", [8, 12])
def test_they_are_refused_in_one_tasks_own_part(part, size):
    own = {"a": batches(size, "a"), "b": Rows("b")}
    with pytest.raises(ProblemError, match=f"(?s){part}.*'a'.*{TELLS}"):
        made(*in_one_part(part, own, {name: Rows(name) for name in "ab"})).data()


@pytest.mark.parametrize(
    "form", [each for each in FORMS if each not in ("a tuple of batches", "targets without names")]
)
def test_where_all_parts_are_alike_the_network_tells(form):
    """As many in each may be rows with a label at every position; but the network takes each position by itself."""
    with pytest.warns(SteelyardWarning, match=f"8 inputs and 8 targets of 'a', 'b'.*Are they batches.*{TELLS}") as said:
        rehearse(made(*[FORMS[form](8)] * 3))
    assert len(said) == 1


def test_of_tasks_with_rows_of_their_own_one_is_named():
    with pytest.warns(SteelyardWarning, match="8 targets of 'a', and") as said:
        rehearse(made(*[{name: batches(8, name) for name in "ab"}] * 3))
    assert len(said) == 1


def test_a_network_that_fails_on_them_is_told_too():
    with pytest.raises(ProblemError, match=rf"(?s)failed.*If each row is a batch of 8 inputs and 8 targets: {TELLS}"):
        rehearse(made(*[batches(8)] * 3, trunk=lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(3))))


def test_split_takes_one_piece():
    given = batches(12)
    with pytest.raises(ProblemError, match=r"no table of numbers.*Of batches: torch.cat\(…\)"):
        split([x for x, _ in given], {"a": [y["a"] for _, y in given]})
    with pytest.raises(ProblemError, match=r"no table of numbers(?!.*torch.cat)"):
        split([[1.0, 2.0], 3.0], {"a": [1.0, 2.0]})


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.attention = nn.Linear(4, 8), nn.MultiheadAttention(8, 1, batch_first=True)

    def forward(self, x):
        x = self.first(x)
        return self.attention(x, x, x)[0]


def per_position(length):
    """Rows of one length with a label at each position."""
    x = torch.randn(ROWS, length, 4, generator=torch.Generator().manual_seed(0))
    return [(each, {"a": each[:, 0], "b": each[:, 1]}) for each in x]


def vectors(length):
    """Rows whose input and targets are vectors of one length, as those of a denoiser."""
    x = torch.randn(ROWS, length, generator=torch.Generator().manual_seed(0))
    return [(each, {"a": each, "b": 2 * each}) for each in x]


def images(length):
    """Grey images without a channel, and a label for every pixel."""
    x = torch.randn(ROWS, length, length, generator=torch.Generator().manual_seed(0))
    return [(each, {"a": each, "b": 2 * each}) for each in x]


class Grey(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x):
        return self.layer(x[:, None])


TRUE_ROWS = {
    "plain rows": (lambda: [Rows()[row] for row in range(ROWS)], {}),
    "plain rows as lists": (lambda: [list(Rows()[row]) for row in range(ROWS)], {}),
    "plain rows of arrays": (lambda: as_arrays(Rows()[row] for row in range(ROWS)), {}),
    "a label at every position": (lambda: per_position(6), {"trunk": Attention}),
    "vectors": (lambda: vectors(4), {"head": lambda task: nn.Linear(8, 4)}),
    "images": (lambda: images(6), {"trunk": Grey, "head": lambda task: nn.Conv2d(3, 1, 1)}),
}


@pytest.mark.parametrize("rows", TRUE_ROWS)
def test_true_rows_are_taken_without_a_word(rows):
    give, options = TRUE_ROWS[rows]
    problem = made(*[give()] * 3, **options)
    problem.tasks = [Task(name, regression(name).loss, (mae,)) for name in "ab"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(rehearse(problem).train) == ROWS


def test_rows_of_several_lengths_are_told_to_be_padded():
    """As many in all but the last may be rows that were cut at a length, so that this is said with the batches."""
    lengths = [3, 6, 2, 6]
    rows = [(torch.randn(length, 4), {"a": torch.randn(length), "b": torch.randn(length)}) for length in lengths]
    with pytest.raises(ProblemError, match=r"several shapes.*collate_fn=…\) that pads them") as said:
        made(*[rows] * 3).data()
    assert "batches" not in str(said.value)
    with pytest.raises(ProblemError, match=r"these are batches, not rows.*collate_fn=…\) that pads them"):
        made(*[[rows[1], rows[1], rows[0]]] * 3).data()


def test_rows_with_more_in_one_place_alone_are_no_batches():
    """Ten crops of an image for each test label are for a trunk that takes them."""
    crops = [(np.ones((10, 4), np.float32) * row, {"a": 1.0 * row, "b": 1.0}) for row in range(ROWS)]
    assert len(made(Rows(), Rows(), crops).data().test) == ROWS

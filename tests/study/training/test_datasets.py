"""Training rows that are read when they are needed: a Dataset or a DataLoader gives what rows in memory give."""

import dataclasses
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from steelyard.errors import PlanError, ProblemError, TrainingError, UnknownNameError
from steelyard.models.features import run
from steelyard.problems import Data, Problem, Split, binary, regression
from steelyard.problems.rows import Draw
from steelyard.problems.sources import data_digests
from steelyard.problems.stream import Stream
from steelyard.study import plan
from steelyard.study.training.train import train
from steelyard.study.trial import Trial

torch.set_num_threads(1)
ROWS = 70


class Numbers(Dataset):
    """Random rows; `noise` is what augmentation draws, from all three generators."""

    def __init__(self, seed, noise=0.0, gaps=False):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(ROWS, 4, generator=generator)
        self.noise, self.gaps = noise, gaps

    def __len__(self):
        return ROWS

    def __getitem__(self, row):
        x = self.x[row]
        drawn = float(torch.randn(())) + np.random.randn() + random.gauss(0, 1) if self.noise else 0.0
        targets = {"size": x[1] * 2, "sign": (x[0] > 0).float()}
        if self.gaps and row % 3 == 0:
            del targets["sign"]
        return x + self.noise * drawn, targets


def in_memory(seed, gaps=False):
    rows = [Numbers(seed, gaps=gaps)[row] for row in range(ROWS)]
    targets = {
        name: torch.stack([each.get(name, torch.tensor(torch.nan)) for _, each in rows]) for name in ("size", "sign")
    }
    return Split(torch.stack([x for x, _ in rows]), targets)


def made(train, validation=None, test=None, **options):
    parts = train, validation or Numbers(1), test or Numbers(2)
    return Problem(
        "made",
        tasks=[regression("size"), binary("sign")],
        load=lambda: Data(*parts),
        trunk=lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2)),
        head=lambda task: nn.Linear(8, task.outputs),
        batch_size=16,
        **options,
    )


def trial(method="equal", tasks=("size", "sign"), fraction=1.0, **options):
    scale = None if method == "single-task" else "sum"
    return Trial(
        "made", method, tasks, 3, tuple((task, fraction) for task in sorted(tasks)), 2, 16, scale=scale, **options
    )


def numbers_of(result):
    return result.test, result.last, result.chosen_epoch, result.curves.losses, result.curves.validation


def loader(dataset, **options):
    return lambda: DataLoader(dataset, batch_size=16, **options)


@pytest.mark.parametrize("method", ["equal", "pcgrad", "single-task"])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_a_dataset_gives_what_the_same_rows_in_memory_give(method, fraction):
    asked = trial(method, ("sign",) if method == "single-task" else ("size", "sign"), fraction)
    expected = train(asked, made(*(in_memory(seed) for seed in range(3))))
    assert numbers_of(train(asked, made(*(Numbers(seed) for seed in range(3))))) == numbers_of(expected)


def test_labels_that_are_not_there_are_left_out():
    expected = train(trial(), made(*(in_memory(seed, gaps=True) for seed in range(3))))
    assert numbers_of(train(trial(), made(*(Numbers(seed, gaps=True) for seed in range(3))))) == numbers_of(expected)


def test_augmentation_follows_from_the_seed_whatever_number_of_workers_reads():
    rows = Numbers(0, noise=0.3)
    results = [numbers_of(train(trial(), made(each))) for each in (rows, rows, loader(rows, num_workers=2))]
    assert results[0] == results[1] == results[2]
    assert numbers_of(train(trial(), made(Numbers(0)))) != results[0]
    assert numbers_of(train(dataclasses.replace(trial(), seed=4), made(rows))) != results[0]


def test_a_trial_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    rows = Numbers(0, noise=0.3)
    whole = train(trial(), made(rows))

    def stop(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trial(), made(rows), tmp_path / "checkpoint.pt", stop, checkpoint_seconds=0)
    assert numbers_of(train(trial(), made(rows), tmp_path / "checkpoint.pt")) == numbers_of(whole)


def test_a_sampler_of_the_loaders_own_is_followed_and_seeded():
    rows = Numbers(0)
    sampler = WeightedRandomSampler(torch.arange(ROWS).double(), 40)
    results = [train(trial(), made(loader(rows, sampler=sampler))) for _ in range(2)]
    assert numbers_of(results[0]) == numbers_of(results[1])
    assert results[0].steps == 2 * 3
    with pytest.raises(PlanError, match="sampler of its own"):
        plan_of(made(loader(rows, sampler=sampler)), settings=[0.5])


@pytest.mark.parametrize("batches", [False, True])
def test_rows_that_a_sampler_picks_are_those_that_there_are(batches):
    """One dataset, divided by samplers, as tutorials do it: nothing is evaluated that was trained on."""

    def picked(start, end):
        sampler = SubsetRandomSampler(torch.arange(start, end))
        if batches:
            return lambda: DataLoader(Numbers(0), batch_sampler=BatchSampler(sampler, 16, drop_last=False))
        return loader(Numbers(0), sampler=sampler)

    ends = [(0, 40), (40, 55), (55, ROWS)]
    asked = trial(fraction=0.5)
    found = made(*(picked(*each) for each in ends))
    expected = made(*(Subset(Numbers(0), range(*each)) for each in ends))
    assert [len(rows) for rows in found.data().splits().values()] == [40, 15, 15]
    assert numbers_of(train(asked, found)) == numbers_of(train(asked, expected))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_sampler_that_leaves_rows_out_is_refused_where_all_are_read(part):
    half = loader(Numbers(1), sampler=RandomSampler(range(ROWS), num_samples=ROWS // 2))
    with pytest.raises(ProblemError, match=f"{part} data: .*sampler leaves out 35 of {ROWS} rows.*Subset"):
        made(Numbers(0), **{part: half}).data()


class Tokens(Sampler):
    """Batches of the user's own making, without a size, that never end."""

    drop_last = True

    def __iter__(self):
        while True:
            yield [0, 1]

    def __len__(self):
        return 3


def test_batches_of_ones_own_are_not_looked_at_where_all_rows_are_read():
    made(Numbers(0), lambda: DataLoader(Numbers(1), batch_sampler=Tokens())).data()


def test_a_sampler_that_draws_them_all_in_another_order_is_not():
    longest_first = BatchSampler(list(reversed(range(ROWS))), 16, drop_last=True)
    made(
        Numbers(0), lambda: DataLoader(Numbers(1), batch_sampler=longest_first), loader(Numbers(2), drop_last=True)
    ).data()


def plan_of(problem, **options):
    from steelyard.problems import problem_registry  # the planner asks by name

    problem.reference = "made"
    problem_registry._built.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steelyard.study.planning.make_plan.load_problem", lambda name: problem)
        return plan("made", ["single-task", "equal"], seeds=1, epochs=1, **options)


def test_a_plan_counts_steps_and_rows_without_reading_them():
    rows = Numbers(0)
    planned = plan_of(made(loader(rows, shuffle=True)))
    assert planned.settings[0].steps == {"": 5, "size": 5, "sign": 5}
    assert [task.train_rows for task in planned.tasks] == [ROWS, ROWS]


def test_targets_at_hand_say_which_rows_have_a_label():
    rows = Numbers(0, gaps=True)
    rows.targets = {"sign": [np.nan if row % 3 == 0 else 1.0 for row in range(ROWS)]}
    assert [task.train_rows for task in plan_of(made(rows)).tasks] == [ROWS, ROWS - 24]
    assert [task.train_rows for task in plan_of(made(Subset(rows, range(6)))).tasks] == [6, 4]


class Texts(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, row):
        return torch.full((1 + row % 5,), row % 7), {"size": float(row % 5), "sign": float(row % 2)}


def padded(rows):
    inputs = pad_sequence([tokens for tokens, _ in rows], batch_first=True, padding_value=7)
    targets = {name: torch.tensor([each[name] for _, each in rows]) for name in ("size", "sign")}
    return {"tokens": inputs, "mask": inputs != 7}, targets


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(8, 6)

    def forward(self, tokens, mask):
        return (self.words(tokens) * mask[..., None]).sum(1)


def test_rows_of_several_lengths_come_by_name_through_a_collate_function():
    text = loader(Texts(), collate_fn=padded)
    problem = dataclasses.replace(
        made(text, text, text),
        trunk=Bag,
        head=lambda task: nn.Linear(6, task.outputs),
        load=lambda: Data(text, text, text),
    )
    plan_of(problem)
    assert train(trial(), problem).steps == 2 * 3
    assert run(Bag(), {"tokens": torch.zeros(2, 3).long(), "mask": torch.ones(2, 3)}).shape == (2, 6)


class OwnGenerator(Numbers):
    def __init__(self):
        super().__init__(0)
        self.generator = np.random.default_rng(0)

    def __getitem__(self, row):
        x, targets = super().__getitem__(row)
        return x + self.generator.normal(), targets


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


class Lonely(Numbers):
    def __getitem__(self, row):
        return self.x[row]


class Misnamed(Numbers):
    def __getitem__(self, row):
        return self.x[row], {"size": 1.0, "sing": 0.0}


class Failing(Numbers):
    def __getitem__(self, row):
        raise OSError("no such picture")


@pytest.mark.parametrize(
    ("rows", "error", "said"),
    [
        (lambda: OwnGenerator(), ProblemError, "train data: the same rows read twice from the same seed differ"),
        (lambda: Endless(), ProblemError, "gives its rows in an order of its own.*steelyard.trial"),
        (lambda: Lonely(0), ProblemError, r"row 0 of the Dataset is Tensor: give \(inputs, {task: target}\)"),
        (lambda: Misnamed(0), UnknownNameError, "sing"),
        (lambda: Failing(0), ProblemError, "reading rows .* failed: OSError: no such picture"),
        (lambda: (torch.zeros(3), torch.zeros(3)), ProblemError, "tuple is none of what it may be"),
        (lambda: DataLoader(Numbers(0)), ProblemError, r"batches of 1 rows.*Problem\(batch_size=1\)"),
        (lambda: {"size": in_memory(0), "sign": in_memory(0)}, ProblemError, "in the train data alone"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_by_name(rows, error, said):
    with pytest.raises(error, match=said):
        made(rows()).data()


class Of(Dataset):
    """Rows as a function makes them of their number, with targets that differ from the right ones."""

    def __init__(self, x=lambda row: torch.ones(4) * (row % 3), **targets):
        self.x, self.targets_of = x, targets

    def __len__(self):
        return ROWS

    def __getitem__(self, row):
        own = {"size": lambda row: 1.0 * row, "sign": lambda row: float(row % 2), **self.targets_of}
        return self.x(row), {name: made(row) for name, made in own.items()}


def collated(change):
    """A loader whose collate_fn makes batches of this many rows' inputs, and of `change` of them the targets."""

    def collate(rows):
        count = len(rows)
        return torch.ones(count, 4), {"size": change(count), "sign": torch.zeros(count)}

    return loader(Of(), collate_fn=collate)


# What one might hand over, and what is said to it: which rows or targets, and what to write instead.
ODD = {
    "text as a label": (
        lambda: Of(sign=lambda row: "yes"),
        r"targets of 'sign' are no numbers \('yes'\): give a number",
    ),
    "a dictionary as a label": (
        lambda: Of(sign=lambda row: {"value": 1.0}),
        r"targets of 'sign' are no numbers \('value'\): give a number",
    ),
    "text from a collate_fn": (lambda: collated(lambda count: ["a"] * count), "targets of 'size' are no numbers"),
    "labels of several lengths": (
        lambda: Of(size=lambda row: torch.ones(1 + row % 2)),
        r"targets of 'size' have several shapes, \[1\], \[2\]: give a DataLoader\(…, collate_fn=…\)",
    ),
    "inputs of several lengths": (
        lambda: Of(lambda row: torch.ones(1 + row % 2)),
        r"inputs have several shapes, \[1\], \[2\]: give a DataLoader\(…, collate_fn=…\) that pads them",
    ),
    "inputs that are missing": (
        lambda: Of(lambda row: None if row else torch.ones(4)),
        "inputs are None in some rows: leave these rows out",
    ),
    "sparse inputs": (lambda: Of(lambda row: torch.ones(4).to_sparse()), r"inputs are sparse: call .to_dense\(\)"),
    "a class of one's own as inputs": (lambda: Of(lambda row: object()), "inputs cannot be put together .*collate_fn"),
    "inputs with NaN": (
        lambda: Of(lambda row: torch.tensor([0, 0, 0, float("nan") if row > 40 else 1])),
        "train data: the inputs of row 49 hold NaN: leave such rows out",
    ),
    "a label that is inf": (lambda: Of(size=lambda row: float("inf")), "targets of 'size' hold inf"),
    "targets of another number": (lambda: collated(lambda count: torch.ones(3)), "3 targets of 'size' for 8 rows"),
    "a batch in place of a row": (lambda: DataLoader(Of(), batch_size=None), "batch_size=None: give it a batch_size"),
    "three values": (lambda: [(torch.ones(4), {"size": 0.0, "sign": 0.0}, 1)] * 4, "row 0 of the Dataset is 3 values"),
    "arrays in place of tensors": (
        lambda: Split(np.ones((4, 4)), {name: torch.ones(4) for name in ("size", "sign")}),
        r"inputs must be a torch tensor .*split\(inputs, targets\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "said"), ODD.values(), ids=ODD)
def test_what_is_no_rows_is_refused_with_what_to_write(rows, said):
    with pytest.raises(ProblemError, match=said):
        made(rows()).data()


def test_labels_that_turn_out_to_be_nowhere_are_named():
    """Known by reading alone: the first epoch tells."""
    with pytest.raises(TrainingError, match="no row of the first epoch has a label of sign"):
        train(trial(), made(Of(sign=lambda row: None)))


class Passes(Sampler):
    """Draws these rows, one list for each pass: as a random sampler of few rows may."""

    def __init__(self, *passes):
        self.passes = iter(passes)

    def __iter__(self):
        return iter(next(self.passes))

    def __len__(self):
        return 20


RARE = 1  # the one row with a label of it
WITH, WITHOUT = range(20), range(20, 40)


def drawn(*passes):
    rows = Of(sign=lambda row: 1.0 if row == RARE else None)
    return made(loader(rows, sampler=Passes(*passes)))


def test_a_label_that_an_epoch_missed_may_come_in_a_later_one():
    result = train(trial(), drawn(WITHOUT, WITH))
    first, second = result.curves.losses["sign"]
    assert math.isnan(first)
    assert math.isfinite(second)
    assert result.steps == 4


@pytest.mark.parametrize(
    ("tasks", "passes", "said"),
    [
        (("size", "sign"), (WITHOUT, WITHOUT), "no row that any epoch drew has a label of sign: .*sampler draw more"),
        (("sign",), (WITHOUT, WITH), "no row that epoch 1 drew has a label of sign: .*sampler draw more"),
        (("sign",), (WITH, WITHOUT), "no row that epoch 2 drew has a label of sign: .*sampler draw more"),
    ],
)
def test_a_label_that_the_sampler_never_draws_is_named(tasks, passes, said):
    with pytest.raises(TrainingError, match=said):
        train(trial("single-task" if len(tasks) == 1 else "equal", tasks), drawn(*passes))


def test_a_label_that_was_drawn_is_remembered_over_a_stop(tmp_path):
    def stop(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trial(), drawn(WITH), tmp_path / "checkpoint.pt", stop, checkpoint_seconds=0)
    result = train(trial(), drawn(WITHOUT), tmp_path / "checkpoint.pt")
    assert list(map(math.isnan, result.curves.losses["sign"])) == [False, True]


def test_texts_are_one_input_which_a_trunk_may_read_itself():
    class Lengths(nn.Module):
        def forward(self, texts):
            return torch.tensor([[float(len(text))] * 4 for text in texts])

    text = Of(lambda row: "word " * (row % 5))
    problem = dataclasses.replace(
        made(text, text, text), trunk=lambda: nn.Sequential(Lengths(), nn.Linear(4, 8)), load=lambda: Data(*[text] * 3)
    )
    plan_of(problem)
    assert train(trial(), problem).steps == 2 * 5
    with pytest.raises(ProblemError, match=r"text alone \(make numbers of it by a tokenizer"):
        plan_of(made(text, text, text))


def test_an_architecture_that_looks_at_all_labels_is_refused():
    with pytest.raises(ProblemError, match="AMTFL looks at all labels before training"):
        train(trial(architecture="amtfl"), made(Numbers(0)))


def test_reading_leaves_the_generators_of_the_step_alone():
    reader = made(Numbers(0, noise=1.0)).data().train.reader(ahead=False)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(reader([Draw(torch.arange(4), seed=1)]))
    assert torch.equal(torch.rand(3), expected)


def test_data_that_are_read_are_known_by_class_length_and_a_sample():
    first, again, other = (data_digests(made(Numbers(seed)).data()) for seed in (0, 0, 9))
    assert first == again
    assert first["a sample of train"] != other["a sample of train"]
    assert first["a sample of test"] == other["a sample of test"]


def test_workers_are_started_once_for_all_epochs(monkeypatch):
    """One reader of each part with its workers, however many epochs ask it; and no more of what is read by one step."""
    made_readers = []
    real = Stream.reader

    def reader(self, ahead):
        made_readers.append(ahead)
        return real(self, ahead)

    problem = made(Numbers(0))
    problem.data()
    monkeypatch.setattr(Stream, "reader", reader)
    train(dataclasses.replace(trial(), epochs=4), problem)
    assert made_readers == [True] * 3

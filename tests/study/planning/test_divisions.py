"""Where every seed has its own division of the rows: what was asked for, or a rule that knows nothing of results."""

import textwrap

import pytest

from steelyard.errors import ProblemError
from steelyard.problems import load_problem
from steelyard.study.planning.divisions import choose_divisions
from steelyard.study.planning.make_plan import plan

PROBLEM = """
    import torch
    from torch import nn
    from steelyard.problems import Data, Problem, Split, binary, regression, split

    def rows(number, seed=0):
        x = torch.randn(number, 4, generator=torch.Generator().manual_seed(seed))
        return x, {"kind": (x[:, 0] > 0).float(), "size": x[:, 1].clone()}

    def load(seed=0):
        x, targets = rows(ROWS)
        targets["size"][::2] = torch.nan
        return split(x, targets, seed=seed)

    problem = Problem(
        "mine",
        tasks=(binary("kind"), regression("size", label="the size")),
        load=load,
        trunk=lambda: nn.Linear(4, 8),
        head=lambda task: nn.Linear(8, task.outputs),
        batch_size=16,
        epochs=1,
    )
"""
OWN_TEST = """
    def load(seed=0):
        drawn = split(*rows(ROWS), seed=seed)
        return Data(drawn.train, drawn.validation, Split(*rows(40, seed=1)))
"""


@pytest.fixture
def file(tmp_path):
    """``file(rows, old=new, …)``: a problem of so many rows, a fifth of them for test, half of these with a size."""

    def written(rows, *changes):
        text = textwrap.dedent(PROBLEM).replace("ROWS", str(rows))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "mine.py"
        path.write_text(text)
        return str(path)

    return written


def chosen(path, asked=None):
    found = load_problem(path)
    return choose_divisions(found, found.tasks, asked)


def test_few_test_labels_of_the_smallest_task_are_divided_anew_and_the_plan_says_so(file):
    made = plan(file(900), ["single-task", "equal"], seeds=2, resplit=None)
    assert made.resplit
    assert made.tasks[1].test_rows < 100 < made.tasks[0].test_rows
    assert all(trial.resplit for trial in made.trials)
    (note,) = [note for note in made.notes if "own division" in note]
    assert "because the size has" in note
    assert note.endswith("test labels, fewer than 100 (--no-resplit: one division for all)")


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        (1200, []),  # enough test labels
        (900, [("load=load", "load=lambda: load()")]),  # no seed to divide by
        (
            900,
            [("load=load", "load=load, folds=1"), ("def load(seed=0)", "def load(number=0)"), ("seed=seed", "seed=0")],
        ),
        (900, [("load=load", "load=load, folds=3")]),  # a fold each already
        (900, [("seed=seed", "seed=0")]),  # a seed that divides nothing
        (300, [("    problem = Problem(", "X")]),
    ],
    ids=["many", "no seed", "another argument", "folds", "left lying", "own test rows"],
)
def test_otherwise_all_seeds_have_one_division(file, rows, changes):
    if changes == [("    problem = Problem(", "X")]:
        changes = [
            ("problem = Problem(", textwrap.dedent(OWN_TEST).replace("ROWS", str(rows)) + "\nproblem = Problem(")
        ]
    assert not chosen(file(rows, *changes)).resplit


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_asked_for_goes_before_the_rule(file, asked):
    assert (chosen(file(900), asked).resplit, chosen(file(5000), asked).resplit) == (asked, asked)
    made = plan(file(900), ["equal"], seeds=2, resplit=asked)
    assert made.resplit == asked
    assert not any("--no-resplit" in note for note in made.notes)


def test_a_division_of_no_use_says_how_to_have_one(file):
    """Nobody asked for more; an error that has nothing to do with divisions says nothing of them."""
    broken = ("return split(x, targets, seed=seed)", "return split(x, targets, seed=seed if seed < 2 else 1 / 0)")
    with pytest.raises(ProblemError, match=r"(?s)division 2 .*because the size has .*--no-resplit"):
        plan(file(900, broken), ["equal"], seeds=3, resplit=None)
    assert not plan(file(900, broken), ["equal"], seeds=3, resplit=False).resplit
    with pytest.raises(ProblemError) as caught:
        plan(file(900, ("nn.Linear(8, task.outputs)", "nn.Linear(9, task.outputs)")), ["equal"], resplit=None)
    assert "--no-resplit" not in str(caught.value)

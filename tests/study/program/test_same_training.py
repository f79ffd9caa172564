"""A program that takes its parts and batches from its trial trains what a problem file trains, number by number."""

import dataclasses
import runpy
from pathlib import Path

import pytest
import torch

import steelyard
from steelyard.errors import ProgramError
from steelyard.problems import load_problem
from steelyard.study.program.assignment import VARIABLE, Assignment
from steelyard.study.program.declaration import declare
from steelyard.study.program.reports import History, ReportReader
from steelyard.study.training.train import train
from steelyard.study.trial import SINGLE_TASK, Trial

EXAMPLE = Path(__file__).parents[3] / "examples" / "digits_program.py"
TASKS = {"left": "accuracy", "right": "accuracy"}
EPOCHS = 2


pytestmark = pytest.mark.usefixtures("by_hand")


def trained_by_the_program(trial, tmp_path, monkeypatch):
    """The example, as the study's process runs it."""
    declaration = declare(TASKS, 25, 2e-3)
    Assignment("run", str(tmp_path / "told"), declaration, trial, str(tmp_path / "kept"), False).write(tmp_path / "it")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "it"))
    runpy.run_path(str(EXAMPLE))["main"]()
    history = History(declaration.only(trial.tasks), None)
    for report in ReportReader(tmp_path / "told").new():
        history.take(report)
    return history.result(trial)


@pytest.mark.parametrize(
    ("method", "tasks", "fraction"),
    [
        (SINGLE_TASK, ("right",), 1.0),
        ("equal", ("left", "right"), 1.0),
        ("pcgrad", ("left", "right"), 0.1),  # reads gradients, and draws an order of its own
        ("uw", ("left", "right"), 0.25625),  # whose last batch is a single row, and joins the one before
    ],
)
def test_the_numbers_are_those_of_the_problem_file(method, tasks, fraction, tmp_path, monkeypatch):
    scale = None if method == SINGLE_TASK else "sum"
    trial = Trial("digits", method, tasks, 3, tuple((task, fraction) for task in tasks), EPOCHS, 128, scale=scale)
    of_problem = train(trial, load_problem("digits"))
    of_program = trained_by_the_program(trial, tmp_path, monkeypatch)
    assert of_program.curves.validation == of_problem.curves.validation
    assert (of_program.test, of_program.chosen_epoch) == (of_problem.test, of_problem.chosen_epoch)
    assert of_program.steps == of_problem.steps
    for task in tasks:
        assert of_program.curves.losses[task] == pytest.approx(of_problem.curves.losses[task], rel=1e-12)
        assert of_program.curves.weights[task] == pytest.approx(of_problem.curves.weights[task], rel=1e-12)


def test_what_is_compared_moves_with_the_seed_and_the_fraction(tmp_path, monkeypatch):
    """Otherwise equal numbers would say little."""
    trial = Trial("digits", "equal", ("left", "right"), 3, (("left", 1.0), ("right", 1.0)), 1, 128, scale="sum")
    found = [
        train(each, load_problem("digits")).curves.validation
        for each in (
            trial,
            dataclasses.replace(trial, seed=4),
            dataclasses.replace(trial, fractions=(("left", 0.1), ("right", 0.1))),
        )
    ]
    assert found[0] != found[1]
    assert found[0] != found[2]


def test_a_part_starts_by_its_name_and_leaves_other_draws_alone():
    trial = steelyard.trial(TASKS, epochs=1, seed=7)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first, again = (trial.part("trunk", lambda: torch.nn.Linear(3, 2)) for _ in range(2))
    other = trial.part("head/left", lambda: torch.nn.Linear(3, 2))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_a_part_that_no_seed_has_started_is_refused():
    trial = steelyard.trial(TASKS, epochs=1, seed=7)
    with pytest.raises(ProgramError, match=r"part\('trunk'\) was built on meta.*build it on the CPU, and move it"):
        trial.part("trunk", lambda: torch.nn.Linear(3, 2, device="meta"))


def test_batches_are_whole_passes_of_what_the_study_leaves_in_an_order_of_seed_and_epoch():
    trial = steelyard.trial(TASKS, epochs=2, seed=7)
    found = trial.batches(9, 4, epoch=1)
    assert [len(rows) for rows in found] == [4, 5]  # no batch of a single row
    assert sorted(torch.cat(found).tolist()) == list(range(9))
    assert all(map(torch.equal, found, trial.batches(9, 4, epoch=1)))
    assert not torch.equal(torch.cat(found), torch.cat(trial.batches(9, 4, epoch=2)))
    assert not torch.equal(torch.cat(found), torch.cat(steelyard.trial(TASKS, epochs=2).batches(9, 4, epoch=1)))


@pytest.mark.parametrize("wrong", [(0, 4, 1), (9, 0, 1), (9, 4, 0)])
def test_what_makes_no_batches_is_named(wrong):
    rows, size, epoch = wrong
    with pytest.raises(ProgramError, match=rf"batches\({rows}, {size}, epoch={epoch}\): each is at least 1"):
        steelyard.trial(TASKS, epochs=1).batches(rows, size, epoch)

"""Weights that follow a schedule, and how schedules are read."""

from __future__ import annotations

import pickle

import pytest

import steelyard
from loss_sequences import call, task_names
from steelyard.errors import OptionError, UnknownNameError
from steelyard.methods.schedule_text import Piece, parse_entries

ONES = {"seg": 1.0, "depth": 1.0}


def weights_over(balancer: steelyard.Balancer, steps: int) -> list[dict[str, float]]:
    return [call(balancer, ONES)[0] for _ in range(steps)]


@pytest.mark.parametrize("tenths", [7, 8])  # in floating point, 70 * (10 / 100) is more than 7
def test_the_second_stage_begins_at_a_percentage(tenths: int) -> None:
    text = f"seg: 1.0 until {10 * tenths} %, then 0.1"
    found = weights_over(steelyard.make("schedule", list(ONES), weights=text, total=10), 12)
    assert [weights["seg"] for weights in found] == [1.0] * tenths + [0.1] * (12 - tenths)
    assert [weights["depth"] for weights in found] == [1.0] * 12


def test_several_tasks_several_stages_and_straight_lines() -> None:
    text = "seg: 0 to 1 until 4, then 1 to 0.5 until 6 steps then 2; depth: 3"
    found = weights_over(steelyard.make("schedule", list(ONES), weights=text), 8)
    assert [weights["seg"] for weights in found] == [0, 0.25, 0.5, 0.75, 1, 0.75, 2, 2]
    assert {weights["depth"] for weights in found} == {3.0}


def test_per_epoch_it_waits_for_the_end_of_epochs() -> None:
    balancer = steelyard.make("schedule(weights='seg: 1 until 50 %, then 0', per=epoch, total=4)", list(ONES))
    found = []
    for _ in range(4):
        found += weights_over(balancer, 3)
        balancer.end_epoch()
    assert [weights["seg"] for weights in found] == [1.0] * 6 + [0.0] * 6


def test_a_mapping_and_a_function_say_the_same_as_text() -> None:
    mapping = {"seg": "1 until 3, then 0.5", "depth": 2}
    by_mapping = steelyard.make("schedule", list(ONES), weights=mapping)
    by_function = steelyard.make("schedule", list(ONES), weights=lambda n: {"seg": 1 if n < 3 else 0.5, "depth": 2.0})
    by_text = steelyard.make("schedule", list(ONES), weights="seg: 1 until 3, then 0.5, depth: 2")
    assert weights_over(by_mapping, 6) == weights_over(by_function, 6) == weights_over(by_text, 6)


def test_it_goes_on_from_a_checkpoint_and_can_be_pickled() -> None:
    def made() -> steelyard.Balancer:
        return steelyard.make("schedule", list(ONES), weights="seg: 1 until 3, then 0.5")

    straight = weights_over(made(), 6)
    stopped = made()
    weights_over(stopped, 2)
    resumed = made()
    resumed.load_state_dict(stopped.state_dict())
    assert weights_over(resumed, 4) == straight[2:]
    assert weights_over(pickle.loads(pickle.dumps(stopped)), 4) == straight[2:]


def test_names_may_hold_spaces_commas_and_colons_and_begin_with_one_another() -> None:
    tasks = ["left", "left: digit, big", "r"]
    entries = parse_entries("left: digit, big: 2 until 5 then 1\nleft:3;r: .5;", tasks, "step", None)
    assert entries == {
        "left: digit, big": (Piece(2, 2, 5), Piece(1, 1)),
        "left": (Piece(3, 3),),
        "r": (Piece(0.5, 0.5),),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seg: much", "cannot read the weight 'much': write WEIGHT"),
        ("seg: 1 until", "cannot read the weight '1 until'"),
        ("seg: 1 until 80 %, then 0.1", "the weight '1 until 80 %': a percentage needs .* total="),
        ("seg: 1 until 5 epochs, then 2", "the weight '1 until 5 epochs'.*choose per='epoch'"),
        ("seg: 1 until 5", "from the end of '1 until 5' on"),
        ("seg: 1 until 5, then 2 until 5, then 3", "'2 until 5' needs an 'until' after its begin at 5 steps"),
        ("seg: 1 until 0, then 2", "'1 until 0' needs an 'until' after its begin at 0 steps"),
        ("seg: 1, then 2", "'1' needs an 'until' after its begin at 0 steps"),
        ("seg: 1 to 2", "from the end of '1 to 2' on"),
        ("seg: 1 until 5, then", "cannot read the weight ''"),
        ("seg: 1 depth: 2", "cannot read the weight '1 depth: 2'"),
        ("seg: 1, 2", "cannot read the weight '1, 2'"),
        ("seg: 1, seg: 2", "have 'seg' twice"),
        ("seg:", "cannot read the weight ''"),
    ],
)
def test_text_that_cannot_be_read_is_named(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        steelyard.make("schedule", list(ONES), weights=text)


def test_unknown_tasks_and_values_are_named_before_training() -> None:
    for weights in (
        "sge: 1",
        "depth: 1; sge: 2",
        {"sge": 1.0},
        {"sge": "1"},
        lambda n: {"sge": 1.0},
    ):
        with pytest.raises(UnknownNameError, match=r"unknown task 'sge'\. Did you mean 'seg'"):
            steelyard.make("schedule", list(ONES), weights=weights)
    with pytest.raises(OptionError, match="'seg' must be a finite number, got inf"):
        steelyard.make("schedule", list(ONES), weights=lambda n: {"seg": float("inf")})
    with pytest.raises(
        OptionError, match=r"weights of schedule must be text or a mapping .* or a function, or None, got 3"
    ):
        steelyard.make("schedule", task_names(2), weights=3)

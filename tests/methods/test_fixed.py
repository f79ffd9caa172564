"""Fixed weights."""

from __future__ import annotations

import pytest

import steelyard
from loss_sequences import call
from steelyard.base.specs import parse_spec
from steelyard.errors import OptionError, UnknownNameError


@pytest.mark.parametrize("weights", [{"left": 2.0, "right digit": -0.5}, "left: 2, right digit: -5e-1"])
def test_weights_by_mapping_or_text(weights) -> None:
    balancer = steelyard.make("fixed", ["left", "right digit", "depth"], weights=weights)
    found, value = call(balancer, {"left": 3.0, "right digit": 4.0, "depth": 5.0})
    assert found == {"left": 2.0, "right digit": -0.5, "depth": 1.0}
    assert value == 2 * 3 - 0.5 * 4 + 5


@pytest.mark.parametrize("spec", ["fixed(weights='left: 2, right digit: 0.5')", "fixed(weights={'right digit': 0.5})"])
def test_weights_on_the_command_line_survive_being_written_out(spec: str) -> None:
    again = str(parse_spec(spec))
    for text in (spec, again):
        weights = steelyard.make(text, ["left", "right digit"]).weights
        assert weights["right digit"] == 0.5


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({"lfet": 1.0}, UnknownNameError, "unknown task 'lfet'. Did you mean 'left'"),
        ("lfet: 1", UnknownNameError, "unknown task 'lfet'. Did you mean 'left'"),
        ({"left": float("nan")}, OptionError, "'left' must be a finite number, got nan"),
        ({"left": "1"}, OptionError, "'left' must be a finite number, got '1'"),
        ({"left": True}, OptionError, "'left' must be a finite number, got True"),
        ([1.0, 2.0], OptionError, r"must be a mapping from task names to numbers.*got \[1.0, 2.0\]"),
        ("left: 1 until 10, then 2", OptionError, "'left' changes over time.*'schedule'"),
        ("left 1", UnknownNameError, "unknown task 'left 1'"),
    ],
)
def test_weights_that_cannot_be_meant(weights, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        steelyard.make("fixed", ["left", "right"], weights=weights)


def test_weights_that_cancel_are_rescaled_by_their_sizes() -> None:
    balancer = steelyard.make("fixed", ["left", "right"], weights={"left": 5.0, "right": -5.0}, scale="sum")
    call(balancer, {"left": 1.0, "right": 1.0})
    assert balancer.last_weights.tolist() == [1.0, -1.0]

"""Numbers in sentences: as many decimals as the interval supports, and on which side of zero a bound lies."""

import math

import pytest

from steelyard.study.analysis.number_phrases import (
    amount_of,
    difference_of,
    lowered,
    method_name,
    plus_minus_of,
    relative_of,
)
from steelyard.study.judgement import Interval
from steelyard.study.planning.plan import PlannedMetric, PlannedTask


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(0.01, -0.01, 0.03), "+1.0 % (−1.0 to +3.0)"),
        (Interval(0.2, 0.1, 0.3), "+20 % (+10 to +30)"),
        (Interval(-0.02, -0.04, 0.0004), "−2.00 % (−4.00 to +0.04)"),
        (Interval(-0.02, -0.04, -0.00004), "−2.000 % (−4.000 to −0.004)"),
        (Interval(-0.02, -0.04, 1e-9), "−2.0 % (−4.0 to +0.0)"),  # as good as zero
        (Interval(-0.02, -0.04, 0.000004), "−2.0 % (−4.0 to +0.0)"),  # three decimals more are too many
        (Interval(0.01, 0.0099999, 0.0100001), "+1.000 % (+1.000 to +1.000)"),  # four digits are enough
        (Interval(0.0, 0.0, 0.0), "+0.00 % (+0.00 to +0.00)"),
    ],
)
def test_a_bound_near_zero_shows_on_which_side_it_lies(interval, text):
    assert relative_of({"ema": interval}) == f"ema {text}"


def test_values_and_their_difference_have_the_same_decimals():
    task = PlannedTask("a", "a", 0.01, (PlannedMetric("accuracy", True, 1.0, True),))
    text = difference_of(task, 0.911, 0.946, Interval(-0.0351, -0.0701, -0.00004))
    assert text == "accuracy 91.100 % against 94.600 % alone, −3.510 points (−7.010 to −0.004)"


def test_what_no_reader_counts_the_digits_of_has_an_exponent():
    task = PlannedTask("a", "a", 0.01, (PlannedMetric("cost", False, 0.0, False),))
    text = difference_of(task, -1e300, 12345678.0, Interval(-1e300, -2e300, 9999999.0))
    assert text == "cost −1.00e+300 against 1.23e+07 alone, −1.00e+300 (−2.00e+300 to +9999999)"
    assert amount_of(task, Interval(1e8, 1e-9, 1e9)) == "+1.00e+08 (+0 to +1.00e+09)"


@pytest.mark.parametrize("percent", [True, False])
def test_amounts_and_half_widths_have_the_metrics_unit(percent):
    task = PlannedTask("a", "a", 0.01, (PlannedMetric("metric", True, 1.0, percent),))
    times, unit = (100, " points") if percent else (1, "")
    assert amount_of(task, Interval(-2.0 / times, -3.5 / times, -0.5 / times)) == f"−2.0{unit} (−3.5 to −0.5)"
    assert amount_of(task, Interval(20.0 / times, -math.inf, math.inf)) == f"+20.00{unit}"
    assert plus_minus_of(task, 0.12345 / times) == f"±0.12{unit}"
    assert plus_minus_of(task, 23.4 / times) == f"±23{unit}"


def test_names_and_lists():
    assert lowered("The plain sum hurts") == "the plain sum hurts"
    assert lowered("UW hurts") == "UW hurts", "a method's name keeps its case"
    assert (method_name("equal"), method_name("ema")) == ("The plain sum", "ema")

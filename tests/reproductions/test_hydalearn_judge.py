"""The judge of `hydalearn`, on results made up for it: each part can hold, can fail, and rests on what it names."""

import dataclasses
import math

import pytest

from reproductions.made_up_outcomes import the
from steelyard.reproductions.papers import hydalearn_claim
from steelyard.reproductions.run_reproduction import so_far


def gained(outcome, name, level):
    arms = {"single-task": 0.9, "equal": 0.85, "best-fixed": 0.86, "uw": 0.84}
    return outcome(
        name, {**arms, "hydalearn(main=left)": level, "hydalearn(main=left,mode=first-order)": level}, main="left"
    )


@pytest.mark.parametrize(("level", "word"), [(0.95, "held"), (0.88, "did not hold"), (0.9, "undecided")])
def test_hydalearn_has_to_beat_all_three_by_what_matters(outcome, level, word):
    """As good as single-task learning is not better; that it is no better takes more than three seeds."""
    claims = hydalearn_claim.judge({hydalearn_claim.CREDIT: gained(outcome, "c", level)})
    for words in ("HydaLearn beats single-task", "The first-order form beats"):
        assert the(claims, words).word == word
    claims = hydalearn_claim.judge({hydalearn_claim.dials(0, 0): gained(outcome, "s", level)})
    assert the(claims, "HydaLearn beats single-task").word == "undecided"  # the control is no part of it
    assert the(claims, "Control (constant weights are right), ").word == word


def test_hydalearn_says_whether_there_was_anything_to_gain(outcome):
    """All labels of the main task against a few, of training it alone; those studies are no place of the claim."""
    few, name = gained(outcome, "few", 0.95), hydalearn_claim.CREDIT
    for level, word in ((0.97, "held"), (0.9, "undecided"), (0.8, "did not hold")):
        every = outcome(f"all{level}", {"equal": 0.9, "single-task": level, "best-fixed": 0.9}, main="left")
        claims = hydalearn_claim.judge({name + hydalearn_claim.ALL: every, name: few})
        assert the(claims, "There is something to gain").word == word
        assert len(the(claims, "HydaLearn beats single-task").parts) == 1
    assert the(hydalearn_claim.judge({name: few}), "There is something to gain") is None


@pytest.mark.parametrize(
    ("by_dial", "sign", "word"),
    [
        # Two dials of three runs: even perfect order has one chance in ten.
        ({0.0: [1.0, 1.1, 1.2], 1.0: [2.0, 2.1, 2.2]}, 1, "undecided"),
        ({0.0: [1.0, 1.1, 1.2], 0.5: [1.5, 1.6, 1.7], 1.0: [2.0, 2.1, 2.2]}, 1, "held"),
        ({0.0: [1.0, 1.1, 1.2], 0.5: [1.5, 1.6, 1.7], 1.0: [2.0, 2.1, 2.2]}, -1, "did not hold"),
    ],
)
def test_a_rank_correlation_is_held_to_what_so_few_runs_can_show(by_dial, sign, word):
    (finding,) = hydalearn_claim._ranked("claim", "dial", by_dial, sign)
    assert finding.word == word
    assert so_far(finding).word == "undecided"  # another dial may turn it
    if word == "undecided":
        assert "(p = 0.2 by permutation, adjusted for both dials; 6 runs)" in finding.evidence[0]
    said = "So few runs cannot decide it, whatever they show (p of 0.2 at best)."
    assert (said in finding.evidence) == (word == "undecided")


@pytest.mark.parametrize(
    "by_dial",
    [
        {0.0: [1.0] * 5, 0.5: [1.0] * 5, 1.0: [1.0] * 5},
        {0.0: [math.nan] * 5, 1.0: [1.0, 2.0, 3.0]},
        {0.0: [math.nan], 1.0: [math.nan]},
    ],
)
def test_a_rank_correlation_that_is_not_defined_decides_nothing(by_dial):
    (finding,) = hydalearn_claim._ranked("claim", "dial", by_dial, 1)
    assert finding.word == "undecided"
    assert finding.evidence == ("Nothing varies here with dial: a rank correlation is not defined.",)


def test_as_good_as_one_of_the_three_is_no_gain(outcome):
    """Shown to be no different from training alone, and better than the two others."""
    arms = {"single-task": 0.5, "equal": 0.45, "best-fixed": 0.46, "uw": 0.44}
    made = outcome(
        "as good", {**arms, "hydalearn(main=left)": 0.5, "hydalearn(main=left,mode=first-order)": 0.5}, main="left"
    )
    claims = hydalearn_claim.judge({hydalearn_claim.CREDIT: made})
    assert the(claims, f"{hydalearn_claim.CREDIT}: hydalearn(main=left) beats").word == "did not hold"


def test_late_weights_are_those_of_the_last_quarter_and_spreads_are_without_the_first_epoch(outcome):
    made = gained(outcome, "late", 0.95)
    curves = {
        "weights": {"main": [1.0] * 8, "auxiliary": [9.0] * 6 + [1.0, 2.0]},
        "weight_spreads": {"auxiliary": [9.0, 1.0, 3.0]},
    }
    results = {
        trial: dataclasses.replace(found, curves=dataclasses.replace(found.curves, **curves))
        for trial, found in made.findings.results.items()
    }
    made = dataclasses.replace(made, findings=dataclasses.replace(made.findings, results=results))
    assert hydalearn_claim._late_ratios(made) == [1.5] * 5
    assert hydalearn_claim._deviations(made) == [2.0] * 5

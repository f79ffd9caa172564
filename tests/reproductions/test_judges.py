"""Judges' own arithmetic: rank correlations with a dial, cases of negative transfer, amounts that pairs share."""

from types import SimpleNamespace

import pytest

from steelyard.reproductions import amtfl, comparison, hydalearn
from steelyard.study.judging import findings
from steelyard.study.store import Store
from study.made_up import fill, plan


@pytest.mark.parametrize(
    ("by_dial", "sign", "word"),
    [
        # Two dials of three runs: even perfect order has one chance in ten.
        ({0.0: [1.0, 1.1, 1.2], 1.0: [2.0, 2.1, 2.2]}, 1, "undecided"),
        ({0.0: [1.0, 1.1, 1.2, 1.3], 0.5: [1.5, 1.6, 1.7, 1.8], 1.0: [2.0, 2.1, 2.2, 2.3]}, 1, "held"),
        ({0.0: [1.0, 1.1, 1.2, 1.3], 0.5: [1.5, 1.6, 1.7, 1.8], 1.0: [2.0, 2.1, 2.2, 2.3]}, -1, "did not hold"),
    ],
)
def test_a_rank_correlation_is_held_to_what_so_few_runs_can_show(by_dial, sign, word):
    (finding,) = hydalearn._ranked("claim", "dial", by_dial, sign)
    assert finding.word == word
    if word == "undecided":
        assert "(p = 0.2, 6 runs)" in finding.evidence[0]


def test_negative_transfer_is_counted_by_seed_where_all_tasks_finished(tmp_path):
    made = plan(("single-task", "equal"))
    alone, both = {"left": 0.9, "right": 0.9}, {"left": 0.8, "right": 0.8}
    one = {"left": 0.8, "right": 0.95}
    with Store(tmp_path / "s", write=True) as store:
        fill(store, made, {"single-task": [alone, alone, None], "equal": [both, one, both]})
        outcome = SimpleNamespace(plan=made, findings=findings(made, store))
    assert amtfl.cases_by_seed(outcome, "equal") == {0: 2, 1: 1}


def test_pairs_are_compared_at_the_largest_amount_that_all_have():
    def outcome(*settings):
        return SimpleNamespace(plan=SimpleNamespace(settings=[SimpleNamespace(fractions=each) for each in settings]))

    def even(amount):
        return {"a": amount, "b": amount}

    outcomes = {
        "many": outcome(even(0.1), even(0.25), even(1.0), {"a": 0.1, "b": 1.0}),
        "few": outcome(even(0.25), even(0.1)),
    }
    assert comparison._places(outcomes) == {"many": 1, "few": 0}

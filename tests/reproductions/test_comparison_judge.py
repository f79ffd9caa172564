"""The judge of `comparison`, on results made up for it: each part can hold, can fail, and rests on what it names."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest

from reproductions.made_up_outcomes import CLEAR_ALONE, DRAWN, LITTLE, judged, stored, the
from steelyard.problems import load_problem
from steelyard.reproductions.evidence import one_task, standing
from steelyard.reproductions.papers import (
    comparison_choices,
    comparison_claim,
)
from steelyard.reproductions.run_reproduction import summarise
from steelyard.study.analysis.statistics import not_worse
from steelyard.study.trial import Failed
from study.made_up import plan


def test_comparison_counts_each_weighting_once(outcome):
    """`best-fixed` may be the plain sum once more, and is no weighting of the claim."""
    arms = {"single-task": 0.9, "equal": 0.8, "best-fixed": 0.8, "dwa": 0.8, "uw": 0.95}
    typical = the(comparison_claim.judge({"A": outcome("a", arms)}), "Sharing typically does not improve")
    # All seeds agree, and a share of six cases is known to a step over √6: its interval is the one that is tested.
    assert typical.evidence[0] == (
        "Seed by seed, 33 % of a pair's comparisons with training alone come out better in the main metric "
        "(25 to 42 %, over 5 seeds)."
    )
    assert typical.evidence[1].startswith("Verdicts on 6 cases: 2 gain, 0 no difference, 4 negative transfer")
    assert typical.word == "held"
    most = outcome("b", {**arms, "dwa": 0.95})
    assert the(comparison_claim.judge({"B": most}), "Sharing typically does not improve").word == "did not hold"
    # What no verdict can tell still improves or does not: by seed, about as often.
    close = outcome("c", dict.fromkeys(arms, 0.9))
    assert the(comparison_claim.judge({"C": close}), "Sharing typically does not improve").word == "undecided"


@pytest.mark.parametrize("gain", [0.0, 0.001])
def test_what_sharing_leaves_as_it_was_refutes_nothing(outcome, gain):
    """Half of it improves, by chance or by next to nothing: beside a few pairs that gain more than half would."""
    arms = {"single-task": 0.9, "equal": 0.9 + gain, "dwa": 0.9 + gain, "uw": 0.9 + gain}
    helped = {"single-task": 0.9, "equal": 0.95, "dwa": 0.95, "uw": 0.95}
    levels = {**{f"same {k}": arms for k in range(3)}, **{f"up {k}": helped for k in range(2)}}
    outcomes = {name: outcome(name, each) for name, each in levels.items()}
    typical = the(comparison_claim.judge(outcomes), "Sharing typically does not improve")
    share = int(re.search(r"in the mean over 5 pairs (\d+) %", typical.evidence[0])[1])
    assert share > 50
    assert "12 gain" in typical.evidence[-1]
    assert typical.word == "undecided"


def test_a_joint_network_that_failed_improves_nothing(outcome):
    made = outcome("a", {"single-task": 0.8, "equal": 0.9, "dwa": 0.9, "uw": 0.9})
    lost = {trial: Failed("ValueError: no", "") for trial in made.plan.trials if trial.method == "uw"}
    left = {trial: result for trial, result in made.findings.results.items() if trial not in lost}
    found = dataclasses.replace(made.findings, results=left, failed=lost)
    typical = the(
        comparison_claim.judge({"A": dataclasses.replace(made, findings=found)}), "Sharing typically does not improve"
    )
    assert typical.evidence[0].startswith("Seed by seed, 67 % of a pair's comparisons")
    assert typical.word == "did not hold"


def test_without_a_seed_on_all_pairs_what_is_missing_is_named_and_shares_are_shown(outcome):
    bad = {"single-task": 0.9, "equal": 0.8, "dwa": 0.8, "uw": 0.8}
    lost = outcome("b", {**bad, "single-task": None})
    claims = comparison_claim.judge({"A": outcome("a", bad), "B": lost})
    typical = the(claims, "Sharing typically does not improve")
    assert typical.word == "undecided"
    assert typical.evidence[:2] == (
        "No seed has finished on all pairs: none of equal on B, dwa on B, uw on B.",
        "By pair, over all its seeds: A 0 %.",
    )
    said = the(claims, "The choice of the pair").evidence
    assert "B: Δm equal without single-task, which has not finished, " in " ".join(said)


def test_the_papers_own_data_are_asked_by_themselves(outcome):
    bad = outcome("a", {"single-task": 0.9, "equal": 0.8, "dwa": 0.8, "uw": 0.8})
    good = outcome("b", {"single-task": 0.8, "equal": 0.9, "dwa": 0.9, "uw": 0.9})
    claims = comparison_claim.judge({"Multi-MNIST": bad, "B": good, "C": good})
    assert the(claims, "on the paper's own data").word == "held"
    assert the(claims, "in the mean over all pairs").word == "did not hold"
    assert the(comparison_claim.judge({"B": good}), "on the paper's own data") is None


def test_that_no_choice_decides_can_be_shown(tmp_path):
    """Of 24 combinations, each four deviations from the edge: Holm over both sides of all would leave most open."""
    draw = np.random.default_rng(0)
    outcomes = {}
    for pair in range(8):
        noises = {arm: 0.1 * draw.normal(0, 0.01, 5) for arm in comparison_choices.WEIGHTINGS}
        levels = {"single-task": 0.9, **dict.fromkeys(comparison_choices.WEIGHTINGS, 0.9 + 0.1 * 0.04)}
        outcomes[f"pair {pair}"] = stored(tmp_path / f"s{pair}", levels, noises)
    claims = comparison_claim.judge(outcomes)
    assert the(claims, "The choice of the pair").word == "did not hold"
    assert the(claims, "The choice of the weighting").word == "did not hold"


def test_a_choice_between_pairs_of_other_data_is_told(outcome):
    good = outcome("a", {"single-task": 0.9, "equal": 0.95, "dwa": 0.95, "uw": 0.95})
    bad = outcome("b", {"single-task": 0.9, "equal": 0.8, "dwa": 0.95, "uw": 0.95})
    same = the(comparison_claim.judge({"A": good, "B": bad}), "The choice of the pair")
    assert "Of pairs of one data set: equal on A and B." in same.evidence
    moved = dataclasses.replace(bad.plan, problem="elsewhere")
    other = dataclasses.replace(bad, findings=dataclasses.replace(bad.findings, plan=moved))
    apart = the(comparison_claim.judge({"A": good, "B": other}), "The choice of the pair")
    assert apart.word == "held"
    assert any(said.startswith("No two pairs of one data set show it") for said in apart.evidence)


def test_no_pair_has_a_task_that_chooses_the_epoch_for_both():
    for size in ("real", "full"):
        for each in comparison_claim.experiments(size):
            problem = load_problem(each.problem)
            assert problem.main is None or problem.main not in (each.tasks or problem.task_names), each.name


def test_pairs_matter_where_one_weighting_helps_one_and_hurts_another(outcome):
    helped = outcome("a", {"single-task": 0.9, "equal": 0.95, "dwa": 0.95, "uw": 0.95})
    hurt = outcome("b", {"single-task": 0.9, "equal": 0.8, "dwa": 0.95, "uw": 0.95})
    claims = comparison_claim.judge({"A": helped, "B": hurt})
    pairs, weightings = the(claims, "The choice of the pair"), the(claims, "The choice of the weighting")
    assert pairs.word == weightings.word == the(claims, "two weightings differ").word == "held"
    assert weightings.evidence == (
        "B: dwa and uw are less than a point of Δm worse than alone, or better; equal is more than a point worse.",
    )
    assert pairs.evidence[0] == (
        "equal: less than a point of Δm worse than alone, or better on A; more than a point worse on B."
    )
    again = comparison_claim.judge(
        {"A": helped, "B": outcome("b2", {"single-task": 0.9, "equal": 0.95, "dwa": None, "uw": None})}
    )
    assert the(again, "The choice of the pair").word == "undecided"  # two of B never finished
    assert "uw not finished" in the(again, "The choice of the pair").evidence[1]
    # Where each weighting is wholly one of the two, the pair does not decide.
    worse = outcome("e", {"single-task": 0.9, "equal": 0.7, "dwa": 0.95, "uw": 0.95})
    claims = comparison_claim.judge({"B": hurt, "E": worse})
    assert the(claims, "The choice of the pair").word == "did not hold"


@pytest.mark.parametrize(
    ("by_pair", "pair", "weighting"),
    [
        # Δm by weighting in per cent. A little worse than alone, and by less than matters, is no choice:
        ({"A": (-0.5, -0.5, -0.5)}, "undecided", "did not hold"),
        ({"A": (-0.9, -0.5, -0.1)}, "undecided", "did not hold"),
        ({"A": (-0.5, -0.5, -2.0)}, "undecided", "held"),
        # As good as alone, which no test tells from alone, on one pair and worse on another:
        ({"A": (0.0, 0.0, 0.0), "B": (-20.0, -20.0, -20.0)}, "held", "did not hold"),
        ({"A": (0.0, 0.0, 0.0), "B": (-0.5, -0.9, 0.5)}, "did not hold", "did not hold"),
        ({"A": (-1.0, -1.0, -1.0), "B": (-20.0, -20.0, -20.0)}, "undecided", "undecided"),
    ],
)
def test_as_good_as_alone_and_worse_exclude_each_other(tmp_path, by_pair, pair, weighting):
    outcomes = {}
    for name, levels in by_pair.items():
        made = plan(("single-task", *comparison_choices.WEIGHTINGS), seeds=5)
        shifts = dict(zip(made.methods, (0.0, *levels), strict=True))
        values = {
            method.name: [
                dict.fromkeys(("left", "right"), 0.9 + 0.1 * (level + jitter * (place + 1)) / 100)
                for jitter in (0.02, -0.02, 0.0, 0.01, -0.01)
            ]
            for place, (method, level) in enumerate(shifts.items())
        }
        outcomes[name] = judged(tmp_path / name, made, values)
    claims = comparison_claim.judge(outcomes)
    assert the(claims, "The choice of the pair").word == pair
    assert the(claims, "The choice of the weighting").word == weighting


def test_a_choice_is_none_while_arms_are_missing_that_might_be_one(outcome):
    flat = dict.fromkeys(("single-task", "equal", "dwa", "uw"), 0.9)
    claims = comparison_claim.judge({"A": outcome("a", flat), "B": outcome("b", {**flat, "dwa": None, "uw": None})})
    assert the(claims, "two weightings differ").word == "undecided"
    assert the(claims, "The choice of the weighting").word == "undecided"


@pytest.mark.parametrize(("studies", "word"), [(1, "did not hold"), (2, "undecided")])
def test_a_choice_that_one_pair_may_show_is_not_refuted_before_all_were_run(outcome, studies, word):
    bad = outcome("a", {"single-task": 0.9, "equal": 0.8, "best-fixed": 0.8, "dwa": 0.8, "uw": 0.8})
    made = SimpleNamespace(judge=comparison_claim.judge, figures=lambda outcomes: [])
    found = summarise(made, "real", [bad], (bad.experiment,) * studies, 0.0, "").findings
    assert the(found, "The choice of the weighting").word == word
    assert the(found, "two weightings differ").word == word
    assert found[0].word == word
    assert the(found, "Sharing typically does not improve").word == ("held" if studies == 1 else "undecided")
    assert the(found, "every pair gains").word == "did not hold"  # of every pair: one is enough


def test_typical_is_the_mean_over_pairs_however_many_amounts_one_has(outcome):
    """Of four pairs three gain everywhere: what the fourth does counts once."""
    gains = {"single-task": 0.8, "equal": 0.9, "dwa": 0.9, "uw": 0.9}
    loses = {"single-task": 0.95, "equal": 0.9, "dwa": 0.9, "uw": 0.9}
    outcomes = {name: outcome(name, loses if name == "L" else gains) for name in "LABC"}
    typical = the(comparison_claim.judge(outcomes), "Sharing typically does not improve")
    assert typical.evidence[0].startswith("Seed by seed, in the mean over 4 pairs 75 % of a pair's comparisons")
    assert typical.word == "did not hold"


@pytest.mark.parametrize(("uw", "word"), [(0.8, "did not hold"), (0.87, "did not hold"), (0.91, "held")])
def test_a_weighting_decides_where_it_repairs_what_another_breaks(outcome, uw, word):
    """That one is even worse than another is no choice that pays."""
    arms = {"single-task": 0.9, "equal": 0.8, "dwa": 0.8, "uw": uw}
    claims = comparison_claim.judge({"A": outcome("a", arms)})
    assert the(claims, "The choice of the weighting").word == word
    assert the(claims, "two weightings differ").word == ("did not hold" if uw == 0.8 else "held")


def test_few_labels_beside_many_stand_beside_the_claim(outcome):
    """Unequal amounts are no pair of the claim, and only the task with few labels is asked."""
    made = outcome("u", {"single-task": 0.8, "equal": {"left": 0.9, "right": 0.5}, "dwa": 0.9, "uw": 0.9})
    uneven = dataclasses.replace(made.plan.settings[0], fractions={"left": 0.05, "right": 1.0})
    plan = dataclasses.replace(made.plan, settings=(uneven,))
    store = {trial: made.findings.results[old] for trial, old in zip(plan.trials, made.plan.trials, strict=True)}
    uneven = dataclasses.replace(made, findings=dataclasses.replace(made.findings, plan=plan, results=store))
    even = {"A": outcome("a", {"single-task": 0.9, "equal": 0.8, "dwa": 0.8, "uw": 0.8})}
    claims = comparison_claim.judge({**even, "few": uneven})
    assert len(the(claims, "every pair gains").parts) == 3
    helped = the(claims, "many labels of right help left")
    assert helped.word == "held"
    assert [part.claim for part in helped.parts] == [
        f"{arm}: left is better than alone" for arm in ("equal", "dwa", "uw")
    ]


def test_pairs_are_compared_at_the_largest_amount_that_all_have():
    def outcome(*settings):
        return SimpleNamespace(plan=SimpleNamespace(settings=[SimpleNamespace(fractions=each) for each in settings]))

    def even(amount):
        return {"a": amount, "b": amount}

    outcomes = {
        "many": outcome(even(0.1), even(0.25), even(1.0), {"a": 0.1, "b": 1.0}),
        "few": outcome(even(0.25), even(0.1)),
    }
    assert comparison_choices.places(outcomes) == {"many": 1, "few": 0}


def test_that_many_labels_hurt_is_adjusted_over_the_weightings(tmp_path):
    """One of three that is clear by itself breaks nothing."""
    levels = {"single-task": 0.9, "equal": 0.9, "dwa": 0.9, "uw": 0.9}
    # In errors of 0.1: a percent beyond the percent that is no difference.
    worse = -0.1 * (0.01 + 0.01 * (1 + DRAWN / CLEAR_ALONE))
    noises = {"single-task": LITTLE, "equal": worse, "dwa": 0.003 * DRAWN, "uw": -0.003 * DRAWN}
    made = stored(tmp_path / "s", levels, noises)
    alone = standing(one_task(made.findings, "left", "equal", ["single-task"]))
    assert alone.words == {"single-task": "worse"}
    uneven = dataclasses.replace(made.plan.settings[0], fractions={"left": 0.05, "right": 1.0})
    planned = dataclasses.replace(made.plan, settings=(uneven,))
    results = {trial: made.findings.results[old] for trial, old in zip(planned.trials, made.plan.trials, strict=True)}
    made = dataclasses.replace(made, findings=dataclasses.replace(made.findings, plan=planned, results=results))
    claims = comparison_claim.judge({"few": made})
    assert the(claims, "equal: left is better than alone").word == "undecided"
    assert the(claims, "many labels of right help left").word == "undecided"


def test_a_choice_is_adjusted_over_all_pairs_and_weightings(tmp_path, outcome):
    """Each of these is less than a point worse by itself, at 5 %, and one of six is so by chance."""
    noises = {arm: [0.0009 * each for each in (1.0, -0.9, 0.4, -0.6, 0.1)] for arm in comparison_choices.WEIGHTINGS}
    close = {"single-task": 0.9, **dict.fromkeys(comparison_choices.WEIGHTINGS, 0.9 + 0.0001)}
    worse = {"single-task": 0.9, **dict.fromkeys(comparison_choices.WEIGHTINGS, 0.8)}
    outcomes = {"close": stored(tmp_path / "c", close, noises), "worse": stored(tmp_path / "w", worse, noises)}
    sample = comparison_choices.changes(outcomes)["close", "equal"]
    p = not_worse(sample, 0.01)
    assert 0.05 / 6 < p < 0.05 / 2, "the side at hand is the nearer one of two"
    claims = comparison_claim.judge(outcomes)
    assert the(claims, "The choice of the pair").word == "undecided"
    doubt = "Decided alone, but not once adjusted for 6 combinations: equal on close (as good)"
    assert the(claims, "The choice of the pair").evidence[-1].startswith(doubt)
    # What has not finished is not adjusted for.
    outcomes["worse"] = outcome("n", {"single-task": 0.9, **dict.fromkeys(comparison_choices.WEIGHTINGS)})
    claims = comparison_claim.judge(outcomes)
    assert "once adjusted for 3 combinations: " in the(claims, "The choice of the pair").evidence[-1]

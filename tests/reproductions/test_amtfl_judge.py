"""The judge of `amtfl`, on results made up for it: each part can hold, can fail, and rests on what it names."""

from types import SimpleNamespace

import numpy as np
import pytest

from reproductions.made_up_outcomes import LITTLE, NOISE, stored, the, together
from steelyard.reproductions.evidence import above_zero, standing
from steelyard.reproductions.papers import amtfl_claim
from steelyard.study.analysis.make_judgement import findings
from steelyard.study.storage.store import Store
from study.made_up import fill, plan

FORMS = dict(zip(amtfl_claim.arms("labels"), ("none", "data", "log1p", "detached", "alpha=0"), strict=True))

ONE = {"left": 0.999, "right": 0.85}  # better in the mean, and one of two tasks is worse than alone


def transferred(outcome, name, levels, joint=()):
    arms = {arm: levels[form] for arm, form in FORMS.items()}
    return outcome(name, {"single-task": 0.9, "equal": 0.85, **arms}, joint=joint)


def test_the_published_arm_and_the_named_form_have_to_hurt_fewer_tasks(outcome):
    good = dict.fromkeys(FORMS.values(), 0.95)
    claims = amtfl_claim.judge({amtfl_claim.DRUGS: transferred(outcome, "g", {**good, "none": ONE, "log1p": 0.96})})
    fewer = the(claims, f"{amtfl_claim.DRUGS}: AMTFL, and with uncertainty")
    assert fewer.word == "held"
    assert fewer.evidence[0].startswith("Of 2 tasks, in the mean over seeds: equal 2.0; ")
    assert claims[0].word == "held"
    # Another form's may be as many: it stands beside them.
    claims = amtfl_claim.judge({amtfl_claim.DRUGS: transferred(outcome, "o", {**good, "detached": 0.85})})
    fewer = the(claims, f"{amtfl_claim.DRUGS}: AMTFL, and with uncertainty")
    assert fewer.word == "held"
    assert "uncertainty=detached) 2.0" in fewer.evidence[0]
    # All tasks of the plain sum are hurt already, so that no arm can be shown to hurt more; here left is not.
    half = {"single-task": 0.9, "equal": {"left": 0.95, "right": 0.8}}
    arms = {arm: 0.8 if form == "log1p" else 0.95 for arm, form in FORMS.items()}
    claims = amtfl_claim.judge({amtfl_claim.DRUGS: outcome("h", {**half, **arms})})
    fewer = the(claims, f"{amtfl_claim.DRUGS}: AMTFL, and with uncertainty")
    assert fewer.word == "did not hold"
    assert "log1p" in fewer.evidence[1].partition("worse than")[0]  # equal is better than this one, worse than others


@pytest.mark.parametrize("missing", ["none", "log1p", "both"])
def test_fewer_tasks_are_hurt_only_where_both_arms_were_trained(outcome, missing):
    arms = {
        arm: None if missing in (form, "both") and form in ("none", "log1p") else 0.95 for arm, form in FORMS.items()
    }
    made = outcome(missing, {"single-task": 0.9, "equal": 0.85, **arms})
    claims = amtfl_claim.judge({amtfl_claim.DRUGS: made})
    assert the(claims, f"{amtfl_claim.DRUGS}: AMTFL, and with uncertainty").word == "undecided"


def test_the_price_of_transfer_is_judged_by_the_arm_without_it(outcome):
    levels = dict.fromkeys(FORMS.values(), 0.9)
    claims = amtfl_claim.judge(
        {amtfl_claim.DRUGS: transferred(outcome, "p", {**levels, "none": 0.94, "alpha=0": 0.92})}
    )
    assert the(claims, "It is the price").word == "held"
    assert "alpha=0,counts=labels,uncertainty=none) 0.0" in the(claims, "and with uncertainty, has fewer").evidence[0]
    # The learnt uncertainty is judged by the count of hurt tasks, as the abstract has it.
    hurt, delta_m, others = the(claims, "hurts fewer tasks than equal@").evidence
    published, form = (next(arm for arm, kind in FORMS.items() if kind == which) for which in ("none", "log1p"))
    assert hurt.startswith(f"By the share of tasks that are hurt, {form}, against 1 arm: ")
    assert delta_m.startswith(f"Beside it, by Δm, {form}, against 1 arm: worse than 1 ({published} ")
    assert others.startswith(f"The other forms: by the share of tasks that are hurt, {published}, against 2 arms: ")


@pytest.mark.parametrize(
    ("levels", "word"),
    [
        ({"none": ONE, "log1p": 0.95}, "held"),  # by the count, whatever Δm says
        ({"none": 0.97, "log1p": 0.98}, "undecided"),  # better by Δm, and neither hurts any task
        ({"none": ONE, "data": 0.95, "log1p": ONE}, "undecided"),  # another form is no answer for the named one
        ({"log1p": ONE}, "did not hold"),
    ],
)
def test_the_learnt_uncertainty_is_asked_of_the_named_form(outcome, levels, word):
    levels = {**dict.fromkeys(FORMS.values(), 0.95), **levels}
    claims = amtfl_claim.judge({amtfl_claim.DRUGS: transferred(outcome, "u", levels)})
    found = the(claims, "hurts fewer tasks than equal@")
    assert found.word == word
    assert the(claims, "A learnt uncertainty").word == word


def test_the_form_of_tugda_stands_beside_the_claim(outcome):
    """What is learnt hardly moves there, and it trains on the mean of many passes."""
    published, form, control = amtfl_claim.TUGDA_ARMS
    made = outcome("t", {"single-task": 0.9, "equal": 0.85, published: 0.95, form: 0.85, control: 0.95})
    good = dict.fromkeys(FORMS.values(), 0.95)
    drugs = transferred(outcome, "d", {**good, "none": ONE})
    claims = amtfl_claim.judge({amtfl_claim.DRUGS: drugs, amtfl_claim.TUGDA: made})
    assert the(claims, "A learnt uncertainty").word == "held"
    assert len(the(claims, "A learnt uncertainty").parts) == 1
    beside = the(claims, "Beside the claim")
    assert beside.word == "did not hold"
    assert f"{form}, which trains on the mean of fifty passes" in beside.claim
    # Its count beside the plain sum's is a part of the claim all the same.
    assert the(claims, f"{amtfl_claim.TUGDA}: AMTFL, and with uncertainty").word == "undecided"


def test_the_price_is_broken_by_all_that_it_rests_on_together(outcome):
    """A test error that would break it by itself, and does not among what stands beside it."""
    arms = list(FORMS)
    levels = {**dict.fromkeys(FORMS.values(), 0.94), "alpha=0": 0.94}
    errors = {arms[0]: 0.1212, arms[-1]: 0.12}
    joint = tuple(
        together(arm, level + (place + 1) * np.array(NOISE)) for place, (arm, level) in enumerate(errors.items())
    )
    made = transferred(outcome, "p", levels, joint)
    shown = above_zero({"": -np.array([0.0012 - each for each in NOISE])})
    assert shown.words == {"": "worse"}
    claims = amtfl_claim.judge({amtfl_claim.MNIST: made})
    assert the(claims, "so it is by the test error").word == the(claims, "It is the price").word == "undecided"
    assert "adjusted for 2 comparisons" in the(claims, "so it is by the test error").evidence[0]


def test_on_the_digits_the_price_is_judged_by_test_error_too(outcome):
    arms = list(FORMS)
    levels = {**dict.fromkeys(FORMS.values(), 0.94), "alpha=0": 0.92}
    for published, word in ((0.10, "held"), (0.14, "did not hold")):
        errors = {"single-task": 0.12, "equal": 0.13, arms[0]: published, arms[-1]: 0.12}
        joint = tuple(together(arm, level + np.array(NOISE)) for arm, level in errors.items())
        made = transferred(outcome, f"price {word}", levels, joint)
        claims = amtfl_claim.judge({amtfl_claim.MNIST: made})
        assert the(claims, "so it is by the test error").word == the(claims, "It is the price").word == word


def test_the_trend_of_test_errors_waits_for_arms_that_are_missing(outcome):
    def errors(**by_arm):
        names = {"single": "single-task", "published": next(iter(FORMS)), "equal": "equal"}
        return tuple(together(names[arm], level + np.array(NOISE)) for arm, level in by_arm.items())

    levels = dict.fromkeys(FORMS.values(), 0.9)
    for joint, word in (
        (errors(single=0.12, equal=0.13, published=0.1), "held"),
        (errors(single=0.12, equal=0.09, published=0.1), "did not hold"),
        (errors(single=0.12, published=0.1), "undecided"),
    ):
        made = transferred(outcome, f"t {word}", levels, joint)
        trend = the(amtfl_claim.judge({amtfl_claim.MNIST: made}), "the asymmetric network errs less")
        assert trend.word == word
        assert ("not finished: equal" in trend.evidence[0]) is (word == "undecided")


def test_negative_transfer_is_counted_by_seed_where_all_tasks_finished(tmp_path):
    made = plan(("single-task", "equal"))
    alone, both = {"left": 0.9, "right": 0.9}, {"left": 0.8, "right": 0.8}
    one = {"left": 0.8, "right": 0.95}
    with Store(tmp_path / "s", write=True) as store:
        fill(store, made, {"single-task": [alone, alone, None], "equal": [both, one, both]})
        outcome = SimpleNamespace(plan=made, findings=findings(made, store))
    assert amtfl_claim.cases_by_seed(outcome, "equal") == {0: 2, 1: 1}


def test_cases_are_counted_where_there_is_something_to_compare(outcome):
    arm = next(iter(FORMS))
    made = outcome("f", {"single-task": 0.9, "equal": ONE, arm: None})
    (table,) = amtfl_claim.figures({amtfl_claim.DRUGS: made})
    assert {name: here for name, _, here in table.rows} == {
        "equal": "1 by the means over seeds, 1 with intervals",
        arm: None,
    }


def test_what_breaks_amtfl_is_adjusted_over_all_that_its_claim_rests_on(tmp_path):
    """That the named form hurts more tasks is clear by itself, and not among three comparisons."""
    published, form = (next(arm for arm, kind in FORMS.items() if kind == which) for which in ("none", "log1p"))
    tasks = tuple("abcdefghij")
    steps = {task: 0.9 + 0.001 * (place - 4.5) for place, task in enumerate(tasks)}  # each half a step from alone
    levels = {"single-task": 0.9, "equal": steps, **dict.fromkeys(FORMS, steps)}
    noises = {"single-task": LITTLE, form: [-0.001 * more for more in (2, 1, 0, 1, 1)]}
    made = stored(tmp_path / "s", levels, noises, tasks)
    compared = amtfl_claim._compared(amtfl_claim.DRUGS, made)
    assert standing(compared["harm"]).words == {published: "worse"}
    claims = amtfl_claim.judge({amtfl_claim.DRUGS: made})
    found = the(claims, "hurts fewer tasks than equal@")
    assert found.word == "undecided"
    assert "adjusted for 3 comparisons" in found.evidence[0]

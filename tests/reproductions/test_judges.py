"""Judges on results made up for them: each claim can hold, can fail, and rests on what it says it rests on."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from steelyard.reproductions.evidence import above_zero, delta_p, delta_text, gains, one_task, standing
from steelyard.reproductions.papers import (
    amtfl_claim,
    comparison_choices,
    comparison_claim,
    db_mtl_claim,
    ema_claim,
    hydalearn_claim,
)
from steelyard.reproductions.reproduction import Experiment, Outcome
from steelyard.reproductions.run_reproduction import so_far, summarise
from steelyard.study.analysis.joint_metrics import JointValue
from steelyard.study.analysis.make_judgement import findings, judge_findings
from steelyard.study.analysis.statistics import not_worse
from steelyard.study.storage.store import Store
from study.made_up import ACCURACY, fill, plan

NOISE = (0.001, -0.001, 0.0, 0.0005, -0.0005)
SHIFTED = (-0.001, 0.0005, 0.0, 0.001, -0.0005)  # of single tasks: no difference is exactly the same in all seeds


@pytest.fixture
def outcome(tmp_path):
    """``outcome(name, {arm: accuracy of both tasks})``: five seeds; None: an arm that never finished."""

    def made(name, by_arm, tasks=("left", "right"), main=None, joint=(), problem="made-up"):
        drawn = plan(tuple(by_arm), seeds=5, metrics=tuple((task, (ACCURACY,)) for task in tasks))
        drawn = dataclasses.replace(drawn, main=main)
        values = {}
        for place, (arm, level) in enumerate(by_arm.items()):
            levels = level if isinstance(level, dict) else dict.fromkeys(tasks, level)
            noise = SHIFTED if arm == "single-task" else NOISE
            # No two arms agree exactly in all seeds: such a tie is no evidence.
            noise = [each + 1e-5 * place * (-1) ** seed for seed, each in enumerate(noise)]
            if level is not None:
                values[arm] = [{task: levels[task] + each for task in tasks} for each in noise]
        with Store(tmp_path / f"{name}.sqlite", write=True) as store:
            fill(store, drawn, values)
            found = findings(drawn, store)
        return Outcome(Experiment(name, "", problem, ",".join(by_arm)), found, judge_findings(found), joint)

    return made


def the(findings_, words):
    """The finding, at any depth, whose claim holds these words."""
    for each in findings_:
        if words in each.claim:
            return each
        if (found := the(each.parts, words)) is not None:
            return found
    return None


def test_ema_counts_its_variants_by_beta_and_its_switches_by_name():
    switch = "ema(beta=0.9,per=epoch,scale=paper,variant=to-mean)"
    said = ema_claim._names(
        ["ema(beta=0.9,scale=paper,variant=to-mean)", "ema(beta=0.99,scale=paper,variant=to-mean)", switch]
    )
    assert said == f"3 (to-mean 0.9, 0.99; {switch})"


def test_ema_is_judged_by_its_named_variant_on_every_data_set(outcome):
    others = {"single-task": 0.9, "equal": 0.8, "uw": 0.82}
    good, bad = {**others, ema_claim.NAMED: 0.9}, {**others, ema_claim.NAMED: 0.81}
    assert ema_claim.judge({"A": outcome("a", good), "B": outcome("b", good)})[0].word == "held"
    broken = ema_claim.judge({"A": outcome("a2", good), "B": outcome("b2", bad)})[0]
    assert broken.word == "did not hold"
    assert [part.word for part in broken.parts] == ["held", "did not hold"]
    assert any(line.startswith("A: of 1 variant, better than the plain sum 1") for line in broken.evidence)
    assert ema_claim.judge({"A": outcome("a3", {**good, "uw": None})})[0].word == "undecided"


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


def dual(outcome, name, **levels):
    arms = {"single-task": 0.9, "equal": 0.8, "best-fixed": 0.81, "log": 0.84, "max-norm": 0.84, "db-mtl": 0.88}
    for method in db_mtl_claim.LOGGED:
        arms[method] = 0.85 if "+" in method else 0.82
    return outcome(name, {**arms, **levels})


def test_db_mtl_can_hold_with_nash_mtl_left_as_it_is(outcome):
    claims = db_mtl_claim.judge({name: dual(outcome, name) for name in (db_mtl_claim.QM8, db_mtl_claim.OFFICE)})
    assert claims[0].word == the(claims, "Beside it, on Office + Caltech-10: the same, in all 5 parts").word == "held"
    assert the(claims, "log+nash-mtl above nash-mtl") is None
    assert set(db_mtl_claim.UNMOVED) <= set(the(claims, "The log stage in front").evidence)
    # Nothing that is judged is one arm by two names.
    for part in the(claims, "The log stage in front").parts:
        assert "+0.00" not in part.evidence[0]


@pytest.mark.parametrize(("where", "words"), [("QM8", ("did not hold", "held")), ("OFFICE", ("held", "did not hold"))])
def test_db_mtl_is_judged_on_one_benchmark_and_described_on_others(outcome, where, words):
    """It fails where one half does better alone, and that is no matter of another benchmark."""
    worse = getattr(db_mtl_claim, where)
    places = (db_mtl_claim.QM8, db_mtl_claim.OFFICE)
    claims = db_mtl_claim.judge(
        {place: dual(outcome, place, **({"log": 0.89} if place == worse else {})) for place in places}
    )
    assert tuple(each.word for each in claims[:2]) == words
    fails = claims[words.index("did not hold")].parts
    assert [part.claim for part in fails if part.word == "did not hold"] == [
        "Both halves together are above each of them"
    ]
    assert the(fails, "Dual balancing is above the plain sum").word == "held"


def test_without_its_benchmark_db_mtls_claim_is_open(outcome):
    claims = db_mtl_claim.judge({db_mtl_claim.OFFICE: dual(outcome, "o")})
    assert [each.word for each in claims[:2]] == ["undecided", "held"]


def test_db_mtl_is_not_held_of_parts_that_were_not_trained(outcome):
    few = dict.fromkeys(db_mtl_claim.LOGGED)
    arms = {"single-task": 0.9, "equal": 0.8, "log": 0.84, "max-norm": 0.84, "db-mtl": 0.88}
    places = {name: outcome(name, arms) for name in (db_mtl_claim.QM8, db_mtl_claim.NYUV2)}
    claims = db_mtl_claim.judge(places)
    assert claims[0].word == "undecided"
    assert [part.word for part in claims[0].parts] == ["held", "undecided", "held", "held", "undecided"]
    assert the(claims, "The log stage in front").evidence == ("Its arms were not trained.",)
    assert the(claims, "Beside it, on NYUv2: 3 of the 5 parts of it, whose arms are there").word == "held"
    # Planned and never finished is not held either.
    claims = db_mtl_claim.judge({db_mtl_claim.QM8: dual(outcome, "q", **few)})
    assert claims[0].word == "undecided"


def test_what_breaks_db_mtl_is_adjusted_over_all_comparisons_of_all_parts(outcome, tmp_path):
    """Of fifteen or more comparisons one that is clear by itself breaks nothing; one of a part alone would."""
    arms = dual(outcome, "q").judgement.methods
    made = plan(arms, seeds=5)
    rises = {"log": (0.0033, 0.0012, 0.0027, 0.0010, 0.0023), "single-task": (0.02, 0.0201, 0.0199, 0.02, 0.02)}
    values = {
        arm: [
            dict.fromkeys(("left", "right"), 0.88 + each + 1e-5 * place * (-1) ** (seed + place))
            for seed, each in enumerate(rises.get(arm, [0.0] * 5))
        ]
        for place, arm in enumerate(arms)
    }
    found = judged(tmp_path / "s", made, values)
    claims = db_mtl_claim.judge({db_mtl_claim.QM8: found})
    part = the(claims, "QM8: db-mtl above log")
    pairs = 1 + len(db_mtl_claim.SIX) + 2 + 2 + len(db_mtl_claim.STAGED)
    assert f"Decided alone, but not once adjusted for {pairs} comparisons." in part.evidence[0]
    assert claims[0].word == "undecided"
    # In a family of its part alone, of two, it would have broken the claim.
    halves = {half: gains(found.findings, "db-mtl", half) for half in ("log", "max-norm")}
    assert above_zero(halves).words == {"log": "worse", "max-norm": "open"}


def judged(path, made, values):
    with Store(path, write=True) as store:
        fill(store, made, values)
        found = findings(made, store)
    return Outcome(Experiment("made up", "", "made-up", ""), found, judge_findings(found))


def test_how_many_seeds_a_word_rests_on_is_said_where_some_failed(tmp_path):
    made = plan(("single-task", "equal", "log", "max-norm", "db-mtl"), seeds=5)
    levels = {"single-task": 0.9, "equal": 0.8, "log": 0.84, "max-norm": 0.84, "db-mtl": 0.88}
    values = {
        arm: [
            None
            if arm == "db-mtl" and seed < 2
            else dict.fromkeys(("left", "right"), level + each + 1e-4 * place * seed)
            for seed, each in enumerate(NOISE)
        ]
        for place, (arm, level) in enumerate(levels.items())
    }
    claims = db_mtl_claim.judge({db_mtl_claim.QM8: judged(tmp_path / "s", made, values)})
    assert "), over 3 of 5 seeds." in the(claims, "QM8: db-mtl above the plain sum").evidence[0]
    assert "seeds" not in the(claims, "QM8: log above the plain sum").evidence[0]


def test_constant_weights_which_the_paper_has_none_of_break_no_claim_of_it(outcome):
    places = (db_mtl_claim.QM8, db_mtl_claim.OFFICE)
    claims = db_mtl_claim.judge({place: dual(outcome, place, **{"best-fixed": 0.89}) for place in places})
    assert claims[0].word == "held"
    assert the(claims, "Beside the claim: it is above the best constant weights").word == "did not hold"


@pytest.mark.parametrize(("both", "word"), [(0.88, "held"), (0.84, "undecided"), (0.83, "did not hold")])
def test_the_papers_form_is_judged_by_arms_of_that_form(outcome, both, word):
    """Whatever the cheaper form does; the half that is the same in both forms is the one that there is."""
    trunk = {db_mtl_claim.AT_TRUNK["max-norm"]: 0.84, db_mtl_claim.AT_TRUNK["db-mtl"]: both}
    claims = db_mtl_claim.judge({db_mtl_claim.QM8: dual(outcome, "t", **trunk, **{"db-mtl": 0.7})})
    found = the(claims, "In the paper's form")
    assert [part.claim for part in found.parts] == [
        f"QM8, at the trunk: db-mtl above {other}" for other in ("the plain sum", "log", "max-norm")
    ]
    assert found.word == word
    assert claims[0].word == "did not hold"


def test_db_mtls_choices_are_judged_by_what_they_differ_in(outcome):
    """The common scale against its other choices; a falling β against the same one held constant."""
    choices = dict.fromkeys((*db_mtl_claim.SCALES, *db_mtl_claim.CONSTANT), 0.86) | dict.fromkeys(
        db_mtl_claim.DECAYING[:-1], 0.84
    )
    made = outcome("c", {"single-task": 0.9, "equal": 0.8, "log": 0.8, "max-norm": 0.8, "db-mtl": 0.88, **choices})
    claims = db_mtl_claim.judge({db_mtl_claim.QM8: made})
    assert the(claims, "The largest norm as common scale").word == "held"
    fading = the(claims, "A β that falls")
    assert [part.word for part in fading.parts] == ["did not hold", "did not hold", "held"]
    assert any(figures.title == "The choice of β: QM8" for figures in db_mtl_claim.figures({db_mtl_claim.QM8: made}))


def test_comparison_counts_each_weighting_once(outcome):
    """`best-fixed` may be the plain sum once more, and is no weighting of the claim."""
    arms = {"single-task": 0.9, "equal": 0.8, "best-fixed": 0.8, "dwa": 0.8, "uw": 0.95}
    typical = the(comparison_claim.judge({"A": outcome("a", arms)}), "Sharing typically does not improve")
    # All seeds agree, and a share of six cases is known to a step over √6: its interval is the one that is tested.
    assert typical.evidence[0] == "In the mean over 1 pair 33 % of a pair's cases improve (25 to 42 %, over 5 seeds)."
    assert typical.evidence[1] == "By pair, over all its seeds: A 33 %."
    assert typical.evidence[2].startswith("Verdicts on 6 cases: 2 gain, 0 no difference, 4 negative transfer")
    assert typical.word == "held"
    most = outcome("b", {**arms, "dwa": 0.95})
    assert the(comparison_claim.judge({"B": most}), "Sharing typically does not improve").word == "did not hold"
    # What no verdict can tell still improves or does not: by seed, about as often.
    close = outcome("c", dict.fromkeys(arms, 0.9))
    assert the(comparison_claim.judge({"C": close}), "Sharing typically does not improve").word == "undecided"


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
    assert the(found, "The opposite").word == "did not hold"  # of every pair: one is enough


def test_typical_is_the_mean_over_pairs_however_many_amounts_one_has(outcome):
    """Of four pairs three gain everywhere: what the fourth does counts once."""
    gains = {"single-task": 0.8, "equal": 0.9, "dwa": 0.9, "uw": 0.9}
    loses = {"single-task": 0.95, "equal": 0.9, "dwa": 0.9, "uw": 0.9}
    outcomes = {name: outcome(name, loses if name == "L" else gains) for name in "LABC"}
    typical = the(comparison_claim.judge(outcomes), "Sharing typically does not improve")
    assert typical.evidence[0].startswith("In the mean over 4 pairs 75 % of a pair's cases improve")
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
    assert len(the(claims, "The opposite").parts) == 3
    helped = the(claims, "many labels of right help left")
    assert helped.word == "held"
    assert [part.claim for part in helped.parts] == [
        f"{arm}: left is better than alone" for arm in ("equal", "dwa", "uw")
    ]


FORMS = dict(zip(amtfl_claim.arms("labels"), ("none", "data", "log1p", "detached", "alpha=0"), strict=True))


def transferred(outcome, name, levels, joint=()):
    arms = {arm: levels[form] for arm, form in FORMS.items()}
    return outcome(name, {"single-task": 0.9, "equal": 0.85, **arms}, joint=joint)


def test_the_published_arm_and_the_named_form_have_to_hurt_fewer_tasks(outcome):
    good = dict.fromkeys(FORMS.values(), 0.95)
    claims = amtfl_claim.judge({amtfl_claim.DRUGS: transferred(outcome, "g", {**good, "log1p": 0.96})})
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


def test_the_price_of_transfer_is_judged_by_the_arm_without_it(outcome):
    levels = dict.fromkeys(FORMS.values(), 0.9)
    claims = amtfl_claim.judge(
        {amtfl_claim.DRUGS: transferred(outcome, "p", {**levels, "none": 0.94, "alpha=0": 0.92})}
    )
    assert the(claims, "It is the price").word == "held"
    assert the(claims, "A learnt uncertainty").word == "did not hold"
    # Beside Δm stands the count of hurt tasks, as the abstract has it, and the other forms.
    delta_m, hurt, others = the(claims, "is not shown to hurt more tasks").evidence
    published, form = (next(arm for arm, kind in FORMS.items() if kind == which) for which in ("none", "log1p"))
    assert delta_m.startswith(f"{form}, against 1 arm: worse than 1 ({published} ")
    assert hurt.startswith(f"By the share of tasks that are hurt, {form}, against 1 arm: ")
    assert others.startswith(f"Beside it, {published}, against 2 arms: better than 2 (")


@pytest.mark.parametrize(
    ("levels", "word"),
    [
        ({"log1p": 0.97}, "held"),
        ({"data": 0.97}, "undecided"),  # another form is no answer for the one that was named
        ({"data": 0.97, "log1p": 0.93}, "did not hold"),
        # Better in the mean, and both tasks of the other are better than alone: one of its own is not.
        ({"log1p": {"left": 0.999, "right": 0.85}}, "did not hold"),
    ],
)
def test_the_learnt_uncertainty_is_asked_of_the_named_form(outcome, levels, word):
    levels = {**dict.fromkeys(FORMS.values(), 0.95), **levels}
    claims = amtfl_claim.judge({amtfl_claim.DRUGS: transferred(outcome, "u", levels)})
    found = the(claims, "is not shown to hurt more tasks")
    assert found.word == word
    assert the(claims, "A learnt uncertainty").word == word
    assert claims[0].word == ("did not hold" if word == "did not hold" else word)


def test_the_price_is_broken_by_all_that_it_rests_on_together(outcome):
    """A test error that would break it by itself, and does not among what stands beside it."""
    arms = list(FORMS)
    levels = {**dict.fromkeys(FORMS.values(), 0.94), "alpha=0": 0.94}
    errors = {arms[0]: 0.1212, arms[-1]: 0.12}
    joint = tuple(
        JointValue("test error", True, arm, 0, {seed: level + each * (place + 1) for seed, each in enumerate(NOISE)})
        for place, (arm, level) in enumerate(errors.items())
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
        joint = tuple(
            JointValue("test error", True, arm, 0, {seed: level + each for seed, each in enumerate(NOISE)})
            for arm, level in errors.items()
        )
        made = transferred(outcome, f"price {word}", levels, joint)
        claims = amtfl_claim.judge({amtfl_claim.MNIST: made})
        assert the(claims, "so it is by the test error").word == the(claims, "It is the price").word == word


def test_the_trend_of_test_errors_waits_for_arms_that_are_missing(outcome):
    def errors(**by_arm):
        names = {"single": "single-task", "published": next(iter(FORMS)), "equal": "equal"}
        return tuple(
            JointValue("test error", True, names[arm], 0, {k: level + each for k, each in enumerate(NOISE)})
            for arm, level in by_arm.items()
        )

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


def test_delta_p_is_of_values_and_delta_m_of_errors(outcome):
    made = outcome("d", {"single-task": 0.8, "equal": 0.88})
    assert delta_p(made, "equal").startswith("+10.00")  # .88 in place of .8
    assert delta_text(made, "equal").startswith("+40.00")  # an error of .12 in place of .2


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


def test_negative_transfer_is_counted_by_seed_where_all_tasks_finished(tmp_path):
    made = plan(("single-task", "equal"))
    alone, both = {"left": 0.9, "right": 0.9}, {"left": 0.8, "right": 0.8}
    one = {"left": 0.8, "right": 0.95}
    with Store(tmp_path / "s", write=True) as store:
        fill(store, made, {"single-task": [alone, alone, None], "equal": [both, one, both]})
        outcome = SimpleNamespace(plan=made, findings=findings(made, store))
    assert amtfl_claim.cases_by_seed(outcome, "equal") == {0: 2, 1: 1}


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


def stored(path, levels, noises, tasks=("left", "right"), base=0.9):
    """Arms at a level by task, each with a noise of its own by seed."""
    made = plan(tuple(levels), seeds=len(next(iter(noises.values()))), metrics=tuple((t, (ACCURACY,)) for t in tasks))
    values = {
        arm: [
            {task: (level[task] if isinstance(level, dict) else level) + each for task in tasks}
            for each in noises.get(arm, [0.0] * len(made.seeds))
        ]
        for arm, level in levels.items()
    }
    return judged(path, made, values)


DRAWN = np.array([1.2, -0.9, 0.6, -1.1, 0.2])  # of deviation one
CLEAR_ALONE = 3.3 * DRAWN.std(ddof=1) / 5**0.5  # a mean of so many deviations has p = 0.03 by itself
LITTLE = (1e-5, -1e-5, 2e-5, -2e-5, 0.0)


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


def test_a_choice_is_adjusted_over_all_pairs_and_weightings(tmp_path):
    """Each of these is less than a point worse by itself, at 5 %, and one of eighteen is so by chance."""
    noises = {arm: [0.0012 * each for each in (1.0, -0.9, 0.4, -0.6, 0.1)] for arm in comparison_choices.WEIGHTINGS}
    close = {"single-task": 0.9, **dict.fromkeys(comparison_choices.WEIGHTINGS, 0.9 + 0.0001)}
    worse = {"single-task": 0.9, **dict.fromkeys(comparison_choices.WEIGHTINGS, 0.8)}
    outcomes = {"close": stored(tmp_path / "c", close, noises), "worse": stored(tmp_path / "w", worse, noises)}
    sample = comparison_choices.changes(outcomes)["close", "equal"]
    p = not_worse(sample, 0.01)
    assert 0.05 / 6 < p < 0.05
    claims = comparison_claim.judge(outcomes)
    assert the(claims, "The choice of the pair").word == "undecided"


def test_what_breaks_amtfl_is_adjusted_over_all_that_its_claim_rests_on(tmp_path):
    """That the named form is worse is clear by itself, and not among four comparisons, three of which say nothing."""
    published, form = (next(arm for arm, kind in FORMS.items() if kind == which) for which in ("none", "log1p"))
    # All hurt both tasks in all seeds.
    levels = {"single-task": 0.91, "equal": 0.9, **dict.fromkeys(FORMS, 0.9)}
    noises = dict.fromkeys(levels, LITTLE) | {form: -0.0008 * (1 + DRAWN / CLEAR_ALONE)}
    made = stored(tmp_path / "s", levels, noises)
    compared = amtfl_claim._compared(made)
    assert standing(compared["better"]).words == {published: "worse"}
    claims = amtfl_claim.judge({amtfl_claim.DRUGS: made})
    found = the(claims, "is not shown to hurt more tasks")
    assert found.word == "undecided"
    assert "adjusted for 4 comparisons" in found.evidence[0]

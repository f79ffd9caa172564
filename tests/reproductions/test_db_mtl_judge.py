"""The judge of `db-mtl`, on results made up for it: each part can hold, can fail, and rests on what it names."""

import dataclasses

import pytest

from reproductions.made_up_outcomes import NOISE, SHIFTED, judged, the
from steelyard.reproductions.evidence import above_zero, gains
from steelyard.reproductions.papers import db_mtl_claim
from study.made_up import RMSE, plan


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


def test_delta_p_of_qm8_is_of_the_papers_metric_alone(tmp_path):
    """Its R² may be near zero: here it falls to a half, and the MAE is 10 % better."""
    metrics = (
        dataclasses.replace(RMSE, name="R²", higher_is_better=True, ideal=1.0),
        dataclasses.replace(RMSE, name="MAE"),
    )
    arms = ("single-task", "equal", *db_mtl_claim.HALVES)
    made = plan(arms, seeds=5, metrics=(("one", metrics), ("two", metrics)))
    values = {
        arm: [dict.fromkeys(("one", "two"), (r_squared + each, mae + each)) for each in noise]
        for arm, r_squared, mae, noise in (
            ("single-task", 0.02, 0.50, SHIFTED),
            ("equal", 0.02, 0.50, NOISE),
            ("db-mtl", 0.01, 0.45, NOISE),
        )
    }
    outcomes = {db_mtl_claim.QM8: judged(tmp_path / "q", made, values)}
    said = the(db_mtl_claim.judge(outcomes), "QM8: db-mtl above the plain sum").evidence[0]
    assert "In Δp of MAE: +10" in said, said
    table = db_mtl_claim.figures(outcomes)[0]
    assert table.heads == ("arm", "paper, Δp, %", "here, Δp, %")
    assert table.rows[-1][2].startswith("+10.0")
    assert "the MAE alone" in table.note

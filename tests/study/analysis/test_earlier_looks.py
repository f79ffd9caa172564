"""Seeds that were added after a look: when a report says so, and what it says."""

import dataclasses
import sqlite3
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from steelyard.errors import DamagedStoreError
from steelyard.study import judge
from steelyard.study.analysis.earlier_looks import EarlierLooks, earlier_looks, false_after, look_note
from steelyard.study.analysis.make_judgement import judge_plan
from steelyard.study.analysis.statistics import interval
from steelyard.study.planning.plan import Plan
from steelyard.study.storage.store import Store
from steelyard.study.trial import Failed
from study.made_up import plan, result, version_1

START = datetime(2100, 1, 1, tzinfo=timezone.utc)  # after all that a test writes now
NONE = EarlierLooks()


def made(seeds, hour=0, **given):
    """A plan of so many seeds, or of these, made so many hours after the start."""
    drawn = dataclasses.replace(plan(**given), seeds=tuple(range(seeds) if isinstance(seeds, int) else seeds))
    return dataclasses.replace(drawn, created=(START + timedelta(hours=hour)).isoformat())


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s.sqlite", write=True) as opened:
        yield opened


def carried_out(store, *plans):
    """Each is made, and done before the next is made."""
    random = np.random.default_rng(3)
    for each in plans:
        store.add_plan(each.to_dict())
        for trial in store.unfinished(each.trials, each.also):
            store.add_result(trial, result(dict.fromkeys(trial.tasks, float(random.normal(0.9, 0.01)))))
    return plans[-1]


def test_seeds_that_were_judged_before_are_said(store):
    first, second = made(3), made(7, hour=1)
    carried_out(store, first, second)
    [note] = [each for each in judge_plan(second, store).notes if "judged before" in each]
    assert note == (
        "3 of these 7 seeds were judged before. Unless their number was fixed beforehand this is another look: who "
        "adds seeds where a study decides nothing is told something false in about 9 of 100 studies with nothing "
        "there, at one look or another, in place of 5"
    )
    assert judge(store.path).notes[-1] == note
    assert not any("judged before" in each for each in judge(store.path, plan=1).notes)  # the first was the first


def test_arms_that_come_with_the_seeds_were_not_judged_before(store):
    second = carried_out(store, made(3), made(7, hour=1, methods=("single-task", "equal", "uw")))
    assert earlier_looks(second, store) == EarlierLooks((3,), 2)
    assert look_note(second, EarlierLooks((3,), 2))[0].startswith(
        "3 of these 7 seeds were judged before, under 2 of 3 arms."
    )


def test_arms_of_several_plans_of_the_same_seeds_were_all_judged(store):
    pairs = [made(3, hour=hour, methods=("single-task", arm)) for hour, arm in enumerate(("equal", "uw"))]
    last = carried_out(store, *pairs, made(7, hour=2, methods=("single-task", "equal", "uw", "dwa")))
    assert earlier_looks(last, store) == EarlierLooks((3,), 3)


def test_every_look_is_a_chance(store):
    third = carried_out(store, made(2), made(5, hour=1), made(10, hour=2))
    assert earlier_looks(third, store) == EarlierLooks((2, 5), 2)
    said = f"about {100 * false_after([2, 5, 10]):.0f} of 100"
    note = judge_plan(third, store).notes[-1]
    assert said in note
    assert note.startswith("5 of these 10 seeds were judged before. ")
    assert said not in look_note(third, EarlierLooks((2,), 2))[0]


@pytest.mark.parametrize(
    "earlier",
    [
        made(3, hour=2),  # not earlier
        made(3, hour=1),  # nor at the same moment
        made(5),  # the same seeds
        made(1),  # of one seed there is no interval
        made((5, 6, 7)),
        made((3, 4, 5)),  # one of them is not among the five
        dataclasses.replace(made(3), epochs=3),
        dataclasses.replace(made(3), problem="another", identity="another"),
        made(3, methods=("single-task", "uw")),  # one arm in common compares nothing
    ],
    ids=["later", "then", "same", "one", "others", "overlap", "epochs", "problem", "arm"],
)
def test_what_is_no_look_at_the_same_question(store, earlier):
    second = made(5, hour=1)
    carried_out(store, earlier, second)
    assert earlier_looks(second, store) == NONE


def test_arms_of_one_method_are_several(store):
    arms = {"methods": ("equal", "equal@cross-stitch")}
    second = carried_out(store, made(3, **arms), made(5, hour=1, **arms))
    assert earlier_looks(second, store) == EarlierLooks((3,), 2)


def test_seeds_of_several_machines_are_no_looks(store):
    """A study that was divided is brought together: no plan's seeds are around another's."""
    whole = carried_out(store, made((0, 1)), made((2, 3), hour=1), made(4, hour=2))
    assert earlier_looks(whole, store) == NONE


def test_a_command_that_is_given_again_is_no_new_plan(store):
    """Ten seeds, then five of them, then the ten again: all ten came first."""
    again = dataclasses.replace(made(10, hour=2), command="given again", versions={"steelyard": "1"})
    carried_out(store, made(10), made(5, hour=1), again)
    assert earlier_looks(again, store) == NONE
    # Of five that were asked twice, before ten, the first time counts.
    last = carried_out(store, made(12, hour=3))
    assert earlier_looks(last, store) == EarlierLooks((5, 10), 2)


def test_moments_are_compared_and_not_their_letters(store):
    first = dataclasses.replace(made(3), created="2100-01-01T12:00:00+05:00")
    second = dataclasses.replace(made(5), created="2100-01-01T08:00:00+00:00")  # an hour later
    carried_out(store, first, second)
    assert earlier_looks(second, store) == EarlierLooks((3,), 2)
    assert earlier_looks(first, store) == NONE


def test_a_plan_that_was_not_done_was_not_judged(store):
    first, second = made(3), made(5, hour=1)
    for each in (first, second):
        store.add_plan(each.to_dict())
    for trial in second.trials:
        if trial.method != "equal":
            store.add_result(trial, result(dict.fromkeys(trial.tasks, 0.9)))
    assert earlier_looks(second, store) == NONE
    for trial in second.trials:
        if trial.method == "equal":  # a network that failed is one that had ended
            store.add_failure(trial, Failed("ValueError: no", "Traceback"))
    assert earlier_looks(second, store) == EarlierLooks((3,), 2)


def test_a_plan_that_was_stopped_and_done_by_a_later_one_was_not_judged(store):
    past = [dataclasses.replace(made(seeds), created=f"2026-01-0{seeds}T00:00:00+00:00") for seeds in (3, 5)]
    carried_out(store, *past)  # all of it is written now
    assert earlier_looks(past[1], store) == NONE


def test_trials_that_were_taken_from_other_code_were_judged_with_it(store):
    first = dataclasses.replace(made(3), identity="made-up@old")
    second = dataclasses.replace(made(5, hour=1), identity="made-up@new")
    carried_out(store, first, second)
    assert earlier_looks(second, store) == NONE  # trained anew
    third, fourth = (
        dataclasses.replace(made(seeds, hour=seeds), identity="made-up@newest", also=(first.trials[0].problem,))
        for seeds in (4, 6)
    )
    carried_out(store, third, fourth)
    assert earlier_looks(third, store) == EarlierLooks((3,), 2)
    assert earlier_looks(fourth, store) == EarlierLooks((3, 4), 2)  # three of the four were not trained anew


def test_what_cannot_be_read_is_no_reason_for_no_report(tmp_path):
    path = tmp_path / "old.sqlite"
    with Store(path, write=True) as opened:
        second = carried_out(opened, made(3), made(5, hour=1))
        expected = judge_plan(second, opened).verdict
    version_1(path)  # which has no checksums
    kept = stored_plans(path)[0]
    for content in (
        "{oops",
        "[1]",
        "{}",
        kept.replace('"seeds": [0, 1, 2]', '"seeds": [{}]'),
        kept.replace(made(3).created, "0001-01-01T00:00:00"),
    ):
        assert content != kept
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE plan SET content = ? WHERE rowid = (SELECT min(rowid) FROM plan)", (content,))
        connection.close()
        for salvage in (False, True):
            assert judge(path, salvage=salvage).verdict == expected


def stored_plans(path):
    with sqlite3.connect(path) as connection:
        found = [content for (content,) in connection.execute("SELECT content FROM plan ORDER BY rowid")]
    connection.close()
    return found


def test_a_plan_of_no_time_is_damaged():
    with pytest.raises(DamagedStoreError):
        Plan.from_dict({**made(3).to_dict(), "created": "0001-01-01T00:00:00"})


@pytest.mark.parametrize("looks", [(3,), (5,), (3, 5), (5, 10), (3, 4), (3, 5, 10)])
def test_chances_are_those_of_the_printed_intervals(looks):
    random = np.random.default_rng(11)
    studies, decided = 3000, 0
    for values in random.standard_normal((studies, max(looks))):
        shown = [interval(values[:seeds]) for seeds in looks]
        decided += any(each.low > 0 or each.high < 0 for each in shown)
    expected = false_after(looks)
    assert abs(decided / studies - expected) < 4 * (expected / studies) ** 0.5
    if len(looks) == 1:
        assert expected == pytest.approx(0.05, abs=0.002)


def test_a_study_of_many_questions_has_about_as_many_chances():
    for looks in ((5,), (3, 10), (5, 1000)):
        assert false_after(looks, questions=10) == pytest.approx(false_after(looks), abs=0.012)

"""Seeds that were added after a look: when a report says so, and how many chances a question has had."""

import dataclasses

import numpy as np
import pytest

from steelyard.study import judge
from steelyard.study.analysis.earlier_looks import earlier_looks, false_after
from steelyard.study.analysis.make_judgement import judge_plan
from steelyard.study.analysis.statistics import interval
from steelyard.study.storage.store import Store
from steelyard.study.trial import Failed
from study.made_up import fill, plan, result

EARLY, NOW, LATE = "2026-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00", "2100-01-02T00:00:00+00:00"
BOTH = ("single-task", "equal")


def levels(seeds, methods=BOTH):
    random = np.random.default_rng(3)
    drawn = random.normal(0.9, 0.01, (len(methods), seeds, 2))
    return {method: [{"left": a, "right": b} for a, b in drawn[place]] for place, method in enumerate(methods)}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s.sqlite", write=True) as opened:
        yield opened


def made(seeds, created=NOW, **given):
    found = plan(seeds=seeds, **given)
    return dataclasses.replace(found, created=created)


def test_seeds_that_were_judged_before_are_said(store):
    first, second = made(3), made(7, LATE)
    for each in (first, second):
        store.add_plan(each.to_dict())
    fill(store, second, levels(7))
    [note] = [each for each in judge_plan(second, store).notes if "judged before" in each]
    assert note == (
        "3 of these 7 seeds were judged before. A question for which seeds were added until it was decided has had two "
        "chances: of such, 9 in 100 are decided with nothing there, in place of 5. The new seeds are a study of their "
        "own: --seeds 3,4,5,6"
    )
    assert not earlier_looks(first, store)  # the first was first
    # By the command's way, too; and two new seeds are no study.
    store.add_plan((third := made(5, LATE)).to_dict())
    assert judge(store.path).notes[-1].endswith("in place of 5")
    assert earlier_looks(third, store) == [first.seeds]


def test_several_looks_are_several_chances(store):
    for seeds in (2, 5, 3, 3):
        store.add_plan(made(seeds).to_dict())
    last = made(10, LATE)
    store.add_plan(last.to_dict())
    fill(store, last, levels(10))
    assert [len(seeds) for seeds in earlier_looks(last, store)] == [2, 3, 5]
    assert "has had four chances" in judge_plan(last, store).notes[-1]


@pytest.mark.parametrize(
    "earlier",
    [
        made(3, LATE),  # not earlier
        made(5),  # the same seeds
        made(1),  # of one seed there is no interval
        dataclasses.replace(made(3), seeds=(5, 6, 7)),
        dataclasses.replace(made(3), epochs=3),
        dataclasses.replace(made(3), problem="another", identity="another"),
        made(3, methods=("single-task", "uw")),  # one arm in common compares nothing
    ],
    ids=["later", "same", "one", "others", "epochs", "problem", "arm"],
)
def test_what_is_no_look_at_the_same_question(store, earlier):
    second = made(5, LATE if earlier.created == NOW else NOW)
    for each in (earlier, second):
        store.add_plan(each.to_dict())
        for trial in each.trials:
            store.add_result(trial, result(dict.fromkeys(trial.tasks, 0.9)))
    assert earlier_looks(second, store) == []


def test_a_plan_that_was_not_done_was_not_judged(store):
    first, second = made(3), made(5, LATE)
    for each in (first, second):
        store.add_plan(each.to_dict())
    values = levels(5)
    fill(store, second, {"single-task": values["single-task"]})
    assert earlier_looks(second, store) == []
    # A network that failed is one that had ended.
    for seed in range(5):
        for trial in second.trials_of("equal", 0, seed):
            store.add_failure(trial, Failed("ValueError: no", "Traceback"))
    assert earlier_looks(second, store) == [first.seeds]
    # Its trials were trained by the later one: it had been stopped before.
    second = dataclasses.replace(second, created=EARLY)
    first = dataclasses.replace(first, created="2025-12-31T00:00:00+00:00")
    store.add_plan(first.to_dict())
    assert earlier_looks(second, store) == []


@pytest.mark.parametrize("looks", [(3,), (5,), (3, 5), (5, 10), (3, 5, 10)])
def test_chances_are_those_of_the_printed_intervals(looks):
    random = np.random.default_rng(11)
    studies, decided = 3000, 0
    for values in random.standard_normal((studies, max(looks))):
        shown = [interval(values[:seeds]) for seeds in looks]
        decided += any(each.low > 0 or each.high < 0 for each in shown)
    expected = false_after(looks)
    assert abs(decided / studies - expected) < 4 * (expected / studies) ** 0.5
    if len(looks) == 1:
        assert expected == pytest.approx(0.05, abs=0.001)

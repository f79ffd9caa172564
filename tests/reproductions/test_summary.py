"""What a summary says of a reproduction that is not complete."""

import dataclasses
from types import SimpleNamespace

import pytest

from steelyard.reproductions.reproduction import Experiment, Finding, Outcome
from steelyard.reproductions.run_reproduction import summarise, work_of
from steelyard.reproductions.summary import Summary
from steelyard.study.analysis.earlier_looks import EarlierLooks
from steelyard.study.analysis.make_judgement import findings, judge_findings
from steelyard.study.storage.store import Store
from study.made_up import fill, plan
from study.made_up import result as made_result

RIGHT = {"left": 0.9, "right": 0.8}


def summary(path, made, values, studies=1):
    with Store(path, write=True) as store:
        for setting in range(len(made.settings)):
            fill(store, made, values, setting=setting)
        found = findings(made, store)
    outcome = SimpleNamespace(findings=found, judgement=judge_findings(found))
    return Summary(SimpleNamespace(name="x"), "real", "", (None,) * studies, (outcome,), (), (), 0.0)


@pytest.mark.parametrize(
    ("plain_sum", "studies", "gap", "progress"),
    [
        ([RIGHT] * 3, 1, "", "1 of 1 studies, 9 of 9 trials of these."),
        ([RIGHT] * 2, 1, "Unfinished", "1 of 1 studies, 8 of 9 trials of these."),
        ([RIGHT, RIGHT, None], 1, "Not all trials succeeded", "1 of 1 studies, 8 of 9 trials of these, 1 failed."),
        ([RIGHT, RIGHT, None], 2, "Unfinished", "1 of 2 studies, 8 of 9 trials of these, 1 failed."),
    ],
)
def test_trials_that_failed_are_not_waited_for(tmp_path, plain_sum, studies, gap, progress):
    found = summary(tmp_path / "s", plan(), {"single-task": [RIGHT] * 3, "equal": plain_sum}, studies)
    assert (found.gap, found.progress) == (gap, progress)
    assert found.complete == (not gap)


def test_a_failed_trial_of_two_settings_counts_once(tmp_path):
    """The left digit alone is one trial, whatever the right one's amount: it hides nothing that is waiting."""
    made = plan(settings=2)
    uneven = [{"left": 1.0, "right": 0.5}, {"left": 1.0, "right": 1.0}]
    settings = tuple(
        dataclasses.replace(each, fractions=given) for each, given in zip(made.settings, uneven, strict=True)
    )
    made = dataclasses.replace(made, settings=settings)
    found = summary(tmp_path / "s", made, {"single-task": [RIGHT, RIGHT, None], "equal": [RIGHT] * 2})
    assert found.progress == "1 of 1 studies, 10 of 15 trials of these, 3 failed."
    assert found.gap == "Unfinished"


def test_the_headline_names_the_parts_that_are_decided(tmp_path):
    found = summary(tmp_path / "s", plan(), {"single-task": [RIGHT] * 3})
    words = ("held", "undecided", "did not hold", "held")
    parts = tuple(Finding(f"Part {number}", word) for number, word in enumerate(words))
    found = dataclasses.replace(found, findings=(Finding("All", "did not hold", parts=parts), Finding("Else", "held")))
    assert found.decided == "Held: “Part 0”, “Part 3”. Did not hold: “Part 2”."
    assert dataclasses.replace(found, findings=(Finding("One", "held"),)).decided == ""
    assert dataclasses.replace(found, planned=(None, None)).decided == ""  # a study is still missing


@pytest.mark.parametrize(("studies", "words"), [(1, ("held", "held", "held")), (2, ("undecided", "undecided", "held"))])
def test_while_studies_are_missing_nothing_is_held_of_all_of_them(tmp_path, studies, words):
    """What was found at one place stands, and what broke stays broken."""
    place, broken = Finding("At one place", "held"), Finding("Broken", "did not hold", parts=(Finding("Here", "held"),))
    claim = Finding("Everywhere", "held", parts=(Finding("By one method", "held", parts=(place,)),))
    outcome = summary(tmp_path / "s", plan(), {"single-task": [RIGHT] * 3}).outcomes[0]
    outcome = Outcome(Experiment("One", "", "digits", "single-task"), outcome.findings, outcome.judgement)
    made = SimpleNamespace(judge=lambda outcomes: [claim, broken], figures=lambda outcomes: [])
    found = summarise(made, "real", [outcome], (outcome.experiment,) * studies, 0.0, "")
    [by_one] = found.findings[0].parts
    assert (found.findings[0].word, by_one.word, by_one.parts[0].word) == words
    assert found.findings[1].word == "did not hold"


@pytest.mark.parametrize(
    ("moments", "said"),
    [((), ""), ((0.0,), "1970-01-01"), ((0.0, 86_399.0), "1970-01-01"), ((86_400.0, 5.0), "1970-01-01 to 1970-01-02")],
)
def test_it_says_on_which_days_its_trials_were_trained(tmp_path, moments, said):
    found = summary(tmp_path / "s", plan(), {"single-task": [RIGHT] * 3})
    trained = {place: SimpleNamespace(written=moment) for place, moment in enumerate(moments)}
    [outcome] = found.outcomes
    outcome = Outcome(None, dataclasses.replace(outcome.findings, trained=trained), outcome.judgement)
    found = dataclasses.replace(found, outcomes=(outcome,))
    assert found.dates == said
    counted = "6 trials: 0.0 s of training, counted on one core"
    assert found.time_text == (f"{counted}, {said}" if said else counted)


def test_training_is_counted_in_time_that_processors_worked():
    """A machine that was busy elsewhere made no training longer."""
    results = {place: SimpleNamespace(work=each) for place, each in enumerate((2.0, 3.5))}
    assert work_of(results) == 5.5
    waited = dataclasses.replace(made_result({"left": 0.9}, seconds=10.0), processor_seconds=4.0)
    assert work_of({0: waited, 1: made_result({"left": 0.9}, seconds=10.0)}) == 14.0  # one that nobody counted


def test_looks_at_some_of_the_seeds_are_a_caution(tmp_path):
    found = summary(tmp_path / "s", plan(seeds=5), {"single-task": [RIGHT] * 5})
    [outcome] = found.outcomes
    looked = dataclasses.replace(outcome.findings, looks=EarlierLooks((3,), 2))
    outcome = Outcome(Experiment("One", "", "digits", "single-task"), looked, outcome.judgement)
    [said] = [each for each in dataclasses.replace(found, outcomes=(outcome,)).cautions if "judged before" in each]
    assert said.startswith("One: 3 of these 5 seeds were judged before. ")
    assert said.endswith(" in place of 5.")


@pytest.mark.parametrize(("device", "said"), [("cpu", True), ("cuda", False)])
def test_time_of_another_device_is_not_of_one_core(tmp_path, device, said):
    made = dataclasses.replace(plan(), device=device)
    found = summary(tmp_path / "s", made, {"single-task": [RIGHT] * 3})
    [outcome] = found.outcomes
    outcome = Outcome(None, outcome.findings, outcome.judgement)
    assert ("counted on one core" in dataclasses.replace(found, outcomes=(outcome,)).time_text) == said

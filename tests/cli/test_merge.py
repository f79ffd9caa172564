"""`steelyard merge` and `steelyard report --trials` as a user types them."""

import dataclasses
from pathlib import Path

from steelyard.study.planning.plan import Plan
from steelyard.study.storage.store import Store
from study import made_up
from study.storage.test_damage import values


def filled(path, seeds):
    """A store of a plan of three seeds, in which those of these seeds are finished."""
    plan = made_up.plan()
    with Store("drawn.sqlite", write=True) as drawn:
        made_up.fill(drawn, plan, values())
        results = drawn.results(plan.trials)
    with Store(path, write=True) as store:
        store.add_plan(plan.to_dict())
        for trial, result in results.items():
            if trial.seed in seeds:
                store.add_result(trial, result)


def test_what_is_sent_as_text_and_what_is_here_are_one_study(run):
    run("--version")  # into the folder
    seeds = made_up.plan().seeds
    filled("here.sqlite", seeds[:1])
    filled("there.sqlite", seeds[1:])
    code, out, err = run("report", "there.sqlite", "--trials", "there.jsonl.xz")
    assert code == 0, err
    assert out.endswith("Written: there.jsonl.xz\n")
    code, out, err = run("merge", "all.sqlite", "here.sqlite", "there.jsonl.xz")
    assert (code, err) == (0, "")
    assert out == (
        "here.sqlite: 3 trials and 1 plan taken\n"
        "there.jsonl.xz: 6 trials and 0 plans taken\n"
        "`steelyard report all.sqlite` judges the latest study of it; the command of a study goes on with what is "
        "missing.\n"
    )
    with Store("all.sqlite") as store:
        assert not store.unfinished(Plan.from_dict(store.latest_plan()).trials)
    assert "6 there already" in run("merge", "all.sqlite", "there.sqlite")[1]


def test_other_values_are_said(run):
    run("--version")
    seeds = made_up.plan().seeds
    for path, steps in (("here.sqlite", 10), ("there.sqlite", 11)):
        filled(path, seeds)
        with Store(path, write=True) as store:
            trial, result = next(iter(store.results(made_up.plan().trials).items()))
            store.add_result(trial, dataclasses.replace(result, steps=steps))
    code, out, err = run("merge", "here.sqlite", "there.sqlite")
    assert code == 0
    assert out.startswith("there.sqlite: 0 trials and 0 plans taken, 8 there already\n")
    assert err.startswith(
        "Warning: 1 trial of there.sqlite had other values than the same in here.sqlite, which are kept"
    )


def test_a_line_for_each_row(run):
    run("--version")
    filled("here.sqlite", made_up.plan().seeds)
    code, _, err = run("report", "here.sqlite", "--trials", "here.jsonl")
    assert code == 0, err
    assert Path("here.jsonl").read_text().count("\n") == 1 + 1 + 9 + 1  # head, plan, trials, end


def test_short_curves(run):
    run("--version")
    filled("here.sqlite", made_up.plan().seeds)
    for options in (["--trials", "whole.jsonl"], ["--trials", "short.jsonl", "--short-curves"]):
        code, _, err = run("report", "here.sqlite", *options)
        assert code == 0, err
    assert Path("short.jsonl").stat().st_size < Path("whole.jsonl").stat().st_size
    code, out, err = run("merge", "here.sqlite", "short.jsonl")
    assert (code, out.splitlines()[0], err) == (
        0,
        "short.jsonl: 0 trials and 0 plans taken, 9 there already",
        "",
    )
    code, _, err = run("report", "here.sqlite", "--short-curves")
    assert code == 2
    assert "--short-curves: of which file? Name one with --trials" in err

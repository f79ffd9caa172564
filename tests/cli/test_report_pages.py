"""`steelyard report` writes a page of its own where that beside the store is another command's, or another plan's."""

import dataclasses

import pytest

from steelyard.study.planning.command_again import is_comparison
from steelyard.study.storage.store import Store
from steelyard.study.trial import SINGLE_TASK
from study import made_up

COMMANDS = {
    "": "s.html",
    "study.compare": "s.html",
    "steelyard compare digits": "s.html",
    "steelyard compare digits -- python group.py": "s.html",
    "steelyard group digits": "s-study.html",
    "steelyard reproduce ema": "s-study.html",
    "steelyard leaderboard": "s-study.html",
}


def filled(path, command, seeds=3):
    plan = dataclasses.replace(made_up.plan(seeds=seeds), command=command)
    values = {
        name: [{"left": 0.5 + seed / 50, "right": 0.7} for seed in range(seeds)] for name in (SINGLE_TASK, "equal")
    }
    with Store(path, write=True) as store:
        store.add_plan(plan.to_dict())
        made_up.fill(store, plan, values)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_is_named_after_what_the_store_was_filled_by(run, tmp_path, command):
    filled(tmp_path / "s.sqlite", command)
    code, out, err = run("report", "s.sqlite")
    assert code == 0, err
    assert [file.name for file in tmp_path.glob("*.html")] == [COMMANDS[command]]
    assert f"Page: {COMMANDS[command]}" in out
    assert is_comparison(command) == (COMMANDS[command] == "s.html")


def test_an_earlier_plan_does_not_take_the_place_of_the_latest(run, tmp_path):
    for command, seeds in (("steelyard group digits", 2), ("steelyard compare digits", 3)):
        filled(tmp_path / "s.sqlite", command, seeds)
    (tmp_path / "s.html").write_text("")
    run("report", "s.sqlite", "--plan", 1)
    assert (tmp_path / "s.html").read_text() == ""
    assert "2 seeds" in (tmp_path / "s-study-plan-1.html").read_text()
    run("report", "s.sqlite", "--plan", 1, "--page", "mine.html")
    assert "2 seeds" in (tmp_path / "mine.html").read_text()
    run("report", "s.sqlite")
    assert "3 seeds" in (tmp_path / "s.html").read_text()

"""Terminal and page say at which epoch test values were taken: where the last one counts, validation chose none."""

import dataclasses

import pytest
from rich.console import Console

from steelyard.report import from_json, render, to_json
from steelyard.report.study_page import page
from study import made_up


def study(path, choose):
    plan = dataclasses.replace(made_up.plan(seeds=2), choose=choose)
    found = {"left": 0.9, "right": 0.8}
    return made_up.judged(path, plan, {"single-task": [found] * 2, "equal": [found] * 2})


@pytest.mark.parametrize("choose", ["best", "last"])
def test_terminal_and_page_name_it(tmp_path, choose):
    judgement = from_json(to_json(study(tmp_path / "s.sqlite", choose)))
    console = Console(record=True, width=200)
    render(judgement, console)
    for shown in (console.export_text(), page(judgement)):
        assert ("Test values at the epoch chosen on validation data" in shown) == (choose == "best")
        assert ("Test values at the last epoch; " in shown or "Test values at the last epoch, means" in shown) == (
            choose == "last"
        )
    for of_the_chosen in ("At the last epoch instead", "<dt>Chosen epoch</dt>"):
        assert (of_the_chosen in page(judgement)) == (choose == "best")

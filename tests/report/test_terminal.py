"""The terminal tables say everything, whatever the terminal can do."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from report import judgements
from steelyard.report.judgement_view import View
from steelyard.report.numbers import fixed, plus_minus
from steelyard.report.panels.differences import interval_panels
from steelyard.report.panels.drawing import Drawing
from steelyard.report.terminal import render
from steelyard.study.judgement import Interval, Judgement


def test_a_command_below_a_caution_is_not_broken() -> None:
    command = f"steelyard compare digits --methods {','.join(['uw'] * 50)}"
    text = printed(replace(judgements.digits(), cautions=[f"Train longer:\n{command}"]), 60)
    assert f"First: Train longer:\n  {command}\n" in text


def printed(
    judgement: Judgement, width: int, encoding: str = "utf-8", colour: bool = False, every: bool = False
) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    render(judgement, Console(file=file, width=width, force_terminal=colour, legacy_windows=False), every)
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("name", judgements.ALL)
def test_no_number_is_cut_and_no_line_too_long(name: str, width: int) -> None:
    judgement = judgements.ALL[name]()
    text = printed(judgement, width)
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width
    view = View(judgement)
    for cell in judgement.cells:
        task = next(task for task in judgement.tasks if task.name == cell.task)
        factor = 100 if task.percent else 1
        assert fixed(cell.mean * factor, view.decimals(task)) in text
        if cell.difference:
            assert plus_minus(cell.difference, view.decimals(task), factor) in text


@pytest.mark.parametrize("width", [80, 140])
def test_every_method_task_and_verdict_is_named(width: int) -> None:
    judgement = judgements.twelve()
    text = printed(judgement, width)
    assert all(task.label in text for task in judgement.tasks)
    assert all(piece in text for method in judgement.methods for piece in method.split(","))
    assert {"gain", "same", "hurt", "open"} <= set(re.findall(r"\w+", text))
    flat = " ".join(text.split())
    assert all(sentence in flat for sentence in judgement.verdict)
    assert text.count("NonFiniteLossError") == 2


def test_verdicts_are_readable_without_colour_and_coloured_where_possible() -> None:
    plain, coloured = (printed(judgements.digits(), 100, colour=colour) for colour in (False, True))
    assert "\x1b" not in plain
    assert "\x1b[31m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


@pytest.mark.parametrize("name", judgements.ALL)
def test_ascii_terminal(name: str) -> None:
    text = printed(judgements.ALL[name](), 80, encoding="ascii")
    assert text.isascii()


def test_control_characters_of_a_failed_trial_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in printed(judgements.hostile(), 80)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_below_the_time_of_a_method_stands_its_spread_over_seeds(width: int) -> None:
    judgement = judgements.digits()
    rows = [
        replace(row, relative_cost=0.71 + place, cost_low=0.61 + place, cost_high=0.93 + place)
        for place, row in enumerate(judgement.rows)
    ]
    text = printed(replace(judgement, rows=rows), width)
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width
    for place in range(len(judgement.methods)):
        assert f"{0.71 + place:.2f}" in text
    assert text.count("±0.16") == len(judgement.methods) * len(judgement.settings)
    still = [replace(row, cost_low=0.708, cost_high=0.712) for row in rows]
    assert "±0.00" not in printed(replace(judgement, rows=still), width)


def test_cautions_come_before_the_verdict() -> None:
    judgement = judgements.one_task()
    text = " ".join(printed(judgement, 200).split())
    assert len(judgement.cautions) > 1
    said = [f"{'Also' if place else 'First'}: {caution}" for place, caution in enumerate(judgement.cautions)]
    assert " ".join([*said, *judgement.verdict]) in text
    assert judgement.about in text
    assert f"Joint networks: {judgement.architecture}." in text


@pytest.mark.parametrize("width", [60, 100, 300])
def test_metrics_of_all_tasks_together_stand_in_the_table_of_their_setting(width: int) -> None:
    judgement = judgements.unequal()
    text = printed(judgement, width)
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width
    assert text.count("missed, % ↑") == len(judgement.settings) > 1
    assert "RMSE" not in text  # a further metric of a task stands on the page
    tables = text.split("Training labels: ")[1:]
    for setting, table in zip(judgement.settings, tables, strict=True):
        for other in judgement.others:
            if other.task is None and other.setting == setting.index:
                assert re.search(rf"\b{100 * other.mean:.2f}\d*\b", table)
                if other.difference is not None:
                    assert f"{100 * other.difference.mean:+.2f}".replace("-", "−") in table
    without = [replace(o, mean=math.nan, difference=None) for o in judgement.others if o.task is None]
    assert "nan" not in printed(replace(judgement, others=without), width)


@pytest.mark.parametrize(("device", "said"), [("", None), ("cpu", None), ("cuda", "Trained on cuda, float32.")])
def test_where_it_was_trained_is_said_where_that_is_known_and_not_the_usual(device: str, said: str | None) -> None:
    text = " ".join(printed(replace(judgements.digits(), device=device, hardware=""), 200).split())
    assert ("Trained on" in text) == (said is not None)
    assert said is None or said in text


def test_of_many_tasks_those_with_the_largest_effects_are_shown_the_hurt_first() -> None:
    judgement = replace(judgements.large((1.0,)), methods=["single-task", "equal(scale=paper)"])
    cells = {cell.task: cell for cell in judgement.cells if cell.method == "equal(scale=paper)"}
    verdicts = {"property_07": ("negative transfer", -0.1), "property_30": ("negative transfer", -0.3)}
    verdicts |= {"property_11": ("gain", 0.4), "property_02": ("undecided", -0.35)}
    changed = [
        replace(cells[task], verdict=verdict, relative=Interval(mean, mean - 0.01, mean + 0.01))
        for task, (verdict, mean) in verdicts.items()
    ]
    quiet = Interval(0.001, 0.0, 0.002)
    others = [
        replace(cell, verdict="undecided", relative=None if task == "property_20" else quiet)  # alone without an error
        for task, cell in cells.items()
        if task not in verdicts
    ]
    alone = [cell for cell in judgement.cells if cell.method == "single-task"]
    judgement = replace(judgement, cells=[*alone, *changed, *others])
    text = printed(judgement, 400)
    shown = re.findall(r"property \d\d", text)
    assert shown[:4] == ["property 30", "property 07", "property 11", "property 02"]
    assert len(shown) == 12
    assert "28 more:\n  steelyard report STORE --all\n" in text
    assert len(re.findall(r"property \d\d", printed(judgement, 400, every=True))) == 40
    assert "more: steelyard" not in printed(judgement, 400, every=True)
    titles = [panel.title for panel in interval_panels(Drawing(View(judgement)), judgement.settings[0])]
    assert titles[:5] == ["All tasks", "property 30", "property 07", "property 11", "property 02"]
    assert len(titles) == 41


@pytest.mark.takes("results of a hundred tasks are made up twice, and printed")
def test_a_hundred_tasks_do_not_fill_the_terminal() -> None:
    assert (
        len(printed(judgements.large((1.0,)), 100).splitlines())
        < len(printed(judgements.large((1.0,)), 100, every=True).splitlines()) / 2
    )


def test_unfinished_study_says_so() -> None:
    assert "19 of 70" in printed(judgements.incomplete(), 80)
    assert "No trial is finished yet" in printed(judgements.nothing(), 80)


def test_a_method_with_fewer_seeds_than_planned_says_so() -> None:
    text = printed(judgements.incomplete(), 80)
    assert text.count(f"2 of {len(judgements.digits().seeds)} seeds") == 1
    assert "0 of " not in text
    assert " seeds" not in printed(judgements.digits(), 80).split("Test values")[1]

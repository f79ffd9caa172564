"""The page of a grouping, read back: cards, effects and lines say what was found."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from grouping.test_group_study import find, planted, problem  # noqa: F401
from report.reading import parse
from steelyard.grouping.effects import effects
from steelyard.grouping.grouping_text import write_words
from steelyard.report.grouping_section import section, to_json
from steelyard.report.study_page import page


@pytest.fixture
def found(problem, tmp_path):  # noqa: F811
    return find(problem(5), tmp_path / "s.sqlite", planted(0.1, 0.02), budget=9, affinities=True)[0]


def percent(text: str) -> float:
    return float(text.replace("−", "-").removesuffix(" %").replace(" ", "")) / 100


def test_each_card_is_a_network_with_its_measured_gains(found) -> None:
    html = str(section(found))
    cards = re.findall(r'<div class="card">(.*?)</div>', html, re.DOTALL)
    assert len(cards) == len(found.grouping.networks)
    for card, network in zip(cards, found.grouping.networks, strict=True):
        rows = dict(re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', card))
        served = {task for task in found.grouping.tasks if found.grouping.network_of(task) == network}
        assert set(rows) == served
        for task, text in rows.items():
            if len(network) == 1:
                assert text == "alone"
            else:
                assert percent(text) == pytest.approx(found.grouping.gains[task], abs=6e-4)
        helping = re.findall(r"helped by (.*?)</p>", card)
        assert set(", ".join(helping).split(", ")) - {""} == set(network) - served


def test_each_affinity_is_told_with_what_it_is_worth(found) -> None:
    """In the page's table, in the sentences, and in JSON with its matrix."""
    html, told = str(section(found)), json.loads(to_json(found))
    rows = re.findall(r'<tr><th scope="row">([^<]*)</th><td>([^<]*)</td><td>(\d+)</td></tr>', html)
    assert len(rows) == len(found.affinities) == len(told["affinities"]) == 5
    known = 0
    for (name, value, subsets), affinity, exported in zip(rows, found.affinities, told["affinities"], strict=True):
        assert (name, int(subsets)) == (affinity.name, affinity.subsets)
        assert (exported["name"], exported["rank_correlation"]) == (affinity.name, affinity.correlation)
        for row, task in enumerate(found.grouping.tasks):
            for column, other in enumerate(found.grouping.tasks):
                number = exported["of_task_from"][task].get(other)
                assert number == (affinity.values[row, column] if np.isfinite(affinity.values[row, column]) else None)
        if affinity.correlation is None:
            assert value == "unknown"
            continue
        known += 1
        assert float(value.replace("−", "-")) == pytest.approx(affinity.correlation, abs=6e-3)
        assert f"{name} {value}" in write_words(found)[-2]
    assert known > 2


def test_each_cell_is_an_effect(found) -> None:
    """By row and column, in the title and in the cell; filled where it is twice its error."""
    html = str(section(found))
    estimates = effects(found.grouping.tasks, found.grouping.measured)
    cells = re.findall(
        r'<g data-row="(\d)" data-column="(\d)"><title>(.*?)</title><rect class="(\w+)".*?>([+−]\d+)</text>', html
    )
    assert len(cells) == 20
    for row, column, title, css, text in cells:
        value, error = estimates.values[int(row), int(column)], estimates.errors[int(row), int(column)]
        told = re.fullmatch(r"(t\d) adds ([+−][\d.]+ %) ± ([\d.]+) to the gain of (t\d)", title)
        assert told is not None
        assert (told[1], told[4]) == (f"t{column}", f"t{row}")
        assert percent(told[2]) == pytest.approx(value, abs=6e-4)
        assert float(told[3]) / 100 == pytest.approx(error, abs=6e-4)
        assert float(text.replace("−", "-")) / 100 == pytest.approx(value, abs=6e-3)
        assert css == ("open" if abs(value) <= 2 * error else "gain" if value > 0 else "hurt")
    assert f"rank correlation of {estimates.correlation:+.2f}".replace("-", "−") in html


def test_each_point_of_a_line_is_a_choice(found) -> None:
    html = str(section(found))
    networks = {int(n): percent(gain) for n, gain in re.findall(r"<title>(\d+) networks?: ([+−][\d.]+ %)", html)}
    assert networks == pytest.approx(dict(found.by_networks), abs=6e-4)
    subsets = {int(n): percent(gain) for n, gain in re.findall(r"<title>(\d+) subsets?: ([+−][\d.]+ %)", html)}
    assert subsets == pytest.approx(dict(found.by_budget), abs=6e-4)
    heights = [float(y) for y in re.findall(r'<circle[^>]* cy="([\d.]+)"', html)]
    gains = [*found.by_networks.values(), *(gain for _, gain in found.by_budget)]
    for panel in (slice(0, len(networks)), slice(len(networks), None)):
        order = sorted(range(len(gains[panel])), key=gains[panel].__getitem__)
        drawn = [heights[panel][place] for place in order]
        assert drawn == sorted(drawn, reverse=True)  # what is higher gains more


def test_the_section_stands_in_the_page_after_the_verdict(found) -> None:
    whole = page(found.judgement, section(found))
    parse(whole)
    places = [whole.index(text) for text in ('section class="verdict"', 'id="groups"', 'id="helps"', 'id="table"')]
    assert places == sorted(places)
    assert 'id="groups"' not in page(found.judgement)


@pytest.mark.parametrize("tasks", [2, 3, 40])
def test_few_and_many_tasks(problem, tmp_path, tasks) -> None:  # noqa: F811
    html = str(section(find(problem(tasks), tmp_path / "s.sqlite", planted(0.01, 0.01), budget=4, seeds=1)[0]))
    assert "nan" not in html
    assert "inf" not in html.replace("info", "")


def test_groups_that_are_not_the_advice_are_said_to_be_none(problem, tmp_path) -> None:  # noqa: F811
    def error(trial, task, kind) -> float:  # validation data are wrong
        return planted(0.1 if kind == "validation" else 0.0, 0.01)(trial, task, kind)

    said = "They are not the advice above"
    assert said in str(section(find(problem(4), tmp_path / "wrong.sqlite", error)[0]))
    assert said not in str(section(find(problem(4), tmp_path / "right.sqlite", planted(0.1, 0.01))[0]))

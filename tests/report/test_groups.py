"""The page of a grouping, read back: cards, effects and lines say what was found."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from grouping.planted_groups import find, planted, write_problem
from report.reading import amounts, parse
from steelyard.grouping.effects import effects
from steelyard.grouping.grouping_text import write_words
from steelyard.report.grouping_section import section, to_json
from steelyard.report.panels import groups
from steelyard.report.study_page import page


@pytest.fixture
def problem(tmp_path):
    return partial(write_problem, tmp_path)


@pytest.fixture
def found(problem, tmp_path):
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


def ends(interval) -> dict | None:
    """An interval as JSON has it: an open end is null."""
    if interval is None:
        return None
    values = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def test_json_has_everything_that_was_found(found, problem, tmp_path) -> None:
    one_seed = find(problem(3), tmp_path / "one.sqlite", planted(0.1, 0.02), budget=4, seeds=1)[0]
    assert any(math.isinf(over.low) for over in (one_seed.over_one, one_seed.over_own) if over is not None)
    for each in (found, one_seed):
        text, grouping, judgement = to_json(each), each.grouping, each.judgement
        assert text.endswith("}\n")
        assert text.startswith('{\n "format": "steelyard-grouping/1",\n "problem"')
        told = json.loads(text)
        del told["affinities"]  # as above
        assert told == {
            "format": "steelyard-grouping/1",
            "problem": judgement.problem,
            "command": judgement.command,
            "seeds": judgement.seeds,
            "tasks": list(grouping.tasks),
            "sentences": write_words(each),
            "arms": dict(each.arms),
            "networks": [[task for task in grouping.tasks if task in network] for network in grouping.networks],
            "served_by": {
                task: [other for other in grouping.tasks if other in grouping.served_by[task]]
                for task in grouping.tasks
            },
            "gains_on_validation_data": dict(grouping.gains),
            "gap": grouping.gap,
            "spent": grouping.spent,
            "recommended": each.recommended,
            "paid_on_the_other_half": each.paid,
            "own_over_one_network": ends(each.own_over_one),
            "over_one_network": ends(each.over_one),
            "over_own_networks": ends(each.over_own),
            "by_networks": [{"networks": count, "gain": gain} for count, gain in each.by_networks.items()],
            "by_budget": [{"subsets": count, "gain": gain} for count, gain in each.by_budget],
            "measured": [{"tasks": list(gains), "gains": dict(gains)} for gains in grouping.measured.values()],
            "failed": [[task for task in grouping.tasks if task in subset] for subset in grouping.failed],
            "rows": [
                {"arm": row.method, "delta_m": ends(row.delta_m), "relative_cost": row.relative_cost}
                for row in judgement.rows
            ],
        }
    assert to_json(dataclasses.replace(one_seed, judgement=dataclasses.replace(judgement, problem="Größe"))).count(
        "Größe"
    )


@pytest.mark.parametrize("helping", [0, 1, 12, 13, 20])
def test_a_card_names_twelve_that_help_and_counts_the_others(helping) -> None:
    tasks = tuple(f"t{place}" for place in range(helping + 2))
    network = frozenset(tasks[:-1])  # serves the first, and its last is alone
    alone = frozenset({tasks[-1]})
    grouping = SimpleNamespace(
        tasks=tasks,
        networks=[network, alone],
        network_of=lambda task: {tasks[0]: network, tasks[-1]: alone}.get(task),
        gains={tasks[0]: 0.0123, tasks[-1]: 0.0},
    )
    labels = [SimpleNamespace(name=task, label=f"label {task}") for task in tasks]
    first, last = groups.cards(SimpleNamespace(grouping=grouping, judgement=SimpleNamespace(tasks=labels)))
    assert first.serves == ([("label t0", "+1.2 %")] if helping else [("label t0", "alone")])
    assert last == groups.Card([(f"label {tasks[-1]}", "alone")], [])
    more = [f"{helping - 12} more"] if helping > 12 else []
    assert first.helps == [f"label t{place}" for place in range(1, 1 + min(helping, 12))] + more


@pytest.mark.parametrize("count", [1, 2, 12, 13, 30])
def test_the_axis_counts_from_the_end_and_names_six_stops_at_most(count) -> None:
    gains = {number: 0.01 * number**0.5 for number in range(1, count + 1)}
    found = SimpleNamespace(by_networks=gains, by_budget=[(10 * number, gain) for number, gain in gains.items()])
    for panel, title, noun, factor in (
        (groups.more_networks(found), "By the most networks", "network", 1),
        (groups.more_budget(found), "By the subsets measured", "subset", 10),
    ):
        svg = parse(str(panel.svg)).elements[0]
        assert (panel.title, panel.note) == (title, "mean gain on validation data, %")
        assert svg["aria-label"] == f"{title}: mean gain on validation data, %"
        drawn = amounts(svg)
        (track,) = drawn.tracks.values()
        assert len(track) == count
        for place, (x, y, whisker, said) in enumerate(track, 1):
            assert x == pytest.approx(5 + 90 * (place - 1) / max(1, count - 1), abs=0.01)
            assert drawn.up.at(y) == pytest.approx(100 * gains[place], abs=0.02)
            assert whisker is None
            number = place * factor
            assert said == f"{number} {noun}{'' if number == 1 else 's'}: +{100 * gains[place]:.1f} %"
        step = math.ceil(count / 6)
        named = {place for place in range(1, count + 1) if (count - place) % step == 0}
        places = {round(x, 2): place for place, (x, *_) in enumerate(track, 1)}
        shown = {places[round(x, 2)]: text for x, text in drawn.labels.items() if text}
        assert shown == {place: str(place * factor) for place in shown}
        assert set(shown) == named  # none is left out: they do not touch on a phone


def test_each_cell_is_an_effect(found) -> None:
    """By row and column, in the title and in the cell; filled where it is twice its error. Tasks of a network stand
    together, with a line before the next one's."""
    html = str(section(found))
    estimates = effects(found.grouping.tasks, found.grouping.measured)
    cells = re.findall(
        r'<g data-row="(\d)" data-column="(\d)"><title>(.*?)</title><rect class="(\w+)".*?>([+−]\d+)</text>', html
    )
    assert len(cells) == 20
    grouping, tasks, sure = found.grouping, found.grouping.tasks, 0
    order = [task for network in grouping.networks for task in tasks if grouping.network_of(task) == network]
    assert order != list(tasks)
    assert html.count('class="bound"') == 2 * (len(grouping.networks) - 1) > 0
    for row, column, title, css, text in cells:
        place = tasks.index(order[int(row)]), tasks.index(order[int(column)])
        value, error = estimates.values[place], estimates.errors[place]
        sure += abs(value) > 2 * error
        told = re.fullmatch(r"(t\d) adds ([+−][\d.]+ %) ± ([\d.]+) to the gain of (t\d)", title)
        assert told is not None
        assert (told[1], told[4]) == (order[int(column)], order[int(row)])
        assert percent(told[2]) == pytest.approx(value, abs=6e-4)
        assert float(told[3]) / 100 == pytest.approx(error, abs=6e-4)
        assert float(text.replace("−", "-")) / 100 == pytest.approx(value, abs=6e-3)
        assert css == ("open" if abs(value) <= 2 * error else "gain" if value > 0 else "hurt")
    assert f"(less than twice its error): {20 - sure} of 20." in html
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
def test_few_and_many_tasks(problem, tmp_path, tasks) -> None:
    html = str(section(find(problem(tasks), tmp_path / "s.sqlite", planted(0.01, 0.01), budget=4, seeds=1)[0]))
    assert "nan" not in html
    assert "inf" not in html.replace("info", "")


def test_groups_that_are_not_the_advice_are_said_to_be_none(problem, tmp_path) -> None:
    def error(trial, task, kind) -> float:  # validation data are wrong
        return planted(0.1 if kind == "validation" else 0.0, 0.01)(trial, task, kind)

    said = "They are not the choice above"
    assert said in str(section(find(problem(4), tmp_path / "wrong.sqlite", error)[0]))
    assert said not in str(section(find(problem(4), tmp_path / "right.sqlite", planted(0.1, 0.01))[0]))


def test_arms_are_called_alike_in_the_section_and_in_the_tables_below(problem, tmp_path) -> None:
    """Where naming all tasks of their networks takes too long: with how many each serves."""
    found = find(problem(12), tmp_path / "s.sqlite", planted(0.1, 0.02), seeds=2)[0]
    html = page(found.judgement, section(found))
    grouping = found.grouping
    served = [sum(grouping.network_of(task) == network for task in grouping.tasks) for network in grouping.networks]
    names = [name for name, _ in groups.called(found)]
    assert any(sorted(map(int, name[len("equal{") : -1].split("|"))) == sorted(served) for name in names)
    for name in names:
        assert f"<b>{name}</b> is " in html  # in the section
        assert f">{name}</th>" in html  # in the table
    for arm in found.judgement.methods:
        assert "{" not in arm or arm not in re.sub(r'title="[^"]*"', "", html)

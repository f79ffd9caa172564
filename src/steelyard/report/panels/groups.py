"""The figures of a search for groups: the networks, who helps whom, and what more networks or more budget bring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from steelyard.grouping.effects import Effects, Matrix, effects
from steelyard.grouping.grouping_result import GroupingResult
from steelyard.grouping.grouping_text import gain_text
from steelyard.report.charts.fractions import AxisPlace, Track, learning_curves
from steelyard.report.charts.matrix import Square, matrix
from steelyard.report.palette import Ink
from steelyard.report.panels.drawing import Panel
from steelyard.report.short_names import elide
from steelyard.study.judgement import Interval
from steelyard.study.planning.readable_arms import readable_methods

MOST_STOPS = 6  # numbers at an axis; more of them touch on a phone
MEANING = {"own networks": "own networks for the tasks that one network for all hurts", "grouping": "the groups"}
FEW = 12  # helping tasks that a card names


@dataclass(frozen=True)
class Card:
    """A network: the tasks that it serves with their measured gains, and those that only help."""

    serves: list[tuple[str, str]]
    helps: list[str]


def cards(found: GroupingResult) -> list[Card]:
    """The networks, largest first."""
    grouping, labels = found.grouping, _labels(found)
    result = []
    for network in grouping.networks:
        serves = [task for task in grouping.tasks if grouping.network_of(task) == network]
        helps = [labels[task] for task in grouping.tasks if task in network and task not in serves]
        if len(helps) > FEW:
            helps = [*helps[:FEW], f"{len(helps) - FEW} more"]
        gains = [(labels[task], gain_text(grouping.gains[task]) if len(network) > 1 else "alone") for task in serves]
        result.append(Card(gains, helps))
    return result


def called(found: GroupingResult) -> list[tuple[str, str]]:
    """What tables and charts call the arms, and what each is."""
    names, shown = readable_methods(found.judgement.methods), dict[str, str]()
    for what, meaning in MEANING.items():
        if "{" in found.arms[what]:  # what is no method by itself
            shown.setdefault(names[found.arms[what]], meaning)
    return list(shown.items())


def estimated(found: GroupingResult) -> Effects:
    return effects(found.grouping.tasks, found.grouping.measured)


def help_matrix(found: GroupingResult, estimates: Effects) -> Markup:
    """Row: whose gain; column: who is present; filled where the effect is twice its error. Tasks that one network
    serves stand together."""
    labels, served = _labels(found), found.grouping.served_by
    place_of = {network: place for place, network in enumerate(found.grouping.networks)}
    order = sorted(range(len(estimates.tasks)), key=lambda place: place_of[served[estimates.tasks[place]]])
    tasks = [estimates.tasks[place] for place in order]
    largest = max((abs(value) for _, _, value in _known(estimates.values)), default=1.0) or 1.0
    cells: list[list[Square | None]] = []
    for row, task in zip(order, tasks, strict=True):
        line: list[Square | None] = []
        for column, other in zip(order, tasks, strict=True):
            value, error = float(estimates.values[row, column]), float(estimates.errors[row, column])
            if not math.isfinite(value):
                line.append(None)
                continue
            title = f"{labels[other]} adds {gain_text(value)} ± {100 * error:.1f} to the gain of {labels[task]}"
            text = f"{100 * value:+.0f}".replace("-", "−")
            line.append(Square(value / largest, text, title, _is_sure(value, error)))
        cells.append(line)
    bounds = [place for place in range(1, len(tasks)) if served[tasks[place]] != served[tasks[place - 1]]]
    names = [elide(labels[task], 18) for task in tasks]
    return matrix(names, cells, "What each task adds to the gain of each other one", bounds)


def sure(estimates: Effects) -> tuple[int, int]:
    """How many effects have a known sign, and how many there are."""
    known = _known(estimates.values)
    return sum(_is_sure(value, float(estimates.errors[row, column])) for row, column, value in known), len(known)


def _known(values: Matrix) -> list[tuple[int, int, float]]:
    """Row, column and value of those that are numbers."""
    return [
        (row, column, float(value))
        for row, line in enumerate(values)
        for column, value in enumerate(line)
        if math.isfinite(value)
    ]


def _is_sure(value: float, error: float) -> bool:
    return abs(value) > 2 * error


def more_networks(found: GroupingResult) -> Panel:
    """The mean gain of the best choice of so many networks."""
    points = [(f"{count}", gain) for count, gain in found.by_networks.items()]
    return _panel("By the most networks", points, "network")


def more_budget(found: GroupingResult) -> Panel:
    """The mean gain after so many subsets."""
    points = [(f"{count}", gain) for count, gain in found.by_budget]
    return _panel("By the subsets measured", points, "subset")


def _panel(title: str, points: Sequence[tuple[str, float]], noun: str) -> Panel:
    last = max(1, len(points) - 1)
    step = math.ceil(len(points) / MOST_STOPS)
    # Every so many, counted from the end: the last is what was found.
    stops = [
        AxisPlace(0.05 + 0.9 * place / last, label if (last - place) % step == 0 else "")
        for place, (label, _) in enumerate(points)
    ]
    means = [Interval(100 * gain, -math.inf, math.inf) for _, gain in points]
    titles = [f"{label} {noun}{'' if label == '1' else 's'}: {gain_text(gain)}" for label, gain in points]
    track = Track(0, "", Ink("c4", None), means, titles)
    svg = learning_curves(stops, [track], f"{title}: mean gain on validation data, %")
    return Panel(title, "mean gain on validation data, %", svg)


def _labels(found: GroupingResult) -> dict[str, str]:
    return {task.name: task.label for task in found.judgement.tasks}

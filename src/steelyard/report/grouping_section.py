"""What `steelyard group` found: a section of the page, and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from steelyard.grouping.affinity_correlation import Affinity
from steelyard.grouping.grouping_result import GroupingResult
from steelyard.grouping.grouping_text import correlation, write_words
from steelyard.report.output_files import FileKind
from steelyard.report.panels import groups
from steelyard.report.study_page import templates
from steelyard.study.judgement import Interval

FORMAT = "steelyard-grouping/1"
JSON = FileKind("JSON export", b'"format": "steelyard-grouping/')


def section(found: GroupingResult) -> Markup:
    """The networks, what more of them or more budget would bring, and who helps whom."""
    estimates = groups.estimated(found)
    return Markup(
        templates()
        .get_template("groups.html.jinja")
        .render(
            cards=groups.cards(found),
            advised=found.arms["grouping"] == found.arms[found.recommended],
            panels=[groups.more_networks(found), groups.more_budget(found)],
            measured=len(found.grouping.measured),
            correlation=None if estimates.correlation is None else correlation(estimates.correlation),
            sure=groups.sure(estimates),
            called=groups.called(found),
            matrix=groups.help_matrix(found, estimates),
            affinities=[(each.name, correlation(each.correlation), each.subsets) for each in found.affinities],
        )
    )


def to_json(found: GroupingResult) -> str:
    """The networks, every measured subset, and what the choice is worth on test data."""
    grouping = found.grouping
    content = {
        "format": FORMAT,
        "problem": found.judgement.problem,
        "command": found.judgement.command,
        "seeds": found.judgement.seeds,
        "tasks": list(grouping.tasks),
        "sentences": write_words(found),
        "arms": dict(found.arms),
        "networks": [sorted(network, key=grouping.tasks.index) for network in grouping.networks],
        "served_by": {task: sorted(network, key=grouping.tasks.index) for task, network in grouping.served_by.items()},
        "gains_on_validation_data": dict(grouping.gains),
        "gap": grouping.gap,
        "spent": grouping.spent,
        "recommended": found.recommended,
        "paid_on_the_other_half": found.paid,
        "own_over_one_network": _interval(found.own_over_one),
        "over_one_network": _interval(found.over_one),
        "over_own_networks": _interval(found.over_own),
        "by_networks": [{"networks": count, "gain": gain} for count, gain in found.by_networks.items()],
        "by_budget": [{"subsets": count, "gain": gain} for count, gain in found.by_budget],
        "affinities": [_affinity(each, grouping.tasks) for each in found.affinities],
        "measured": [{"tasks": list(gains), "gains": gains} for gains in grouping.measured.values()],
        "failed": [sorted(subset, key=grouping.tasks.index) for subset in grouping.failed],
        "rows": [
            {"arm": row.method, "delta_m": _interval(row.delta_m), "relative_cost": _known(row.relative_cost)}
            for row in found.judgement.rows
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _affinity(affinity: Affinity, tasks: Sequence[str]) -> dict[str, Any]:
    """JSON has no NaN: what is not known is left out."""
    values = {
        task: {other: float(value) for other, value in zip(tasks, row, strict=True) if math.isfinite(value)}
        for task, row in zip(tasks, affinity.values, strict=True)
    }
    return {
        "name": affinity.name,
        "rank_correlation": affinity.correlation,
        "subsets": affinity.subsets,
        "of_task_from": values,
    }


def _interval(interval: Interval | None) -> dict[str, float | None] | None:
    """JSON has no infinity: an open end is null."""
    if interval is None:
        return None
    return {key: value if abs(value) < float("inf") else None for key, value in dataclasses.asdict(interval).items()}

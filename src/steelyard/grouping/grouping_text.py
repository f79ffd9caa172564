"""What a search found, in sentences: what to do, what it brings with its interval, what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from steelyard.grouping.grouping_result import GroupingResult
from steelyard.io.lists_and_counts import counted, first_few, listed, percent
from steelyard.study.analysis.questions import SLIGHT
from steelyard.study.judgement import Interval, Row
from steelyard.study.planning.arm_networks import Network
from steelyard.study.planning.arms import parse_arm

FEW = 12  # tasks that are named one by one
MANY, FEWER = 30, 3  # in all groups together, from where so few of each are: a sentence has to be read
MOST_GROUPS = 4  # that are named, of so many tasks


def write_words(found: GroupingResult) -> list[str]:
    """The sentences, the first says what to do."""
    what = found.recommended
    row = _row(found, what)
    said = _what_to_do(found, what, row.delta_m)
    said += _beside_groups(found) if what == "grouping" else _instead_of_groups(found, what)
    said += _hurt(found)
    return [*said, *_affinities(found), _cost(found, row)]


def _what_to_do(found: GroupingResult, what: str, change: Interval | None) -> list[str]:
    """The choice, said as an advice only as far as it is shown not to lose against every task alone."""
    networks = parse_arm(found.arms[what]).networks
    instead = f"{counted(max(1, len(networks)), 'network')} instead of {len(found.grouping.tasks)}"
    brings = f"{_change(change)} over single tasks on test data, {instead}"
    if networks and not _together(networks):
        return [f"Train every task alone: {brings}."]
    choice = _choice(found, what)
    alone = change is not None and change.low == -math.inf  # one seed, which `brings` tells
    if change is not None and (change.low > 0 or (alone and change.mean > SLIGHT)):
        return [f"Train {choice}: {brings}."]
    if change is not None and change.low > -SLIGHT:
        slight, than = f"no more than {100 * SLIGHT:g} %", "than training every task alone"
        shown = (
            f"worse {than}, but by {slight}"
            if change.high < 0
            else f"not shown to be better {than}, and {slight} worse"
        )
        return [f"Train {choice}: {brings}.", f"That is {shown}."]
    if change is not None and change.high < 0:
        more = "or allow more networks, " if found.limit < len(found.grouping.tasks) else ""
        other = f"{more}or try another --method"
        return [f"Train every task alone, {other}: the best choice here, {choice}, is {brings}."]
    return [f"Whether tasks should share is undecided. If they do, train {choice}: {brings}."]


def _choice(found: GroupingResult, what: str) -> str:
    """``{a, b} together with equal, c alone``."""
    method = parse_arm(found.arms["one for all"]).name
    networks = parse_arm(found.arms[what]).networks
    if not networks:
        return f"all tasks together with {method}"
    alone = [task for each in networks if len(each.learns) == 1 for task in each.learns]
    return f"{_together(networks)} together with {method}{f', {first_few(alone, FEW)} alone' if alone else ''}"


def _together(networks: Sequence[Network]) -> str:
    """``{a, b} and {c, d, helped by e}``: those networks that learn several tasks; of many, briefly."""
    several = [network for network in networks if len(network.learns) > 1]
    many = sum(len(network.learns) for network in several) > MANY
    names = [_names(network, many) for network in several]
    if many and len(names) > MOST_GROUPS:
        names = [*names[: MOST_GROUPS - 1], f"{len(names) - MOST_GROUPS + 1} more groups"]
    return listed(names) if names else ""


def _names(network: Network, many: bool) -> str:
    """``{a, b}``; tasks that only help are told apart: ``{a, b, helped by c}``."""
    helps = [task for task in network.learns if task not in network.serves]
    helping = f"{len(helps)} others" if many and len(helps) > 1 else first_few(helps, FEW)
    return f"{{{first_few(network.serves, FEWER if many else FEW)}{f', helped by {helping}' if helps else ''}}}"


def _beside_groups(found: GroupingResult) -> list[str]:
    """What the groups are better than."""
    said = _against(found, "one for all", "one network for all tasks", found.over_one)
    if found.arms["own networks"] != found.arms["one for all"]:
        said += _against(found, "own networks", "own networks for those that one network for all hurts", found.over_own)
    return said


def _instead_of_groups(found: GroupingResult, what: str) -> list[str]:
    """What validation data chose, and why it is not the advice."""
    if what == "own networks":
        said = _against(found, "one for all", "one network for all tasks", found.own_over_one)
        other = found.over_own
    else:
        said, other = [], found.over_one
    if found.arms["grouping"] == found.arms["one for all"]:
        return [*said, _no_groups(found)]
    groups = _together(parse_arm(found.arms["grouping"]).networks)
    named = f"The groups that validation data chose, {groups}" if groups else "Every task alone"
    theirs = _change(_row(found, "grouping").delta_m)
    if other is not None:
        verdict = "worse" if other.high < 0 else "not shown to be better"
        said.append(f"{named} ({theirs}): {_change(other)} against that, {verdict}.")
    return said


def _no_groups(found: GroupingResult) -> str:
    if found.paid is None:
        return "No other choice of what was measured is better on validation data."
    return (
        "Groups do not pay here: chosen on one half of the validation rows, on the other half they gain "
        f"{gain_text(found.paid)} over one network for all tasks."
    )


def _change(interval: Interval | None) -> str:
    if interval is None:
        return "no change is known"
    if not interval.low > -float("inf"):
        return f"{gain_text(interval.mean)} (one seed, no interval)"
    return f"{gain_text(interval.mean)} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})".replace("-", "−")


def gain_text(share: float) -> str:
    """``−3.2 %``."""
    return percent(share, "+.1f")


def _against(found: GroupingResult, what: str, words: str, over: Interval | None) -> list[str]:
    if found.arms[what] == found.arms[found.recommended]:
        if found.paid is not None and found.paid <= 0.0:  # there was a better one, which did not last
            return [f"This is {words}. {_no_groups(found)}"]
        return [f"This is {words}: no other choice of what was measured is better on validation data."]
    if over is None:
        return []
    if over.low > 0:
        verdict = "better"
    elif over.high < 0:
        verdict = "worse"
    else:
        verdict = "not shown to be better or worse"
    theirs = _change(_row(found, what).delta_m)
    return [f"Against {words} ({theirs}): {_change(over)}, {verdict}."]


def _hurt(found: GroupingResult) -> list[str]:
    cells = [cell for cell in found.judgement.cells if cell.method == found.arms[found.recommended]]
    hurt = [cell.task for cell in cells if cell.verdict == "negative transfer"]
    return [f"Still hurt: {first_few(hurt, FEW)}."] if hurt else []


def _cost(found: GroupingResult, row: Row) -> str:
    count = len(found.grouping.measured) + len(found.grouping.failed)
    failed = f", {len(found.grouping.failed)} of them without success" if found.grouping.failed else ""
    proof = "" if found.grouping.gap == 0 else f" (another choice may be worth {100 * found.grouping.gap:.2g} % more)"
    return (
        f"The search trained {counted(count, 'subset')}{failed}, {_trainings(found.grouping.spent)} of one network"
        f"{proof}; what it found trains in {row.relative_cost:.2f} × the time of all single tasks."
    )


def _trainings(spent: float) -> str:
    return "1 training" if spent == 1 else f"{spent:.3g} trainings"


def _affinities(found: GroupingResult) -> list[str]:
    known = [each for each in found.affinities if each.correlation is not None]
    if not known:
        return []
    told = ", ".join(f"{each.name} {correlation(each.correlation)}" for each in known)
    return [f"What would have told of the measured gains, as rank correlations: {told}. Nothing was chosen by it."]


def correlation(value: float | None) -> str:
    """``+0.31``; ``unknown`` where nothing could be compared."""
    return "unknown" if value is None else f"{value:+.2f}".replace("-", "−")


def _row(found: GroupingResult, what: str) -> Row:
    return next(row for row in found.judgement.rows if row.method == found.arms[what])

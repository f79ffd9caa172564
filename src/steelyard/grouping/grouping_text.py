"""What a search found, in sentences: what to do, what it brings with its interval, what it costs."""

from __future__ import annotations

from steelyard.grouping.grouping_result import GroupingResult
from steelyard.grouping.proposals import Subset
from steelyard.io.lists_and_counts import counted, first_few, percent
from steelyard.study.judgement import Interval, Row
from steelyard.study.planning.arms import parse_arm

FEW = 12  # tasks that are named one by one


def write_words(found: GroupingResult) -> list[str]:
    """The sentences, the first says what to do."""
    row = _row(found, "grouping")
    said = [f"{_what_to_do(found)}: {_change(row.delta_m)} over single tasks on test data, {_networks(found)}."]
    if row.delta_m is None or row.delta_m.low <= 0 <= row.delta_m.high:
        said.append("Whether that is better than training every task alone is not decided.")
    elif row.delta_m.high < 0:
        said.append("Training every task alone is better by that much: allow more networks, or try another --method.")
    said += _against(found, "one for all", "one network for all tasks", found.over_one)
    if found.arms["own networks"] != found.arms["one for all"]:
        said += _against(found, "own networks", "own networks for those that one network for all hurts", found.over_own)
    said += _hurt(found)
    return [*said, *_affinities(found), _cost(found, row)]


def _what_to_do(found: GroupingResult) -> str:
    method = parse_arm(found.arms["one for all"]).name
    tasks, groups = found.grouping.tasks, [network for network in found.grouping.networks if len(network) > 1]
    if not groups:
        return "Train every task alone"
    if groups == [frozenset(tasks)] and len(found.grouping.networks) == 1:
        return f"Train all tasks together with {method}"
    together = " and ".join(_names(found, network) for network in groups)
    alone = [task for task in tasks if found.grouping.network_of(task) == frozenset([task])]
    rest = f", {first_few(alone, FEW)} alone" if alone else ""
    return f"Train {together} together with {method}{rest}"


def _names(found: GroupingResult, network: Subset) -> str:
    """``{a, b}``; tasks that only help are told apart: ``{a, b, helped by c}``."""
    serves = [task for task in found.grouping.tasks if found.grouping.network_of(task) == network]
    helps = [task for task in found.grouping.tasks if task in network and task not in serves]
    return f"{{{first_few(serves, FEW)}{', helped by ' + first_few(helps, FEW) if helps else ''}}}"


def _networks(found: GroupingResult) -> str:
    return f"{counted(len(found.grouping.networks), 'network')} instead of {len(found.grouping.tasks)}"


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
    if found.arms[what] == found.arms["grouping"]:
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
    cells = [cell for cell in found.judgement.cells if cell.method == found.arms["grouping"]]
    hurt = [cell.task for cell in cells if cell.verdict == "negative transfer"]
    return [f"Still hurt: {first_few(hurt, FEW)}."] if hurt else []


def _cost(found: GroupingResult, row: Row) -> str:
    count = len(found.grouping.measured) + len(found.grouping.failed)
    failed = f", {len(found.grouping.failed)} of them without success" if found.grouping.failed else ""
    proof = "" if found.grouping.gap == 0 else f" (another choice may be worth {100 * found.grouping.gap:.2g} % more)"
    return (
        f"The search trained {counted(count, 'subset')}{failed}, {found.grouping.spent:.3g} trainings of one network"
        f"{proof}; what it found trains in {row.relative_cost:.2f} × the time of all single tasks."
    )


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

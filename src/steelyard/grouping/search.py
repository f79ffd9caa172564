"""Which tasks should share a network: propose subsets, measure them within a budget, choose the best few of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Protocol

import numpy as np

from steelyard.errors import GroupingError
from steelyard.grouping.cover import Cover, best_cover
from steelyard.grouping.proposals import Subset, propose
from steelyard.grouping.shrinkage import Gains, shrunk

Measured = Mapping[Subset, Mapping[str, float]]


class Measure(Protocol):
    """Trains a network for each subset of tasks, or looks it up.

    Example:
        >>> table = {frozenset("ab"): {"a": 0.1, "b": -0.2}}
        >>> def measure(subsets, *, effort=1.0):
        ...     return {subset: table[subset] for subset in subsets}
        >>> from steelyard.grouping import search
        >>> search("ab", measure, budget=1, networks=2).gains
        {'a': 0.1, 'b': 0.0}
    """

    def __call__(self, subsets: Sequence[Subset], *, effort: float = 1.0) -> Mapping[Any, Mapping[str, float]]:
        """Gain over single-task learning on validation data, by subset and by each of its tasks.

        Args:
            subsets: of two tasks or more.
            effort: the share of a whole training that is spent on each; the gain is over single tasks trained as long.

        Returns:
            By subset, in any collection of names. One whose training failed may be left out, or have a gain that is no
            number.
        """


@dataclass(frozen=True)
class Grouping:
    """A few networks that together serve every task.

    Attributes:
        tasks: all tasks.
        networks: the tasks that each network learns; largest first.
        served_by: by task, the network that serves it; another one may learn it too.
        gains: by task, the gain over single-task learning that was measured for the network that serves it, shrunk
            where `noise` was given.
        gap: what the mean gain of another choice among the same subsets might be more; 0 where this one is proved to be
            the best.
        measured: every subset that was trained in full, in that order, with its gains as measured.
        failed: subsets without a gain.
        spent: in trainings of one network.

    Example:
        >>> from steelyard.grouping import choose
        >>> table = {frozenset("abc"): {"a": 0.1, "b": 0.1, "c": -0.2}, frozenset("ab"): {"a": 0.2, "b": 0.1}}
        >>> grouping = choose("abc", table, networks=2)
        >>> sorted(grouping.network_of("b")), sorted(grouping.network_of("c"))
        (['a', 'b'], ['c'])
        >>> round(grouping.gain, 2)
        0.1
    """

    tasks: tuple[str, ...]
    networks: tuple[Subset, ...]
    served_by: Mapping[str, Subset]
    gains: Mapping[str, float]
    gap: float
    measured: Measured
    failed: tuple[Subset, ...] = ()
    spent: float = 0.0

    @property
    def gain(self) -> float:
        """Mean gain over the tasks."""
        return sum(self.gains.values()) / len(self.tasks)

    def network_of(self, task: str) -> Subset:
        """The tasks of the network that serves this one.

        Raises:
            GroupingError: there is no such task.
        """
        if task not in self.served_by:
            raise GroupingError(f"no task {task!r}: there are {', '.join(self.tasks)}")
        return self.served_by[task]


def search(
    tasks: Sequence[str],
    measure: Measure,
    *,
    budget: float,
    networks: int,
    seed: int = 0,
    candidates: Iterable[Collection[str]] | None = None,
    efforts: Sequence[float] = (1.0,),
    noise: Mapping[str, float] | None = None,
) -> Grouping:
    """Measure subsets of tasks within a budget, and choose the best few networks among them.

    One network for all tasks comes first. Then subsets are proposed, of every size alike and of the tasks that were
    proposed least; with `efforts` below 1 many are measured a little and the most useful ones in full (successive
    halving: every rung gets the same budget).
    The choice is exact among what was measured in full, single tasks included: nothing is predicted.

    Args:
        tasks: their names.
        measure: trains or looks up; see `Measure`. Called a few times, with many subsets each.
        budget: how much may be trained, in trainings of one network, the one for all tasks included; single tasks, the
            yardstick, are not.
        networks: the most networks that may be served.
        seed: of the proposals. The same seed asks for the same subsets, so that a search that was stopped goes on.
        candidates: the only subsets that may be measured. Single tasks always may be served.
        efforts: rising to 1, the shares of a whole training, one for each rung.
        noise: by task, the standard deviation of one measured gain, against the winner's curse (`shrunk`); without it
            gains are taken as measured.

    Raises:
        GroupingError: tasks, budget, networks, candidates or efforts make no sense, or `measure` returns what was not
            asked.

    Example:
        >>> from steelyard.grouping import search
        >>> def gain(task, others):  # from those beside it in the alphabet; the rest does harm
        ...     return sum(0.1 if abs(ord(task) - ord(other)) == 1 else -0.05 for other in others)
        >>> def measure(subsets, effort=1.0):
        ...     return {subset: {task: gain(task, subset - {task}) for task in subset} for subset in subsets}
        >>> found = search("abcdef", measure, budget=20, networks=3)
        >>> found.spent
        20.0
        >>> found.gain > 0.05
        True
    """
    names = _tasks(tasks)
    allowed = _candidates(names, candidates)
    rungs = check_request(budget, networks, efforts)
    ledger = _TrainedSubsets(names, measure)
    everything = frozenset(names)
    if len(names) > 1 and (allowed is None or everything in allowed):
        ledger.train([everything], 1.0)
    left = (budget - ledger.spent) / len(rungs)
    waiting = list(islice(propose(names, np.random.default_rng(seed), allowed), int(left / rungs[0] + 1e-9)))
    for effort, following in zip(rungs, [*rungs[1:], None], strict=True):
        gains = ledger.train(waiting, effort)
        if following is not None:
            waiting = _most_useful(names, gains, int(left / following + 1e-9))
    return choose(names, ledger.measured, networks, noise=noise, failed=ledger.failed, spent=ledger.spent)


def choose(
    tasks: Sequence[str],
    measured: Measured,
    networks: int,
    *,
    noise: Mapping[str, float] | None = None,
    failed: Iterable[Subset] = (),
    spent: float = 0.0,
) -> Grouping:
    """The best few networks among measured subsets and single tasks: the largest summed gain, each task served where it
    gains most.

    Args:
        tasks: their names.
        measured: gains over single-task learning, by subset and task.
        networks: the most networks.
        noise: by task, the standard deviation of one measured gain (`shrunk`).
        failed, spent: handed on to the result.

    Raises:
        GroupingError: so few networks cannot serve all tasks with what was measured.

    Example:
        >>> from steelyard.grouping import choose
        >>> measured = {frozenset("abc"): {"a": 0.2, "b": -0.1, "c": 0.1}, frozenset("bc"): {"b": 0.1, "c": 0.3}}
        >>> choose("abc", measured, networks=2).gains
        {'a': 0.2, 'b': 0.1, 'c': 0.3}
    """
    found = best_of(tasks, measured, networks, noise=noise, failed=failed, spent=spent)
    if found is None:
        raise GroupingError(
            f"{networks} network{'s' * (networks > 1)} cannot serve {len(tasks)} tasks with the {len(measured)} "
            "subsets that were measured: allow more networks, or a larger budget"
        )
    return found


def best_of(
    tasks: Sequence[str],
    measured: Measured,
    networks: int,
    *,
    noise: Mapping[str, float] | None = None,
    failed: Iterable[Subset] = (),
    spent: float = 0.0,
) -> Grouping | None:
    """`choose`, and none where so few networks cannot serve all tasks."""
    names = _tasks(tasks)
    subsets = [*map(frozenset, measured), *(frozenset([name]) for name in names)]
    gains = np.full((len(subsets), len(names)), -np.inf)
    for row, values in enumerate(measured.values()):
        for name, value in values.items():
            gains[row, names.index(name)] = value
    if noise is not None:
        gains[: len(measured)] = shrunk(gains[: len(measured)], np.array([noise[name] for name in names]))
    gains[len(measured) :][np.eye(len(names), dtype=bool)] = 0.0
    cover = best_cover(gains, networks)
    if cover is None:
        return None
    return _grouping(names, subsets, gains, cover, measured, tuple(failed), spent)


def _grouping(
    names: tuple[str, ...],
    subsets: Sequence[Subset],
    gains: Gains,
    cover: Cover,
    measured: Measured,
    failed: tuple[Subset, ...],
    spent: float,
) -> Grouping:
    rows = np.array(cover.rows)
    serving = rows[gains[rows].argmax(0)]
    served_by = {name: subsets[row] for name, row in zip(names, serving, strict=True)}
    # A network that serves nobody best is not kept.
    used = sorted({int(row) for row in serving}, key=lambda row: (-len(subsets[row]), sorted(subsets[row])))
    return Grouping(
        tasks=names,
        networks=tuple(subsets[row] for row in used),
        served_by=served_by,
        gains={name: float(gains[row, task]) for task, (name, row) in enumerate(zip(names, serving, strict=True))},
        gap=cover.gap / len(names),
        measured={frozenset(subset): dict(values) for subset, values in measured.items()},
        failed=failed,
        spent=spent,
    )


class _TrainedSubsets:
    """What was trained, what it gave, and what it cost."""

    def __init__(self, tasks: tuple[str, ...], measure: Measure) -> None:
        self.tasks, self.measure = tasks, measure
        self.measured: dict[Subset, dict[str, float]] = {}
        self.failed: list[Subset] = []
        self.spent = 0.0

    def train(self, subsets: Sequence[Subset], effort: float) -> dict[Subset, dict[str, float]]:
        """Gains of those whose training gave any."""
        if not subsets:
            return {}
        given = {frozenset(subset): values for subset, values in self.measure(subsets, effort=effort).items()}
        self.spent += effort * len(subsets)
        gains = {}
        for subset in subsets:
            values = {task: float(value) for task, value in given.get(subset, {}).items()}
            if values and set(values) != subset:
                raise GroupingError(
                    f"measure gave gains of {', '.join(sorted(values))} for the subset {', '.join(sorted(subset))}"
                )
            if values and np.isfinite(list(values.values())).all():
                gains[subset] = {task: values[task] for task in self.tasks if task in subset}
            else:
                self.failed.append(subset)
        if effort == 1.0:
            self.measured.update(gains)
        return gains


def _most_useful(tasks: tuple[str, ...], gains: Mapping[Subset, Mapping[str, float]], count: int) -> list[Subset]:
    """The subsets that add most to single tasks and those chosen before them; once nothing adds, by mean gain."""
    left, chosen = dict(gains), list[Subset]()
    reached = dict.fromkeys(tasks, 0.0)
    while left and len(chosen) < count:
        added = {s: sum(max(0.0, gain - reached[task]) for task, gain in values.items()) for s, values in left.items()}
        best = max(left, key=lambda s: (added[s], sum(left[s].values()) / len(s)))
        for task, gain in left.pop(best).items():
            reached[task] = max(reached[task], gain)
        chosen.append(best)
    return chosen


def _tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    names = tuple(tasks)
    if not names:
        raise GroupingError("no tasks: name at least one")
    if len(set(names)) < len(names):
        raise GroupingError(f"a task is named twice: {', '.join(names)}")
    return names


def _candidates(tasks: tuple[str, ...], candidates: Iterable[Collection[str]] | None) -> list[Subset] | None:
    if candidates is None:
        return None
    found = list(dict.fromkeys(frozenset(subset) for subset in candidates))
    if unknown := sorted(set().union(*found) - set(tasks)):
        raise GroupingError(f"candidates name {', '.join(unknown)}: there are {', '.join(tasks)}")
    return found


def check_request(budget: float, networks: int, efforts: Sequence[float]) -> tuple[float, ...]:
    """The efforts, once all three make sense."""
    if not networks >= 1:
        raise GroupingError(f"networks={networks!r}: at least one network has to serve the tasks")
    if not 1.0 <= budget < float("inf"):
        raise GroupingError(f"budget={budget!r}: it counts trainings of one network, and the one for all tasks takes 1")
    rungs = tuple(efforts)
    if not rungs or rungs[-1] != 1.0 or not all(low < high for low, high in pairwise((0.0, *rungs))):
        raise GroupingError(f"efforts={rungs}: they rise from above 0 to 1, the whole training, as (0.25, 1)")
    return rungs

"""Whether every seed of a study has its own division of the rows: by a rule that knows nothing of results."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from steelyard.errors import ProblemError
from steelyard.problems.problem import Problem
from steelyard.problems.sources import data_digests
from steelyard.problems.task import Task
from steelyard.study.planning.plan import FEW_TEST_ROWS
from steelyard.study.training.problem_rehearsal import attempt


@dataclass(frozen=True)
class Divisions:
    """Whether every seed has its own, and the reason where the rule says so; empty where somebody asked."""

    resplit: bool
    reason: str = ""

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Say of a division that has no use why there are several, and how there is one, where nobody asked."""
        try:
            yield
        except ProblemError as error:
            if not self.reason or not re.search(r"\bdivision \d", str(error)):
                raise
            raise ProblemError(f"{error}. Every seed has its own division of the rows, {self.reason}") from error


def choose_divisions(problem: Problem, tasks: Sequence[Task], asked: bool | None) -> Divisions:
    """What was asked for, or else the rule: a division each where the smallest task has few test labels.

    Only where that can be had: `load` takes a seed, and the seed divides the test rows too, which the data did not
    come with.
    """
    if asked is not None:
        return Divisions(asked)
    if not problem.redrawable:
        return Divisions(False)
    test = attempt(problem, "loading the data", problem.data).test
    labels = {task.label: int(test.labelled(task).sum()) for task in tasks}
    smallest = min(labels, key=lambda label: labels[label])
    reason = (
        f"because {smallest} has {labels[smallest]} test labels, fewer than {FEW_TEST_ROWS} (--no-resplit: one "
        "division for all)"
    )
    if labels[smallest] >= FEW_TEST_ROWS:
        return Divisions(False)
    divided = Divisions(True, reason)
    with divided.explained():
        first, second = (_test_rows(problem, seed) for seed in (0, 1))
    return divided if first != second else Divisions(False)


def _test_rows(problem: Problem, seed: int) -> list[str]:
    drawn = attempt(problem, f"loading the data of division {seed}", partial(problem.redrawn().data, seed))
    digests = data_digests(drawn)
    return [digest for name, digest in sorted(digests.items()) if " of test" in name]


def check_divisions(problem: Problem, seeds: Sequence[int]) -> None:
    """Refuse a load() that takes a seed and leaves it lying."""
    if len(seeds) > 1 and data_digests(problem.data(seeds[0])) == data_digests(problem.data(seeds[1])):
        raise ProblemError(
            f"problem {problem.name!r}: load(seed={seeds[0]}) and load(seed={seeds[1]}) give the same rows: hand the "
            "seed to what divides them, as in split(inputs, targets, seed=seed), or leave --resplit (resplit=True) away"
        )

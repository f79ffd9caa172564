"""The rows of the leaderboard: ways of training all tasks of a problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from steelyard.base.specs import SpecPart
from steelyard.errors import SteelyardError
from steelyard.method_registry import BEST_FIXED, method_class, methods
from steelyard.problems.problem import Problem
from steelyard.reproductions.leaderboard.board_results import Group
from steelyard.study.planning.arms import Arm, parse_arm
from steelyard.study.planning.planned_methods import planned_methods
from steelyard.study.trial import PLAIN_SUM, SINGLE_TASK

BASELINES = (SINGLE_TASK, PLAIN_SUM, BEST_FIXED)
LEFT_OUT = {
    "fixed": "constant weights are the row best-fixed; at its default it is the plain sum",
    "schedule": "at its default it is the plain sum",
}
SHORTER = {"stch": "stch(warm_up=0)"}
"""Instead of what would not begin: a warm-up of five epochs is all that some trainings here have."""
ARCHITECTURES = ("mmoe", "cross-stitch", "ple", "mtan")
PLACES = tuple(f"{method}(look={look})" for method in ("mgda", "cagrad", "db-mtl") for look in ("last", "trunk"))
STEPPED = (PLAIN_SUM, "uw", "mgda", "db-mtl")  # once more by SGD
SGD = "sgd"


@dataclass(frozen=True)
class WantedRow:
    """One row.

    Args:
        name: the same on every problem.
        arm: as a study has it.
        of: the row from which it differs in a place or the optimizer alone.
        optimizer: the problem's own where empty.
    """

    name: str
    group: Group
    arm: Arm
    of: str = ""
    optimizer: str = ""

    @property
    def reads(self) -> str:
        """What its method reads, and where."""
        if self.arm.method.name in (SINGLE_TASK, BEST_FIXED):
            return "losses"
        cls = method_class(self.arm.method.name)
        place = self.arm.method.options.get("look") or self.arm.shared
        return cls.reads if place is None else f"{cls.reads}, {place}"


def every_row() -> list[WantedRow]:
    """The rows that every problem has, as far as they can be trained there."""
    names = [SHORTER.get(row.name, row.name) for row in methods() if row.name not in (*LEFT_OUT, *BASELINES)]
    arms = [*BASELINES, *names, *(f"{PLAIN_SUM}@{each}" for each in ARCHITECTURES), *PLACES]
    stepped = [
        replace(row_of(name), name=f"{name}, SGD", group="optimizer", of=name, optimizer=SGD) for name in STEPPED
    ]
    return [*map(row_of, arms), *stepped]


def row_of(text: str) -> WantedRow:
    """The row of an arm: ``uw``, ``equal@mmoe``, ``mgda(look=trunk)``, ``my_package:MyMethod(beta=0.9)``."""
    arm = parse_arm(text)
    name = str(arm)
    if name in BASELINES:
        group: Group = "single" if name == SINGLE_TASK else "sum" if name == PLAIN_SUM else "fixed"
        return WantedRow(name, group, arm)
    if arm.architecture is not None:
        plain = str(replace(arm, architecture=None))
        return WantedRow(str(arm.architecture) if plain == PLAIN_SUM else name, "architecture", arm)
    if "look" in arm.method.options or arm.shared is not None:
        options = {option: value for option, value in arm.method.options.items() if option != "look"}
        spec = replace(arm.method, method=SpecPart(arm.method.name, options))
        return WantedRow(name, "place", arm, of=str(replace(arm, method=spec, shared=None)))
    return WantedRow(name, "method", arm)


def rows_of_arms(texts: Sequence[str]) -> list[WantedRow]:
    """The rows of these arms, each once."""
    return list({row.name: row for row in map(row_of, texts)}.values())


def fitted(rows: Sequence[WantedRow], problem: Problem) -> tuple[list[WantedRow], dict[str, str]]:
    """The rows that are defined for a problem's tasks, read where they can be; and why the others are not.

    What reads gradients at one place alone is read there.
    """
    found, why = [], {}
    for row in rows:
        placed = replace(row, arm=_placed(row.arm, problem))
        try:
            planned_methods([placed.arm], problem.task_names, problem.shared, None, "hard-sharing", problem.main)
        except SteelyardError as error:
            why[row.name] = str(error)
        else:
            found.append(placed)
    names = {row.name for row in found}
    return [replace(row, of=row.of if row.of in names else "") for row in found], why


def _placed(arm: Arm, problem: Problem) -> Arm:
    name = arm.method.name
    if arm.shared is not None or arm.networks or name in (SINGLE_TASK, BEST_FIXED):
        return arm
    cls = method_class(name)
    if cls.reads in ("losses", "lookahead") or problem.shared in cls.where or "look" in arm.method.options:
        return arm
    return replace(arm, shared=min(cls.where))

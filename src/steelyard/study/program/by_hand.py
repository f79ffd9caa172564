"""The trial of a program that no study runs: what a person asks it for, by arguments and the environment."""

from __future__ import annotations

import os

from steelyard.errors import ProgramError
from steelyard.study.program.declaration import ProgramDeclaration
from steelyard.study.trial import PLAIN_SUM, SINGLE_TASK, Trial


def by_hand(declaration: ProgramDeclaration, method: str | None, seed: int | None) -> Trial:
    """What a person wants who runs the program; arguments come before ``STEELYARD_METHOD`` and ``STEELYARD_SEED``."""
    named = os.environ.get("STEELYARD_TASKS")
    names = [name.strip() for name in named.split(",")] if named else declaration.task_names
    tasks = tuple(task.name for task in declaration.only(names))
    chosen = method or os.environ.get("STEELYARD_METHOD") or PLAIN_SUM
    if chosen == SINGLE_TASK and len(tasks) > 1:
        raise ProgramError(f"{SINGLE_TASK} is one task: name it, STEELYARD_TASKS={tasks[0]}")
    text = os.environ.get("STEELYARD_SEED", "0")
    if seed is None and not text.isdecimal():
        raise ProgramError(f"STEELYARD_SEED={text!r} is no whole number")
    return Trial(
        problem="",
        method=SINGLE_TASK if len(tasks) == 1 else chosen,
        tasks=tasks,
        seed=int(text) if seed is None else seed,
        fractions=tuple((task, 1.0) for task in tasks),
        epochs=declaration.epochs,
        batch_size=0,
    )

"""What one problem of the leaderboard found, as a file: ``FOLDER/PROBLEM.json``, one per problem.

A file is plain JSON that anybody can read; the field names are those of the classes below. Numbers that are none are
written as the strings "NaN", "Infinity" and "-Infinity", which standard JSON does not have. Fields with a default may
be missing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from steelyard.errors import LeaderboardError
from steelyard.io.plain_json import plain
from steelyard.io.typed import typed
from steelyard.io.writing import replacing

FORMAT = 1
Group = Literal["method", "architecture", "sum", "fixed", "single", "place", "optimizer"]
GROUPS: tuple[str, ...] = get_args(Group)


@dataclass(frozen=True)
class BoardTask:
    """A task, and the metric that it is judged by.

    Attributes:
        ideal: 1 for accuracy and R², 0 for errors: Δm is then about the remaining error; None where nobody knows one.
        trivial: what one prediction for all rows reaches, where R², AUC or a correlation tells it; None elsewhere.
    """

    name: str
    metric: str
    higher_is_better: bool
    ideal: float | None = None
    trivial: float | None = None


@dataclass(frozen=True)
class BoardSeed:
    """One seed of one row: the values at the epoch that validation chose.

    ``seconds`` of training and ``steps`` are those of all networks of the row together. ``reached``: by task, the best
    validation value of the first half of the epochs, and that of all; empty where there is one epoch.
    """

    test: dict[str, float]
    validation: dict[str, float]
    seconds: float
    steps: int
    reached: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class BoardRow:
    """One way of training all tasks of the problem.

    Attributes:
        name: as it stands in the tables, the same on every problem: ``uw``, ``mmoe``, ``mgda, at the parameters``.
        group: "method" weighs hard sharing; "architecture" has the plain sum; "sum" is the plain sum of hard sharing,
            "fixed" the best constant weights, "single" single-task learning, one row each; "place" and "optimizer" are
            methods elsewhere read, or otherwise stepped.
        reads: what the method reads, or where.
        chosen: by validation, learning rate and so on.
        failed: why there is no result; seeds that did finish may stand beside it.
        seconds_per_step: of training.
        peak_memory: bytes; None where nobody measured it.
        of: of a row of "place" or "optimizer", the name of the row that it differs from in that alone.
    """

    name: str
    group: Group
    reads: str
    chosen: dict[str, typing.Any]
    failed: str | None
    seconds_per_step: float
    peak_memory: int | None
    per_seed: dict[int, BoardSeed]
    of: str = ""


@dataclass(frozen=True)
class BoardProblem:
    """All rows of one problem.

    Attributes:
        kind: images, tables, molecules, robot, drugs, dense.
        main: the task that the others are there for; None where all count alike.
        command: that made the file.
        seeds: that rows are judged by; ``tuning_seeds`` chose their ``rates``.
        beyond: so many more rates were tried past an edge that was the best; 0 in files of before.
        trained_seconds: of everything that was trained for the file, what only chose included.
        facts: numbers that tell problems apart, by name: ``train_rows``, ``missing_labels`` (share of all training
            labels), ``loss_scales`` (the largest of the tasks' first losses over the smallest).
    """

    problem: str
    kind: str
    tasks: tuple[BoardTask, ...]
    main: str | None
    command: str
    seeds: tuple[int, ...]
    epochs: int
    rates: tuple[float, ...]
    tuning_seeds: tuple[int, ...]
    machine: dict[str, typing.Any]
    versions: dict[str, str]
    trained_seconds: float
    rows: tuple[BoardRow, ...]
    facts: dict[str, float] = field(default_factory=dict)
    beyond: int = 0


def read_folder(path: str | os.PathLike[str]) -> list[BoardProblem]:
    """Every ``*.json`` of a folder, by name.

    Raises:
        LeaderboardError: there is none, one of them is damaged or something else, or two are of one problem.
    """
    folder = Path(path)
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        raise LeaderboardError(f"{folder} holds no results of the leaderboard: name a folder with PROBLEM.json in it")
    found: dict[str, Path] = {}
    problems = []
    for file in files:
        problem = read(file)
        if problem.problem in found:
            raise LeaderboardError(f"{found[problem.problem]} and {file} are both of {problem.problem!r}: keep one")
        found[problem.problem] = file
        problems.append(problem)
    return problems


def read(path: str | os.PathLike[str]) -> BoardProblem:
    """What `write` wrote.

    Raises:
        LeaderboardError: the file cannot be read, or holds something else.
    """
    try:
        text = Path(path).read_bytes().decode()
        document = json.loads(text, object_pairs_hook=_once, parse_constant=_no_json)
    except (OSError, ValueError, RecursionError) as error:
        raise LeaderboardError(f"cannot read {path}: {error}. Export it again") from error
    told = document.pop("format", None) if isinstance(document, dict) else None
    if type(told) is not int or told != FORMAT:
        raise LeaderboardError(
            f"{path} is no result of the leaderboard that this version reads: its format is {told!r}, not {FORMAT}"
        )
    try:
        problem = typing.cast(BoardProblem, typed(BoardProblem, document))
        check(problem)
    except (TypeError, ValueError, OverflowError) as error:
        raise LeaderboardError(f"{path} is damaged: {error}. Export it again") from error
    return problem


def write(problem: BoardProblem, path: str | os.PathLike[str]) -> None:
    """Write a whole file or none; an earlier one is replaced.

    Raises:
        LeaderboardError: the results do not fit together.
        OSError: the file cannot be written.
    """
    try:
        check(problem)
    except ValueError as error:
        raise LeaderboardError(f"{path} is not written: {error}") from error
    document = {"format": FORMAT, **typing.cast(dict[str, object], plain(dataclasses.asdict(problem)))}
    with replacing(path) as file:
        file.write(_one_row_a_line(document).encode())


def _one_row_a_line(document: dict[str, object]) -> str:
    """JSON whose changes can be read: a row that is added or trained anew is one line."""
    rows = [_dump(row) for row in typing.cast(list[object], document["rows"])]
    parts = {name: _dump(value) for name, value in document.items()}
    parts["rows"] = "[\n" + ",\n".join(rows) + "\n]"
    return "{\n" + ",\n".join(f"{_dump(name)}: {value}" for name, value in parts.items()) + "\n}\n"


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def check(problem: BoardProblem) -> None:
    """Raise ValueError where parts do not fit together: names twice, tasks and seeds that nobody declared, no row to
    compare with."""
    if not problem.problem.strip():
        raise ValueError("the problem has no name")
    tasks = _distinct("task", (task.name for task in problem.tasks))
    if not tasks:
        raise ValueError("there is no task")
    if problem.main is not None and problem.main not in tasks:
        raise ValueError(f"the main task {problem.main!r} is none of {tasks}")
    for kind, seeds in (("seed", problem.seeds), ("tuning seed", problem.tuning_seeds)):
        _distinct(kind, seeds)
    _count("epochs", problem.epochs)
    _count("beyond", problem.beyond)
    _size("trained_seconds", problem.trained_seconds)
    told = [(f"the fact {name!r}", value) for name, value in problem.facts.items()]
    told += [(f"ideal of {task.name!r}", task.ideal) for task in problem.tasks if task.ideal is not None]
    told += [(f"trivial of {task.name!r}", task.trivial) for task in problem.tasks if task.trivial is not None]
    for name, value in told:
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    names = _distinct("row", (row.name for row in problem.rows))
    for group in ("single", "sum", "fixed"):
        if sum(row.group == group for row in problem.rows) > 1:
            raise ValueError(f"there are several rows of the group {group!r}")
    for row in problem.rows:
        _check_row(row, problem, names)


def _check_row(row: BoardRow, problem: BoardProblem, names: list[str]) -> None:
    where = f"row {row.name!r}"
    if not row.name.strip():
        raise ValueError("a row has no name")
    if row.of and row.of not in names:
        raise ValueError(f"{where} differs from {row.of!r}, which is no row")
    if row.per_seed or row.failed is None:
        _size(f"seconds_per_step of {where}", row.seconds_per_step)
    if row.peak_memory is not None:
        _count(f"peak_memory of {where}", row.peak_memory)
    if not row.per_seed and row.failed is None:
        raise ValueError(f"{where} has neither a seed nor a reason why it failed")
    tasks = {task.name for task in problem.tasks}
    for seed, found in row.per_seed.items():
        if seed not in problem.seeds:
            raise ValueError(f"{where} has the seed {seed}, which is none of {list(problem.seeds)}")
        for part, values in (("test", found.test), ("validation", found.validation)):
            if set(values) != tasks:
                raise ValueError(f"{where}, seed {seed}: {part} values of {sorted(values)}, not of {sorted(tasks)}")
        if found.reached and set(found.reached) != tasks:
            raise ValueError(
                f"{where}, seed {seed}: what was reached of {sorted(found.reached)}, not of {sorted(tasks)}"
            )
        _size(f"seconds of {where}, seed {seed}", found.seconds)
        _count(f"steps of {where}, seed {seed}", found.steps)


def _distinct(kind: str, found: Iterable[typing.Any]) -> list[typing.Any]:
    names = list(found)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the {kind} {twice[0]!r} is there twice")
    return names


def _size(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {value}")


def _count(name: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"{name} is {value}")


def _once(pairs: list[tuple[str, typing.Any]]) -> dict[str, typing.Any]:
    """An object of JSON, whose names may not come twice: the later one would hide the earlier."""
    found = dict(pairs)
    if len(found) < len(pairs):
        _distinct("name", (name for name, _ in pairs))
    return found


def _no_json(constant: str) -> float:
    raise ValueError(f'{constant} is no JSON: numbers that are none are written "NaN", "Infinity", "-Infinity"')

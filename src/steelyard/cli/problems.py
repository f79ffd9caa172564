"""``steelyard problems``: the built-in problems, or one of them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from steelyard.cli.described import print_options
from steelyard.cli.shared_options import ToDescribe

if TYPE_CHECKING:
    from steelyard.problems.problem import Problem


def problems(name: ToDescribe = None) -> None:
    """List the built-in problems, or describe one."""
    if name is None:
        _list()
    else:
        _describe(name)


def _list() -> None:
    from rich.table import Table
    from rich.text import Text

    from steelyard.io.console import make_console
    from steelyard.problems import load_problem, problem_names
    from steelyard.problems.files import VARIABLE

    table = Table("problem", "tasks", "data", "what it is", box=None, pad_edge=False)
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    for name in problem_names():
        problem = load_problem(name)
        table.add_row(name, str(len(problem.tasks)), _data(problem), Text(problem.summary))
    console = make_console()
    console.print(table)
    console.print(
        f"\nData are looked for in the folders of {VARIABLE}, then in the cache, then downloaded where possible.\n"
        "Tasks, training and options of one: steelyard problems NAME\n"
        "A problem of your own: steelyard new my_problem.py",
        markup=False,
    )


def _describe(name: str) -> None:
    """The tasks with their metrics, the training, and where the data come from."""
    from rich.table import Table
    from rich.text import Text

    from steelyard.io.console import make_console
    from steelyard.problems import load_problem
    from steelyard.problems.problem_registry import problem_options

    problem = load_problem(name)
    console = make_console()
    console.print(problem.name, style="bold", markup=False)
    for line in textwrap.wrap(problem.summary, console.width):
        console.print(line, markup=False)
    table = Table("task", "label", "metrics (the first is judged)", box=None, pad_edge=False)
    for task in problem.tasks:
        table.add_row(Text(task.name), Text(task.label), ", ".join(metric.name for metric in task.metrics))
    console.print()
    console.print(table)
    if problem.main:
        console.print(f"\nThe main task is {problem.main}: the others are there to help it.", markup=False)
    folds = f", {problem.folds}-fold cross-validation" if problem.folds > 1 else ""
    console.print(
        f"\nTraining: {problem.epochs} epochs, batches of {problem.batch_size}, gradients at the "
        f"{problem.shared}{folds}\n"
        f"Data: {_data(problem)}" + (f"; {problem.source}" if problem.source else ""),
        markup=False,
    )
    registered = problem.reference.partition("(")[0]
    if not problem.fingerprint and (options := problem_options(registered)):
        print_options(registered, [f"{option}={value}" for option, value in options.items()])


def _data(problem: Problem) -> str:
    from steelyard.problems.files import present

    if not problem.needs:
        return "embedded"
    return "found" if all(map(present, problem.needs)) else "not here"

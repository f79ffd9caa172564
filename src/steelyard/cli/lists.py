"""The tables of ``steelyard methods``, ``steelyard architectures`` and ``steelyard problems``."""

from __future__ import annotations

import inspect
import textwrap

from rich.table import Table
from rich.text import Text

from steelyard.cli.docstrings import rewrapped
from steelyard.io.console import make_console
from steelyard.methods import STAGES
from steelyard.models.building import architecture_class, architecture_names, architecture_options
from steelyard.problems import load_problem, problem_names
from steelyard.problems.files import VARIABLE, present
from steelyard.problems.problem import Problem
from steelyard.problems.registry import problem_options
from steelyard.registry import method_class, method_names, options_of, stage_class
from steelyard.registry import methods as method_rows


def methods() -> None:
    """One line per method: what it reads and what it does."""
    table = Table("method", "reads", "what it does", box=None, pad_edge=False)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.add_row("single-task", "-", "The baseline: one network per task, nothing shared")
    for row in method_rows():
        table.add_row(row.name, row.reads, Text(row.summary))
    console = make_console()
    console.print(table)
    console.print(
        f"\nBefore any method, with a plus: {', '.join(STAGES)}; for example log+mgda.\n"
        "Options of one: steelyard methods NAME",
        markup=False,
    )


def method(name: str) -> None:
    """What a method (or a loss stage) computes, its options and their defaults, its source."""
    if name not in STAGES or name in method_names():
        _describe(name, "method", method_class(name))
    if name in STAGES:
        _describe(name, "loss stage, to be put before a method with a plus", stage_class(name))


def _describe(name: str, kind: str, cls: type) -> None:
    _print_description(name, kind, cls)
    options = options_of(cls).values()
    _print_options(name, [str(option.replace(annotation=inspect.Parameter.empty)) for option in options])


def _print_description(name: str, kind: str, cls: type) -> None:
    console = make_console()
    console.print(f"{name} ({kind})\n", style="bold", markup=False)
    console.print(rewrapped(inspect.getdoc(cls) or "", console.width), markup=False, soft_wrap=True)


def _print_options(name: str, options: list[str]) -> None:
    console = make_console()
    said = f"Options: {name}({','.join(options)})" if options else "No options."
    console.print(f"\n{said}\n", markup=False, soft_wrap=True)  # to be copied: no break that is not the terminal's own


def architectures() -> None:
    """One line per architecture."""
    table = Table("architecture", "what it is", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for name in architecture_names():
        summary = (inspect.getdoc(architecture_class(name)) or "").split("\n", 1)[0].rstrip(".")
        table.add_row(name, Text(summary.replace("``", "")))
    console = make_console()
    console.print(table)
    console.print(
        '\nUsed as: steelyard compare PROBLEM --architecture "mmoe(experts=8)"\n'
        "Options of one: steelyard architectures NAME",
        markup=False,
    )


def architecture(name: str) -> None:
    """What an architecture computes, what a balancer reads in it, its options and their defaults, its source."""
    _print_description(name, "architecture", architecture_class(name))
    options = [f"{key}={value}" for key, value in architecture_options(name).items()]
    _print_options(name, options)


def problems() -> None:
    """One line per problem: tasks, whether its data are at hand, what it is."""
    table = Table("problem", "tasks", "data", "what it is", box=None, pad_edge=False)
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    for name in problem_names():
        found = load_problem(name)
        table.add_row(name, str(len(found.tasks)), _data(found), Text(found.summary))
    console = make_console()
    console.print(table)
    console.print(
        f"\nData are looked for in the folders of {VARIABLE}, then in the cache, then downloaded where possible.\n"
        "Tasks, training and options of one: steelyard problems NAME\n"
        "A problem of your own: steelyard new my_problem.py",
        markup=False,
    )


def problem(name: str) -> None:
    """The tasks of a problem with their metrics, its training, and where the data come from."""
    found = load_problem(name)
    console = make_console()
    console.print(found.name, style="bold", markup=False)
    for line in textwrap.wrap(found.summary, console.width):
        console.print(line, markup=False)
    table = Table("task", "label", "metrics (the first is judged)", box=None, pad_edge=False)
    for task in found.tasks:
        table.add_row(Text(task.name), Text(task.label), ", ".join(metric.name for metric in task.metrics))
    console.print()
    console.print(table)
    if found.main:
        console.print(f"\nThe main task is {found.main}: the others are there to help it.", markup=False)
    folds = f", {found.folds}-fold cross-validation" if found.folds > 1 else ""
    console.print(
        f"\nTraining: {found.epochs} epochs, batches of {found.batch_size}, gradients at the {found.shared}{folds}\n"
        f"Data: {_data(found)}" + (f"; {found.source}" if found.source else ""),
        markup=False,
    )
    registered = found.reference.partition("(")[0]
    if not found.fingerprint and (options := problem_options(registered)):
        _print_options(registered, [f"{option}={value}" for option, value in options.items()])


def _data(found: Problem) -> str:
    if not found.needs:
        return "embedded"
    return "found" if all(map(present, found.needs)) else "not here"

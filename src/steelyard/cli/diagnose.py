"""``steelyard diagnose``: whose gradients dominate or conflict."""

from __future__ import annotations

from typing import Annotated

import typer

from steelyard.cli.arguments import parse_names
from steelyard.cli.messages import interrupted
from steelyard.cli.shared_options import DEVICE, PRECISION, Architecture, Device, Precision, Problem, Shared, Tasks


def diagnose(
    problem: Problem,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training data.", show_default="5, or the problem's if fewer")
    ] = None,
    shared: Shared = None,
    architecture: Architecture = "hard-sharing",
    tasks: Tasks = None,
    affinity: Annotated[
        bool, typer.Option("--affinity", help="Print affinities between the tasks: the look-ahead of TAG, and cosines.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the network's start and the batches.")] = 0,
    device: Device = DEVICE,
    precision: Precision = PRECISION,
) -> None:
    """Train the plain sum for a while, and say whose gradients dominate or conflict."""
    from rich.progress import Progress

    from steelyard.io.console import make_console
    from steelyard.problems import load_problem
    from steelyard.problems.guard import guarded
    from steelyard.report.diagnosis_course import show_course
    from steelyard.study.training.diagnose_training import Course, diagnose_training

    names = parse_names("--tasks", tasks)
    errors = make_console(stderr=True)

    @guarded
    def trained() -> Course:
        with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
            bar = progress.add_task("training the plain sum", total=None)

            def on_epoch(epoch: int, all_epochs: int) -> None:
                progress.update(bar, completed=epoch, total=all_epochs)

            found = load_problem(problem)
            return diagnose_training(
                found, epochs, architecture, shared, seed, on_epoch, affinity, names, device, precision
            )

    try:
        course = trained()
    except KeyboardInterrupt:
        interrupted("Stopped; nothing was kept.")
    show_course(course, make_console())

"""``steelyard leaderboard``: every method on many problems, at equal budgets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli import arguments
from steelyard.cli.messages import SOME_FAILED, command_line, resumable, say
from steelyard.cli.shared_options import Checkpoints, On, Workers

SEEDS = 5


ANSWERING = ("from_folder", "page", "markdown")
"""Arguments that stand beside `--from`."""
RECHECKING = ("recheck", "problems", "export", "hours", "workers", "on", "checkpoints")
"""Arguments that stand beside `--recheck`."""


def leaderboard(
    context: typer.Context,
    problems: Annotated[
        str | None,
        typer.Option(
            help="Which, separated by commas: those of the leaderboard, or any that `steelyard compare` takes.",
            show_default="all; with --add those of the folder",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            "-m",
            help="Rows, as `steelyard compare` takes them; single-task, equal and best-fixed are always added.",
            show_default="all",
        ),
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(
            help="One row more, with the budget of those that are there: my_package:MyMethod(beta=0.9). May be given "
            "several times.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="How many seeds, or which ones: 5, or 3,7,11.", show_default="5; with --add those of files"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two small problems, fewer epochs.")] = False,
    hours: Annotated[
        float | None, typer.Option(help="Stop in order after so many hours.", show_default="when all is trained")
    ] = None,
    workers: Workers = None,
    on: On = "local",
    checkpoints: Checkpoints = None,
    store: Annotated[Path, typer.Option(help="Where results are kept.")] = Path("leaderboard.sqlite"),
    export: Annotated[Path, typer.Option(help="The folder of the problems' files, PROBLEM.json.")] = Path(
        "leaderboard"
    ),
    recheck: Annotated[
        float | None,
        typer.Option(
            help="Train so large a share of the exported trials again, drawn at random, and say of each whether it "
            "agrees with its file; nothing else is done.",
            show_default=False,
        ),
    ] = None,
    from_folder: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Say what the files of a folder say together; nothing is trained.", show_default=False
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="The page to write of --from, or of all files at the end.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="A Markdown file: its section on the leaderboard is renewed, or added.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained and how long it takes, by timing a few steps.")
    ] = False,
) -> None:
    """Train every method on many problems at equal budgets, and write what each problem found.

    Whole problems come first, each with its learning rates chosen on seeds of their own. Stopped at any moment, the
    same command goes on where it was.
    """
    import math

    _check_options(context, from_folder is not None, recheck, hours)
    if from_folder is not None:
        _answer(from_folder, page, markdown)
        return
    from steelyard.report.output_files import check_store
    from steelyard.reproductions.leaderboard import run_board
    from steelyard.reproductions.leaderboard.ask_board import AskedBoard, planned_problems
    from steelyard.reproductions.leaderboard.time_limit import Deadline, TimeIsUpError
    from steelyard.reproductions.run_reproduction import Where
    from steelyard.study.planning.make_plan import check_workers
    from steelyard.study.running.engines import load_engine
    from steelyard.study.running.engines.local import places_here

    command = command_line()
    check_store(store)
    _check_reports(page, markdown, store)
    check_workers(workers)
    if export.exists() and not export.is_dir():
        raise arguments.ArgumentError(f"--export {export} is a file: name a folder, each problem gets a file in it")
    where = Where(load_engine(on), workers, checkpoints=checkpoints)
    chosen = None if seeds is None else arguments.parse_seeds(seeds)
    deadline = Deadline(math.inf) if hours is None else Deadline.after(hours)
    wanted = arguments.parse_outside("--problems", problems)
    rows = arguments.parse_outside("--methods", methods)
    try:
        with resumable(command):
            where.engine.get_ready()
            if recheck is not None:
                if not run_board.train_again(export, wanted, recheck, where, deadline):
                    raise typer.Exit(SOME_FAILED)
                return
            asked = AskedBoard(
                wanted, rows, tuple(add or ()), SEEDS if chosen is None else chosen, quick, chosen is not None
            )
            say("Trying every row once and timing a few steps of each kind …\n")
            planned, missing = planned_problems(asked, export, command)
            for line in missing:
                say(f"Left out: {line}")
            run_board.announce(planned, store, places_here("cpu", 1, workers) if on == "local" else workers or 1)
            if dry_run:
                say("Nothing was trained or written.")
                return
            failed = run_board.carry_out(planned, store, where, export, deadline)
    except TimeIsUpError:
        say(f"\nStopped after {hours:g} hours. What is finished is kept; go on with the same command:\n  {command}")
        return
    say(f"\nStore: {store}\nFiles: {export}")
    _say_of_files(export, asked.add, page, markdown)
    for line in failed:
        say(f"Failed: {line}", err=True)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _check_options(context: typer.Context, answering: bool, recheck: float | None, hours: float | None) -> None:
    if hours is not None and not 0 < hours < float("inf"):
        raise arguments.ArgumentError(f"--hours {hours:g}: give a number above 0, as in 8 or 0.5")
    if recheck is not None and not 0 < recheck <= 1:
        raise arguments.ArgumentError(f"--recheck {recheck:g}: give a share of all trials, above 0 and at most 1")
    if answering:
        arguments.refuse_beside(context, "--from trains nothing", ANSWERING)
    if recheck is not None:
        arguments.refuse_beside(context, "--recheck trains again what the files say, and writes nothing", RECHECKING)


def _answer(folder: Path, page: Path | None, markdown: Path | None) -> None:
    """Print what the files of a folder say together, and write it where asked."""
    from steelyard.reproductions.leaderboard.report_board import report_board

    for line in report_board(folder, page, markdown):
        say(line)
    for path in (page, markdown):
        if path is not None:
            say(f"Written: {path}")


def _say_of_files(folder: Path, added: Sequence[str], page: Path | None, markdown: Path | None) -> None:
    """What rows that were added gain, and everything that the files say where a page of it was asked for."""
    if added:
        from steelyard.reproductions.leaderboard.added_rows import added_lines

        for line in added_lines(folder, added):
            say(line)
    if page is not None or markdown is not None:
        _answer(folder, page, markdown)


def _check_reports(page: Path | None, markdown: Path | None, store: Path) -> None:
    """Refuse what could not be written at the end now, rather than after hours."""
    from steelyard.report.output_files import PAGE, check_outputs
    from steelyard.reproductions.leaderboard.board_markdown import NAME
    from steelyard.reproductions.markdown import check_section

    check_outputs([(page, PAGE), (markdown, None)], store)
    if markdown is not None:
        check_section(markdown, NAME)

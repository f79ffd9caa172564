"""The ``steelyard`` command. What does the work is imported late, so that a mistyped option does not wait."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from steelyard import __version__
from steelyard.cli import arguments
from steelyard.cli.usage import usage_error
from steelyard.errors import SteelyardError, SteelyardWarning
from steelyard.io.printing import printable

if TYPE_CHECKING:
    from steelyard.study import Judgement

WRONG_INPUT, SOME_FAILED, INTERRUPTED = 2, 1, 130
METHODS = "single-task,equal,dwa,uw,ema,db-mtl"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"steelyard {__version__}")
        raise typer.Exit()


@app.callback()
def steelyard(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Balance several losses with one call, and know whether sharing helped."""


@app.command()
def compare(
    problem: Annotated[
        str, typer.Argument(help="A name from `steelyard problems`, options in parentheses; or your own my_problem.py")
    ],
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            "-m",
            help="Separated by commas, options in parentheses: 'ema(beta=0.9),dwa'; METHOD(shared=trunk) reads "
            "gradients there; METHOD@ARCHITECTURE gives one an architecture of its own; best-fixed: constant weights "
            "chosen on validation data. single-task and equal are always added.",
        ),
    ] = METHODS,
    tasks: Annotated[
        str | None, typer.Option(help="Which tasks to learn, separated by commas.", show_default="all")
    ] = None,
    seeds: Annotated[str, typer.Option(help="How many seeds, or which ones: 5, or 3,7,11.")] = "5",
    fractions: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the training labels. 0.1,1.0 are two settings; left=0.1,right=1.0 is one setting that differs "
            "by task; ';' or the option given again adds settings.",
            show_default="all labels",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training data.", show_default="the problem's")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step.", show_default="the problem's")] = None,
    epoch_steps: Annotated[
        int,
        typer.Option(help="An epoch takes at least so many steps, and several passes where rows are few.", metavar="N"),
    ] = 0,
    learning_rate: Annotated[float | None, typer.Option(help="For all networks.", show_default="the problem's")] = None,
    tune: Annotated[
        int,
        typer.Option(
            help="Try so many learning rates for every method and single task, on a seed of their own, and use the "
            "best on validation data.",
            show_default="0: all at the same rate",
        ),
    ] = 0,
    scale: Annotated[
        str | None,
        typer.Option(
            help="sum: weights rescaled to sum to the number of tasks; paper: as the paper has them.",
            show_default="sum, where it is defined",
        ),
    ] = None,
    shared: Annotated[
        str | None,
        typer.Option(help="Where gradients are read: features or trunk.", show_default="the problem's"),
    ] = None,
    architecture: Annotated[
        str,
        typer.Option(help="Of the network: a name from `steelyard architectures`, options in parentheses."),
    ] = "hard-sharing",
    workers: Annotated[int | None, typer.Option(help="Trainings at a time.", show_default="one per core")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Where results are kept.", show_default="steelyard-PROBLEM.sqlite")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="The page to write.", show_default="beside the store")] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page when it is written.")] = False,
    reuse_any: Annotated[
        bool,
        typer.Option("--reuse-any", help="Take stored results of other code, data or versions as well, and say so."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, how long and how much disk; train nothing.")
    ] = False,
) -> None:
    """Train every method over seeds, and say which tasks sharing helps or hurts.

    Stopped at any moment, the same command goes on where it was.
    """
    from steelyard.report import announcements as comparison
    from steelyard.report.outputs import PAGE, check_outputs, check_store
    from steelyard.study import run

    command = shlex.join(["steelyard", *sys.argv[1:]])
    settings = arguments.parse_fractions(fractions) if fractions else [1.0]
    workers = _cores() if workers is None else workers
    arms, added = comparison.with_baselines(methods)
    if store is not None:
        check_store(store)
    try:
        plan = comparison.prepare(
            problem,
            arms,
            workers,
            tasks=arguments.parse_names("--tasks", tasks),
            seeds=arguments.parse_seeds(seeds),
            settings=settings,
            epochs=epochs,
            batch_size=batch_size,
            epoch_steps=epoch_steps,
            learning_rate=learning_rate,
            architecture=architecture,
            shared=shared,
            scale=scale,
            tune=tune,
            command=command,
        )
        store = store or arguments.default_store(plan.problem)
        page = page or arguments.beside(store, ".html")
        comparison.announce(plan, added)
        if dry_run:
            comparison.forecast(plan, store, workers, reuse_any)
            return
        check_outputs([(page, PAGE)], store)
        judgement = run(plan, store, workers=workers, reuse_any=reuse_any)
    except KeyboardInterrupt:
        say("\nStopped. What is finished is kept; go on with the same command:", err=True)
        say(f"  {command}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _show(judgement, page, open_page)
    comparison.show_joint(store)
    say(f"Store: {store}")
    if judgement.failures:
        raise typer.Exit(SOME_FAILED)


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="One of `steelyard reproduce --list`.")] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="Say what there is, what each needs, and how long it takes.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A version of minutes.")] = False,
    full: Annotated[bool, typer.Option("--full", help="The largest size: days on a small machine.")] = False,
    seeds: Annotated[
        str | None, typer.Option(help="How many seeds, or which ones: 5, or 3,7,11.", show_default="each study's own")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Trainings at a time.", show_default="one per core")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Where results are kept.", show_default="steelyard-NAME.sqlite")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="The page to write.", show_default="beside the store, by size")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="A Markdown file: its section on this reproduction is renewed, or added.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page when it is written.")] = False,
    reuse_any: Annotated[
        bool,
        typer.Option("--reuse-any", help="Take stored results of other code, data or versions as well, and say so."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained and how long it takes, by timing a few steps.")
    ] = False,
) -> None:
    """Run a published system's experiment on real data, and say whether its claim held.

    Stopped at any moment, the same command goes on where it was.
    """
    from steelyard.report.outputs import PAGE, check_outputs, check_store, write_output
    from steelyard.reproductions import listing, load_reproduction
    from steelyard.reproductions.reproduction import Size

    if list_all:
        listing.reproductions()
        return
    if name is None:
        raise arguments.ArgumentError("reproduce what? `steelyard reproduce --list` names the reproductions")
    if quick and full:
        raise arguments.ArgumentError("--quick and --full exclude each other")
    found = load_reproduction(name)
    size: Size = "quick" if quick else "full" if full else "real"
    from steelyard.reproductions import running
    from steelyard.reproductions.markdown import check_section, write_section
    from steelyard.reproductions.page import page as page_of
    from steelyard.reproductions.summary import Summary
    from steelyard.study.planning.planner import check_workers

    command = shlex.join(["steelyard", *sys.argv[1:]])
    workers = _cores() if workers is None else workers
    store = store or arguments.default_store(name)
    check_store(store)
    page_file = page or arguments.beside(store, ".html" if size == "real" else f"-{size}.html")
    chosen = None if seeds is None else arguments.parse_seeds(seeds)
    check_workers(workers)
    if not dry_run:
        check_outputs([(page_file, PAGE), (markdown, None)], store)
        if markdown is not None:
            check_section(markdown, name)

    def write(summary: Summary) -> None:
        write_output(page_file, PAGE, page_of(summary))
        if markdown is not None:
            write_section(markdown, summary)

    try:
        running.introduce(found, size)
        prepared = running.prepare(found, size, workers, chosen, command)
        running.announce(prepared, store, workers, reuse_any)
        if dry_run:
            return
        summary = running.carry_out(found, size, prepared, store, workers, command, write, reuse_any)
    except KeyboardInterrupt:
        say("\nStopped. What is finished is kept; go on with the same command:", err=True)
        say(f"  {command}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    running.show(summary)
    say(f"\nPage: {page_file}\nStore: {store}")
    if markdown is not None:
        say(f"Written: {markdown}")
    if open_page:
        typer.launch(page_file.resolve().as_uri())
    if not summary.complete:
        raise typer.Exit(SOME_FAILED)


@app.command()
def diagnose(
    problem: Annotated[
        str, typer.Argument(help="A name from `steelyard problems`, options in parentheses; or your own my_problem.py")
    ],
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training data.", show_default="5, or the problem's if fewer")
    ] = None,
    shared: Annotated[
        str | None,
        typer.Option(help="Where gradients are read: features or trunk.", show_default="the problem's"),
    ] = None,
    architecture: Annotated[
        str,
        typer.Option(help="Of the network: a name from `steelyard architectures`, options in parentheses."),
    ] = "hard-sharing",
    seed: Annotated[int, typer.Option(help="Of the network's start and the batches.")] = 0,
) -> None:
    """Train the plain sum for a while, and say whose gradients dominate or conflict."""
    from steelyard.cli import diagnose as looking

    try:
        looking.look(problem, epochs, architecture, shared, seed)
    except KeyboardInterrupt:
        say("\nStopped; nothing was kept.", err=True)
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def report(
    store: Annotated[Path, typer.Argument(help="The file that `steelyard compare` filled, finished or not.")],
    page: Annotated[Path | None, typer.Option(help="The page to write.", show_default="beside the store")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the test values as CSV, one row per seed.")] = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Print each method's mean weights as a method of fixed weights.")
    ] = False,
    salvage: Annotated[bool, typer.Option("--salvage", help="Of a damaged store, show what is whole.")] = False,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page when it is written.")] = False,
) -> None:
    """Judge a store again: print the table, and write the page, JSON or CSV."""
    from steelyard.report import to_csv, to_json
    from steelyard.report.frozen import print_frozen
    from steelyard.report.outputs import (
        CSV,
        JSON,
        PAGE,
        check_outputs,
        check_store,
        prints,
        write_output,
    )
    from steelyard.study import judge

    check_store(store)
    page = page or arguments.beside(store, ".html") if open_page or not (json or csv) else page
    judgement = judge(store, salvage)
    check_outputs([(page, PAGE), (json, JSON), (csv, CSV)], store)
    aside = any(map(prints, (page, json, csv)))
    _show(judgement, page, open_page, aside)
    for path, kind, write in ((json, JSON, to_json), (csv, CSV, to_csv)):
        if path is not None:
            write_output(path, kind, write(judgement))
            say(f"Written: {path}", err=aside)
    if frozen:
        print_frozen(judgement, aside)


@app.command("methods")
def list_methods(
    name: Annotated[str | None, typer.Argument(help="Describe this one, with its options.")] = None,
) -> None:
    """List the methods, or describe one."""
    from steelyard.cli import lists as listing

    listing.method(name) if name else listing.methods()


@app.command("architectures")
def list_architectures(
    name: Annotated[str | None, typer.Argument(help="Describe this one, with its options.")] = None,
) -> None:
    """List the architectures of networks, or describe one."""
    from steelyard.cli import lists as listing

    listing.architecture(name) if name else listing.architectures()


@app.command("problems")
def list_problems(
    name: Annotated[str | None, typer.Argument(help="Describe this one, with its tasks.")] = None,
) -> None:
    """List the built-in problems, or describe one."""
    from steelyard.cli import lists as listing

    listing.problem(name) if name else listing.problems()


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="The file to write, e.g. my_problem.py")],
) -> None:
    """Write a small problem file that works as it is, to be edited."""
    from steelyard.cli.new import write_template

    write_template(file)
    say(f"Written: {file}. Edit it, and try it as it is: steelyard compare {file}")


def say(text: object, err: bool = False) -> None:
    """Print a message: names and paths in it are shown, and not obeyed by the terminal."""
    typer.echo(printable(text), err=err)


def main() -> None:
    """The entry point: errors raised on purpose, and those of the command line, become a message and exit code 2."""
    python_says, warnings.formatwarning = warnings.formatwarning, format_warning
    try:
        code = app(prog_name="steelyard", standalone_mode=False)
    except SteelyardError as error:
        _fail(error)
    except (KeyboardInterrupt, typer.Abort):
        say("\nStopped.", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _close_output()
        sys.exit(SOME_FAILED)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            sys.exit(WRONG_INPUT)
        if not hasattr(error, "format_message"):
            raise
        _fail(usage_error(error))
    finally:
        warnings.formatwarning = python_says
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: object) -> NoReturn:
    typer.secho("Error: ", nl=False, err=True, fg="red", bold=True)
    say(error, err=True)
    sys.exit(WRONG_INPUT)


def _close_output() -> None:
    """Nobody reads any more: Python shall not try once more on its way out."""
    with open(os.devnull, "wb") as nowhere, contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _show(judgement: Judgement, page: Path | None, open_page: bool, aside: bool = False) -> None:
    """Print the table, on the error stream where an export is printed; and write the page."""
    from steelyard.io.console import make_console
    from steelyard.report import render, write_page

    render(judgement, make_console(stderr=aside))
    if page is None:
        return
    write_page(judgement, page)
    say(f"\nPage: {page}", err=aside)
    if open_page:
        typer.launch(page.resolve().as_uri())


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning in one line; of Steelyard's own, which say what they are about, without the line of its code."""
    where = "" if issubclass(category, SteelyardWarning) else f"{filename}:{lineno}: {category.__name__}: "
    return printable(f"Warning: {where}{message}") + "\n"


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

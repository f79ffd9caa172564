"""``steelyard reproduce``: a published experiment, and whether its claim held."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steelyard.cli import arguments
from steelyard.cli.messages import SOME_FAILED, command_line, open_in_browser, resumable, say
from steelyard.cli.shared_options import (
    DEVICE,
    PRECISION,
    Checkpoints,
    Device,
    On,
    OpenPage,
    PerDevice,
    Precision,
    ReuseAny,
    Workers,
)
from steelyard.io.lists_and_counts import listed

if TYPE_CHECKING:
    from steelyard.reproductions.reproduction import Reproduction, Size
    from steelyard.reproductions.summary import Summary


def reproduce(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One of `steelyard reproduce --list`.")] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="Say what there is, what each needs, and how long it takes.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A version of minutes.")] = False,
    full: Annotated[bool, typer.Option("--full", help="The largest size: days on a small machine.")] = False,
    seeds: Annotated[
        str | None, typer.Option(help="How many seeds, or which ones: 5, or 3,7,11.", show_default="each study's own")
    ] = None,
    device: Device = DEVICE,
    per_device: PerDevice = 1,
    precision: Precision = PRECISION,
    workers: Workers = None,
    on: On = "local",
    checkpoints: Checkpoints = None,
    store: Annotated[
        Path | None, typer.Option(help="Where results are kept.", show_default="steelyard-NAME.sqlite")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="The page to write.", show_default="beside the store, by size")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="A Markdown file: its section on this reproduction is renewed, or added.")
    ] = None,
    from_trials: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Say what the trials of a store, or of a file (.jsonl, .jsonl.xz), say; nothing is trained.",
            show_default=False,
        ),
    ] = None,
    open_page: OpenPage = False,
    reuse_any: ReuseAny = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained and how long it takes, by timing a few steps.")
    ] = False,
) -> None:
    """Run a published system's experiment on real data, and say whether its claim held.

    Stopped at any moment, the same command goes on where it was.
    """
    from steelyard.report import announcements
    from steelyard.report.output_files import PAGE, check_outputs, check_store, write_output
    from steelyard.reproductions import listing, load_reproduction

    if list_all:
        listing.reproductions()
        return
    if name is None:
        raise arguments.ArgumentError("reproduce what? `steelyard reproduce --list` names the reproductions")
    reproduction, size = load_reproduction(name), _size(quick, full)
    if from_trials is not None:
        arguments.refuse_beside(context, "--from trains nothing", JUDGING)
        _judge(reproduction, size, from_trials, page, markdown, open_page)
        return
    from steelyard.reproductions import run_reproduction
    from steelyard.reproductions.markdown import check_section, write_section
    from steelyard.reproductions.reproduction_page import page as page_of
    from steelyard.study.planning.make_plan import check_per_device, check_workers
    from steelyard.study.running.engines import load_engine
    from steelyard.study.running.engines.interface import device_for
    from steelyard.study.running.engines.local import places_here

    command = command_line()
    store = store or arguments.default_store(name)
    check_store(store)
    page_file = page or arguments.beside(store, ".html" if size == "real" else f"-{size}.html")
    chosen = None if seeds is None else arguments.parse_seeds(seeds)
    check_workers(workers)
    check_per_device(per_device)
    engine = load_engine(on)
    device = device_for(engine, asked := device)
    # What it takes is said of one worker where nobody knows how many machines there will be.
    places = places_here(device, per_device, workers) if on == "local" else workers or 1
    where = run_reproduction.Where(engine, workers, per_device, checkpoints)
    if not dry_run:
        check_outputs([(page_file, PAGE), (markdown, None)], store)
        if markdown is not None:
            check_section(markdown, name)

    def write(summary: Summary) -> None:
        write_output(page_file, PAGE, page_of(summary))
        if markdown is not None:
            write_section(markdown, summary)

    with resumable(command):
        run_reproduction.introduce(reproduction, size)
        prepared = run_reproduction.prepare(
            reproduction, size, where, chosen, command, device=device, precision=precision
        )
        announcements.tell_devices(on, asked, device, per_device)
        run_reproduction.announce(prepared, store, places, reuse_any)
        if dry_run:
            return
        summary = run_reproduction.carry_out(reproduction, size, prepared, store, where, command, write, reuse_any)
    run_reproduction.show(summary)
    say(f"\nStore: {store}")
    _end(summary, page_file, markdown, open_page)


def _size(quick: bool, full: bool) -> Size:
    if quick and full:
        raise arguments.ArgumentError("--quick and --full exclude each other")
    return "quick" if quick else "full" if full else "real"


JUDGING = ("name", "quick", "full", "from_trials", "page", "markdown", "open_page")
"""Arguments that stand beside `--from`: all others are of a training."""


def _judge(
    reproduction: Reproduction, size: Size, source: Path, page: Path | None, markdown: Path | None, open_page: bool
) -> None:
    """Print what stored trials say, and write it where asked."""
    from steelyard.io.console import make_console
    from steelyard.report import render
    from steelyard.report.output_files import PAGE, check_outputs, write_output
    from steelyard.reproductions.from_trials import judged_from
    from steelyard.reproductions.markdown import check_section, write_section
    from steelyard.reproductions.reproduction_page import page as page_of
    from steelyard.reproductions.run_reproduction import show

    if open_page and page is None:
        raise arguments.ArgumentError("--open: which page? Name one with --page")
    check_outputs([(page, PAGE), (markdown, None)], source)
    if markdown is not None:
        check_section(markdown, reproduction.name)
    summary = judged_from(reproduction, size, source)
    for outcome in summary.outcomes:
        say(f"\n— {outcome.experiment.name}: {outcome.experiment.about}")
        render(outcome.judgement, make_console())
    show(summary)
    if page is not None:
        write_output(page, PAGE, page_of(summary))
    if markdown is not None:
        write_section(markdown, summary)
    _end(summary, page, markdown, open_page)


def _end(summary: Summary, page: Path | None, markdown: Path | None, open_page: bool) -> None:
    """Say what was written and what is missing, by the status too."""
    if page is not None:
        say(f"Page: {page}")
        if open_page:
            open_in_browser(page)
    if markdown is not None:
        say(f"Written: {markdown}")
    if not summary.complete:
        there = {outcome.experiment.name for outcome in summary.outcomes}
        absent = [experiment.name for experiment in summary.planned if experiment.name not in there]
        say(f"{summary.gap}: {summary.progress}{f' Not there: {listed(absent)}.' if absent else ''}")
        raise typer.Exit(SOME_FAILED)

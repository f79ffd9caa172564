"""``steelyard report``: a store, judged and shown again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steelyard.cli import arguments
from steelyard.cli.messages import say
from steelyard.cli.shared_options import OpenPage, Page
from steelyard.cli.show_judgement import show_judgement
from steelyard.errors import StoreError

if TYPE_CHECKING:
    from steelyard.study.storage.store import Store


def report(
    store: Annotated[Path, typer.Argument(help="The file that `steelyard compare` filled, finished or not.")],
    page: Page = None,
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the test values as CSV, one row per seed.")] = None,
    trials: Annotated[
        Path | None,
        typer.Option(
            help="Write all plans and trials as text, one JSON a line, for `steelyard merge` to read: NAME.jsonl, or "
            "NAME.jsonl.xz, packed."
        ),
    ] = None,
    short_curves: Annotated[
        bool,
        typer.Option(
            "--short-curves",
            help="Of what --trials writes, keep no curves but those of validation data, to four digits: an eighth of "
            "the size. Tables and verdicts stay; charts of losses and weights are lost, and what `group` searches by.",
        ),
    ] = False,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Print each method's mean weights as a method of fixed weights.")
    ] = False,
    salvage: Annotated[bool, typer.Option("--salvage", help="Of a damaged store, show what is whole.")] = False,
    every: Annotated[
        bool,
        typer.Option("--all", help="Print all tasks, where there are many; by default those with the largest effects."),
    ] = False,
    plan: Annotated[
        int,
        typer.Option(help="Which plan to show: 0 is the latest one of this store, 1 the one before, and so on.", min=0),
    ] = 0,
    open_page: OpenPage = False,
) -> None:
    """Judge a store again: print the table, and write the page, JSON, CSV or all trials as text."""
    from steelyard.report import to_csv, to_json
    from steelyard.report.frozen_weights import print_frozen
    from steelyard.report.output_files import CSV, JSON, PAGE, check_outputs, check_store, prints, write_output
    from steelyard.study import judge
    from steelyard.study.storage.trials_target import check_target

    check_store(store)
    if short_curves and trials is None:
        raise arguments.ArgumentError("--short-curves: of which file? Name one with --trials")
    try:
        judgement = judge(store, salvage, plan)
    except StoreError as error:
        if salvage and trials is not None:  # trials may be whole where no plan of them is
            check_outputs([(trials, None)], store)
            check_target(trials, store, salvage)
            _write_trials(store, trials, short_curves, salvage, prints(trials))
            say(f"Its trials alone: {error}", err=True)
            return
        raise
    if page is None and (open_page or not (json or csv or trials)):
        page = _page(store, judgement.command, plan)
    check_outputs([(page, PAGE), (json, JSON), (csv, CSV), (trials, None)], store)
    if trials is not None:
        check_target(trials, store, salvage)
    aside = any(map(prints, (page, json, csv, trials)))
    further = [*(["--plan", str(plan)] if plan else []), *(["--salvage"] if salvage else [])]
    again = shlex.join(["steelyard", "report", str(store), *further])
    show_judgement(judgement, again, page, open_page, aside, every=every)
    for path, kind, write in ((json, JSON, to_json), (csv, CSV, to_csv)):
        if path is not None:
            write_output(path, kind, write(judgement))
            say(f"Written: {path}", err=aside)
    if trials is not None:
        _write_trials(store, trials, short_curves, salvage, aside)
    if frozen:
        print_frozen(judgement, aside)


def _page(store: Path, command: str, plan: int) -> Path:
    """That of the comparison that the store was filled by, which neither other commands' nor earlier plans replace."""
    from steelyard.study.planning.command_again import is_comparison

    kind = "" if is_comparison(command) else "-study"
    return arguments.beside(store, f"{kind}{f'-plan-{plan}' if plan else ''}.html")


def _planned(store: Store) -> Iterator[str]:
    """The keys of all trials of those plans that can be read."""
    from steelyard.study import Plan
    from steelyard.study.planning.tuning import tried

    for content in store.plans():
        with suppress(StoreError):
            plan = Plan.from_dict(content)
            for trial in (*tried(plan), *plan.trials):
                yield from (replace(trial, problem=origin).key for origin in (trial.problem, *plan.also))


def _write_trials(store: Path, trials: Path, short_curves: bool, salvage: bool, aside: bool) -> None:
    from steelyard.report.output_files import writing
    from steelyard.study.storage.short_curves import with_short_curves
    from steelyard.study.storage.store import Store
    from steelyard.study.storage.trials_file import write_rows

    with writing(trials), Store(store, salvage=salvage) as opened:
        rows = opened.rows(_planned(opened) if salvage else ())
        write_rows(trials, map(with_short_curves, rows) if short_curves else rows)
    say(f"Written: {trials}", err=aside)

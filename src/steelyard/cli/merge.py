"""``steelyard merge``: the trials of several stores in one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.messages import command_line, interrupted, say


def merge(
    into: Annotated[Path, typer.Argument(help="The store that gets them; it is made if it is not there.")],
    sources: Annotated[
        list[Path],
        typer.Argument(help="Stores, and files that `steelyard report STORE --trials FILE` wrote (.jsonl, .jsonl.xz)."),
    ],
) -> None:
    """Bring the trials of several stores into one: seeds that were trained on several machines, or sent as text."""
    from steelyard.io.lists_and_counts import counted
    from steelyard.report.output_files import check_store
    from steelyard.study import merge as merged

    check_store(into)
    for source in sources:
        check_store(source)
    try:
        taken = merged(into, sources)
    except KeyboardInterrupt:
        interrupted(f"Stopped. What was taken is kept; the same command takes the rest:\n  {command_line()}")
    for found in taken:
        text = f"{found.source}: {counted(found.taken, 'trial')} and {counted(found.plans, 'plan')} taken"
        if found.known:
            text += f", {found.known} there already"
        say(text)
        if found.differ:
            say(
                f"Warning: {counted(found.differ, 'trial')} of {found.source} had other values than the same in "
                f"{into}, which are kept: another machine's roundings, or one of them was changed.",
                err=True,
            )
    command = shlex.join(["steelyard", "report", str(into)])
    say(f"`{command}` judges the latest study of it; the command of a study goes on with what is missing.")

"""Announce and train the leaderboard problem by problem, and write each problem's file when its trials are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from steelyard.errors import UnknownNameError
from steelyard.io.console import make_console
from steelyard.io.lists_and_counts import counted
from steelyard.report.numbers import duration_range
from steelyard.reproductions.leaderboard.board_results import read, read_folder
from steelyard.reproductions.leaderboard.export_board import export
from steelyard.reproductions.leaderboard.plan_board import PlannedProblem
from steelyard.reproductions.leaderboard.recheck_board import drawn, recheck
from steelyard.reproductions.leaderboard.time_limit import Deadline, UntilEngine
from steelyard.reproductions.run_reproduction import Where, watched
from steelyard.study import estimate, run
from steelyard.study.storage.store import Store


def announce(problems: Sequence[PlannedProblem], store: Path, workers: int) -> None:
    """Print the problems with their sizes, what is left out and why, and the time that is still to come."""
    console = make_console()
    heads = ("problem", "kind", "tasks", "rows", "seeds", "epochs", "rates", "trials", "done", "time")
    table = Table(*heads, box=None, pad_edge=False)
    least, most, waiting = 0.0, 0.0, 0
    for each in watched(problems, "timing a few steps of each kind"):
        found = [estimate(study.plan, store, workers, coarse=True) for study in each.studies]
        trials, done = sum(one.trials for one in found), sum(one.finished for one in found)
        shortest, longest = sum(one.least for one in found), sum(one.most for one in found)
        least, most, waiting = least + shortest, most + longest, waiting + trials - done
        plan = each.plan
        tuning = plan.tuning
        numbers = (len(plan.tasks), len(each.rows), len(plan.seeds), plan.epochs)
        rates = str(len(tuning.rates) if tuning is not None and tuning.rates else 1)
        if tuning is not None and tuning.beyond:  # of which nobody knows yet how many, nor how long they take
            rates += f" to {len(tuning.rates) + tuning.beyond}"
        table.add_row(
            Text(each.entry.problem),
            each.entry.kind,
            *map(str, (*numbers, rates, trials, done)),
            duration_range(shortest, longest),
        )
    console.print(table)
    for each in problems:
        console.print(f"\n{each.entry.problem}: {each.entry.why}.", markup=False)
        for name, why in each.left_out.items():
            console.print(f"  without {name}: {why}", markup=False, style="dim")
    console.print(
        f"\n{counted(waiting, 'trial')} to go: about {duration_range(least, most)} on {counted(workers, 'worker')}.",
        markup=False,
    )


def carry_out(
    problems: Sequence[PlannedProblem], store: Path, where: Where, folder: Path, deadline: Deadline
) -> list[str]:
    """Train what is not yet in the store, whole problems first, and export each; the names of rows that failed.

    Raises:
        TimeIsUpError: the deadline came; what is finished is kept.
        LeaderboardError: a file cannot take these results.
    """
    console = make_console()
    failed: list[str] = []
    for each in problems:
        deadline.check()
        console.print(f"\n— {each.entry.problem}: {each.entry.why}", style="bold", markup=False)
        for study in each.studies:
            run(
                study.plan,
                store,
                workers=where.workers,
                on=UntilEngine(where.engine, deadline),
                checkpoints=where.checkpoints,
            )
        with Store(store) as opened:
            path = export(each, opened, folder)
        assert path is not None, "a run that ended has ended all its trials"
        written = read(path)
        failed += [f"{row.name} on {written.problem}: {row.failed}" for row in written.rows if row.failed]
        console.print(f"Written: {path}", markup=False)
    return failed


def train_again(folder: Path, problems: Sequence[str] | None, share: float, where: Where, deadline: Deadline) -> bool:
    """Train a share of the exported trials again, and print of each whether it agrees; whether all do.

    Raises:
        TimeIsUpError: the deadline came.
        LeaderboardError: there are no files, or none of a problem that was asked for.
    """
    console = make_console()
    files = {each.problem: each for each in read_folder(folder)}
    for name in problems or ():
        if name not in files:
            raise UnknownNameError(f"problem in {folder}:", name, files)
    which = drawn([each for each in files.values() if problems is None or each.problem in problems], share)
    console.print(f"{counted(sum(map(len, which.values())), 'trial')} of {folder} once more.", markup=False)
    agreed, count = 0, 0
    for problem, trials in which.items():
        for found in recheck(files[problem], trials, where, deadline):
            console.print(str(found), markup=False)
            agreed, count = agreed + found.agrees, count + 1
    console.print(f"{agreed} of {count} agree.", markup=False)
    return agreed == count

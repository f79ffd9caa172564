"""What ``steelyard compare`` does around a study: baselines, checks before it starts, words for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from steelyard.report.numbers import duration
from steelyard.specs import Spec, parse_spec, parse_specs
from steelyard.study import Plan, estimate, plan
from steelyard.study.planning import check_workers
from steelyard.study.pool import start_server

BASELINES = ("single-task", "equal")


def with_baselines(methods: str) -> tuple[list[Spec], list[str]]:
    """The methods asked for, after those of the two baselines that were not; and the names of these."""
    asked = parse_specs(methods)
    known = {str(spec) for spec in asked}
    added = [name for name in BASELINES if name not in known]
    return [*map(parse_spec, added), *asked], added


def prepare(problem: str, methods: Sequence[Spec], workers: int, **options: Any) -> Plan:
    """Plan the study, which tries the problem and every method once; nothing is written."""
    check_workers(workers)
    start_server()  # it imports what the workers need while the plan is made
    return plan(problem, methods, **options)


def announce(made: Plan, added: Sequence[str]) -> None:
    """Say what was added to what was asked for, and how methods were adapted."""
    console = Console(highlight=False)
    if added:
        console.print(f"Added for a fair comparison: {' and '.join(added)}.", markup=False)
    for note in made.notes:
        console.print(f"Note: {note}", markup=False)


def forecast(made: Plan, store: Path, workers: int) -> None:
    """Print the trials, and the time and disk that those not yet finished would take."""
    console = Console(highlight=False)
    table = Table("method", "labels", "trials", "steps each", box=None, pad_edge=False)
    settings = {tuple(sorted(setting.fractions.items())): setting.label for setting in made.settings}
    shapes = Counter((trial.method, trial.tasks, trial.fractions, made.steps(trial)) for trial in made.trials)
    for (method, tasks, fractions, steps), count in shapes.items():
        label = settings.get(fractions) or ", ".join(f"{100 * fraction:.4g} %" for _, fraction in fractions)
        alone = f" {tasks[0]}" if len(tasks) == 1 and len(made.tasks) > 1 else ""
        # As Text: brackets in a method's options are no markup.
        table.add_row(Text(method + alone), Text(label), str(count), str(steps))
    console.print(table)
    found = estimate(made, store, workers)
    waiting = found.trials - found.finished
    state = f" ({found.finished} finished, {found.failed} failed)" if found.finished or found.failed else ""
    console.print(
        f"{found.trials} trials{state}: about {duration(found.seconds)} for {waiting} of them on {workers} "
        f"worker{'' if workers == 1 else 's'}, about {max(found.disk, 1) / 2**20:.1f} MiB of disk. "
        "Nothing was trained or written.",
        markup=False,
    )

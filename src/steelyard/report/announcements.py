"""What ``steelyard compare`` does around a study: baselines, checks before it starts, words for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from steelyard.errors import EmptyStoreError
from steelyard.io.console import make_console
from steelyard.io.lists_and_counts import counted, percent
from steelyard.problems.problem import Problem
from steelyard.report.numbers import duration_range
from steelyard.study import Plan, estimate, plan, plan_program
from steelyard.study.planning.arms import Arm, parse_arm, parse_arms
from steelyard.study.planning.command_again import is_comparison
from steelyard.study.planning.make_plan import check_workers, identity
from steelyard.study.planning.same_rows import same_rows
from steelyard.study.planning.tuning import tried
from steelyard.study.running.engines.interface import Engine
from steelyard.study.running.engines.local import Local
from steelyard.study.storage.store import Store
from steelyard.study.training.hardware import CPU, Hardware, named_devices

BASELINES = ("single-task", "equal")


def with_baselines(methods: str) -> tuple[list[Arm], list[str]]:
    """The methods asked for, after those of the two baselines that were not; and the names of these."""
    asked = parse_arms(methods)
    known = {str(arm) for arm in asked}
    added = [name for name in BASELINES if name not in known]
    return [*map(parse_arm, added), *asked], added


def prepare(
    problem: str, methods: Sequence[Arm], workers: int | None, on: Engine | None = None, **options: Any
) -> Plan:
    """Plan the study, which tries the problem and every method once; nothing is written."""
    check_workers(workers)
    (on or Local()).get_ready()  # it imports what the workers need while the plan is made
    return plan(problem, methods, **options)


def divisions_of(problem: Problem, store: Path) -> bool | None:
    """Whether every seed has its own division of the rows in the latest study of this problem that a store holds.

    A study that goes on keeps its rows, whatever rule there is for new ones. None where there is no such study.
    """
    if not store.is_file():
        return None
    with suppress(EmptyStoreError), Store(store) as opened:  # which is filled as a new one
        for content in opened.plans():
            made = Plan.from_dict(content)
            if not is_comparison(made.command):
                continue  # others choose by a rule of their own
            if made.program is None and made.identity == identity(problem):
                return made.resplit
    return None


def prepare_program(
    program: Sequence[str], methods: Sequence[Arm], workers: int | None, on: Engine, **options: Any
) -> Plan:
    """The same of a program, which is asked what it trains."""
    check_workers(workers)
    on.get_ready()
    return plan_program(program, methods, **options)


def announce(made: Plan, added: Sequence[str]) -> None:
    """Say what was added to what was asked for, and how methods were adapted."""
    console = make_console()
    if added:
        console.print(f"Added for a fair comparison: {' and '.join(added)}.", markup=False)
    for note in made.notes:
        console.print(f"Note: {note}", markup=False)
    for said in same_rows(made):
        console.print(f"Warning: {said}", markup=False)


def tell_devices(engine: str, asked: str, device: str, per_device: int) -> None:
    """Say where trials will train, unless that is the CPU and nobody asked."""
    if device == CPU:
        if per_device != 1:
            said = f"Note: --per-device {per_device} counts the trials that share a GPU: on the CPU, --workers does."
            make_console().print(said, markup=False)
        if asked != CPU:
            make_console().print(f"Device: {CPU}, the only one that trials can have here.", markup=False)
        return
    each = "one trial each" if per_device == 1 else f"{counted(per_device, 'trial')} each"
    if engine != "local":
        said = f"{device}, {each}, as {engine} hands them out"
    else:
        found = named_devices(device)
        said = f"{', '.join(found)} ({Hardware.of(found[0]).name}), {each}"
    make_console().print(f"Device: {said}.", markup=False)


def forecast(made: Plan, store: Path, workers: int, reuse_any: bool = False, keep: str = "none") -> None:
    """Print the trials, and the time and disk that those not yet finished would take."""
    console = make_console()
    each = "steps each" if made.program is None else "epochs each"
    table = Table("method", "labels", "trials", each, box=None, pad_edge=False)
    settings = {tuple(sorted(setting.fractions.items())): setting.label for setting in made.settings}
    arms = {
        trial: method.name
        for seed in made.seeds
        for setting in range(len(made.settings))
        for method in made.methods
        for trial in made.trials_of(method.name, setting, seed)
    }
    shapes = Counter((arms[trial], trial.tasks, trial.fractions, made.steps(trial)) for trial in made.trials)
    for (method, tasks, fractions, steps), count in shapes.items():
        label = settings.get(fractions) or ", ".join(percent(fraction) for _, fraction in fractions)
        alone = f" {tasks[0]}" if len(tasks) == 1 and len(made.tasks) > 1 else ""
        # As Text: brackets in a method's options are no markup.
        table.add_row(Text(method + alone), Text(label), str(count), str(steps))
    console.print(table)
    if made.tuning is not None:
        console.print(f"and {len(tried(made))} trials before that: {made.tuning_text}.", markup=False)
    found = estimate(made, store, workers, reuse_any=reuse_any, keep=keep)
    waiting = found.trials - found.finished
    kept = f", {found.networks / 2**20:.1f} MiB of it trained networks" if found.networks else ""
    state = f" ({found.finished} finished, {found.failed} failed)" if found.finished or found.failed else ""
    if made.program is not None:
        of_each = {"all": "every network", "best": "the best seed of each network"}.get(keep)
        kept = f" Of networks that it gives to trial.report, {of_each} stays beside the store." if of_each else ""
        console.print(
            f"{found.trials} trials{state}: how long a program takes, and how large its networks are, is known when it "
            f"has run.{kept} Nothing was trained or written.",
            markup=False,
        )
        return
    console.print(
        f"{found.trials} trials{state}: about {duration_range(found.least, found.most)} for {waiting} of them on "
        f"{counted(workers, 'worker')}, about {max(found.disk, 1) / 2**20:.1f} MiB of disk{kept}. "
        "Nothing was trained or written.",
        markup=False,
    )

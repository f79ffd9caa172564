"""Plan, announce and run a reproduction: its studies in turn, in one store, resumed by the same command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from rich.padding import Padding
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from steelyard.io.console import make_console
from steelyard.io.lists_and_counts import counted, listed
from steelyard.report import announcements as comparison
from steelyard.report import render
from steelyard.report.numbers import duration_range
from steelyard.reproductions.reproduction import Experiment, Finding, Outcome, Reproduction, Size
from steelyard.reproductions.summary import Summary
from steelyard.study import Plan, estimate, run
from steelyard.study.analysis.joint_metrics import joint_metrics
from steelyard.study.analysis.make_judgement import findings, judge_findings
from steelyard.study.planning.arms import parse_arms
from steelyard.study.planning.tuning import tried
from steelyard.study.running.engines.interface import Engine
from steelyard.study.storage.store import Store
from steelyard.study.trial import Result, Trial

Study = TypeVar("Study")


@dataclass(frozen=True)
class Prepared:
    """One study, planned."""

    experiment: Experiment
    plan: Plan

    @property
    def trials(self) -> list[Trial]:
        """Those that choose and those that are judged; what is chosen may change the latter, not their number."""
        return list(dict.fromkeys([*tried(self.plan), *self.plan.trials]))


@dataclass(frozen=True)
class Where:
    """What trains the trials, as `steelyard.study.run` has it."""

    engine: Engine
    workers: int | None = None
    per_device: int = 1
    checkpoints: str | None = None


def prepare(
    reproduction: Reproduction,
    size: Size,
    where: Where,
    seeds: int | Sequence[int] | None = None,
    command: str = "",
    **hardware: str,
) -> list[Prepared]:
    """Plan all studies, which tries every problem and method once; nothing is written.

    ``hardware``: the plans' ``device`` and ``precision``.
    """
    prepared = []
    for experiment in watched(reproduction.experiments(size), "trying every method once"):
        plan = comparison.prepare(
            experiment.problem,
            parse_arms(experiment.methods),
            where.workers,
            where.engine,
            tasks=experiment.tasks,
            seeds=experiment.seeds if seeds is None else seeds,
            settings=experiment.settings,
            epochs=experiment.epochs,
            batch_size=experiment.batch_size,
            epoch_steps=experiment.epoch_steps,
            patience=experiment.patience,
            learning_rate=experiment.learning_rate,
            shared=experiment.shared,
            scale=experiment.scale,
            tune=experiment.tune,
            tune_seeds=experiment.tune_seeds,
            tune_beyond=experiment.tune_beyond,
            command=command,
            **hardware,
        )
        prepared.append(Prepared(experiment, plan))
    return prepared


def introduce(reproduction: Reproduction, size: Size) -> None:
    """Print the claim, and what this size covers of it."""
    console = make_console()
    console.print(f"{reproduction.name}: {reproduction.title}", style="bold", markup=False)
    for text in (reproduction.paper, f"Claim: {reproduction.claim}", _reconstructed(reproduction)):
        if text:
            console.print(text, markup=False)
    if scope := reproduction.scope.get(size):
        console.print(f"This size: {scope}", markup=False)
    console.print("\nTrying every method once and timing a few steps of each kind …", markup=False)


def announce(prepared: Sequence[Prepared], store: Path, workers: int, reuse_any: bool = False) -> None:
    """Print the studies, and the trials, epochs and time that are still to come."""
    console = make_console()
    for note in dict.fromkeys(note for each in prepared for note in each.plan.notes):
        console.print(f"Note: {note}", markup=False)
    heads = ("study", "arms", "settings", "seeds", "epochs", "trials", "done", "time")
    table = Table(*heads, box=None, pad_edge=False)
    trials, waiting, epochs, least, most = 0, 0, 0, 0.0, 0.0
    for each in watched(prepared, "timing a few steps of each kind"):
        found = estimate(each.plan, store, workers, coarse=True, reuse_any=reuse_any)
        trials, waiting = trials + found.trials, waiting + found.trials - found.finished
        least, most = least + found.least, most + found.most
        epochs += sum(trial.epochs for trial in each.trials)
        numbers = (len(each.plan.methods), len(each.plan.settings), len(each.plan.seeds), each.plan.epochs)
        table.add_row(
            Text(each.experiment.name),
            *map(str, (*numbers, found.trials, found.finished)),
            duration_range(found.least, found.most),
        )
    console.print()
    console.print(table)
    alike: dict[tuple[str, ...], list[str]] = {}
    for each in prepared:
        alike.setdefault(tuple(method.name for method in each.plan.methods), []).append(each.experiment.name)
    for arms, studies in alike.items():
        of = f" of {listed(studies)}" if len(alike) > 1 else ""
        console.print(f"\nArms{of}: {', '.join(arms)}", markup=False, style="dim")
    console.print(
        f"\n{counted(trials, 'trial')}, {counted(epochs, 'epoch')} in all; {waiting} trials to go: about "
        f"{duration_range(least, most)} on {counted(workers, 'worker')}.",
        markup=False,
    )


def watched(studies: Sequence[Study], doing: str) -> Iterator[Study]:
    """One study after another, with a bar on the error stream where someone watches: each takes seconds."""
    errors = make_console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        yield from progress.track(studies, description=doing)


def carry_out(
    reproduction: Reproduction,
    size: Size,
    prepared: Sequence[Prepared],
    store: Path,
    where: Where,
    command: str,
    write: Callable[[Summary], None],
    reuse_any: bool = False,
) -> Summary:
    """Run what is not yet in the store, study by study; after each one print its table and write what there is."""
    console = make_console()
    planned = tuple(each.experiment for each in prepared)
    summary = summarise(reproduction, size, [], planned, 0.0, command)
    outcomes: list[Outcome] = []
    results: dict[Trial, Result] = {}  # studies may share trials: each counts once
    for each in prepared:
        console.print()
        console.print(f"— {each.experiment.name}: {each.experiment.about}", style="bold", markup=False)
        run(
            each.plan,
            store,
            workers=where.workers,
            per_device=where.per_device,
            reuse_any=reuse_any,
            on=where.engine,
            checkpoints=where.checkpoints,
        )
        with Store(store) as opened:
            plan = Plan.from_dict(opened.latest_plan())
        outcome, trained = outcome_of(each.experiment, plan, store)
        results |= trained
        outcomes.append(outcome)
        render(outcome.judgement, console)
        summary = summarise(reproduction, size, outcomes, planned, work_of(results), command)
        write(summary)
    return summary


def work_of(results: Mapping[Trial, Result]) -> float:
    """Seconds of training, of all trials together: of one core, or of a clock where another device trained."""
    return sum(result.work for result in results.values())


def outcome_of(experiment: Experiment, plan: Plan, store: Path) -> tuple[Outcome, dict[Trial, Result]]:
    """What a store holds of one study, judged; and all of its trials, those that chose settings among them."""
    with Store(store) as opened:
        found = findings(plan, opened)
        results = {**opened.results(tried(plan), plan.also), **found.results}
    judgement = judge_findings(found)
    # Not `with_joint`: a claim that rests on them has to be told that they cannot be had.
    return Outcome(experiment, found, replace(judgement, others=[*judgement.others, *joint_metrics(found)])), results


def summarise(
    reproduction: Reproduction,
    size: Size,
    outcomes: Sequence[Outcome],
    planned: tuple[Experiment, ...],
    training: float,
    command: str,
) -> Summary:
    """Judge what was run so far."""
    by_name = {outcome.experiment.name: outcome for outcome in outcomes}
    judged = reproduction.judge(by_name)
    if len(outcomes) < len(planned):
        judged = [so_far(finding) for finding in judged]
    return Summary(
        reproduction,
        size,
        command,
        planned,
        tuple(outcomes),
        tuple(judged),
        tuple(reproduction.figures(by_name)),
        training,
    )


def so_far(finding: Finding) -> Finding:
    """While studies are missing: what must hold at all places is broken by one of them, and held by none.

    What is said of all places together, a mean or that it is so somewhere, is neither.
    """
    parts = tuple(map(so_far, finding.parts))
    word = finding.word
    if finding.of_all or (parts and word == "held"):
        word = "undecided"
    broke, breaks = (any(part.word == "did not hold" for part in those) for those in (finding.parts, parts))
    if broke and not breaks:
        word = "undecided"
    return replace(finding, word=word, parts=parts)


def show(summary: Summary) -> None:
    """Print the paper's figures beside ours, and whether the claim held."""
    console = make_console()
    for figures in summary.figures:
        table = Table(*figures.heads, title=figures.title, title_justify="left", box=None)
        for cells in figures.cells:
            table.add_row(*(Text(cell or "–") for cell in cells))
        console.print()
        console.print(table)
        if figures.note:
            console.print(figures.note, markup=False, style="dim")
    console.print()
    console.print(f"Claim: {summary.reproduction.claim}", markup=False)
    console.print(f"The claim {summary.answer}.", style="bold", markup=False)
    if summary.decided:
        console.print(summary.decided, markup=False)
    lines = Table.grid("", "", padding=(0, 2, 0, 0))
    for finding in summary.findings:
        _add(lines, finding)
    console.print(lines)
    for said in summary.cautions:
        console.print(f"Caution, {said}", markup=False, style="yellow")
    console.print(f"\n{summary.time_text}.", markup=False)


def _add(lines: Table, finding: Finding, depth: int = 0) -> None:
    """Rows of a claim, what it rests on, and its parts, each a step further in."""
    indent, colours = 2 * depth, {"held": "blue", "did not hold": "red", "undecided": "default"}
    lines.add_row(Text(finding.word, colours[finding.word]), Padding(Text(finding.claim), (0, 0, 0, indent)))
    for evidence in finding.evidence:
        lines.add_row("", Padding(Text(evidence, "dim"), (0, 0, 0, indent)))
    for part in finding.parts:
        _add(lines, part, depth + 1)


def _reconstructed(reproduction: Reproduction) -> str:
    return f"Reconstructed: {reproduction.reconstructed}" if reproduction.reconstructed else ""

"""A published claim, the studies on real data that test it, and how their results decide it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.judgement import Judgement
from steelyard.study.planning.plan import Plan

Size = Literal["quick", "real", "full"]
Word = Literal["held", "did not hold", "undecided"]
SIZES: tuple[Size, ...] = ("quick", "real", "full")


@dataclass(frozen=True)
class Experiment:
    """One study of a reproduction.

    Args:
        name: unique within the reproduction; the heading of its tables.
        about: what it is there to show, in one line.
        problem: as `steelyard compare` takes it.
        methods: arms, separated by commas.
        seeds: how many, or which.
        epochs, batch_size, learning_rate: the problem's own where not given.
        epoch_steps: of an epoch, at least.
        patience: a training ends once so many epochs in a row were no better on validation data; 0: all are trained.
        settings: fractions of the training labels.
        tasks: those to learn; all by default.
        tune: learning rates tried for every network.
        tune_seeds: on so many seeds each.
        tune_beyond: so many more past an edge that is the best.
        shared, scale: as `steelyard compare` takes them.
    """

    name: str
    about: str
    problem: str
    methods: str
    seeds: int | tuple[int, ...] = 3
    epochs: int | None = None
    settings: tuple[float | Mapping[str, float], ...] = (1.0,)
    tasks: tuple[str, ...] | None = None
    tune: int = 0
    tune_seeds: int = 1
    tune_beyond: int = 0
    shared: str | None = None
    scale: str | None = None
    batch_size: int | None = None
    epoch_steps: int = 0
    patience: int = 0
    learning_rate: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A study that was run, with the plan as tuning left it."""

    experiment: Experiment
    findings: TrialResults
    judgement: Judgement

    @property
    def plan(self) -> Plan:
        return self.findings.plan


Outcomes = Mapping[str, Outcome]  # by name of the experiment; those that were run


@dataclass(frozen=True)
class Finding:
    """Whether a claim held, and what says so: lines of evidence, and the narrower claims that it is put together of.

    Args:
        of_all: no one place holds or breaks it: while places are missing nothing is known.
    """

    claim: str
    word: Word
    evidence: tuple[str, ...] = ()
    parts: tuple[Finding, ...] = ()
    of_all: bool = False


@dataclass(frozen=True)
class Figures:
    """What a paper printed, and what we found in its place; None where one of both has nothing."""

    title: str
    unit: str
    rows: tuple[tuple[str, str | None, str | None], ...]  # arm, paper, here
    note: str = ""

    @property
    def printed(self) -> bool:
        """Whether a paper's figures are at hand at all."""
        return any(paper is not None for _, paper, _ in self.rows)

    @property
    def heads(self) -> tuple[str, ...]:
        here = f"here, {self.unit}"
        return ("arm", f"paper, {self.unit}", here) if self.printed else ("arm", here)

    @property
    def cells(self) -> list[tuple[str | None, ...]]:
        return [row if self.printed else (row[0], row[2]) for row in self.rows]


@dataclass(frozen=True)
class Reproduction:
    """One system: its paper's claim, the experiments of each size, and the judge.

    Args:
        name: on the command line.
        title: one line for the list.
        paper: authors, title, year, where.
        claim: what the paper says, in our words.
        reconstructed: what is ours because the source at hand does not say it; empty where nothing.
        experiments: the studies of a size.
        judge: from the studies that were run to what they say; the first finding is the paper's claim.
        takes: how long a size takes on two cores.
        scope: what a size covers of the paper, where it is not the whole.
        figures: what the paper printed beside what was found; none where only an abstract is at hand.
    """

    name: str
    title: str
    paper: str
    claim: str
    reconstructed: str
    experiments: Callable[[Size], tuple[Experiment, ...]]
    judge: Callable[[Outcomes], list[Finding]]
    takes: Mapping[Size, str]
    scope: Mapping[Size, str]
    figures: Callable[[Outcomes], list[Figures]] = field(default=lambda outcomes: [])

    def problems(self, size: Size = "real") -> tuple[str, ...]:
        """Which problems it trains, each once."""
        return tuple(dict.fromkeys(experiment.problem for experiment in self.experiments(size)))

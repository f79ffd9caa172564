"""What was run of a reproduction and what it says: the same for the terminal, the page and the text file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from steelyard.io.lists_and_counts import counted
from steelyard.report.numbers import duration
from steelyard.reproductions.reproduction import Experiment, Figures, Finding, Outcome, Reproduction, Size
from steelyard.study.analysis.cautions import cautions
from steelyard.study.analysis.earlier_looks import look_note
from steelyard.study.planning.readable_arms import readable_methods, renamed


@dataclass(frozen=True)
class Summary:
    """A reproduction as far as it was run."""

    reproduction: Reproduction
    size: Size
    command: str
    planned: tuple[Experiment, ...]
    outcomes: tuple[Outcome, ...]
    findings: tuple[Finding, ...]
    figures: tuple[Figures, ...]
    training: float  # seconds of training, over all trials, those that chose learning rates among them

    @property
    def complete(self) -> bool:
        return len(self.outcomes) == len(self.planned) and all(each.judgement.complete for each in self.outcomes)

    @property
    def gap(self) -> str:
        """Why it is not complete, if it is not: "Unfinished", or "Not all trials succeeded" where none is waiting."""
        if self.complete:
            return ""
        waiting = any(each.judgement.planned - each.judgement.finished > _failed(each) for each in self.outcomes)
        return "Unfinished" if waiting or len(self.outcomes) < len(self.planned) else "Not all trials succeeded"

    @property
    def progress(self) -> str:
        """``3 of 4 studies, 120 of 123 trials of these, 1 failed.``"""
        finished = sum(each.judgement.finished for each in self.outcomes)
        planned = sum(each.judgement.planned for each in self.outcomes)
        failed = sum(map(_failed, self.outcomes))
        studies = f"{len(self.outcomes)} of {len(self.planned)} studies, {finished} of {planned} trials of these"
        return f"{studies}, {failed} failed." if failed else f"{studies}."

    @property
    def answer(self) -> str:
        """To "The claim …"."""
        if len(self.outcomes) < len(self.planned):
            return "is not decided yet"
        word = self.findings[0].word if self.findings else "undecided"
        size = "" if self.size == "full" else {"quick": " at the quick size", "real": " at this size"}[self.size]
        return f"is undecided{size}" if word == "undecided" else f"{word}{size}"

    @property
    def decided(self) -> str:
        """Which parts of the claim are decided: ``Held: “…”, “…”. Did not hold: “…”.``; none before all studies."""
        judged = self.findings if len(self.outcomes) == len(self.planned) else ()
        parts = judged[0].parts if judged else ()
        claims = {word: [f"“{part.claim}”" for part in parts if part.word == word] for word in ("held", "did not hold")}
        return " ".join(f"{word.capitalize()}: {', '.join(those)}." for word, those in claims.items() if those)

    @property
    def cautions(self) -> list[str]:
        """What the verdicts stand under, study by study."""
        return [
            f"{each.experiment.name}: {said}"
            for each in self.outcomes
            for said in [
                *renamed(cautions(each.findings), readable_methods(each.judgement.methods)),
                *(f"{look}." for look in look_note(each.plan, each.findings.looks)),
            ]
        ]

    @property
    def time_text(self) -> str:
        trials = sum(each.judgement.finished for each in self.outcomes)
        tuned = " and those that chose their settings" if any(each.plan.tuning for each in self.outcomes) else ""
        where = ", counted on one core" if all(each.plan.device == "cpu" for each in self.outcomes) else ""
        said = f"{counted(trials, 'trial')}{tuned}: {duration(self.training)} of training{where}"
        return f"{said}, {self.dates}" if self.dates else said

    @property
    def dates(self) -> str:
        """Days on which trials were finished, by UTC: ``2026-03-14``, ``2026-03-14 to 2026-03-16``, or nothing."""
        moments = [trained.written for each in self.outcomes for trained in each.findings.trained.values()]
        if not moments:
            return ""
        first, last = (f"{datetime.fromtimestamp(of(moments), timezone.utc):%Y-%m-%d}" for of in (min, max))
        return first if first == last else f"{first} to {last}"


def _failed(outcome: Outcome) -> int:
    """Trials, not rows of tables: settings may share one."""
    return len(outcome.findings.failed)


def facts(outcome: Outcome) -> list[str]:
    """``12 arms``, ``3 seeds``, …"""
    found = outcome.judgement
    said = [
        counted(len(found.tasks), "task"),
        counted(len(found.methods), "arm"),
        counted(len(found.seeds), "seed"),
        counted(found.epochs, "epoch"),
    ]
    if len(found.settings) > 1:
        said.append(f"{len(found.settings)} amounts of training labels")
    if outcome.experiment.scale == "paper":
        said.append("weights on each paper's own scale")
    return [outcome.experiment.problem, *said]
